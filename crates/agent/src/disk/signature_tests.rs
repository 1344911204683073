//! Real formatting tools, and hostile bytes.

use super::*;
use crate::disk::{
    device::FileDevice,
    inspect::{Finding, inspect},
};
use proptest::prelude::*;
use std::{fs, io, path::Path, process::Command};

/// Formats a new file of 320 MiB with a tool and returns the finding; none if this machine does not have the tool.
fn formatted(program: &str, arguments: &[&str]) -> Option<(Finding, tempfile::NamedTempFile)> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(320 << 20).unwrap();
    let status = Command::new(program).args(arguments).arg(file.path()).output().ok()?;
    assert!(status.status.success(), "{program}: {status:?}");
    let mut device = FileDevice::open(file.path(), false).unwrap();
    Some((inspect(&mut device).unwrap(), file))
}

#[test]
fn real_tools_are_recognised() {
    let tools: &[(&str, &[&str], &str)] = &[
        ("mkfs.ext4", &["-F", "-q"], "ext2/3/4"),
        ("mkfs.ext2", &["-F", "-q"], "ext2/3/4"),
        ("mkfs.xfs", &["-q"], "xfs"),
        ("mkswap", &[], "swap"),
        ("mkfs.btrfs", &["-q"], "btrfs"),
        ("mkfs.vfat", &["-F", "32"], "FAT"),
        ("sgdisk", &["-n", "1:2048:4096"], "GPT with 1 partition"),
        ("pvcreate", &["-ff", "-y"], "LVM physical volume"),
    ];
    let mut tried = 0;
    for (program, arguments, want) in tools {
        if let Some((finding, _)) = formatted(program, arguments) {
            // sgdisk leaves the content of its partition, which is zero here.
            assert_eq!(finding, Finding::Leftover((*want).into()), "{program}");
            tried += 1;
        }
    }
    // These are in every Debian that runs the tests: e2fsprogs, xfsprogs, util-linux, gdisk.
    assert!(tried >= 5, "{tried} tools");
}

#[test]
fn a_disk_after_wipefs_is_blank_and_unknown_data_is_not() {
    let tools: &[(&str, &[&str])] = &[
        ("mkfs.ext4", &["-F", "-q"]),
        ("mkfs.ext2", &["-F", "-q", "-b", "1024"]),
        ("mkfs.xfs", &["-q"]),
        ("mkswap", &[]),
        ("mkfs.btrfs", &["-q"]),
        ("mkfs.vfat", &["-F", "32"]),
        ("pvcreate", &["-ff", "-y"]),
        ("sgdisk", &["-n", "1:2048:4096"]),
    ];
    let mut tried = 0;
    for (program, arguments) in tools {
        let Some((before, file)) = formatted(program, arguments) else {
            continue;
        };
        assert!(matches!(before, Finding::Leftover(_)), "{program}: {before:?}");
        let status = Command::new("wipefs")
            .args(["-a", "-q", "-f"])
            .arg(file.path())
            .status()
            .unwrap();
        assert!(status.success());
        let mut device = FileDevice::open(file.path(), false).unwrap();
        assert_eq!(inspect(&mut device).unwrap(), Finding::Blank, "{program}");
        tried += 1;
    }
    assert!(tried >= 5, "{tried} tools");
    // Data of no known format, with zeroes at the place of each signature.
    let mut bytes: Vec<u8> = (0..4u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for (at, len) in [(0, 8), (510, 2), (0x438, 2), (0x10040, 8), (4086, 10), (512, 8)] {
        bytes[at..at + len].fill(0);
    }
    assert_eq!(
        inspect(&mut Memory(bytes, 512)).unwrap(),
        Finding::Foreign("unknown data".into())
    );
}

#[test]
fn file_systems_inside_a_foreign_table_are_named() {
    let (_, file) = formatted("sgdisk", &["-n", "1:2048:+64M", "-n", "2:0:+64M"]).unwrap();
    let mut swap = [0u8; 4096];
    swap[4086..].copy_from_slice(b"SWAPSPACE2");
    use std::os::unix::fs::FileExt;
    file.as_file().write_all_at(&swap, (1 << 20) + (64 << 20)).unwrap();
    file.as_file().write_all_at(b"XFSB", 1 << 20).unwrap();
    let mut device = FileDevice::open(file.path(), false).unwrap();
    assert_eq!(
        inspect(&mut device).unwrap(),
        Finding::Leftover("GPT with 2 partitions (xfs, swap)".into())
    );
}

#[test]
fn a_table_is_a_leftover_only_if_all_of_it_has_known_formats() {
    use std::os::unix::fs::FileExt;
    let second = (1 << 20) + (64 << 20);
    for (kinds, bytes, is_leftover) in [
        // Blank; LVM; GRUB's own partition has no format; data of a database on a partition; a shared disk.
        ("2:8300", &b""[..], true),
        ("2:8e00", &b"LABELONE................LVM2 001"[..], true),
        ("2:ef02", &b"\x52\xe8\x28\x01"[..], true),
        ("2:8300", &b"not a format"[..], false),
        ("2:8300", &b"\x0d\xd0\x01\xc0"[..], false),
    ] {
        let (_, file) = formatted("sgdisk", &["-n", "1:2048:+64M", "-n", "2:0:+64M", "-t", kinds]).unwrap();
        file.as_file().write_all_at(b"XFSB", 1 << 20).unwrap();
        let at = if bytes.starts_with(b"\x0d") {
            second + (1 << 20)
        } else {
            second
        };
        file.as_file().write_all_at(bytes, at).unwrap();
        let mut device = FileDevice::open(file.path(), false).unwrap();
        let finding = inspect(&mut device).unwrap();
        assert_eq!(matches!(finding, Finding::Leftover(_)), is_leftover, "{finding:?}");
    }
    // An MBR with a partition that holds data of no known format, and one with more partitions inside of it.
    for kind in [0x83, 0x05] {
        let mut disk = vec![0; 5 << 20];
        disk[446 + 4] = kind;
        disk[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
        disk[446 + 12..446 + 16].copy_from_slice(&4096u32.to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[(1 << 20) + 510..(1 << 20) + 512].copy_from_slice(&[0x55, 0xaa]);
        let finding = inspect(&mut Memory(disk, 512)).unwrap();
        assert_eq!(finding, Finding::Foreign("MBR with 1 partition".into()), "{kind}");
    }
}

#[test]
fn what_wipe_allows_is_overwritten_and_nothing_else() {
    use crate::disk::inspect::{Action, decide};
    use rackstrap_wire::Wipe;
    let leftover = Finding::Leftover("LVM physical volume".to_owned());
    let foreign = Finding::Foreign("unknown data".to_owned());
    let mut plan = rackstrap_wire::testing::disk();
    for (wipe, wipe_known, overwritten) in [
        (Wipe::Ours, false, [false, false]),
        (Wipe::Ours, true, [true, false]),
        (Wipe::Always, false, [true, true]),
        (Wipe::Always, true, [true, true]),
    ] {
        (plan.wipe, plan.wipe_known) = (wipe, wipe_known);
        let found = [&leftover, &foreign].map(|finding| matches!(decide(finding, &plan, [0; 16]), Action::Prepare(_)));
        assert_eq!(found, overwritten, "{wipe:?} {wipe_known}");
    }
    plan.wipe = Wipe::Ours;
    plan.wipe_known = false;
    assert_eq!(
        decide(&leftover, &plan, [0; 16]),
        Action::Leave("holds foreign data (LVM physical volume); left untouched".to_owned())
    );
}

#[test]
fn superblocks_of_our_file_systems_are_read() {
    use rackstrap_wire::FileSystem::*;
    for (program, arguments, want) in [
        (
            "mkfs.ext4",
            &["-F", "-q", "-U", "01234567-89ab-4def-8123-456789abcdef"][..],
            Ext4,
        ),
        (
            "mkfs.xfs",
            &["-q", "-m", "uuid=01234567-89ab-4def-8123-456789abcdef"][..],
            Xfs,
        ),
        ("mkswap", &["-U", "01234567-89ab-4def-8123-456789abcdef"][..], Swap),
        (
            "mkfs.btrfs",
            &["-q", "-U", "01234567-89ab-4def-8123-456789abcdef"][..],
            Btrfs,
        ),
    ] {
        let (_, file) = formatted(program, arguments).unwrap();
        let mut device = FileDevice::open(file.path(), false).unwrap();
        let found = superblock(&mut device, 0).unwrap().unwrap();
        let uuid = "01234567-89ab-4def-8123-456789abcdef".to_owned();
        assert_eq!(
            found,
            Superblock {
                fs: want,
                uuid,
                clean: true
            }
        );
    }
    let (_, file) = formatted("mkfs.ext4", &["-F", "-q"]).unwrap();
    let state = Command::new("debugfs")
        .args(["-w", "-R", "set_super_value state 0"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(state.status.success());
    let mut device = FileDevice::open(file.path(), false).unwrap();
    assert!(!superblock(&mut device, 0).unwrap().unwrap().clean);
}

#[test]
fn the_serial_number_of_fat_is_its_uuid() {
    // FAT12 and FAT16 have it at another place than FAT32 (Microsoft's specification, 3.2 and 3.3).
    for (kind_at, kind, at) in [(54, &b"FAT16   "[..], 39), (54, b"FAT12   ", 39), (82, b"FAT32   ", 67)] {
        let mut bytes = vec![0; 1 << 20];
        bytes[510..512].copy_from_slice(b"\x55\xaa");
        bytes[kind_at..kind_at + 8].copy_from_slice(kind);
        bytes[at..at + 4].copy_from_slice(&0x1a2b_3c4du32.to_le_bytes());
        let found = superblock(&mut Memory(bytes.clone(), 512), 0).unwrap().unwrap();
        assert_eq!(
            (found.fs, found.uuid.as_str()),
            (rackstrap_wire::FileSystem::Vfat, "1A2B-3C4D")
        );
        bytes[511] = 0;
        assert_eq!(superblock(&mut Memory(bytes, 512), 0).unwrap(), None);
    }
}

proptest! {
    #[test]
    fn any_bytes_have_a_superblock_or_none(seed in any::<Vec<u8>>(), at in 0usize..70_000) {
        let mut bytes = vec![0; 1 << 20];
        bytes[at..at + seed.len()].copy_from_slice(&seed);
        superblock(&mut Memory(bytes, 512), 0).unwrap();
        // A disk that is smaller than all superblocks is an error and no panic.
        let mut small = Memory(seed, 512);
        prop_assert!(superblock(&mut small, 0).is_err());
    }
}

/// A small disk in memory.
struct Memory(Vec<u8>, u32);

impl BlockDevice for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn sector(&self) -> u32 {
        self.1
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let range = from..from.checked_add(buf.len()).ok_or(io::ErrorKind::InvalidInput)?;
        buf.copy_from_slice(self.0.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        panic!("the inspection writes to the disk")
    }
    fn flush(&mut self) -> io::Result<()> {
        panic!("the inspection flushes the disk")
    }
}

#[test]
fn tiny_and_odd_disks_are_read() {
    for size in [
        0,
        1,
        511,
        512,
        513,
        1024,
        4095,
        4096,
        8192,
        65536,
        (1 << 20) - 1,
        (1 << 20) + 512,
    ] {
        for sector in [512, 4096] {
            assert_eq!(
                inspect(&mut Memory(vec![0; size], sector)).unwrap(),
                Finding::Blank,
                "{size} {sector}"
            );
        }
    }
}

#[test]
fn one_byte_at_either_end_is_not_blank() {
    for at in [0, 1, 700_000, (3 << 20) - 1] {
        let mut disk = vec![0; 3 << 20];
        disk[at] = 1;
        assert_eq!(
            inspect(&mut Memory(disk, 512)).unwrap(),
            Finding::Foreign("unknown data".into())
        );
    }
}

#[test]
fn every_signature_of_the_lists_is_found_at_its_offset() {
    const SIZE: usize = 5 << 20;
    let from_end = FROM_END.iter().map(|(at, bytes, name)| (SIZE as u64 - at, bytes, name));
    let all = FIXED.iter().map(|(at, bytes, name)| (*at, bytes, name)).chain(from_end);
    for (at, bytes, name) in all {
        let mut disk = vec![0; SIZE];
        disk[at as usize..][..bytes.len()].copy_from_slice(bytes);
        for sector in [512, 4096] {
            assert_eq!(
                inspect(&mut Memory(disk.clone(), sector)).unwrap(),
                match UNCLEAR.contains(name) {
                    true => Finding::Foreign((*name).into()),
                    false => Finding::Leftover((*name).into()),
                },
                "{name} at {at}"
            );
        }
    }
}

#[test]
fn data_behind_the_first_mib_does_not_count() {
    let mut disk = vec![0; 5 << 20];
    disk[1 << 20..][..2 << 20].fill(7);
    assert_eq!(inspect(&mut Memory(disk, 512)).unwrap(), Finding::Blank);
}

#[test]
fn raid_members_are_found_at_the_end() {
    let size = (5 << 20) + 12_288;
    for at in [(size & !0xffff) - 0x10000, (size / 512 - 16) / 8 * 8 * 512] {
        let mut disk = vec![0; size];
        disk[at..at + 4].copy_from_slice(&0xa92b_4efcu32.to_le_bytes());
        assert_eq!(
            inspect(&mut Memory(disk, 512)).unwrap(),
            Finding::Leftover("mdraid member".into())
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_disks_are_read_without_panic(
        size in 0usize..3_000_000,
        spots in proptest::collection::vec((any::<proptest::sample::Index>(), proptest::collection::vec(any::<u8>(), 1..200)), 0..8),
        big: bool,
    ) {
        let mut disk = vec![0; size];
        for (at, bytes) in spots {
            if size > bytes.len() {
                let at = at.index(size - bytes.len());
                disk[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        inspect(&mut Memory(disk, if big { 4096 } else { 512 })).unwrap();
    }

    /// A GPT header with any fields and a correct checksum is read without panic.
    #[test]
    fn hostile_gpt_headers_are_read_without_panic(fields in proptest::collection::vec(any::<u8>(), 80), entries in 0u32..2000, len in 0u32..5000, lba: u64) {
        let mut disk = vec![0; 2 << 20];
        let header = &mut disk[512..1024];
        header[12..92].copy_from_slice(&fields);
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[16..20].fill(0);
        header[24..32].copy_from_slice(&1u64.to_le_bytes());
        header[72..80].copy_from_slice(&lba.to_le_bytes());
        header[80..84].copy_from_slice(&entries.to_le_bytes());
        header[84..88].copy_from_slice(&len.to_le_bytes());
        let crc = crc32fast::hash(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        let finding = inspect(&mut Memory(disk, 512)).unwrap();
        prop_assert!(matches!(finding, Finding::Leftover(_) | Finding::Foreign(_)));
    }
}

#[test]
fn the_inspection_opens_read_only() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), vec![0; 4096]).unwrap();
    let mut device = FileDevice::open(Path::new(file.path()), false).unwrap();
    assert!(device.write_at(0, b"x").is_err());
}
