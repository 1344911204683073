//! After a power cut at any write, the next run ends in the same state.

use super::*;
use crate::{
    disk::{
        geometry,
        inspect::{Action, Finding, decide, inspect},
        marker,
        model::Model,
    },
    fail::Failure,
};
use proptest::prelude::*;
use rackstrap_wire::{DiskPlan, Size, Wipe};
use uuid::Uuid;

const MIB: u64 = 1 << 20;

/// Simulates kernel and mkfs: writes a superblock's magic, then data, then a "seed" into each file system.
#[derive(Default)]
struct FakeMachine {
    ranges: Vec<Range>,
    steps: Vec<String>,
}

impl Machine for FakeMachine {
    fn reread(&mut self, device: &mut dyn BlockDevice, geometry: &Geometry) -> Res<()> {
        // The kernel would read exactly the partitions of the geometry.
        if let (Some(_), super::super::gptread::Gpt::Valid(entries)) =
            (geometry.marker, super::super::gptread::read(device).unwrap())
        {
            let found: Vec<_> = entries
                .iter()
                .skip(1)
                .map(|e| Range {
                    start: e.start,
                    len: e.len,
                })
                .collect();
            assert_eq!(found, geometry.partitions);
        }
        self.ranges = geometry.partitions.clone();
        Ok(())
    }
    fn make_fs(&mut self, device: &mut dyn BlockDevice, index: usize, _: &Partition, range: Range) -> Res<()> {
        let write =
            |d: &mut dyn BlockDevice, at, bytes: &[u8]| d.write_at(at, bytes).map_err(|e| Failure::new(e.to_string()));
        write(device, range.start + 0x438, b"\x53\xef")?;
        write(device, range.start + 8192, &[index as u8 + 1; 3000])?;
        write(device, range.start + range.len - 512, &[index as u8 + 1; 512])
    }
    fn seed(&mut self, device: &mut dyn BlockDevice) -> Res<()> {
        for range in self.ranges.clone() {
            device
                .write_at(range.start + 65536, b"seeded")
                .and_then(|()| device.flush())
                .map_err(|e| Failure::new(e.to_string()))?;
        }
        Ok(())
    }
    fn step(&mut self, name: &str) {
        self.steps.push(name.to_owned());
    }
}

fn plan(table: PartitionTable, version: u32, wipe: Wipe) -> DiskPlan {
    let partition = |name: &str, size, fs, mount: Option<&str>| Partition {
        name: name.into(),
        size,
        fs,
        mount: mount.map(str::to_owned),
        options: String::new(),
    };
    DiskPlan {
        layout: Layout {
            name: "scratch".into(),
            version,
            table,
            partitions: vec![
                partition("swap", Size::Bytes(MIB), FileSystem::Swap, None),
                partition("var", Size::Bytes(2 * MIB), FileSystem::Ext4, Some("/var")),
                partition("tmp", Size::Rest, FileSystem::Ext4, Some("/tmp")),
            ],
        },
        digest: String::new(),
        device: "auto".into(),
        wipe,
        wipe_known: false,
        roots: Vec::new(),
        seen: None,
        again: false,
        remake: Vec::new(),
        more: Vec::new(),
        loader: None,
        esp: Vec::new(),
        layout_esp: None,
        contents: Vec::new(),
    }
}

fn record(plan: &DiskPlan) -> Record {
    Record {
        name: plan.layout.name.clone(),
        version: plan.layout.version,
        digest: [plan.layout.version as u8; 16],
        table: plan.layout.table,
    }
}

/// One boot: inspect, decide, prepare. GUIDs count from the same number, so that disks can be compared.
fn boot(disk: &mut Model, plan: &DiskPlan) -> Result<Action, Failure> {
    let record = record(plan);
    let finding = inspect(disk).map_err(|e| Failure::new(e.to_string()))?;
    let action = decide(&finding, plan, record.digest);
    if let Action::Prepare(_) = action {
        let geometry = geometry::place(&plan.layout, disk.size(), disk.sector()).unwrap();
        let mut n = 0u128;
        let mut new_uuid = || {
            n += 1;
            Uuid::from_u128(n)
        };
        prepare(
            disk,
            &plan.layout,
            &geometry,
            &record,
            &mut new_uuid,
            &mut FakeMachine::default(),
        )?;
    }
    Ok(action)
}

/// The disk after a preparation of `from` without a power cut.
fn undisturbed(from: &Model, plan: &DiskPlan) -> Model {
    let mut disk = from.clone();
    boot(&mut disk, plan).unwrap();
    assert_eq!(boot(&mut disk, plan), Ok(Action::Keep(None)));
    disk
}

/// The disk without the bytes that preparation does not write (the middle of file systems): they depend on its history.
fn essence(disk: &Model, plan: &DiskPlan) -> Vec<u8> {
    let geometry = geometry::place(&plan.layout, disk.size(), disk.sector()).unwrap();
    let mut bytes = disk.durable[..2 * MIB as usize].to_vec();
    for range in &geometry.partitions {
        let len = range.len.min(MIB) as usize;
        bytes.extend(&disk.durable[range.start as usize..][..len]);
        bytes.extend(&disk.durable[range.end() as usize - len..range.end() as usize]);
    }
    bytes.extend(&disk.durable[geometry.partitions.last().unwrap().end() as usize..]);
    bytes
}

/// Every state in which a disk may be before.
fn starts(table: PartitionTable, sector: u32) -> Vec<(&'static str, Model, Wipe)> {
    let blank = Model::new(9 * MIB, sector);
    let mut foreign = blank.clone();
    for (i, byte) in foreign.durable.iter_mut().enumerate() {
        *byte = (i % 251) as u8;
    }
    foreign.durable[0x10040..0x10048].copy_from_slice(b"_BHRfS_M");
    let other = match table {
        PartitionTable::Gpt => PartitionTable::Mbr,
        PartitionTable::Mbr => PartitionTable::Gpt,
    };
    vec![
        (
            "older version",
            undisturbed(&blank, &plan(table, 1, Wipe::Ours)),
            Wipe::Ours,
        ),
        (
            "other table",
            undisturbed(&blank, &plan(other, 1, Wipe::Ours)),
            Wipe::Ours,
        ),
        ("blank", blank, Wipe::Ours),
        ("foreign", foreign, Wipe::Always),
    ]
}

/// Cuts the power at write `n` of preparing `start`, then boots again. `coin` decides about cached sectors.
fn cut_and_boot(start: &Model, plan: &DiskPlan, n: u64, coin: impl FnMut() -> bool) -> (Model, Action) {
    let mut disk = start.clone();
    disk.left = Some(n);
    let _ = boot(&mut disk, plan);
    disk.cut(coin);
    let action = boot(&mut disk, plan).unwrap();
    (disk, action)
}

/// Cuts at every single write, with nothing, all, or the odd half of the cache surviving.
fn every_cut(table: PartitionTable, sector: u32) {
    let mut cuts = 0;
    for (name, start, wipe) in starts(table, sector) {
        let plan = plan(table, 2, wipe);
        let want = undisturbed(&start, &plan);
        let want_bytes = essence(&want, &plan);
        // Wiping writes thousands of zero sectors: this cuts at the first and last ones of a run, and at a sample of the middle.
        let total = want.writes;
        for n in (0..=total).filter(|n| *n < 12 || *n + 12 > total || n % 509 < 2) {
            for kind in 0..3 {
                let mut odd = false;
                let (disk, action) = cut_and_boot(&start, &plan, n, || {
                    odd = !odd;
                    kind == 1 || kind == 2 && odd
                });
                assert!(!matches!(action, Action::Leave(_)), "{name}, cut at {n}: {action:?}");
                assert!(
                    essence(&disk, &plan) == want_bytes,
                    "{name}, cut at {n} ({kind}): the end state differs"
                );
                cuts += 1;
            }
        }
    }
    assert!(cuts > 300, "{cuts} cuts are too few to mean anything");
}

#[test]
fn any_power_cut_ends_the_same_gpt() {
    every_cut(PartitionTable::Gpt, 512);
}

#[test]
fn any_power_cut_ends_the_same_mbr() {
    every_cut(PartitionTable::Mbr, 512);
}

#[test]
fn any_power_cut_ends_the_same_with_4096_byte_blocks() {
    every_cut(PartitionTable::Gpt, 4096);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn several_random_cuts_end_the_same(cuts in proptest::collection::vec((0u64..9000, any::<u64>()), 1..4), mbr: bool, start in 0usize..4) {
        let table = if mbr { PartitionTable::Mbr } else { PartitionTable::Gpt };
        let (_, start, wipe) = starts(table, 512).swap_remove(start);
        let plan = plan(table, 2, wipe);
        let want = essence(&undisturbed(&start, &plan), &plan);
        let mut disk = start;
        for (n, seed) in cuts {
            let mut random = seed | 1;
            disk.left = Some(n);
            let _ = boot(&mut disk, &plan);
            disk.cut(|| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random & 1 == 1
            });
        }
        let action = boot(&mut disk, &plan).unwrap();
        prop_assert!(!matches!(action, Action::Leave(_)), "{:?}", action);
        prop_assert!(essence(&disk, &plan) == want);
    }
}

#[test]
fn a_cut_is_never_taken_for_a_finished_disk() {
    // The plan returns to version 1 while version 2 is half prepared: the remains of version 1 must not be kept.
    let start = undisturbed(&Model::new(9 * MIB, 512), &plan(PartitionTable::Gpt, 1, Wipe::Ours));
    let mut disk = start.clone();
    disk.left = Some(1);
    boot(&mut disk, &plan(PartitionTable::Gpt, 2, Wipe::Ours)).unwrap_err();
    disk.cut(|| true);
    assert_eq!(
        boot(&mut disk, &plan(PartitionTable::Gpt, 1, Wipe::Ours)),
        Ok(Action::Prepare("half-prepared scratch v2".into()))
    );
}

#[test]
fn steps_are_named_in_order() {
    let plan = plan(PartitionTable::Gpt, 1, Wipe::Ours);
    let mut disk = Model::new(9 * MIB, 512);
    let mut machine = FakeMachine::default();
    let geometry = geometry::place(&plan.layout, disk.size(), 512).unwrap();
    prepare(
        &mut disk,
        &plan.layout,
        &geometry,
        &record(&plan),
        &mut Uuid::new_v4,
        &mut machine,
    )
    .unwrap();
    assert_eq!(
        machine.steps,
        [
            "in-progress",
            "table",
            "mkfs-swap",
            "mkfs-var",
            "mkfs-tmp",
            "seed",
            "final"
        ]
    );
}

#[test]
fn a_kept_disk_is_only_read() {
    for table in [PartitionTable::Gpt, PartitionTable::Mbr] {
        let plan = plan(table, 1, Wipe::Always);
        let mut disk = undisturbed(&Model::new(9 * MIB, 512), &plan);
        let (before, writes) = (disk.durable.clone(), disk.writes);
        assert_eq!(boot(&mut disk, &plan), Ok(Action::Keep(None)));
        assert_eq!(disk.writes, writes);
        assert!(disk.durable == before && disk.cached.is_empty());
    }
}

#[test]
fn a_changed_digest_keeps_the_disk_and_is_reported() {
    let old = plan(PartitionTable::Gpt, 1, Wipe::Ours);
    let mut disk = undisturbed(&Model::new(9 * MIB, 512), &old);
    let finding = inspect(&mut disk).unwrap();
    let Action::Keep(Some(why)) = decide(&finding, &old, [9; 16]) else {
        panic!()
    };
    assert_eq!(why, "layout scratch v1 was changed without raising its version");
}

#[test]
fn the_gpt_partition_is_the_authority_once_a_tool_has_cleared_the_fourth_entry() {
    let plan = plan(PartitionTable::Gpt, 1, Wipe::Ours);
    let mut disk = undisturbed(&Model::new(9 * MIB, 512), &plan);
    disk.durable[494..510].fill(0);
    assert_eq!(boot(&mut disk, &plan), Ok(Action::Keep(None)));
}

#[test]
fn data_written_over_our_disk_is_foreign() {
    let damage: &[(&str, PartitionTable, u64, &[u8])] = &[
        ("mdraid", PartitionTable::Gpt, 4096, b"\xfc\x4e\x2b\xa9"),
        ("LUKS", PartitionTable::Mbr, 0, b"LUKS\xba\xbe"),
        ("changed by another program", PartitionTable::Mbr, 446 + 8, b"\x01"),
        ("btrfs", PartitionTable::Mbr, 0x10040, b"_BHRfS_M"),
    ];
    for (what, table, at, bytes) in damage {
        let old = plan(*table, 1, Wipe::Ours);
        let mut disk = undisturbed(&Model::new(9 * MIB, 512), &old);
        disk.durable[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        let before = disk.durable.clone();
        let action = boot(&mut disk, &plan(*table, 2, Wipe::Ours)).unwrap();
        let Action::Leave(why) = action else {
            panic!("{what}: {action:?}")
        };
        assert!(why.contains(what), "{why}");
        assert!(disk.durable == before);
    }
}

#[test]
fn the_first_bytes_of_a_partition_do_not_count() {
    let plan = plan(PartitionTable::Mbr, 1, Wipe::Ours);
    let mut disk = undisturbed(&Model::new(9 * MIB, 512), &plan);
    // A raw partition may hold anything, such as the bytes that a VMFS volume has on the whole disk.
    disk.durable[MIB as usize..][..4].copy_from_slice(b"\x0d\xd0\x01\xc0");
    assert_eq!(boot(&mut disk, &plan), Ok(Action::Keep(None)));
}

/// Boots a damaged disk under every `wipe` rule and expects no change, until an order or another version of the layout.
fn is_left_until_ordered(what: &str, damaged: &Model, sees: &Finding) {
    for wipe in [Wipe::Ours, Wipe::Always] {
        let mut disk = damaged.clone();
        let before = disk.durable.clone();
        assert_eq!(inspect(&mut disk).unwrap(), *sees, "{what}");
        let mut plan = plan(PartitionTable::Gpt, 1, wipe);
        let action = boot(&mut disk, &plan).unwrap();
        assert!(matches!(action, Action::Leave(_)), "{what}: {action:?}");
        assert!(disk.durable == before && disk.cached.is_empty(), "{what}");
        plan.again = true;
        assert!(matches!(boot(&mut disk, &plan), Ok(Action::Prepare(_))), "{what}");
        assert_eq!(
            marker::decode_sector0(&disk.durable),
            marker::Sector0::Ours(Some(record(&plan)), MarkerState::Final)
        );
        plan.again = false;
        assert_eq!(boot(&mut disk, &plan), Ok(Action::Keep(None)), "{what}");
    }
}

#[test]
fn a_disk_with_a_lost_gpt_keeps_its_data_until_an_order() {
    let v1 = plan(PartitionTable::Gpt, 1, Wipe::Ours);
    let disk = undisturbed(&Model::new(9 * MIB, 512), &v1);
    let end = disk.durable.len();
    let lost = Finding::Unclear {
        record: Some(record(&v1)),
        lost: "its partition table is lost or unreadable",
    };
    let mut gone = disk.clone();
    gone.durable[512..1024].fill(0);
    gone.durable[end - 512..].fill(0);
    is_left_until_ordered("both headers zeroed", &gone, &lost);
    let mut damaged = disk.clone();
    damaged.durable[512 + 60] ^= 1;
    damaged.durable[end - 512 + 60] ^= 1;
    is_left_until_ordered("both headers damaged", &damaged, &lost);
    // The server announced that another version deletes the data.
    let mut next = gone.clone();
    let action = boot(&mut next, &plan(PartitionTable::Gpt, 2, Wipe::Ours)).unwrap();
    assert!(matches!(action, Action::Prepare(_)), "{action:?}");
}

#[test]
fn a_disk_behind_a_controller_with_other_blocks_keeps_its_data() {
    let v1 = plan(PartitionTable::Gpt, 1, Wipe::Ours);
    for (prepared, shown) in [(4096, 512), (512, 4096)] {
        let mut disk = undisturbed(&Model::new(9 * MIB, prepared), &v1);
        disk.sector = shown;
        let before = disk.durable.clone();
        let action = boot(&mut disk, &v1).unwrap();
        assert!(matches!(action, Action::Leave(_)), "{prepared} as {shown}: {action:?}");
        assert!(disk.durable == before);
        // With the old controller it is as before.
        disk.sector = prepared;
        assert_eq!(boot(&mut disk, &v1), Ok(Action::Keep(None)));
    }
}

#[test]
fn a_lost_record_is_read_from_sector_0_or_nothing_is_written() {
    let v1 = plan(PartitionTable::Gpt, 1, Wipe::Ours);
    let mut disk = undisturbed(&Model::new(9 * MIB, 512), &v1);
    // Another program zeroed the first partition.
    disk.durable[marker::PARTITION_AT as usize..][..512].fill(0);
    assert_eq!(boot(&mut disk.clone(), &v1), Ok(Action::Keep(None)));
    // A tool also cleared the fourth entry.
    disk.durable[494..510].fill(0);
    let lost = Finding::Unclear {
        record: None,
        lost: "its marker is lost or unreadable",
    };
    is_left_until_ordered("no record at all", &disk, &lost);
}
