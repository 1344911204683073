//! The names that systemd derives from the place of a card, systemd.net-naming-scheme(7) (pure). An administrator has them from `ip link` of
//! another system, in which the kernel's own names do not exist.

/// Larger numbers are errors of the firmware (`ONBOARD_INDEX_MAX` of systemd's udev-builtin-net_id.c; 14 bits as in the specification of ACPI's _DSM).
const MOST_ONBOARD: u32 = 16_383;

/// Where a card is, by sysfs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// PCI address, `0000:81:00.0`; empty for other buses.
    pub pci: &'a str,
    /// Functions of its PCI device.
    pub functions: usize,
    /// Number of an onboard card, of the firmware (`acpi_index`, or else `index` by SMBIOS type 41); none for cards in slots.
    pub onboard: Option<u32>,
    /// Number of the slot that it is in; none for onboard cards.
    pub slot: Option<u32>,
    /// Number of the port of a PCI function that has several (`dev_port`), from 0.
    pub port: u32,
    /// The driver's name of the port (`phys_port_name`), `p0`; empty if it gives none.
    pub port_name: &'a str,
    /// Whether it is an InfiniBand port.
    pub infiniband: bool,
}

impl Place<'_> {
    /// The names, in the order in which systemd prefers them: `eno1`, `ens3f1`, `enp129s0f1np1`. None for other buses.
    pub fn names(self) -> Vec<String> {
        let parts: Option<Vec<u32>> = self
            .pci
            .split([':', '.'])
            .map(|part| u32::from_str_radix(part, 16).ok())
            .collect();
        let Some([domain, bus, device, function]) = parts.as_deref().and_then(|parts| <[u32; 4]>::try_from(parts).ok())
        else {
            return Vec::new();
        };
        let kind = if self.infiniband { "ib" } else { "en" };
        let port = match (self.port_name, self.port) {
            ("", 0) => String::new(),
            ("", port) => format!("d{port}"),
            (name, _) => format!("n{name}"),
        };
        let domain = if domain > 0 {
            format!("P{domain}")
        } else {
            String::new()
        };
        let function = match function > 0 || self.functions > 1 {
            true => format!("f{function}"),
            false => String::new(),
        };
        let onboard = self.onboard.filter(|index| (1..=MOST_ONBOARD).contains(index));
        let onboard = onboard.map(|index| format!("{kind}o{index}{port}"));
        let slot = self.slot.filter(|slot| *slot > 0);
        let slot = slot.map(|slot| format!("{kind}{domain}s{slot}{function}{port}"));
        let path = format!("{kind}{domain}p{bus}s{device}{function}{port}");
        onboard.into_iter().chain(slot).chain([path]).collect()
    }
}

/// The name without the driver's name of the port, `enp129s0f0` of `enp129s0f0np0`: a card without a driver has no such name.
pub fn without_port(name: &str) -> &str {
    match name.rsplit_once("np") {
        Some((rest, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_place() {
        let at = |pci, functions| Place {
            pci,
            functions,
            ..Place::default()
        };
        assert_eq!(at("0000:81:00.0", 1).names(), ["enp129s0"]);
        assert_eq!(at("0000:81:00.1", 2).names(), ["enp129s0f1"]);
        assert_eq!(at("10000:01:1f.0", 2).names(), ["enP65536p1s31f0"]);
        for wrong in ["", "a:b", "0000:81:00.0.0", "x:81:00.0"] {
            assert_eq!(at(wrong, 1).names(), [""; 0], "{wrong}");
        }
        let onboard = Place {
            onboard: Some(2),
            ..at("0000:02:00.1", 2)
        };
        assert_eq!(onboard.names(), ["eno2", "enp2s0f1"]);
        let wrong = Place {
            onboard: Some(MOST_ONBOARD + 1),
            slot: Some(0),
            ..onboard
        };
        assert_eq!(wrong.names(), ["enp2s0f1"]);
        // A ConnectX in slot 3, whose driver names its ports, and one whose driver numbers them.
        let mellanox = Place {
            slot: Some(3),
            port_name: "p1",
            ..at("0000:81:00.1", 2)
        };
        assert_eq!(mellanox.names(), ["ens3f1np1", "enp129s0f1np1"]);
        let older = Place {
            slot: Some(3),
            port: 1,
            infiniband: true,
            ..at("0001:81:00.0", 1)
        };
        assert_eq!(older.names(), ["ibP1s3d1", "ibP1p129s0d1"]);
    }

    #[test]
    fn only_the_name_of_a_port_is_removed() {
        assert_eq!(without_port("enp129s0f0np0"), "enp129s0f0");
        for whole in ["enp129s0", "enp", "np", "eno1", "", "enp1s0np"] {
            assert_eq!(without_port(whole), whole);
        }
    }
}
