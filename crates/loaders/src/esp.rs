//! The EFI system partition of prepared disks (pure).
//!
//! It lies between the GPT and the marker partition, in space that no layout uses, so it has 992 KiB: a FAT12 file system with
//! rackstrap's program (`bootscripts/efi/`, 4 KiB) under the name by which UEFI starts a disk, the network loader that the program
//! starts (iPXE with its own drivers, 830 KiB in Debian 12), that loader's CRC-32, and its script, the one that disks have for BIOS. The agent writes it, see `esp` there.
//!
//! The `fatfs` crate writes the file system. Its times are constant without a clock, so equal files give equal bytes.

use crate::{
    disk_loader::script_for_uefi,
    esp_image::{self, SECTORS},
};
use bytes::Bytes;
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use rackstrap_base::arch::Architecture;
use rackstrap_wire::{ESP_LENGTH, EspImage};
use std::io::{self, Cursor, Write};

/// What an EFI system partition is made of, for one architecture.
struct Program {
    /// Rust's and Linux's name of it.
    arch: &'static str,
    /// The firmware that starts it, for people.
    firmware: &'static str,
    bytes: &'static [u8],
    /// The file with the network loader, and the one with its CRC-32: `again.c` has the same names.
    loader: &'static str,
    crc: &'static str,
    /// The network loader by the names that distributions give it. `snponly` would not do: it uses only the card from which it was
    /// loaded, and here that is a disk.
    ipxe: &'static [&'static str],
}

const PROGRAMS: [Program; 2] = [
    Program {
        arch: "x86_64",
        firmware: "x64 UEFI",
        bytes: include_bytes!("../../../bootscripts/efi/bootx64.efi"),
        loader: "netx64.efi",
        crc: "netx64.crc",
        ipxe: &["ipxe.efi", "ipxe-x86_64.efi"],
    },
    Program {
        arch: "aarch64",
        firmware: "arm64 UEFI",
        bytes: include_bytes!("../../../bootscripts/efi/bootaa64.efi"),
        loader: "netaa64.efi",
        crc: "netaa64.crc",
        ipxe: &["ipxe-arm64.efi", "arm64-efi/ipxe.efi"],
    },
];

/// The script of the network loader, by the name that iPXE since 2021 looks for in the root of the file system that it comes from. `again.c`
/// has the same name, for older ones.
const SCRIPT: &str = "autoexec.ipxe";

/// The network loader of each program; none if the server has none.
type NetLoaders = [Option<Bytes>; PROGRAMS.len()];

/// Which disks get no network loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// All disks get it.
    None,
    /// Disks with blocks of 4096 bytes.
    LargeBlocks,
    /// All disks.
    All,
}

/// The partitions for all architectures and block sizes.
#[derive(Clone, Debug, Default)]
pub struct Esps {
    images: Vec<(EspImage, Bytes)>,
    /// The partitions that have a network loader: Rust's names of their architectures, and the sizes of the disks' blocks.
    with_loader: Vec<(&'static str, u32)>,
}

impl Esps {
    /// Makes all partitions, which takes milliseconds; `find` returns a boot loader by its name. A partition without a network loader has a
    /// program that waits and resets the machine.
    pub fn build(find: impl Fn(&str) -> Option<Bytes>) -> Self {
        let loaders = PROGRAMS.each_ref();
        Esps::make(&loaders.map(|program| program.ipxe.iter().find_map(|name| find(name))))
    }

    fn make(loaders: &NetLoaders) -> Self {
        let mut all = Esps::default();
        for (program, ipxe) in PROGRAMS.iter().zip(loaders) {
            for sector in SECTORS {
                let full = ipxe.as_ref().and_then(|ipxe| image(program, sector, Some(ipxe)));
                all.with_loader.extend(full.is_some().then_some((program.arch, sector)));
                all.images.extend(full.or_else(|| image(program, sector, None)));
            }
        }
        all
    }

    /// For each program the firmware that starts it, its processor, the names of its network loader, and the disks whose partition has none.
    pub(crate) fn programs(
        &self,
    ) -> impl Iterator<Item = (&'static str, Architecture, &'static [&'static str], Lacking)> {
        PROGRAMS.iter().filter_map(|program| {
            let arch = Architecture::of_machine(program.arch)?;
            let lacks = SECTORS.map(|sector| !self.with_loader.contains(&(program.arch, sector)));
            let lacking = match lacks {
                [false, false] => Lacking::None,
                // A file system with larger blocks has more overhead, and cannot hold what one with smaller blocks cannot.
                [false, true] => Lacking::LargeBlocks,
                [true, _] => Lacking::All,
            };
            Some((program.firmware, arch, program.ipxe, lacking))
        })
    }

    /// All partitions, as plans list them.
    pub fn images(&self) -> Vec<EspImage> {
        self.images.iter().map(|(image, _)| image.clone()).collect()
    }

    /// The bytes for `kind`, which is `x86_64-512`; none if there are no such programs.
    pub fn bytes(&self, kind: &str) -> Option<Bytes> {
        let (arch, sector) = kind.rsplit_once('-')?;
        let sector: u32 = sector.parse().ok()?;
        let mut images = self.images.iter();
        let (_, bytes) = images.find(|(image, _)| image.arch == arch && image.sector == sector)?;
        Some(bytes.clone())
    }
}

/// One partition; none if its files do not fit.
fn image(program: &Program, sector: u32, loader: Option<&[u8]>) -> Option<(EspImage, Bytes)> {
    let bytes = files(program, sector, loader).ok()?;
    let (image, bytes) = esp_image::of(bytes, program.arch, sector)?;
    Some((image, bytes.into()))
}

fn files(program: &Program, sector: u32, loader: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let sector_bytes = u16::try_from(sector).map_err(io::Error::other)?;
    let options = FormatVolumeOptions::new()
        .bytes_per_sector(sector_bytes)
        .bytes_per_cluster(sector)
        .total_sectors((ESP_LENGTH / u64::from(sector)) as u32)
        .fat_type(FatType::Fat12)
        // One sector of 4096 bytes, or two of 512: few files lie in the root.
        .max_root_dir_entries(if sector == 512 { 32 } else { 128 })
        .volume_label(*b"RACKSTRAP  ");
    let mut disk = Cursor::new(vec![0; ESP_LENGTH as usize]);
    fatfs::format_volume(&mut disk, options)?;
    let volume = FileSystem::new(&mut disk, FsOptions::new())?;
    let efi = volume.root_dir().create_dir("EFI")?;
    let write = |dir: &str, name: &str, bytes: &[u8]| -> io::Result<()> {
        efi.create_dir(dir)?.create_file(name)?.write_all(bytes)
    };
    let boot = esp_image::boot_name(program.arch).ok_or_else(|| io::Error::other(program.arch))?;
    write("BOOT", boot, program.bytes)?;
    if let Some(loader) = loader {
        let mut script = volume.root_dir().create_file(SCRIPT)?;
        script.write_all(script_for_uefi().as_bytes())?;
        drop(script);
        write("rackstrap", program.crc, &crc32fast::hash(loader).to_le_bytes())?;
        write("rackstrap", program.loader, loader)?;
    }
    drop(efi);
    volume.unmount()?;
    Ok(disk.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp_image::BLOCK;
    use std::io::Read;

    fn build(size: usize) -> Esps {
        Esps::make(&[Some(Bytes::from(vec![7; size])), None])
    }

    #[test]
    fn each_partition_has_a_program_its_loader_and_the_sum_that_the_program_checks() {
        let all = build(850_528);
        let kinds: Vec<(String, u32)> = all.images().into_iter().map(|i| (i.arch, i.sector)).collect();
        let want = [("x86_64", 512), ("x86_64", 4096), ("aarch64", 512), ("aarch64", 4096)];
        assert!(kinds.iter().map(|(arch, sector)| (arch.as_str(), *sector)).eq(want));
        for (image, bytes) in &all.images {
            assert!(bytes.len().is_multiple_of(BLOCK) && bytes.len() as u64 <= ESP_LENGTH);
            assert_eq!((bytes.len() as u32, crc32fast::hash(bytes)), (image.size, image.crc));
            assert_eq!(
                all.bytes(&format!("{}-{}", image.arch, image.sector)).as_ref(),
                Some(bytes)
            );
            let mut whole = bytes.to_vec();
            whole.resize(ESP_LENGTH as usize, 0);
            let volume = FileSystem::new(Cursor::new(whole), FsOptions::new()).unwrap();
            let read = |path: &str| {
                let mut found = Vec::new();
                let file = volume.root_dir().open_file(path);
                let mut file = file.unwrap_or_else(|error| panic!("{path} ({}): {error}", image.sector));
                file.read_to_end(&mut found).unwrap();
                found
            };
            if image.arch == "x86_64" {
                assert!(read("EFI/BOOT/BOOTX64.EFI").starts_with(b"MZ"));
                assert_eq!(read(SCRIPT), script_for_uefi().as_bytes());
                assert_eq!(read("EFI/rackstrap/netx64.efi"), vec![7; 850_528]);
                assert_eq!(
                    read("EFI/rackstrap/netx64.crc"),
                    crc32fast::hash(&[7; 850_528]).to_le_bytes()
                );
            } else {
                assert!(read("EFI/BOOT/BOOTAA64.EFI").starts_with(b"MZ"));
                assert!(volume.root_dir().open_file("EFI/rackstrap/netaa64.efi").is_err());
                assert!(volume.root_dir().open_file(SCRIPT).is_err());
            }
        }
    }

    #[test]
    fn equal_files_give_equal_bytes() {
        assert_eq!(build(1000).images, build(1000).images);
        assert_ne!(build(1000).images, build(1001).images);
    }

    #[test]
    fn a_loader_that_does_not_fit_leaves_the_program_alone_on_its_partition() {
        let all = build(ESP_LENGTH as usize);
        assert!(all.bytes("x86_64-512").is_some_and(|bytes| bytes.len() < 32 << 10));
    }

    /// Debian 13's iPXE for x64 UEFI has 996,864 bytes, that for arm64 1,011,712. The partition has 1,015,808.
    #[test]
    fn a_loader_that_fits_smaller_blocks_only_is_reported_for_the_larger_ones() {
        let of = |size| {
            let all = build(size);
            let lacking: Vec<Lacking> = all.programs().map(|(.., lacking)| lacking).collect();
            let large = |kind| all.bytes(kind).is_some_and(|bytes| bytes.len() > size);
            (lacking[0], large("x86_64-512"), large("x86_64-4096"))
        };
        assert_eq!(of(850_528), (Lacking::None, true, true));
        assert_eq!(of(996_864), (Lacking::LargeBlocks, true, false));
        assert_eq!(of(1_011_712), (Lacking::All, false, false));
        // Without a loader no disk gets one.
        assert!(build(1000).programs().any(|(.., lacking)| lacking == Lacking::All));
    }

    #[test]
    fn there_are_no_other_kinds() {
        for kind in [
            "",
            "x86_64",
            "x86_64-",
            "x86_64-1024",
            "riscv64-512",
            "-512",
            "x86_64--512",
        ] {
            assert_eq!(build(1).bytes(kind), None, "{kind}");
        }
    }
}
