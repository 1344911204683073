//! EFI system partitions that rackstrap did not write: UEFI firmware starts the system on them by itself, if it tries the disk before the
//! network. The disks are only read.

use super::{
    candidate::candidates,
    choose::{is_drive, partition_name},
    device::{BlockDevice, FileDevice},
    esp,
    gptread::{self, Gpt},
    inspect,
};
use rackstrap_wire::MOST_FOREIGN_ESPS;
use std::{io, path::Path};

/// Type of an EFI system partition in an MBR (UEFI 2.10, 5.2.2).
const MBR_TYPE: u8 = 0xef;
/// Disks that are read at most.
const MOST_DISKS: usize = 64;

/// The names of these partitions on all disks, `sda1`, at most [`MOST_FOREIGN_ESPS`]. A disk that cannot be read has none.
pub fn of_all_disks() -> Vec<String> {
    let mut disks = candidates(Path::new("/sys/block"));
    disks.retain(is_drive);
    disks.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    let numbers = |name: &str| on_disk(&mut FileDevice::open(&Path::new("/dev").join(name), false)?);
    let of_disk = |name: &str| -> Vec<String> {
        let numbers = numbers(name).unwrap_or_default();
        numbers.iter().map(|number| partition_name(name, *number)).collect()
    };
    let names = disks.iter().take(MOST_DISKS).flat_map(|disk| of_disk(&disk.name));
    names.take(MOST_FOREIGN_ESPS).collect()
}

/// The numbers of these partitions on a disk. All partitions of a disk with rackstrap's marker are rackstrap's.
pub(super) fn on_disk(device: &mut dyn BlockDevice) -> io::Result<Vec<u32>> {
    if inspect::inspect(device)?.is_ours() {
        return Ok(Vec::new());
    }
    if let Gpt::Valid(entries) = gptread::read(device)? {
        let of_type = entries.iter().filter(|entry| entry.kind == esp::TYPE);
        return Ok(of_type.map(|entry| entry.number).collect());
    }
    let mut sector = [0; 512];
    device.read_at(0, &mut sector)?;
    if sector[510..] != [0x55, 0xaa] {
        return Ok(Vec::new());
    }
    // The four entries of an MBR, each with its type in the fifth byte.
    let entries = (1..).zip(sector[446..510].chunks_exact(16));
    let of_type = entries.filter(|(_, entry)| entry[4] == MBR_TYPE);
    Ok(of_type.map(|(number, _)| number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{device::Cursor, model::Model};
    use gpt::{disk::LogicalBlockSize, partition::Partition, partition_types};
    use std::collections::BTreeMap;
    use uuid::Uuid;

    const MIB: u64 = 1 << 20;

    /// A disk as an installer of another system leaves it.
    fn foreign_gpt(sector: u64) -> Model {
        let mut disk = Model::new(8 * MIB, sector as u32);
        let config = gpt::GptConfig::new()
            .writable(true)
            .logical_block_size(LogicalBlockSize::try_from(sector).unwrap());
        let on = Cursor::new(&mut disk);
        let mut table = config.create_from_device(on, Some(Uuid::new_v4())).unwrap();
        let kinds = [partition_types::BIOS, partition_types::EFI, partition_types::LINUX_FS];
        let mut partitions = BTreeMap::new();
        for (number, kind) in (1_u32..).zip(kinds) {
            let partition = Partition {
                part_type_guid: kind,
                part_guid: Uuid::new_v4(),
                first_lba: u64::from(number) * MIB / sector,
                last_lba: u64::from(number + 1) * MIB / sector - 1,
                flags: 0,
                name: String::new(),
            };
            partitions.insert(number, partition);
        }
        table.update_partitions(partitions).unwrap();
        table.write_inplace().unwrap();
        disk
    }

    #[test]
    fn another_systems_partition_is_found_in_either_table_of_its_disk() {
        for sector in [512, 4096] {
            let mut disk = foreign_gpt(sector);
            assert_eq!(on_disk(&mut disk).unwrap(), [2], "blocks of {sector}");
            // The backup table alone.
            disk.write_at(sector, &[0; 512]).unwrap();
            disk.flush().unwrap();
            assert_eq!(on_disk(&mut disk).unwrap(), [2], "blocks of {sector}");
        }
        // An MBR, as on USB sticks.
        let mut disk = Model::new(MIB, 512);
        let mut sector = [0; 512];
        sector[446 + 4] = 0x0c;
        sector[446 + 16 + 4] = MBR_TYPE;
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        disk.write_at(0, &sector).unwrap();
        disk.flush().unwrap();
        assert_eq!(on_disk(&mut disk).unwrap(), [2]);
        sector[511] = 0;
        disk.write_at(0, &sector).unwrap();
        disk.flush().unwrap();
        assert!(on_disk(&mut disk).unwrap().is_empty(), "no table");
    }

    #[test]
    fn a_blank_a_tiny_and_a_damaged_disk_have_none() {
        assert!(on_disk(&mut Model::new(MIB, 512)).unwrap().is_empty());
        assert!(on_disk(&mut Model::new(512, 512)).unwrap_or_default().is_empty());
        let mut disk = foreign_gpt(512);
        // Both headers name entries whose checksum is wrong.
        let size = disk.size();
        for at in [1024 + 128, size - 33 * 512 + 128] {
            disk.write_at(at, &[0xff; 512]).unwrap();
        }
        disk.flush().unwrap();
        assert!(on_disk(&mut disk).unwrap().is_empty());
    }
}
