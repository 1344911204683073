//! One partition is made again, and nothing else on the disk changes.

use super::*;
use crate::disk::{
    geometry::{self, Range},
    model::Model,
};
use crate::fail::Doing;
use rackstrap_wire::{Partition, PartitionTable, Size};

const MIB: u64 = 1 << 20;

/// Notes what it makes. A file system is a text at its start.
#[derive(Default)]
struct Fake {
    said: Vec<String>,
    fails: bool,
}

impl Machine for Fake {
    fn reread(&mut self, _: &mut dyn BlockDevice, _: &Geometry) -> Res<()> {
        panic!("the table stays as it is");
    }
    fn trim(&mut self, _: usize, partition: &Partition) {
        self.said.push(format!("trim {}", partition.name));
    }
    fn make_fs(&mut self, device: &mut dyn BlockDevice, _: usize, partition: &Partition, range: Range) -> Res<()> {
        if self.fails {
            return Err(crate::fail::Failure::new("no such program"));
        }
        self.said.push(partition.name.clone());
        device
            .write_at(range.start, &[0x55; 4096])
            .doing(|| "writing".to_owned())
    }
    fn seed(&mut self, _: &mut dyn BlockDevice) -> Res<()> {
        self.said.push("files".to_owned());
        Ok(())
    }
    fn step(&mut self, name: &str) {
        self.said.push(format!("step {name}"));
    }
}

fn layout() -> Layout {
    let partition = |name: &str, size, fs| Partition {
        name: name.to_owned(),
        size,
        fs,
        mount: None,
        options: String::new(),
    };
    Layout {
        name: "scratch".to_owned(),
        version: 1,
        table: PartitionTable::Gpt,
        partitions: vec![
            partition("var", Size::Bytes(2 * MIB), FileSystem::Ext4),
            partition("tmp", Size::Bytes(2 * MIB), FileSystem::Ext4),
            partition("raw", Size::Bytes(MIB), FileSystem::Raw),
        ],
    }
}

#[test]
fn only_the_named_partition_is_written() {
    let layout = layout();
    let mut disk = Model::new(9 * MIB, 512);
    for (index, byte) in disk.durable.iter_mut().enumerate() {
        *byte = (index % 251) as u8;
    }
    let before = disk.durable.clone();
    let geometry = geometry::place(&layout, disk.size(), disk.sector()).unwrap();
    let mut machine = Fake::default();
    let names = ["tmp", "raw", "other"].map(str::to_owned);
    let made = remake(&mut disk, &layout, &names, &geometry, &mut machine).unwrap();
    assert_eq!(made, ["tmp"]);
    assert_eq!(machine.said, ["trim tmp", "tmp", "step mkfs-tmp", "files", "step seed"]);
    let range = geometry.partitions[1];
    let (start, end) = (range.start as usize, range.end() as usize);
    assert_eq!(disk.durable[start..start + 4096], [0x55; 4096]);
    assert_eq!(
        disk.durable[start + 4096..start + MIB as usize],
        vec![0; MIB as usize - 4096]
    );
    assert_eq!(
        (&disk.durable[..start], &disk.durable[end..]),
        (&before[..start], &before[end..])
    );
}

#[test]
fn nothing_is_written_without_a_name_and_a_failure_is_reported() {
    let layout = layout();
    let mut disk = Model::new(9 * MIB, 512);
    let before = disk.durable.clone();
    let geometry = geometry::place(&layout, disk.size(), disk.sector()).unwrap();
    let mut machine = Fake::default();
    assert_eq!(
        remake(&mut disk, &layout, &[], &geometry, &mut machine).unwrap(),
        [""; 0]
    );
    assert!(machine.said.is_empty() && disk.durable == before);
    machine.fails = true;
    let failed = remake(&mut disk, &layout, &["var".to_owned()], &geometry, &mut machine);
    assert!(failed.unwrap_err().to_string().contains("no such program"));
    assert_eq!(machine.said, ["trim var"]);
}
