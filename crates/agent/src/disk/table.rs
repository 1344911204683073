//! Writes partition tables that contain the marker.

use super::{
    bootcode,
    device::{BlockDevice, Cursor},
    geometry::Geometry,
    marker::{self, MarkerState, Record},
};
use crate::fail::{Doing, Failure, Res};
use gpt::{disk::LogicalBlockSize, mbr::PartRecord, partition::Partition, partition_types};
use rackstrap_wire::{FileSystem, Layout, PartitionTable};
use std::{collections::BTreeMap, io};
use uuid::Uuid;

/// Source of GUIDs: random in the agent, counted in tests.
pub type NewUuid<'a> = &'a mut dyn FnMut() -> Uuid;

/// Writes sector 0 as one logical block: boot code, record, entry, and the given partition entries.
pub fn write_sector0(
    device: &mut dyn BlockDevice,
    record: &Record,
    state: MarkerState,
    entries: &[[u8; 16]; 3],
    disk_signature: [u8; 4],
) -> io::Result<()> {
    let mut block = vec![0; device.sector() as usize];
    block[..512].copy_from_slice(&marker::encode_sector0(record, state, entries, disk_signature));
    let code = bootcode::code(record.table, device.sector());
    block[..code.len()].copy_from_slice(&code);
    device.write_at(0, &block)
}

/// The random number of the disk in sector 0: the present one if the disk is ours, or else a new one. It survives preparations,
/// so that the disk is recognised by it.
pub fn disk_number(device: &mut dyn BlockDevice, new_uuid: NewUuid<'_>) -> io::Result<[u8; 4]> {
    let mut sector = [0; 512];
    device.read_at(0, &mut sector)?;
    let ours = marker::decode_sector0(&sector) != marker::Sector0::NotOurs;
    let number = marker::disk_signature_of(&sector);
    Ok(match ours && number != [0; 4] {
        true => number,
        false => std::array::from_fn(|i| new_uuid().as_bytes()[i]),
    })
}

/// Changes only the state in sector 0; this commits a preparation.
pub fn write_state(device: &mut dyn BlockDevice, record: &Record, state: MarkerState) -> io::Result<()> {
    let mut sector = [0; 512];
    device.read_at(0, &mut sector)?;
    let (entries, signature) = (marker::entries_of(&sector), marker::disk_signature_of(&sector));
    write_sector0(device, record, state, &entries, signature)
}

/// Writes the record into the marker partition of a GPT, as one logical block.
pub fn write_partition_record(device: &mut dyn BlockDevice, record: &Record, state: MarkerState) -> io::Result<()> {
    let mut block = vec![0; device.sector() as usize];
    block[..marker::RECORD_LEN].copy_from_slice(&marker::encode_record(record, state));
    device.write_at(marker::PARTITION_AT, &block)
}

/// Writes the table while sector 0 still says "in progress".
pub fn write_table(
    device: &mut dyn BlockDevice,
    layout: &Layout,
    geometry: &Geometry,
    record: &Record,
    new_uuid: NewUuid<'_>,
) -> Res<()> {
    let mut sector = [0; 512];
    device.read_at(0, &mut sector).doing(|| "reading sector 0".into())?;
    let signature = marker::disk_signature_of(&sector);
    let entries = match layout.table {
        PartitionTable::Gpt => {
            write_gpt(device, layout, geometry, record, new_uuid)?;
            let blocks = device.size() / u64::from(device.sector()) - 1;
            let protective = PartRecord::new_protective(Some(u32::try_from(blocks).unwrap_or(u32::MAX)));
            [protective.to_bytes(), [0; 16], [0; 16]]
        }
        PartitionTable::Mbr => mbr_entries(device, layout, geometry)?,
    };
    write_sector0(device, record, MarkerState::InProgress, &entries, signature).doing(|| "writing sector 0".into())
}

fn write_gpt(
    device: &mut dyn BlockDevice,
    layout: &Layout,
    geometry: &Geometry,
    record: &Record,
    new_uuid: NewUuid<'_>,
) -> Res<()> {
    let doing = || "writing the GPT".to_owned();
    write_partition_record(device, record, MarkerState::InProgress).doing(doing)?;
    let sector = u64::from(device.sector());
    let block_size = LogicalBlockSize::try_from(sector).map_err(|_| {
        Failure::new(format!(
            "a GPT on a disk with blocks of {sector} bytes cannot be written"
        ))
    })?;
    let marker_range = geometry
        .marker
        .ok_or_else(|| Failure::new("the geometry has no marker partition"))?;
    let marker_type = partition_types::Type {
        guid: marker::PARTITION_TYPE.parse().doing(doing)?,
        os: partition_types::OperatingSystem::None,
    };
    let names = std::iter::once(marker::partition_name(record)).chain(layout.partitions.iter().map(|p| p.name.clone()));
    let kinds = std::iter::once(marker_type).chain(layout.partitions.iter().map(|p| match p.fs {
        FileSystem::Swap => partition_types::LINUX_SWAP,
        FileSystem::Vfat => partition_types::BASIC,
        _ => partition_types::LINUX_FS,
    }));
    let ranges = std::iter::once(marker_range).chain(geometry.partitions.iter().copied());
    let mut partitions = BTreeMap::new();
    for (number, ((name, kind), range)) in (1..).zip(names.zip(kinds).zip(ranges)) {
        // The crate accepts ranges past the end of the disk.
        if range.end() > device.size() {
            return Err(Failure::new(format!(
                "partition {name} would end past the end of the disk"
            )));
        }
        let partition = Partition {
            part_type_guid: kind,
            part_guid: new_uuid(),
            first_lba: range.start / sector,
            last_lba: range.end() / sector - 1,
            flags: 0,
            name,
        };
        partitions.insert(number, partition);
    }
    let config = gpt::GptConfig::new().writable(true).logical_block_size(block_size);
    let mut disk = config
        .create_from_device(Cursor::new(device), Some(new_uuid()))
        .doing(doing)?;
    disk.update_partitions(partitions).doing(doing)?;
    disk.write_inplace().doing(doing)
}

/// The three partition entries of an MBR, made by the `mbrman` crate, which checks them.
fn mbr_entries(device: &mut dyn BlockDevice, layout: &Layout, geometry: &Geometry) -> Res<[[u8; 16]; 3]> {
    let doing = || "writing the MBR".to_owned();
    let sector = device.sector();
    let mut mbr = mbrman::MBR::new_from(&mut Cursor::new(device), sector, [0; 4]).doing(doing)?;
    for (i, (partition, range)) in layout.partitions.iter().zip(&geometry.partitions).enumerate() {
        let blocks = |bytes: u64| {
            u32::try_from(bytes / u64::from(sector))
                .doing(|| format!("partition {} past the range of an MBR", partition.name))
        };
        mbr[i + 1] = mbrman::MBRPartitionEntry {
            boot: mbrman::BOOT_INACTIVE,
            first_chs: mbrman::CHS::empty(),
            sys: match partition.fs {
                FileSystem::Swap => 0x82,
                FileSystem::Vfat => 0x0c,
                _ => 0x83,
            },
            last_chs: mbrman::CHS::empty(),
            starting_lba: blocks(range.start)?,
            sectors: blocks(range.len)?,
        };
    }
    // This writes to memory: on the disk sector 0 is always written as a whole, with our marker in it.
    let mut image = io::Cursor::new(vec![0; sector.max(512) as usize]);
    mbr.write_into(&mut image).doing(doing)?;
    let sector0: &[u8; 512] = image
        .get_ref()
        .first_chunk()
        .ok_or_else(|| Failure::new("the MBR is shorter than a sector"))?;
    Ok(marker::entries_of(sector0))
}
