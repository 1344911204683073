//! The EFI system partition that a layout asks for with `esp` (pure): shim and GRUB, which firmware starts also with Secure Boot on.
//!
//! They do not fit into the gap of `esp.rs`, so the partition is one of the layout, of the size that the site file gives. A FAT file
//! system holds shim by the name that UEFI starts, the programs that shim loads in turn, and GRUB's script, which asks the network
//! on all cards for ever. shim is not told apart from an own one of the site: the files are those of `[loader.NAME]`.
//!
//! An image shares the memory of the loaders' files: it is the few KiB of the file system around them, and slices of them.

mod sources;

use crate::esp_image::{self, SECTORS};
use bytes::Bytes;
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use rackstrap_base::firmware::{COMPANIONS, Companion};
use rackstrap_wire::{EspImage, MOST_ESP_IMAGE};
use std::{
    collections::BTreeSet,
    io::{self, Read, Seek, SeekFrom, Write},
    net::Ipv4Addr,
};

/// GRUB's script.
const SCRIPT: &str = include_str!("layout_esp/disk.grub");
/// Cards on which the script asks: GRUB numbers those that the firmware shows from 0.
const MOST_CARDS: usize = 8;
/// Servers that the script asks besides the one that DHCP names, at most. Each costs time in every round.
const MOST_SERVERS: usize = 4;
/// Where GRUB looks for its script: what it was built with as prefix. That of Debian's and Ubuntu's builds for networks is `/grub`; that of
/// builds for disks, which some distributions use for both, has the distribution's name.
const GRUB_DIRS: [&str; 9] = [
    "grub",
    "boot/grub",
    "EFI/debian",
    "EFI/ubuntu",
    "EFI/fedora",
    "EFI/redhat",
    "EFI/centos",
    "EFI/rocky",
    "EFI/almalinux",
];
const MIB: u64 = 1 << 20;

/// An architecture whose firmware has Secure Boot.
pub(crate) struct Kind {
    /// Rust's and Linux's name of it.
    pub arch: &'static str,
    /// How names of shim begin.
    pub shim: &'static str,
    /// shim's names in the packages of distributions.
    pub files: [&'static str; 2],
}

pub(crate) const KINDS: [Kind; 2] = [
    Kind {
        arch: "x86_64",
        shim: "shimx64.efi",
        files: ["shimx64.efi.signed", "shimx64.efi"],
    },
    Kind {
        arch: "aarch64",
        shim: "shimaa64.efi",
        files: ["shimaa64.efi.signed", "shimaa64.efi"],
    },
];

/// shim of one architecture and the programs that it loads, by the names that it asks for.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub arch: &'static str,
    pub shim: Bytes,
    pub next: Vec<(&'static str, Bytes)>,
}

impl Kind {
    /// What this shim loads.
    pub fn companions(&self) -> impl Iterator<Item = &'static Companion> {
        COMPANIONS.iter().filter(|companion| companion.of == self.shim)
    }
}

/// A partition that is too small for its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// Its bytes.
    pub size: u64,
    /// The architecture of the files.
    pub arch: &'static str,
    /// The smallest size that is enough, in bytes; none if the files are larger than an agent takes.
    pub smallest: Option<u64>,
}

/// The partitions for all sizes, architectures and block sizes.
#[derive(Clone, Debug, Default)]
pub struct LayoutEsps {
    made: Vec<Made>,
    too_small: Vec<TooSmall>,
    /// Servers that the script does not ask by itself.
    left_out: Vec<Ipv4Addr>,
}

#[derive(Clone, Debug)]
struct Made {
    /// Bytes of the partition.
    size: u64,
    image: EspImage,
    pieces: Vec<Bytes>,
}

impl LayoutEsps {
    /// Makes the contents of partitions of these `sizes`. The script asks `servers` if DHCP names none.
    pub(crate) fn build(sizes: &BTreeSet<u64>, chains: &[Chain], servers: &BTreeSet<Ipv4Addr>) -> Self {
        let script = script(servers);
        let mut all = LayoutEsps {
            left_out: servers.iter().skip(MOST_SERVERS).copied().collect(),
            ..LayoutEsps::default()
        };
        for (size, chain) in sizes
            .iter()
            .flat_map(|size| chains.iter().map(move |chain| (*size, chain)))
        {
            let made: Vec<Made> = (SECTORS.iter())
                .filter_map(|sector| make(size, *sector, chain, &script))
                .collect();
            if made.len() < SECTORS.len() {
                let smallest = smallest(chain, &script);
                let arch = chain.arch;
                all.too_small.push(TooSmall { size, arch, smallest });
            }
            all.made.extend(made);
        }
        all
    }

    /// The contents of partitions of `size` bytes, as plans list them.
    pub fn images(&self, size: u64) -> Vec<EspImage> {
        let of_size = self.made.iter().filter(|made| made.size == size);
        of_size.map(|made| made.image.clone()).collect()
    }

    /// The content of a partition of `size` bytes for `kind`, an architecture and a block size such as `x86_64-512`. Its pieces, one after the
    /// other, are the content. None if no such partition was made.
    pub fn pieces(&self, size: u64, kind: &str) -> Option<Vec<Bytes>> {
        let (arch, sector) = kind.rsplit_once('-')?;
        let sector: u32 = sector.parse().ok()?;
        let mut of_size = self.made.iter().filter(|made| made.size == size);
        let made = of_size.find(|made| made.image.arch == arch && made.image.sector == sector)?;
        Some(made.pieces.clone())
    }

    /// The servers beside other DHCP servers that the script asks only if DHCP names them.
    pub fn left_out(&self) -> &[Ipv4Addr] {
        &self.left_out
    }

    /// The partitions that are too small.
    pub fn too_small(&self) -> &[TooSmall] {
        &self.too_small
    }
}

/// GRUB's script, with a call for each card.
fn script(servers: &BTreeSet<Ipv4Addr>) -> String {
    let call = |card| {
        let at = format!("net_efinet{card}_dhcp");
        format!("  if [ -n \"${at}_ip\" ]; then ask efinet{card}_dhcp ${at}_next_server; fi\n")
    };
    let calls: String = (0..MOST_CARDS).map(call).collect();
    let servers: Vec<String> = servers.iter().take(MOST_SERVERS).map(Ipv4Addr::to_string).collect();
    SCRIPT
        .replace("CARDS\n", &calls)
        .replace(" SERVERS;", &format!(" {};", servers.join(" ")))
}

/// The smallest size that is enough for both block sizes, in whole MiB.
fn smallest(chain: &Chain, script: &str) -> Option<u64> {
    let files = chain.next.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + chain.shim.len();
    let first = (files as u64).div_ceil(MIB);
    // The file system itself takes less than a hundredth.
    let mut sizes = (first..first + 4).map(|mib| mib.max(1) * MIB);
    sizes.find(|size| {
        let fits = |sector: &u32| make(*size, *sector, chain, script).is_some();
        SECTORS.iter().all(fits)
    })
}

/// The content of one partition; none if its files do not fit.
fn make(size: u64, sector: u32, chain: &Chain, script: &str) -> Option<Made> {
    let (image, bytes) = esp_image::of(files(size, sector, chain, script).ok()?, chain.arch, sector)?;
    if image.size > MOST_ESP_IMAGE {
        return None;
    }
    let shared = std::iter::once(&chain.shim).chain(chain.next.iter().map(|(_, bytes)| bytes));
    let pieces = split(&bytes, sector as usize, shared);
    Some(Made { size, image, pieces })
}

/// `bytes` in pieces, of which those that are equal to a file are that file's own memory.
fn split<'a>(bytes: &[u8], sector: usize, files: impl Iterator<Item = &'a Bytes>) -> Vec<Bytes> {
    // The file system is new, so that each file lies in one piece, from the start of a block on.
    let place = |file: &'a Bytes| {
        let mut starts = (0..bytes.len()).step_by(sector);
        let at = starts.find(|at| bytes.get(*at..*at + file.len()) == Some(file));
        at.map(|at| (at, file))
    };
    let mut places: Vec<(usize, &Bytes)> = files.filter_map(place).collect();
    places.sort_unstable_by_key(|(at, _)| *at);
    let (mut pieces, mut from) = (Vec::new(), 0);
    for (at, file) in places.into_iter().filter(|(_, file)| !file.is_empty()) {
        // Two equal files have one place.
        if at < from {
            continue;
        }
        pieces.push(Bytes::copy_from_slice(&bytes[from..at]));
        pieces.push(file.clone());
        from = at + file.len();
    }
    pieces.push(Bytes::copy_from_slice(&bytes[from..]));
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// The file system, without the part at its end that was never written.
fn files(size: u64, sector: u32, chain: &Chain, script: &str) -> io::Result<Vec<u8>> {
    // At most 32768 clusters: FAT16, or FAT12 where there are less than 4085, as on small partitions with blocks of 4096 bytes.
    let cluster = size.div_ceil(32768).next_power_of_two().max(u64::from(sector));
    let cluster = u32::try_from(cluster).map_err(io::Error::other)?;
    let sectors = u32::try_from(size / u64::from(sector)).map_err(io::Error::other)?;
    let bytes_per_sector = u16::try_from(sector).map_err(io::Error::other)?;
    let format = |kind| {
        let options = FormatVolumeOptions::new()
            .bytes_per_sector(bytes_per_sector)
            .bytes_per_cluster(cluster)
            .total_sectors(sectors)
            .fat_type(kind)
            .max_root_dir_entries(512)
            .volume_label(*b"RACKSTRAP  ");
        let mut disk = Sparse::new(size);
        fatfs::format_volume(&mut disk, options).map(|()| disk)
    };
    let mut disk = format(FatType::Fat16).or_else(|_| format(FatType::Fat12))?;
    let volume = FileSystem::new(&mut disk, FsOptions::new())?;
    let write = |path: &str, bytes: &[u8]| -> io::Result<()> {
        let mut dir = volume.root_dir();
        let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in dirs.split('/').filter(|part| !part.is_empty()) {
            dir = dir.create_dir(part)?;
        }
        let mut file = dir.create_file(name)?;
        file.write_all(bytes)?;
        file.flush()
    };
    let boot = esp_image::boot_name(chain.arch).ok_or_else(|| io::Error::other(chain.arch))?;
    write(&format!("EFI/BOOT/{boot}"), &chain.shim)?;
    for (name, bytes) in &chain.next {
        write(&format!("EFI/BOOT/{name}"), bytes)?;
    }
    for dir in GRUB_DIRS {
        write(&format!("{dir}/grub.cfg"), script.as_bytes())?;
    }
    volume.unmount()?;
    Ok(disk.bytes)
}

/// A disk in memory of which only the part up to the last written byte exists.
struct Sparse {
    bytes: Vec<u8>,
    at: u64,
    size: u64,
}

impl Sparse {
    fn new(size: u64) -> Self {
        Sparse {
            bytes: Vec::new(),
            at: 0,
            size,
        }
    }

    /// How many of `wanted` bytes lie before the end.
    fn left(&self, wanted: usize) -> usize {
        usize::try_from(self.size.saturating_sub(self.at)).map_or(wanted, |left| left.min(wanted))
    }
}

impl Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.left(buffer.len());
        let buffer = &mut buffer[..count];
        buffer.fill(0);
        let at = usize::try_from(self.at).map_err(io::Error::other)?;
        if let Some(written) = self.bytes.get(at..) {
            let count = written.len().min(buffer.len());
            buffer[..count].copy_from_slice(&written[..count]);
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Sparse {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.left(buffer.len());
        let at = usize::try_from(self.at).map_err(io::Error::other)?;
        if self.bytes.len() < at + count {
            self.bytes.resize(at + count, 0);
        }
        self.bytes[at..at + count].copy_from_slice(&buffer[..count]);
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests;
