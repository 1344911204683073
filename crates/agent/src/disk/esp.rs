//! The EFI system partition of a prepared disk: a program that asks the network without end, for UEFI.
//!
//! The server makes its content, and names it in the plan by size and CRC-32. It lies in the gap between the GPT and the marker
//! partition, which no layout uses. So layouts, digests and the partitions in use do not change, and disks get it that were prepared
//! before it existed. Only the GPT of a disk that carries our final marker gets the entry, and only while nothing else is in the gap.
//!
//! Power cuts: the content precedes the entry. Its first block, without which it is no file system, is zeroed first and written last. A
//! new entry is written to the backup table before the primary one, with a flush between, so one valid table exists at any moment.
//!
//! A layout can have an EFI system partition of its own, which holds more. Agents from before know it as a raw partition, and place it alike.
//! So the disk of such a layout is prepared as all others are; then this file writes the content, in the same manner, and changes the type
//! in the entry. It does so only if the marker has the digest of that layout: a raw partition of another one is left alone.

use super::{
    device::{BlockDevice, write_zeroes},
    gptread::{self, Gpt, Raw, RawTable},
    marker::{self, MarkerState, Record, Sector0},
};
use crate::fail::{Doing, Failure, Res};
use rackstrap_wire::{DiskPlan, ESP_AT, ESP_LENGTH, EspImage, MOST_ESP_IMAGE, PartitionTable, Size};
use uuid::Uuid;

/// Type of an EFI system partition (UEFI 2.10, 5.3.3).
pub(super) const TYPE: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
/// Type of a raw partition (`LINUX_FS` of the `gpt` crate), which a layout's EFI system partition has at first.
const RAW_TYPE: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
/// The name of ours in the gap. Names of layouts' partitions have neither blanks nor capitals.
const NAME: &str = "rackstrap EFI";
/// Bit 63 of an entry's attributes: systemd and other systems mount the partition nowhere by themselves.
const NO_AUTO: u64 = 1 << 63;
/// Sizes of images are multiples of this many bytes.
const BLOCK: u64 = 4096;

/// A change of a GPT.
type Change<'a> = &'a mut dyn FnMut(&mut RawTable) -> Res<()>;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The partition is as wanted.
    Same,
    /// It was made, or its content was replaced.
    Written,
    /// The disk has an MBR, or the server has no partition for this machine.
    NotFor,
}

/// Gives a prepared disk the one of `wanted` that is for this machine and this disk.
pub fn install(
    device: &mut dyn BlockDevice,
    wanted: &[EspImage],
    arch: &str,
    new_uuid: &mut dyn FnMut() -> Uuid,
    fetch: &mut dyn FnMut(&EspImage) -> Res<Vec<u8>>,
) -> Res<Installed> {
    let Some(wanted) = for_this(device, wanted, arch) else {
        return Ok(Installed::NotFor);
    };
    if marked(device)?.table != PartitionTable::Gpt {
        return Ok(Installed::NotFor);
    }
    let has_entry = entry(device)?;
    has_room_for_tables(device, ESP_AT)?;
    let new_content = complete_content(device, wanted, (ESP_AT, ESP_LENGTH), fetch)?;
    let sector = u64::from(device.sector());
    let change: Change<'_> = &mut |table| add_entry(table, &encode_entry(sector, new_uuid())?);
    let table = complete_table(device, (!has_entry).then_some(change));
    let table_written = table.doing(|| "adding the EFI system partition to the GPT".into())?;
    Ok(match new_content || table_written {
        true => Installed::Written,
        false => Installed::Same,
    })
}

/// Gives the EFI system partition of the plan's layout, on a prepared disk, the content for this machine and this disk. `digest` is the
/// plan's, as bytes.
pub fn install_in_layout(
    device: &mut dyn BlockDevice,
    plan: &DiskPlan,
    digest: [u8; 16],
    arch: &str,
    fetch: &mut dyn FnMut(&EspImage) -> Res<Vec<u8>>,
) -> Res<Installed> {
    let Some(esp) = &plan.layout_esp else {
        return Ok(Installed::NotFor);
    };
    let Some(wanted) = for_this(device, &esp.images, arch) else {
        return Ok(Installed::NotFor);
    };
    let layout = &plan.layout;
    let index = layout.partitions.iter().position(|p| p.name == esp.partition);
    let size = index.map(|index| layout.partitions[index].size);
    let (Some(index), Some(Size::Bytes(len))) = (index, size) else {
        return Err(Failure::new(format!(
            "the layout has no partition {} of a fixed size",
            esp.partition
        )));
    };
    let number = super::geometry::partition_number(layout.table, index);
    let record = marked(device)?;
    if record.digest != digest || record.table != PartitionTable::Gpt {
        return Err(Failure::new(format!(
            "the disk was prepared before layout {} had this EFI system partition; raise the layout's version",
            layout.name
        )));
    }
    let Gpt::Valid(entries) = gptread::read(device).doing(|| "reading the GPT".into())? else {
        return Err(Failure::new("the GPT cannot be read"));
    };
    let is_ours = |e: &&gptread::Entry| {
        e.number == number && e.name == esp.partition && e.len == len && matches!(e.kind.as_str(), TYPE | RAW_TYPE)
    };
    let Some(entry) = entries.iter().find(is_ours) else {
        return Err(Failure::new(format!(
            "partition {number} is not the EFI system partition that rackstrap made; it was left alone"
        )));
    };
    has_room_for_tables(device, entry.start)?;
    let new_content = complete_content(device, wanted, (entry.start, entry.len), fetch)?;
    let change: Change<'_> = &mut |table| change_type(table, number);
    let table = complete_table(device, (entry.kind != TYPE).then_some(change));
    let table_written = table.doing(|| "changing the partition's type in the GPT".into())?;
    Ok(match new_content || table_written {
        true => Installed::Written,
        false => Installed::Same,
    })
}

fn for_this<'a>(device: &dyn BlockDevice, images: &'a [EspImage], arch: &str) -> Option<&'a EspImage> {
    let sector = device.sector();
    images.iter().find(|esp| esp.arch == arch && esp.sector == sector)
}

/// The record of a disk whose sector 0 is final.
fn marked(device: &mut dyn BlockDevice) -> Res<Record> {
    let mut sector0 = [0; 512];
    device.read_at(0, &mut sector0).doing(|| "reading sector 0".into())?;
    match marker::decode_sector0(&sector0) {
        Sector0::Ours(Some(record), MarkerState::Final) => Ok(record),
        _ => Err(Failure::new("sector 0 was changed since rackstrap wrote it")),
    }
}

/// Makes the partition at `place`, start and length in bytes, have the content `wanted`. Returns true if it was written.
fn complete_content(
    device: &mut dyn BlockDevice,
    wanted: &EspImage,
    place: (u64, u64),
    fetch: &mut dyn FnMut(&EspImage) -> Res<Vec<u8>>,
) -> Res<bool> {
    let (start, room) = (place.0, place.1.min(MOST_ESP_IMAGE.into()));
    let size = u64::from(wanted.size);
    if size == 0 || size > room || !size.is_multiple_of(BLOCK) {
        return Err(Failure::new(format!(
            "the EFI system partition of the server has {size} bytes; the disk has room for {room}, in steps of {BLOCK}"
        )));
    }
    let mut found = vec![0; wanted.size as usize];
    device
        .read_at(start, &mut found)
        .doing(|| "reading the EFI system partition".into())?;
    if crc32fast::hash(&found) == wanted.crc {
        return Ok(false);
    }
    drop(found);
    let bytes = fetch(wanted)?;
    if bytes.len() as u64 != size || crc32fast::hash(&bytes) != wanted.crc {
        return Err(Failure::new(
            "the EFI system partition from the server is damaged; nothing was written",
        ));
    }
    write(device, start, &bytes).doing(|| "writing the EFI system partition".into())?;
    Ok(true)
}

/// Refuses a disk on which a copy of the table, as [`complete_table`] would write it, covers other data. The entries of the primary copy begin
/// at LBA 2, and end before `content`, in bytes, and before all partitions. Those of the backup copy begin behind all partitions. A checksum
/// does not show this: other programs enlarge tables, and anybody who can write to the disk can compute it.
fn has_room_for_tables(device: &mut dyn BlockDevice, content: u64) -> Res<()> {
    let sector = u64::from(device.sector());
    let size = device.size();
    let last = size / sector - 1;
    for lba in [1, last] {
        let raw = gptread::raw(device, lba, sector, size, false).doing(|| "reading the GPT".into())?;
        let Raw::Valid(table) = raw else { continue };
        let blocks = (table.entries.len() as u64).div_ceil(sector);
        let (count, each) = (table.entries.len() / table.entry_len, table.entry_len);
        let place = &table.header[72..80];
        if lba == 1 && place != 2_u64.to_le_bytes() {
            return Err(Failure::new(
                "the entries of its GPT are not behind the header, the place where they are written; nothing was written",
            ));
        }
        let partitions = gptread::used(&table, sector, size);
        let mut first = ("the EFI system partition".to_owned(), content);
        let mut end = ("the gap".to_owned(), 0);
        for partition in &partitions {
            let name = || format!("partition {} ({})", partition.number, partition.name);
            if partition.start < first.1 {
                first = (name(), partition.start);
            }
            if partition.start + partition.len > end.1 {
                end = (name(), partition.start + partition.len);
            }
        }
        let primary_end = (2 + blocks) * sector;
        let backup_start = last.saturating_sub(blocks) * sector;
        let (other, at) = match () {
            () if primary_end > first.1 => (first.0, format!("begins at byte {}", first.1)),
            () if backup_start < end.1 => (end.0, format!("ends at byte {}", end.1)),
            () => continue,
        };
        return Err(Failure::new(format!(
            "its GPT has {count} entries of {each} bytes, which would cover {other}: that {at}; nothing was written. `rackstrap node reprep` \
             makes a new table"
        )));
    }
    Ok(())
}

/// Whether the table has our entry. Any other partition in the gap is an error.
fn entry(device: &mut dyn BlockDevice) -> Res<bool> {
    let Gpt::Valid(entries) = gptread::read(device).doing(|| "reading the GPT".into())? else {
        return Err(Failure::new("the GPT cannot be read"));
    };
    let mut inside = entries.iter().filter(|entry| entry.start < ESP_AT + ESP_LENGTH);
    match inside.next() {
        None => Ok(false),
        Some(e) if e.kind == TYPE && e.name == NAME && (e.start, e.len) == (ESP_AT, ESP_LENGTH) => Ok(true),
        Some(other) => Err(Failure::new(format!(
            "partition {} is not rackstrap's, and begins in the first MiB of the disk; it was left alone",
            other.number
        ))),
    }
}

fn write(device: &mut dyn BlockDevice, start: u64, bytes: &[u8]) -> std::io::Result<()> {
    let first = device.sector() as usize;
    write_zeroes(device, start, first as u64)?;
    device.flush()?;
    device.write_at(start + first as u64, &bytes[first..])?;
    device.flush()?;
    device.write_at(start, &bytes[..first])?;
    device.flush()
}

/// Makes both copies of the table have our entry, which `change` makes; none if the table in use has it. Returns true if a copy was written. A
/// power cut in an earlier run can have left one of them without the entry, or damaged.
fn complete_table(device: &mut dyn BlockDevice, change: Option<Change<'_>>) -> Res<bool> {
    let sector = u64::from(device.sector());
    let size = device.size();
    let last = size / sector - 1;
    let reading = || "reading the GPT".to_owned();
    let primary = gptread::raw(device, 1, sector, size, false).doing(reading)?;
    let backup = gptread::raw(device, last, sector, size, false).doing(reading)?;
    let (mut new, old) = match (&primary, &backup) {
        // The disk has another size than when it was prepared.
        (_, Raw::None) => return Err(Failure::new("its backup copy is not at the end of the disk")),
        (Raw::Valid(table), _) => (table.clone(), [&backup, &primary]),
        (_, Raw::Valid(table)) if change.is_none() => (table.clone(), [&backup, &primary]),
        _ => {
            return Err(Failure::new(
                "its primary copy is damaged; `gdisk` repairs it, and `rackstrap node reprep` makes a new one",
            ));
        }
    };
    if let Some(change) = change {
        change(&mut new)?;
    }
    let blocks = (new.entries.len() as u64).div_ceil(sector);
    let mut written = false;
    for (old, lba, other, entries_at) in [(old[0], last, 1, last - blocks), (old[1], 1, last, 2)] {
        // LBAs of this copy, of the other one, and of the entries (UEFI 2.10, 5.3.2).
        for (at, value) in [(24, lba), (32, other), (72, entries_at)] {
            new.header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        checksum(&mut new);
        if matches!(old, Raw::Valid(old) if old.header == new.header && old.entries == new.entries) {
            continue;
        }
        let doing = || "writing the GPT".to_owned();
        device.write_at(entries_at * sector, &new.entries).doing(doing)?;
        device.write_at(lba * sector, &new.header).doing(doing)?;
        device.flush().doing(doing)?;
        written = true;
    }
    Ok(written)
}

/// Our entry (UEFI 2.10, 5.3.3).
fn encode_entry(sector: u64, id: Uuid) -> Res<[u8; 128]> {
    let kind: Uuid = TYPE.parse().doing(|| "reading the type".into())?;
    let mut bytes = [0; 128];
    bytes[..16].copy_from_slice(&kind.to_bytes_le());
    bytes[16..32].copy_from_slice(&id.to_bytes_le());
    bytes[32..40].copy_from_slice(&(ESP_AT / sector).to_le_bytes());
    bytes[40..48].copy_from_slice(&((ESP_AT + ESP_LENGTH) / sector - 1).to_le_bytes());
    bytes[48..56].copy_from_slice(&NO_AUTO.to_le_bytes());
    for (to, from) in bytes[56..].chunks_exact_mut(2).zip(NAME.encode_utf16()) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    Ok(bytes)
}

/// Makes entry `number` that of an EFI system partition.
fn change_type(table: &mut RawTable, number: u32) -> Res<()> {
    let kind: Uuid = TYPE.parse().doing(|| "reading the type".into())?;
    let mut all = table.entries.chunks_exact_mut(table.entry_len);
    let entry = (number as usize).checked_sub(1).and_then(|index| all.nth(index));
    let entry = entry.ok_or_else(|| Failure::new("its entry is missing"))?;
    entry[..16].copy_from_slice(&kind.to_bytes_le());
    entry[48..56].copy_from_slice(&NO_AUTO.to_le_bytes());
    Ok(())
}

/// Puts the entry behind the last one in use, or else into the first free place.
fn add_entry(table: &mut RawTable, entry: &[u8; 128]) -> Res<()> {
    // The type of an unused entry is zero.
    let used = |e: &[u8]| e[..16] != [0; 16];
    let places: Vec<bool> = table.entries.chunks_exact(table.entry_len).map(used).collect();
    let behind = places.iter().rposition(|used| *used).map_or(0, |last| last + 1);
    let free = Some(behind).filter(|at| *at < places.len());
    let free = free.or_else(|| places.iter().position(|used| !used));
    let at = free.ok_or_else(|| Failure::new("all of its entries are in use"))? * table.entry_len;
    table.entries[at..at + entry.len()].copy_from_slice(entry);
    Ok(())
}

/// Corrects the checksums of the entries and of the header.
fn checksum(table: &mut RawTable) {
    let crc = crc32fast::hash(&table.entries);
    table.header[88..92].copy_from_slice(&crc.to_le_bytes());
    table.header[16..20].fill(0);
    let crc = crc32fast::hash(&table.header[..table.header_len]);
    table.header[16..20].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
#[path = "esp_tests.rs"]
mod tests;
