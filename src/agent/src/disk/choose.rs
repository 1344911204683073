//! Which disk: the first fixed one, or the one that the plan names.

use std::{fs, path::Path};

/// What the kernel says about a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Kernel name, `nvme0n1`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Removable medium (memory cards, CD drives, many USB sticks).
    pub removable: bool,
    /// Write-protected.
    pub read_only: bool,
    /// One path of a multipath NVMe device.
    pub hidden: bool,
}

/// Devices that are made of other devices or of memory, or never are a node's disk.
const VIRTUAL: &[&str] = &[
    "loop", "ram", "zram", "sr", "fd", "nbd", "dm-", "md", "mtdblock", "drbd", "rbd", "bcache",
];

/// Reads `/sys/block`.
pub fn candidates(sys_block: &Path) -> Vec<Candidate> {
    let names = fs::read_dir(sys_block).into_iter().flatten().flatten();
    names
        .filter_map(|e| e.file_name().into_string().ok())
        .map(|name| {
            let read = |file: &str| {
                let text = fs::read_to_string(sys_block.join(&name).join(file)).unwrap_or_default();
                text.trim().parse::<u64>().unwrap_or(0)
            };
            Candidate {
                // In units of 512 bytes, whatever the disk's own blocks are.
                size: read("size").saturating_mul(512),
                removable: read("removable") != 0,
                read_only: read("ro") != 0,
                hidden: read("hidden") != 0,
                name,
            }
        })
        .collect()
}

/// The disk that `wanted` (`auto` or a kernel name) means (pure).
pub fn choose(mut candidates: Vec<Candidate>, wanted: &str) -> Option<Candidate> {
    // sdb before sdaa: the kernel counts with letters.
    candidates.sort_by(|a, b| (kind(&a.name), a.name.len(), &a.name).cmp(&(kind(&b.name), b.name.len(), &b.name)));
    candidates.into_iter().find(|c| match wanted {
        "auto" => {
            let is_virtual = VIRTUAL.iter().any(|v| c.name.starts_with(v));
            let is_boot_area = c.name.starts_with("mmcblk") && (c.name.contains("boot") || c.name.ends_with("rpmb"));
            c.size > 0 && !c.removable && !c.hidden && !c.read_only && !is_virtual && !is_boot_area
        }
        name => c.name == name,
    })
}

/// `sd` of `sdaa`, `nvme` of `nvme0n1`.
fn kind(name: &str) -> &str {
    let letters = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    match name.get(..2) {
        Some(two @ ("sd" | "vd" | "hd")) => two,
        _ => &name[..letters],
    }
}

/// The name of partition `number`: `vda2`, but `nvme0n1p2`.
pub fn partition_name(disk: &str, number: u32) -> String {
    let p = if disk.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    format!("{disk}{p}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(names: &[&str]) -> Vec<Candidate> {
        let disk = |name: &&str| Candidate {
            name: (*name).to_owned(),
            size: 1 << 30,
            removable: false,
            read_only: false,
            hidden: false,
        };
        names.iter().map(disk).collect()
    }

    #[test]
    fn the_first_fixed_disk_by_name() {
        let pick = |names: &[&str]| choose(disks(names), "auto").map(|c| c.name);
        assert_eq!(pick(&["sdaa", "sdb", "loop0", "dm-0", "md127"]).as_deref(), Some("sdb"));
        assert_eq!(pick(&["vda", "nvme1n1", "nvme0n1"]).as_deref(), Some("nvme0n1"));
        assert_eq!(pick(&["mmcblk0boot0", "mmcblk0", "sr0"]).as_deref(), Some("mmcblk0"));
        assert_eq!(pick(&["zram0", "ram0", "nbd3", "fd0"]), None);
        let mut stick = disks(&["sda", "sdb"]);
        stick[0].removable = true;
        assert_eq!(choose(stick.clone(), "auto").unwrap().name, "sdb");
        assert_eq!(
            choose(stick.clone(), "sda").unwrap().name,
            "sda",
            "a disk that is named is taken"
        );
        stick[1].size = 0;
        assert_eq!(choose(stick, "auto"), None);
    }

    #[test]
    fn partitions_are_named_as_the_kernel_does() {
        assert_eq!(partition_name("vda", 2), "vda2");
        assert_eq!(partition_name("nvme0n1", 12), "nvme0n1p12");
        assert_eq!(partition_name("loop7", 1), "loop7p1");
    }
}
