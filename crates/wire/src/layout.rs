//! The layout of a node's disk.

use crate::{contents::ContentOf, text::cut};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A disk layout: a name, a version that a person raises to prepare disks again, and partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Name, 1 to 16 characters of `[a-z0-9-]`, so that it fits into the marker.
    pub name: String,
    /// Version, from 1. A disk with another version in its marker is prepared again.
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
    /// The PC's master boot record: at most three partitions, because the fourth entry is the marker.
    Mbr,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Name: GPT partition name and file system label. 1 to 12 characters of `[a-z0-9-]`, because an xfs label has 12 bytes.
    pub name: String,
    /// Size in bytes, or the rest of the disk.
    pub size: Size,
    /// The file system to make.
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
    /// The rest of the disk; at most one partition of a layout.
    Rest,
}

/// Why a text is not a [`Size`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeError(String);

/// The content of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// ext4, made by the image's `mkfs.ext4`.
    Ext4,
    /// xfs, made by the image's `mkfs.xfs`; needs 300 MiB.
    Xfs,
    /// btrfs, made by the image's `mkfs.btrfs`; needs 128 MiB. In a plan's layout it is raw, see [`DiskPlan::contents`].
    Btrfs,
    /// FAT, made by the image's `mkfs.vfat`. In a plan's layout it is raw, see [`DiskPlan::contents`].
    Vfat,
    /// Swap space, made by the image's `mkswap`.
    Swap,
    /// Nothing: the partition is not changed.
    Raw,
}

/// The disks that the agent may overwrite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wipe {
    /// Blank disks and disks that rackstrap prepared; all others are left alone. The default.
    #[default]
    Ours,
    /// The same, and disks whose content has known formats only. In plans it is [`DiskPlan::wipe_known`], because older agents do not
    /// know it.
    Known,
    /// Any disk, whatever its content.
    Always,
}

/// A layout for one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPlan {
    /// The layout.
    pub layout: Layout,
    /// Digest of the layout's canonical form, 32 hex digits, computed by the server. The agent only stores and compares it.
    pub digest: String,
    /// The disk. Paths such as `/dev/vda` or `/dev/disk/by-path/…` do not exist this early, so this is `auto` (NVMe before SATA, SAS and
    /// virtio, these before eMMC and SD cards, USB last), a kernel name (`vda`, `nvme0n1`), or a [`DiskRule`](crate::DiskRule). A disk
    /// with a rackstrap marker precedes the first two, because kernel names change; among the disks that fit a rule, it is the first.
    pub device: String,
    /// The content of the chosen disk that may be overwritten; never [`Wipe::Known`].
    pub wipe: Wipe,
    /// Whether what an earlier installation left may be overwritten, if all of it has known formats. Older agents leave it alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wipe_known: bool,
    /// The prepared disk of the node's last boot: if a boot does not find it, it writes to no other disk. None if there was none, or
    /// from a server that does not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenDisk>,
    /// Owners and modes of the partitions' root directories. [`Partition`] cannot have them, because older agents refuse a partition with fields
    /// that they do not know; they ignore this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<RootOf>,
    /// Whether the disk is prepared even if its marker is equal, by order of an administrator for this boot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Names of partitions whose file systems are made again although the disk is kept, by order of an administrator for this boot. Agents that
    /// do not know this field keep them, and report nothing in [`DiskFacts::remade`](crate::DiskFacts::remade).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remake: Vec<String>,
    /// Further layouts of the node, each for a disk of its own, in the order in which their disks are chosen; at most [`MOST_LAYOUTS`] with the
    /// first one. Agents that do not know this field leave these disks alone, and report nothing in
    /// [`DiskState::layouts`](crate::DiskState::layouts). Loaders and further layouts of a further layout are not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<DiskPlan>,
    /// The network loader for BIOS that the disk should have; none to leave it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<DiskLoader>,
    /// The EFI system partitions from which the agent takes the one for its machine; empty from a server that has none, and for a layout
    /// with its own ([`DiskPlan::layout_esp`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub esp: Vec<EspImage>,
    /// The EFI system partition that is a partition of the layout; none if the layout has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout_esp: Option<LayoutEsp>,
    /// What partitions hold besides what the layout says; empty from a server that does not send it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<ContentOf>,
}

/// Most layouts of one node.
pub const MOST_LAYOUTS: usize = 4;

/// Who owns the root directory of a partition's file system, and its mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootOf {
    /// Name of the partition.
    pub partition: String,
    /// User and group; none to leave them as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// Mode, at most 0o7777; none to leave it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// An EFI system partition of a layout. In the layout it is a raw partition like any other, so agents that do not know this field place all
/// partitions alike, and leave this one as it is. An agent that knows it changes the type of its entry, and writes the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutEsp {
    /// The name of the partition, which is [`ESP_PARTITION`] from today's servers.
    pub partition: String,
    /// The contents from which the agent takes the one for its machine and disk; empty from a server that lacks the loaders.
    #[serde(default)]
    pub images: Vec<EspImage>,
}

/// A network loader for disks, identified by the first block of its copy on a disk: `RKSB`, and at bytes 16 to 24 these two numbers,
/// little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLoader {
    /// Size in bytes, a multiple of 4096.
    pub size: u32,
    /// CRC-32 of all of it, with zeroes at bytes 20 to 24.
    pub crc: u32,
}

/// The content of an EFI system partition that starts a network loader: a FAT file system, without the zeroes at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EspImage {
    /// The architecture of its programs, as Rust and Linux name it: `x86_64`, `aarch64`.
    pub arch: String,
    /// Bytes of the logical blocks of the disk that it is for, 512 or 4096.
    pub sector: u32,
    /// Size in bytes, a multiple of 4096, at most [`ESP_LENGTH`], or of [`DiskPlan::layout_esp`] [`MOST_ESP_IMAGE`].
    pub size: u32,
    /// CRC-32 of these bytes.
    pub crc: u32,
}

/// Bytes between the start of a disk and its EFI system partition. A GPT ends at 24 KiB on disks with blocks of 4096 bytes.
pub const ESP_AT: u64 = 32 << 10;
/// Bytes of the EFI system partition: it ends where the marker partition begins, so that partitions of layouts need no room for it, and
/// disks get it that were prepared before it existed.
pub const ESP_LENGTH: u64 = (1 << 20) - ESP_AT;

/// The name of a layout's EFI system partition.
pub const ESP_PARTITION: &str = "esp";
/// Most bytes of the content of a layout's EFI system partition. Debian 12's shim (1.0 MiB), MokManager (0.8 MiB) and GRUB (3.7 MiB) need 6 MiB. An
/// agent accepts answers of 16 MiB.
pub const MOST_ESP_IMAGE: u32 = 12 << 20;

/// The identity of a disk across boots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenDisk {
    /// Kernel name at that boot, for people.
    pub device: String,
    /// The device's own identity (WWID, serial number); empty if it has none.
    #[serde(default)]
    pub serial: String,
    /// [`DiskMarker::id`]; empty if unknown.
    #[serde(default)]
    pub marker: String,
}

/// The marker that a disk carries after the disk phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMarker {
    /// Random number of the disk, 8 hex digits. It does not change when the disk is prepared again. Empty if unknown.
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
    /// All that a partition can have.
    pub const ALL: [FileSystem; 6] = [
        FileSystem::Ext4,
        FileSystem::Xfs,
        FileSystem::Btrfs,
        FileSystem::Vfat,
        FileSystem::Swap,
        FileSystem::Raw,
    ];

    /// The image's program that makes it, and the package that has it in Debian; none for raw.
    pub fn maker(self) -> Option<(&'static str, &'static str)> {
        match self {
            FileSystem::Ext4 => Some(("mkfs.ext4", "e2fsprogs")),
            FileSystem::Xfs => Some(("mkfs.xfs", "xfsprogs")),
            FileSystem::Btrfs => Some(("mkfs.btrfs", "btrfs-progs")),
            FileSystem::Vfat => Some(("mkfs.vfat", "dosfstools")),
            FileSystem::Swap => Some(("mkswap", "util-linux")),
            FileSystem::Raw => None,
        }
    }

    /// Whether it can be mounted.
    pub fn is_mountable(self) -> bool {
        self.has_attributes() || self == FileSystem::Vfat
    }

    /// Whether its files have owners, modes and links, as a copy of a directory of the image needs them.
    pub fn has_attributes(self) -> bool {
        matches!(self, FileSystem::Ext4 | FileSystem::Xfs | FileSystem::Btrfs)
    }

    /// Name as in fstab and `mkfs.*`.
    pub fn as_str(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Btrfs => "btrfs",
            FileSystem::Vfat => "vfat",
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
