//! Describes the machine's hardware, for the inventory.

use rackstrap_wire::Hardware;
use std::fs;

/// Reads processors, memory, DMI and network cards. What cannot be read stays empty. The caller adds the modules that it loaded.
pub fn describe() -> Hardware {
    let dmi = |file: &str| {
        let text = fs::read_to_string(format!("/sys/class/dmi/id/{file}")).unwrap_or_default();
        rackstrap_wire::text::cut(text.trim(), 100).to_owned()
    };
    Hardware {
        cpus: std::thread::available_parallelism().map_or(0, |n| n.get() as u32),
        memory_mib: memory_mib(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        vendor: dmi("sys_vendor"),
        product: dmi("product_name"),
        serial: dmi("product_serial"),
        hwaddrs: crate::network::cards().into_iter().map(|(_, a)| a).collect(),
        modules: Vec::new(),
        uefi: None,
    }
}

fn memory_mib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = total.and_then(|t| t.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_read() {
        assert_eq!(super::memory_mib("MemTotal:       16384000 kB\nMemFree: 1 kB\n"), 16000);
        assert_eq!(super::memory_mib(""), 0);
    }
}
