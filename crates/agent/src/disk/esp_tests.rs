use super::*;
use crate::disk::{
    foreign_esp, geometry,
    inspect::{Finding, inspect},
    marker::Record,
    model::Model,
    table,
};
use rackstrap_wire::{FileSystem, Layout, LayoutEsp, Partition};

const MIB: u64 = 1 << 20;

fn partition(name: &str, size: Size) -> Partition {
    Partition {
        name: name.into(),
        size,
        fs: FileSystem::Raw,
        mount: None,
        options: String::new(),
    }
}

/// A prepared disk with two partitions, as an agent from before EFI system partitions left it.
fn prepared(kind: PartitionTable, sector: u32) -> Model {
    let layout = Layout {
        name: "scratch".into(),
        version: 1,
        table: kind,
        partitions: vec![partition("a", Size::Bytes(MIB)), partition("b", Size::Rest)],
    };
    let record = Record {
        name: "scratch".into(),
        version: 1,
        digest: [3; 16],
        table: kind,
    };
    let mut disk = Model::new(6 * MIB, sector);
    let geometry = geometry::place(&layout, disk.size(), sector).unwrap();
    table::write_table(&mut disk, &layout, &geometry, &record, &mut Uuid::new_v4).unwrap();
    if kind == PartitionTable::Gpt {
        table::write_partition_record(&mut disk, &record, MarkerState::Final).unwrap();
    }
    table::write_state(&mut disk, &record, MarkerState::Final).unwrap();
    disk.flush().unwrap();
    disk.writes = 0;
    disk
}

fn image(fill: u8, sector: u32) -> (EspImage, Vec<u8>) {
    let bytes = vec![fill; 3 * BLOCK as usize];
    let image = EspImage {
        arch: "x86_64".into(),
        sector,
        size: bytes.len() as u32,
        crc: crc32fast::hash(&bytes),
    };
    (image, bytes)
}

fn put(disk: &mut Model, (image, bytes): &(EspImage, Vec<u8>)) -> Res<Installed> {
    let other = EspImage {
        arch: "aarch64".into(),
        ..image.clone()
    };
    let mut new_uuid = || Uuid::from_u128(7);
    let all = [other, image.clone()];
    install(disk, &all, "x86_64", &mut new_uuid, &mut |_| Ok(bytes.clone()))
}

fn entries(disk: &mut Model) -> Vec<gptread::Entry> {
    match gptread::read(disk).unwrap() {
        Gpt::Valid(entries) => entries,
        other => panic!("{other:?}"),
    }
}

fn both_copies_are_valid(disk: &mut Model) -> bool {
    let (sector, size) = (u64::from(disk.sector), disk.size());
    let copies = [1, size / sector - 1].map(|lba| gptread::raw(disk, lba, sector, size, false).unwrap());
    matches!(&copies, [Raw::Valid(a), Raw::Valid(b)] if a.entries == b.entries)
}

#[test]
fn an_older_disk_gets_the_partition_once_and_keeps_all_others() {
    for sector in [512, 4096] {
        let mut disk = prepared(PartitionTable::Gpt, sector);
        let before = entries(&mut disk);
        let rest = disk.durable[MIB as usize..(5 * MIB) as usize].to_vec();
        let first = image(1, sector);
        assert_eq!(put(&mut disk, &first), Ok(Installed::Written));
        let after = entries(&mut disk);
        assert_eq!(after[..before.len()], before);
        let [new] = &after[before.len()..] else {
            panic!("{after:?}")
        };
        assert_eq!((new.number, new.kind.as_str(), new.name.as_str()), (4, TYPE, NAME));
        assert_eq!((new.start, new.start + new.len), (ESP_AT, MIB));
        assert_eq!(disk.durable[ESP_AT as usize..][..first.1.len()], first.1);
        assert!(disk.durable[MIB as usize..(5 * MIB) as usize] == rest);
        assert!(both_copies_are_valid(&mut disk));
        assert!(matches!(
            inspect(&mut disk),
            Ok(Finding::Ours {
                state: MarkerState::Final,
                ..
            })
        ));

        let writes = disk.writes;
        assert_eq!(put(&mut disk, &first), Ok(Installed::Same));
        assert_eq!(disk.writes, writes, "an unchanged disk was written to");
        assert_eq!(put(&mut disk, &image(2, sector)), Ok(Installed::Written));
        assert_eq!(entries(&mut disk), after);
    }
}

#[test]
fn any_power_cut_leaves_a_whole_disk_and_the_next_boot_ends_the_same() {
    let start = prepared(PartitionTable::Gpt, 512);
    let wanted = image(5, 512);
    let mut end = start.clone();
    put(&mut end, &wanted).unwrap();
    let old = entries(&mut start.clone());
    for n in 0..=end.writes {
        for kind in 0..3 {
            let mut disk = start.clone();
            disk.left = Some(n);
            let _ = put(&mut disk, &wanted);
            let mut odd = false;
            disk.cut(|| {
                odd = !odd;
                kind == 1 || kind == 2 && odd
            });
            assert_eq!(entries(&mut disk)[..old.len()], old, "cut at {n} ({kind})");
            assert!(matches!(
                inspect(&mut disk),
                Ok(Finding::Ours {
                    state: MarkerState::Final,
                    ..
                })
            ));
            put(&mut disk, &wanted).unwrap();
            assert!(disk.durable == end.durable, "cut at {n} ({kind}): the end differs");
        }
    }
}

#[test]
fn nothing_is_written_to_a_disk_that_is_not_as_rackstrap_left_it() {
    let wanted = image(1, 512);
    let mut foreign_esp = prepared(PartitionTable::Gpt, 512);
    put(&mut foreign_esp, &wanted).unwrap();
    // The same partition under another name: an administrator's, or another system's.
    let at = 1024 + 3 * 128 + 56;
    foreign_esp.durable[at] = b'X';
    let crc = crc32fast::hash(&foreign_esp.durable[1024..1024 + 128 * 128]);
    foreign_esp.durable[512 + 88..512 + 92].copy_from_slice(&crc.to_le_bytes());
    foreign_esp.durable[512 + 16..512 + 20].fill(0);
    let crc = crc32fast::hash(&foreign_esp.durable[512..512 + 92]);
    foreign_esp.durable[512 + 16..512 + 20].copy_from_slice(&crc.to_le_bytes());
    let mut no_table = prepared(PartitionTable::Gpt, 512);
    no_table.durable[512..1024].fill(0);
    let end = no_table.durable.len();
    no_table.durable[end - 512..].fill(0);
    let mut primary_damaged = prepared(PartitionTable::Gpt, 512);
    primary_damaged.durable[512 + 60] ^= 1;
    let mut other_sector0 = prepared(PartitionTable::Gpt, 512);
    other_sector0.durable[400] ^= 1;
    for (mut disk, why) in [
        (foreign_esp, "partition 4 is not rackstrap's"),
        (no_table, "the GPT cannot be read"),
        (other_sector0, "sector 0 was changed"),
    ] {
        let before = disk.durable.clone();
        let refused = put(&mut disk, &image(9, 512)).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
        assert!(disk.durable == before && disk.cached.is_empty(), "{why}");
    }
    // Somebody else's damage is not repaired.
    let table = primary_damaged.durable[512..ESP_AT as usize].to_vec();
    let refused = put(&mut primary_damaged, &wanted).unwrap_err().to_string();
    assert!(refused.contains("primary copy is damaged"), "{refused}");
    assert!(primary_damaged.durable[512..ESP_AT as usize] == table);
}

#[test]
fn a_damaged_or_oversized_image_is_not_written() {
    let mut disk = prepared(PartitionTable::Gpt, 512);
    let before = disk.durable.clone();
    let (good, mut bytes) = image(1, 512);
    bytes[77] ^= 1;
    assert!(put(&mut disk, &(good.clone(), bytes)).is_err());
    for size in [0, 4095, ESP_LENGTH as u32 + 4096, u32::MAX] {
        let bad = EspImage { size, ..good.clone() };
        assert!(put(&mut disk, &(bad, Vec::new())).is_err(), "{size}");
    }
    assert!(disk.durable == before && disk.cached.is_empty());
}

#[test]
fn disks_with_an_mbr_and_other_machines_get_none() {
    let mut disk = prepared(PartitionTable::Mbr, 512);
    assert_eq!(put(&mut disk, &image(1, 512)), Ok(Installed::NotFor));
    assert_eq!(
        put(&mut prepared(PartitionTable::Gpt, 4096), &image(1, 512)),
        Ok(Installed::NotFor)
    );
    let none = install(&mut disk, &[], "x86_64", &mut Uuid::new_v4, &mut |_| panic!("fetched"));
    assert_eq!((none, disk.writes), (Ok(Installed::NotFor), 0));
}

/// A disk of a layout with an EFI system partition, as any agent prepares it, and the plan.
fn with_esp(sector: u32) -> (Model, DiskPlan) {
    let mut plan = rackstrap_wire::testing::disk();
    plan.layout.partitions = vec![partition("esp", Size::Bytes(MIB)), partition("b", Size::Rest)];
    plan.layout_esp = Some(LayoutEsp {
        partition: "esp".into(),
        images: Vec::new(),
    });
    let record = Record {
        name: plan.layout.name.clone(),
        version: 1,
        digest: [3; 16],
        table: PartitionTable::Gpt,
    };
    let mut disk = Model::new(6 * MIB, sector);
    let geometry = geometry::place(&plan.layout, disk.size(), sector).unwrap();
    table::write_table(&mut disk, &plan.layout, &geometry, &record, &mut Uuid::new_v4).unwrap();
    table::write_partition_record(&mut disk, &record, MarkerState::Final).unwrap();
    table::write_state(&mut disk, &record, MarkerState::Final).unwrap();
    disk.flush().unwrap();
    disk.writes = 0;
    (disk, plan)
}

fn put_in_layout(disk: &mut Model, plan: &DiskPlan, (image, bytes): &(EspImage, Vec<u8>)) -> Res<Installed> {
    let mut plan = plan.clone();
    if let Some(esp) = &mut plan.layout_esp {
        esp.images = vec![image.clone()];
    }
    install_in_layout(disk, &plan, [3; 16], "x86_64", &mut |_| Ok(bytes.clone()))
}

#[test]
fn the_partition_of_a_layout_gets_its_type_and_content_and_is_written_only_when_they_differ() {
    for sector in [512, 4096] {
        let (mut disk, plan) = with_esp(sector);
        let before = entries(&mut disk);
        assert_eq!((before[1].kind.as_str(), before[1].start), (RAW_TYPE, 2 * MIB));
        let first = image(1, sector);
        assert_eq!(put_in_layout(&mut disk, &plan, &first), Ok(Installed::Written));
        let after = entries(&mut disk);
        let of_type = |kind: &str| gptread::Entry {
            kind: kind.into(),
            ..before[1].clone()
        };
        assert_eq!(after[1], of_type(TYPE));
        assert_eq!((&after[0], &after[2], after.len()), (&before[0], &before[2], 3));
        assert_eq!(disk.durable[2 * MIB as usize..][..first.1.len()], first.1);
        assert!(
            disk.durable[ESP_AT as usize..MIB as usize]
                .iter()
                .all(|byte| *byte == 0),
            "the gap"
        );
        assert!(both_copies_are_valid(&mut disk));
        let writes = disk.writes;
        assert_eq!(put_in_layout(&mut disk, &plan, &first), Ok(Installed::Same));
        assert_eq!(disk.writes, writes, "an unchanged disk was written to");
        assert_eq!(
            put_in_layout(&mut disk, &plan, &image(2, sector)),
            Ok(Installed::Written)
        );
        assert_eq!(entries(&mut disk), after);
    }
}

#[test]
fn any_power_cut_in_a_layouts_partition_leaves_a_whole_disk_and_the_next_boot_ends_the_same() {
    let (start, plan) = with_esp(512);
    let wanted = image(5, 512);
    let mut end = start.clone();
    put_in_layout(&mut end, &plan, &wanted).unwrap();
    let old = entries(&mut start.clone());
    for n in 0..=end.writes {
        for kind in 0..3 {
            let mut disk = start.clone();
            disk.left = Some(n);
            let _ = put_in_layout(&mut disk, &plan, &wanted);
            let mut odd = false;
            disk.cut(|| {
                odd = !odd;
                kind == 1 || kind == 2 && odd
            });
            let found = entries(&mut disk);
            assert_eq!((&found[0], &found[2]), (&old[0], &old[2]), "cut at {n} ({kind})");
            assert!(
                matches!(found[1].kind.as_str(), TYPE | RAW_TYPE),
                "cut at {n} ({kind}): {found:?}"
            );
            put_in_layout(&mut disk, &plan, &wanted).unwrap();
            assert!(disk.durable == end.durable, "cut at {n} ({kind}): the end differs");
        }
    }
}

#[test]
fn a_partition_of_another_layout_is_left_alone() {
    let wanted = image(1, 512);
    let refused = |change: &dyn Fn(&mut Model, &mut DiskPlan)| {
        let (mut disk, mut plan) = with_esp(512);
        change(&mut disk, &mut plan);
        let (before, writes) = (disk.durable.clone(), disk.writes);
        let failure = put_in_layout(&mut disk, &plan, &wanted).unwrap_err().to_string();
        assert!(disk.durable == before && disk.writes == writes, "{failure}");
        failure
    };
    // The same partitions, of a layout without `esp` that has the same name and version.
    let (mut disk, plan) = with_esp(512);
    let mut asked = plan.clone();
    asked.layout_esp.as_mut().unwrap().images = vec![wanted.0.clone()];
    let mut fetch = |_: &EspImage| Ok(wanted.1.clone());
    let failure = install_in_layout(&mut disk, &asked, [4; 16], "x86_64", &mut fetch).unwrap_err();
    assert!(failure.to_string().contains("raise the layout's version"), "{failure}");
    assert_eq!(disk.writes, 0);

    let said = refused(&|_, plan| plan.layout.partitions[0].size = Size::Bytes(2 * MIB));
    assert!(said.contains("left alone"), "{said}");
    let said = refused(&|_, plan| plan.layout.partitions.swap(0, 1));
    assert!(said.contains("left alone"), "{said}");
    let said = refused(&|_, plan| plan.layout.partitions[0].size = Size::Rest);
    assert!(said.contains("fixed size"), "{said}");
    let said = refused(&|disk, _| disk.write_at(0, &[0; 512]).and_then(|()| disk.flush()).unwrap());
    assert!(said.contains("sector 0 was changed"), "{said}");
    // What the server sends is bounded and checked.
    let (mut disk, plan) = with_esp(512);
    for size in [0, 1, (MIB as u32) + 4096, u32::MAX] {
        let mut bad = wanted.clone();
        bad.0.size = size;
        assert!(put_in_layout(&mut disk, &plan, &bad).is_err(), "{size}");
    }
    let mut bad = wanted.clone();
    bad.1[9] ^= 1;
    assert!(
        put_in_layout(&mut disk, &plan, &bad)
            .unwrap_err()
            .to_string()
            .contains("damaged")
    );
    assert_eq!(disk.writes, 0);
    // Another architecture, and a server that lacks the loaders.
    let other = EspImage {
        arch: "aarch64".into(),
        ..wanted.0.clone()
    };
    assert_eq!(
        put_in_layout(&mut disk, &plan, &(other, wanted.1.clone())),
        Ok(Installed::NotFor)
    );
}

#[test]
fn the_partition_of_a_prepared_disk_is_not_another_systems() {
    let mut disk = prepared(PartitionTable::Gpt, 512);
    assert_eq!(put(&mut disk, &image(7, 512)).unwrap(), Installed::Written);
    assert!(foreign_esp::on_disk(&mut disk).unwrap().is_empty());
}

/// The disk with a table of so many entries of so many bytes, in both copies, with right checksums, after `change`.
fn with_table_of(start: &Model, count: usize, each: usize, change: impl FnOnce(&mut RawTable)) -> Model {
    let mut disk = start.clone();
    let (sector, size) = (u64::from(disk.sector), disk.size());
    let Raw::Valid(mut table) = gptread::raw(&mut disk, 1, sector, size, false).unwrap() else {
        panic!("no table")
    };
    let mut entries = vec![0; count * each];
    for (to, from) in entries
        .chunks_exact_mut(each)
        .zip(table.entries.chunks_exact(table.entry_len))
    {
        to[..from.len()].copy_from_slice(from);
    }
    table.header[80..84].copy_from_slice(&(count as u32).to_le_bytes());
    table.header[84..88].copy_from_slice(&(each as u32).to_le_bytes());
    (table.entries, table.entry_len) = (entries, each);
    change(&mut table);
    let last = size / sector - 1;
    let blocks = (table.entries.len() as u64).div_ceil(sector);
    for (lba, other, entries_at) in [(last, 1, last - blocks), (1, last, 2)] {
        for (at, value) in [(24, lba), (32, other), (72, entries_at)] {
            table.header[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        }
        checksum(&mut table);
        disk.write_at(entries_at * sector, &table.entries).unwrap();
        disk.write_at(lba * sector, &table.header).unwrap();
    }
    disk.flush().unwrap();
    disk.writes = 0;
    disk
}

#[test]
fn a_table_that_would_cover_other_data_is_refused_before_the_first_write() {
    let (in_layout, plan) = with_esp(512);
    for (count, each, covers) in [
        // One KiB more than fits before the content.
        (
            256,
            128,
            "256 entries of 128 bytes, which would cover the EFI system partition",
        ),
        (
            1024,
            128,
            "1024 entries of 128 bytes, which would cover the EFI system partition",
        ),
    ] {
        let mut disk = with_table_of(&prepared(PartitionTable::Gpt, 512), count, each, |_| ());
        let before = disk.durable.clone();
        let refused = put(&mut disk, &image(1, 512)).unwrap_err().to_string();
        assert!(refused.contains(covers), "{refused}");
        assert!(disk.durable == before && disk.writes == 0, "{refused}");
    }
    // Of a layout: what is between the table and the first partition is free.
    let mut disk = with_table_of(&in_layout, 256, 128, |_| ());
    assert_eq!(put_in_layout(&mut disk, &plan, &image(1, 512)), Ok(Installed::Written));
    assert!(both_copies_are_valid(&mut disk));
    let (writes, wanted) = (disk.writes, image(1, 512));
    assert_eq!(put_in_layout(&mut disk, &plan, &wanted), Ok(Installed::Same));
    assert_eq!(disk.writes, writes, "an unchanged disk was written to");
    // A primary table that covers the first partition, and a backup table that reaches into the last one.
    let last = in_layout.size() / 512 - 1;
    let longer = |table: &mut RawTable| table.entries[2 * 128 + 40..][..8].copy_from_slice(&(last - 100).to_le_bytes());
    for (mut disk, covers) in [
        (with_table_of(&in_layout, 1024, 1024, |_| ()), "partition 1 ("),
        (with_table_of(&in_layout, 1024, 128, longer), "partition 3 (b)"),
    ] {
        let before = disk.durable.clone();
        let refused = put_in_layout(&mut disk, &plan, &wanted).unwrap_err().to_string();
        assert!(refused.contains(covers), "{refused}");
        assert!(disk.durable == before && disk.writes == 0, "{refused}");
    }
    // Entries that were moved away from the header: what is there instead belongs to somebody else.
    let mut disk = prepared(PartitionTable::Gpt, 512);
    let size = disk.size();
    let Raw::Valid(mut table) = gptread::raw(&mut disk, 1, 512, size, false).unwrap() else {
        panic!("no table")
    };
    table.header[72..80].copy_from_slice(&3_u64.to_le_bytes());
    checksum(&mut table);
    disk.write_at(3 * 512, &table.entries).unwrap();
    disk.write_at(512, &table.header).unwrap();
    disk.flush().unwrap();
    disk.writes = 0;
    let before = disk.durable.clone();
    let refused = put(&mut disk, &image(1, 512)).unwrap_err().to_string();
    assert!(refused.contains("not behind the header"), "{refused}");
    assert!(disk.durable == before && disk.writes == 0, "{refused}");
}
