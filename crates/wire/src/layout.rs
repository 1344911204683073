//! What a node's disk should look like.

use crate::text::cut;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A disk layout: a name, a version that a person raises to have disks prepared again, and partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Name, 1 to 16 characters of `[a-z0-9-]` (it has to fit the marker).
    pub name: String,
    /// Version, from 1; a disk whose marker holds another one is prepared again.
    pub version: u32,
    /// Kind of partition table.
    pub table: PartitionTable,
    /// Partitions in their order on the disk.
    pub partitions: Vec<Partition>,
}

/// Kind of partition table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionTable {
    /// GUID partition table (UEFI 2.10, chapter 5); the default.
    #[default]
    Gpt,
    /// The PC's master boot record: at most three partitions, as the fourth entry is the marker.
    Mbr,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Name: GPT partition name and file system label; 1 to 12 characters of `[a-z0-9-]`
    /// (an xfs label holds 12 bytes).
    pub name: String,
    /// Size in bytes, or what is left.
    pub size: Size,
    /// What to make in it.
    pub fs: FileSystem,
    /// Absolute path where it is mounted; none for swap and raw partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// Mount options as in fstab; `defaults` when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
}

/// A partition's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Bytes, a multiple of 1 MiB.
    Bytes(u64),
    /// All that the others leave; at most one partition of a layout.
    Rest,
}

/// Why a text is no [`Size`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeError(String);

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// ext4, made by the image's `mkfs.ext4`.
    Ext4,
    /// xfs, made by the image's `mkfs.xfs`; needs 300 MiB.
    Xfs,
    /// Swap space, made by the image's `mkswap`.
    Swap,
    /// Nothing: the partition is left as it is.
    Raw,
}

/// When the agent may overwrite a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wipe {
    /// Blank disks and disks that rackstrap prepared; anything else is left alone. The default.
    #[default]
    Ours,
    /// Any disk, whatever it holds.
    Always,
}

/// A layout as one node is to apply it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPlan {
    /// The layout.
    pub layout: Layout,
    /// Digest of the layout's canonical form, 32 hex digits, computed by the server. The agent
    /// only stores and compares it.
    pub digest: String,
    /// Which disk: a path such as `/dev/vda` or `/dev/disk/by-path/…` is not available this early,
    /// so either `auto` (NVMe before SATA, SAS and virtio, these before eMMC and SD cards, USB last) or a kernel
    /// name (`vda`, `nvme0n1`). A disk with a rackstrap marker goes before both, because kernel names change places.
    pub device: String,
    /// What may be overwritten on the disk that was chosen.
    pub wipe: Wipe,
    /// The prepared disk of the node's last boot: a boot that does not find it writes to no other disk. None if
    /// there was none, or from a server that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenDisk>,
    /// Prepare the disk also if its marker is equal; an administrator ordered it for this boot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The network loader that the disk should carry for BIOS; none = leave it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<DiskLoader>,
}

/// A network loader for disks, by what the first block of its copy on a disk says: `RKSB`, and at bytes 16 to 24
/// these two numbers, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLoader {
    /// Bytes, a multiple of 4096.
    pub size: u32,
    /// CRC-32 of all of it, with zeroes at bytes 20 to 24.
    pub crc: u32,
}

/// What identifies a disk over boots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenDisk {
    /// Kernel name at that boot, for people.
    pub device: String,
    /// What the device says of itself (WWID, serial number); empty if it says nothing.
    #[serde(default)]
    pub serial: String,
    /// [`DiskMarker::id`]; empty if unknown.
    #[serde(default)]
    pub marker: String,
}

/// The marker that a disk carries after the disk phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMarker {
    /// Random number of the disk, 8 hex digits; it survives being prepared again. Empty if unknown.
    #[serde(default)]
    pub id: String,
    /// Name of the layout.
    pub layout: String,
    /// Its version.
    pub version: u32,
    /// Its digest, 32 hex digits.
    pub digest: String,
}

impl FileSystem {
    /// Name as in fstab and `mkfs.*`.
    pub fn as_str(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Swap => "swap",
            FileSystem::Raw => "raw",
        }
    }
}

impl fmt::Display for PartitionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PartitionTable::Gpt => "gpt",
            PartitionTable::Mbr => "mbr",
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")];
        match *self {
            Size::Rest => f.write_str("rest"),
            Size::Bytes(n) => match UNITS.iter().find(|(unit, _)| n >= *unit && n % unit == 0) {
                Some((unit, name)) => write!(f, "{}{name}", n / unit),
                None => write!(f, "{n}B"),
            },
        }
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let wrong = || SizeError(cut(text, 40).to_owned());
        if text == "rest" {
            return Ok(Size::Rest);
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit.trim() {
            "B" => 1,
            "M" | "MiB" => 1 << 20,
            "G" | "GiB" => 1 << 30,
            "T" | "TiB" => 1 << 40,
            _ => return Err(wrong()),
        };
        let bytes = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(unit))
            .ok_or_else(wrong)?;
        if bytes == 0 || bytes % (1 << 20) != 0 {
            return Err(wrong());
        }
        Ok(Size::Bytes(bytes))
    }
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not a size; write whole MiB, GiB or TiB, such as \"512MiB\" or \"20GiB\", or \"rest\"",
            self.0
        )
    }
}

impl std::error::Error for SizeError {}

crate::serde_as_text!(Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, want) in [
            ("512MiB", "512MiB"),
            ("1G", "1GiB"),
            ("1024M", "1GiB"),
            ("2 TiB", "2TiB"),
            ("rest", "rest"),
        ] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), want);
        }
        for text in ["", "0M", "12", "1.5G", "99999999999T", "-1M", "1048577B", "Rest"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
