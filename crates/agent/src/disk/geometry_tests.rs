use super::*;
use proptest::prelude::*;
use rackstrap_wire::{FileSystem, Partition};

pub fn layout(table: PartitionTable, sizes: &[Size]) -> Layout {
    let partitions = sizes.iter().enumerate().map(|(i, size)| Partition {
        name: format!("p{i}"),
        size: *size,
        fs: FileSystem::Ext4,
        mount: Some(format!("/p{i}")),
        options: String::new(),
    });
    Layout {
        name: "scratch".into(),
        version: 1,
        table,
        partitions: partitions.collect(),
    }
}

const MIB: u64 = 1 << 20;

proptest! {
    #[test]
    fn partitions_are_aligned_in_order_and_inside(
        sizes in proptest::collection::vec(1u64..3000, 0..4),
        rest in proptest::option::of(0usize..4),
        mbr: bool,
        disk in 0u64..20_000 * MIB,
        big_sectors: bool,
    ) {
        let mut sizes: Vec<Size> = sizes.iter().map(|n| Size::Bytes(n * MIB)).collect();
        if let Some(at) = rest {
            sizes.insert(at.min(sizes.len()), Size::Rest);
        }
        let table = if mbr { PartitionTable::Mbr } else { PartitionTable::Gpt };
        if mbr {
            sizes.truncate(3);
        }
        let layout = layout(table, &sizes);
        let sector = if big_sectors { 4096 } else { 512 };
        let usable = |disk: u64| if mbr { disk } else { disk.saturating_sub(16384 + u64::from(sector)) } / MIB * MIB;
        match place(&layout, disk, sector) {
            Ok(geometry) => {
                let mut at = if mbr { MIB } else { 2 * MIB };
                for (range, size) in geometry.partitions.iter().zip(&sizes) {
                    prop_assert_eq!(range.start, at);
                    prop_assert!(range.len >= MIB && range.len % MIB == 0);
                    if let Size::Bytes(n) = size {
                        prop_assert_eq!(range.len, *n);
                    }
                    at = range.end();
                }
                prop_assert!(at <= usable(disk));
                if sizes.contains(&Size::Rest) {
                    prop_assert_eq!(at, usable(disk), "the rest is used up");
                }
            }
            Err(GeometryError::TooSmall { needed, disk: d }) => {
                prop_assert_eq!(d, disk);
                prop_assert!(needed > usable(disk));
                // The layout fits onto a disk of the size that the error names.
                prop_assert!(place(&layout, needed.next_multiple_of(MIB) + MIB, sector).is_ok());
            }
            Err(e) => prop_assert!(false, "{}", e),
        }
    }
}

#[test]
fn the_message_has_both_sizes() {
    let layout = layout(PartitionTable::Gpt, &[Size::Bytes(4096 * MIB), Size::Rest]);
    assert_eq!(
        place(&layout, 2048 * MIB, 512).unwrap_err().to_string(),
        "too small: the layout needs 4100 MiB, the disk has 2048 MiB"
    );
}

#[test]
fn mbr_stops_at_32_bits_of_blocks() {
    let layout = layout(PartitionTable::Mbr, &[Size::Rest]);
    let range = place(&layout, 8 << 40, 512).unwrap().partitions[0];
    assert!(range.end() / 512 <= u64::from(u32::MAX) && range.end() > (2 << 40) - 2 * MIB);
    assert!(place(&layout, 8 << 40, 4096).unwrap().partitions[0].end() > 7 << 40);
}

#[test]
fn layouts_that_fit_onto_no_disk_are_refused() {
    use PartitionTable::*;
    let good = layout(Gpt, &[Size::Bytes(MIB)]);
    let with = |change: &dyn Fn(&mut Layout)| {
        let mut layout = good.clone();
        change(&mut layout);
        place(&layout, 1 << 40, 512).unwrap_err().to_string()
    };
    assert!(place(&layout(Mbr, &[Size::Bytes(MIB); 4]), 1 << 40, 512).is_err());
    assert!(place(&layout(Gpt, &[Size::Rest, Size::Rest]), 1 << 40, 512).is_err());
    assert!(
        place(
            &layout(Gpt, &[Size::Bytes(1 << 63), Size::Bytes(1 << 63)]),
            1 << 40,
            512
        )
        .is_err()
    );
    assert!(place(&layout(Gpt, &[Size::Bytes(512)]), 1 << 40, 512).is_err());
    assert!(place(&good, 1 << 40, 520).is_err());
    assert!(with(&|l| l.name = "Scratch".into()).contains("its name"));
    assert!(with(&|l| l.partitions[0].name = "a-name-of-13-".into()).contains("partition name"));
    assert!(with(&|l| l.partitions[0].mount = Some("/a/../b".into())).contains("mount point"));
    assert!(with(&|l| l.partitions.push(l.partitions[0].clone())).contains("two partitions are called p0"));
}
