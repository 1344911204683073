//! Recognises the content of a disk or partition by signatures at known offsets.
//!
//! It reads only a little more than the first MiB, and the last MiB, once. Offsets are from the definitions of the formats (and
//! from libblkid, which collects them). A format too many does no harm here; a format too few could destroy a person's data.

use super::device::BlockDevice;
use std::io;

/// Bytes at either end that must be zero on a blank disk.
pub const WINDOW: u64 = 1 << 20;
/// Bytes that are read after the first window, where one format has its signature. Other bytes there do not count: many administrators
/// blank a disk by zeroing its first MiB.
const BEHIND: u64 = 4096;

/// The ends of a disk or partition.
#[derive(Debug)]
pub struct Ends {
    head: Vec<u8>,
    tail: Vec<u8>,
    len: u64,
}

impl Ends {
    /// Reads both ends of the `len` bytes from `start` on.
    pub fn read(device: &mut dyn BlockDevice, start: u64, len: u64) -> io::Result<Self> {
        let size = len.min(WINDOW);
        let mut head = vec![0; len.min(WINDOW + BEHIND) as usize];
        let mut tail = vec![0; size as usize];
        device.read_at(start, &mut head)?;
        device.read_at(start + (len - size), &mut tail)?;
        Ok(Ends { head, tail, len })
    }

    /// Bytes of the disk or partition.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The first MiB.
    fn first(&self) -> &[u8] {
        self.head.get(..WINDOW as usize).unwrap_or(&self.head)
    }

    /// The first MiB alone: later bytes and the end of a disk may belong to a partition, whose content says nothing about the disk.
    pub fn head_only(&self) -> Ends {
        Ends {
            head: self.first().to_vec(),
            tail: Vec::new(),
            len: self.len,
        }
    }

    /// True if every byte at both ends is zero.
    pub fn all_zero(&self) -> bool {
        const ZERO: [u8; 4096] = [0; 4096];
        [self.first(), &self.tail]
            .into_iter()
            .flat_map(|window| window.chunks(ZERO.len()))
            .all(|chunk| *chunk == ZERO[..chunk.len()])
    }

    /// The first sector, for partition tables.
    pub fn sector0(&self) -> Option<&[u8; 512]> {
        self.head.first_chunk()
    }

    /// The `n` bytes at `offset` from the start; none outside the windows.
    pub(super) fn at(&self, offset: u64, n: usize) -> Option<&[u8]> {
        let in_window = |window: &[u8], from: u64| -> Option<std::ops::Range<usize>> {
            let from = usize::try_from(offset.checked_sub(from)?).ok()?;
            let to = from.checked_add(n)?;
            (to <= window.len()).then_some(from..to)
        };
        let tail_from = self.len - self.tail.len() as u64;
        match in_window(&self.head, 0) {
            Some(range) => self.head.get(range),
            None => self.tail.get(in_window(&self.tail, tail_from)?),
        }
    }

    pub(super) fn is(&self, offset: u64, bytes: &[u8]) -> bool {
        self.at(offset, bytes.len()) == Some(bytes)
    }

    /// Whether `bytes` stand `offset` bytes before the end.
    fn is_before_end(&self, offset: u64, bytes: &[u8]) -> bool {
        self.len.checked_sub(offset).is_some_and(|at| self.is(at, bytes))
    }

    /// Names of all formats found, each once, without partition tables.
    pub fn formats(&self) -> Vec<&'static str> {
        let mut found: Vec<&'static str> = Vec::new();
        let mut add = |name: &'static str| {
            if !found.contains(&name) {
                found.push(name);
            }
        };
        for (offset, bytes, name) in FIXED {
            if self.is(*offset, bytes) {
                add(name);
            }
        }
        for (offset, bytes, name) in FROM_END {
            if self.is_before_end(*offset, bytes) {
                add(name);
            }
        }
        for page in [4096, 8192, 16384, 65536] {
            if [
                &b"SWAPSPACE2"[..],
                b"SWAP-SPACE",
                b"S1SUSPEND\0",
                b"S2SUSPEND\0",
                b"LINHIB0001",
            ]
            .iter()
            .any(|magic| self.is(page - 10, magic))
            {
                add("swap");
            }
        }
        for sector in 0..4 {
            // wipefs clears the type and leaves the label.
            if self.is(sector * 512, b"LABELONE") && !self.is(sector * 512 + 24, &[0; 8]) {
                add("LVM physical volume");
            }
        }
        for offset in [0x4000u64, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000] {
            if self.is(offset, b"SKUL\xba\xbe") {
                add("LUKS");
            }
        }
        if self.mdraid_at_end() {
            add("mdraid member");
        }
        if self.zfs() {
            add("ZFS member");
        }
        if self.is(510, b"\x55\xaa") && (self.is(54, b"FAT1") || self.is(82, b"FAT32")) {
            add("FAT");
        }
        found
    }

    /// Linux software RAID: 0.90 in the last whole 64 KiB, 1.0 in the last 8 KiB (Documentation/admin-guide/md.rst).
    fn mdraid_at_end(&self) -> bool {
        const LITTLE: [u8; 4] = 0xa92b_4efcu32.to_le_bytes();
        const BIG: [u8; 4] = 0xa92b_4efcu32.to_be_bytes();
        let v090 = (self.len & !0xffff).checked_sub(0x10000);
        let v10 = (self.len / 512).checked_sub(16).map(|s| (s & !7) * 512);
        let here = |at: u64| self.is(at, &LITTLE) || self.is(at, &BIG);
        v090.is_some_and(here) || v10.is_some_and(here)
    }

    /// ZFS: four labels of 256 KiB, two at each end of the device rounded down to one, with uberblocks
    /// in their second half (the on-disk specification, chapter 1).
    fn zfs(&self) -> bool {
        const LABEL: u64 = 256 << 10;
        const LITTLE: [u8; 8] = 0x00ba_b10cu64.to_le_bytes();
        const BIG: [u8; 8] = 0x00ba_b10cu64.to_be_bytes();
        let end = self.len / LABEL * LABEL;
        let labels = [Some(0), Some(LABEL), end.checked_sub(2 * LABEL), end.checked_sub(LABEL)];
        labels.into_iter().flatten().any(|label| {
            (0..128).any(|slot| {
                let at = label + (128 << 10) + slot * 1024;
                self.is(at, &LITTLE) || self.is(at, &BIG)
            })
        })
    }
}

/// Formats that do not show whose data a disk holds: those of disks that several machines use at the same time, and tables whose
/// partitions are not read here.
const UNCLEAR: &[&str] = &[
    "GFS2",
    "ocfs2",
    "VMFS volume",
    "DRBD",
    "Oracle ASM",
    "BSD disk label",
    "Apple partition map",
];

/// Whether one of these formats does not show whose data it is.
pub fn is_unclear(formats: &[&str]) -> bool {
    formats.iter().any(|format| UNCLEAR.contains(format))
}

/// Offset from the start, bytes, format.
const FIXED: &[(u64, &[u8], &str)] = &[
    (0x438, b"\x53\xef", "ext2/3/4"),
    (0, b"XFSB", "xfs"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"\xfc\x4e\x2b\xa9", "mdraid member"),
    (4096, b"\xfc\x4e\x2b\xa9", "mdraid member"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (3, b"-FVE-FS-", "BitLocker"),
    (3, b"ReFS\0", "ReFS"),
    (0x8001, b"CD001", "ISO 9660"),
    (0x8001, b"BEA01", "UDF"),
    (0x8001, b"NSR0", "UDF"),
    (0, b"hsqs", "squashfs"),
    (0, b"sqsh", "squashfs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (0x406, b"\x34\x34", "nilfs2"),
    (
        0x1018,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
        "bcache",
    ),
    (
        0x1018,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
        "bcachefs",
    ),
    (0x8000, b"JFS1", "JFS"),
    (0x10034, b"ReIsEr", "reiserfs"),
    (0x2034, b"ReIsEr", "reiserfs"),
    (0x10034, b"ReIsEr2Fs", "reiserfs"),
    (0x10000, b"ReIsEr4", "reiser4"),
    (0x10000, b"\x01\x16\x19\x70", "GFS2"),
    (0x2000, b"OCFSV2", "ocfs2"),
    (0x1000, b"OCFSV2", "ocfs2"),
    (0x255c, b"\x19\x01\x54\x19", "UFS"),
    (0x255c, b"\x19\x54\x01\x19", "UFS"),
    (0x1055c, b"\x19\x01\x54\x19", "UFS"),
    (0x1055c, b"\x19\x54\x01\x19", "UFS"),
    (0x200, b"\x57\x45\x56\x82", "BSD disk label"),
    (0x200, b"PM\0\0", "Apple partition map"),
    (32, b"NXSB", "APFS"),
    (1024, b"H+\0\x04", "HFS+"),
    (1024, b"HX\0\x05", "HFS+"),
    (1024, b"BD", "HFS"),
    (0, b"bluestore block device", "Ceph OSD"),
    (32, b"ORCLDISK", "Oracle ASM"),
    (512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh", "Stratis"),
    (4608 + 4, b"!Stra0tis\x86\xff\x02^\x41rh", "Stratis"),
    (0, b"dmvdo001", "VDO"),
    (0x100000, b"\x0d\xd0\x01\xc0", "VMFS volume"),
];

/// Offset before the end, bytes, format.
const FROM_END: &[(u64, &[u8], &str)] = &[
    (1024, b"Intel Raid ISM Cfg Sig. ", "Intel firmware RAID member"),
    (512, b"\xde\x11\xde\x11", "DDF firmware RAID member"),
    (4096 - 52, b"\x83\x74\x02\x6d", "DRBD"),
    (4096 - 60, b"\x83\x74\x02\x67", "DRBD"),
    (4096 - 60, b"\x83\x74\x02\x6b", "DRBD"),
    (512, b"\x5a\xa5\x5a\xa5", "firmware RAID member"),
    (512, b"GEOM::", "FreeBSD GEOM"),
];

/// A file system of a kind that rackstrap makes, found where rackstrap made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// `ext4`, `xfs`, `btrfs`, `vfat` or `swap`.
    pub fs: rackstrap_wire::FileSystem,
    /// UUID in lower case; of FAT its serial number (`1A2B-3C4D`).
    pub uuid: String,
    /// False if the file system was not unmounted, or has recorded errors: it needs `fsck -p`. Always true for xfs and btrfs, which
    /// need no check before they are mounted, for FAT and for swap.
    pub clean: bool,
}

/// Bytes that have the superblocks of all these file systems: that of btrfs is at 64 KiB.
const SUPERBLOCKS: usize = (64 << 10) + 4096;

/// Reads the superblock at `start`.
pub fn superblock(device: &mut dyn BlockDevice, start: u64) -> io::Result<Option<Superblock>> {
    use rackstrap_wire::FileSystem;
    let mut head = vec![0; SUPERBLOCKS];
    device.read_at(start, &mut head)?;
    let head: &[u8] = &head;
    let uuid = |at: usize| {
        let bytes: [u8; 16] = std::array::from_fn(|i| head[at + i]);
        uuid::Uuid::from_bytes(bytes).to_string()
    };
    let found = |fs, at, clean| {
        Ok(Some(Superblock {
            fs,
            uuid: uuid(at),
            clean,
        }))
    };
    if head[0x438..0x43a] == [0x53, 0xef] {
        // s_state: bit 0 cleanly unmounted, bit 1 errors; s_feature_incompat bit 2: the journal needs replaying.
        let state = u16::from_le_bytes([head[0x43a], head[0x43b]]);
        let recover = head[0x460] & 4 != 0;
        return found(FileSystem::Ext4, 0x468, state & 3 == 1 && !recover);
    }
    if head.starts_with(b"XFSB") {
        return found(FileSystem::Xfs, 32, true);
    }
    for page in [4096, 8192, 16384, 65536] {
        if head[page - 10..page] == *b"SWAPSPACE2" {
            return found(FileSystem::Swap, 1036, true);
        }
    }
    // btrfs: the magic after checksum, UUID, position and flags (fs/btrfs/ctree.h, struct btrfs_super_block).
    if head[0x10040..].starts_with(b"_BHRfS_M") {
        return found(FileSystem::Btrfs, 0x10020, true);
    }
    let serial_at = match (&head[510..512] == b"\x55\xaa", &head[82..87] == b"FAT32") {
        (true, true) => Some(67),
        (true, false) if &head[54..58] == b"FAT1" => Some(39),
        _ => None,
    };
    if let Some(at) = serial_at {
        let [a, b, c, d] = [3, 2, 1, 0].map(|i| head[at + i]);
        return Ok(Some(Superblock {
            fs: FileSystem::Vfat,
            uuid: format!("{a:02X}{b:02X}-{c:02X}{d:02X}"),
            clean: true,
        }));
    }
    Ok(None)
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
