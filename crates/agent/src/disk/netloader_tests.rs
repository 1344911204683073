use super::{super::device::FileDevice, *};
use crate::disk::marker::{Record, encode_sector0};
use std::{io::Write, os::unix::fs::FileExt};

fn loader(fill: u8) -> (DiskLoader, Vec<u8>) {
    let mut bytes = vec![fill; 3 * HEAD];
    bytes[..4].copy_from_slice(b"RKSB");
    let size = bytes.len() as u32;
    bytes[16..20].copy_from_slice(&size.to_le_bytes());
    bytes[20..24].fill(0);
    let crc = crc32fast::hash(&bytes);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    (DiskLoader { size, crc }, bytes)
}

fn prepared(table: PartitionTable) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4 << 20).unwrap();
    let record = Record {
        name: "scratch".into(),
        version: 1,
        digest: [3; 16],
        table,
    };
    let mut sector = encode_sector0(&record, MarkerState::Final, &[[0; 16]; 3], [1, 2, 3, 4]);
    // The code of an agent from before the network loader.
    sector[..300].fill(0x90);
    file.as_file().write_all(&sector).unwrap();
    file
}

#[test]
fn an_older_disk_gets_loader_and_code_once_and_keeps_its_marker() {
    for (table, at) in [
        (PartitionTable::Gpt, (1 << 20) + (64 << 10)),
        (PartitionTable::Mbr, 64 << 10),
    ] {
        let file = prepared(table);
        let mut device = FileDevice::open(file.path(), true).unwrap();
        let (wanted, bytes) = loader(1);
        assert_eq!(install(&mut device, wanted, &mut || Ok(bytes.clone())), Ok(true));
        let mut found = vec![0; bytes.len()];
        file.as_file().read_exact_at(&mut found, at).unwrap();
        assert!(found == bytes);
        let mut sector = [0; 512];
        file.as_file().read_exact_at(&mut sector, 0).unwrap();
        assert!(sector.starts_with(&crate::disk::bootcode::code(table, 512)));
        assert!(
            matches!(marker::decode_sector0(&sector), Sector0::Ours(Some(r), MarkerState::Final) if r.version == 1)
        );
        assert_eq!(marker::disk_signature_of(&sector), [1, 2, 3, 4]);
        // A second call fetches and writes nothing; the device is read-only, so a write would fail.
        let mut device = FileDevice::open(file.path(), false).unwrap();
        assert_eq!(install(&mut device, wanted, &mut || panic!("fetched again")), Ok(false));
        let mut device = FileDevice::open(file.path(), true).unwrap();
        let (newer, bytes) = loader(2);
        assert_eq!(install(&mut device, newer, &mut || Ok(bytes.clone())), Ok(true));
    }
}

#[test]
fn a_loader_with_another_size_or_checksum_is_not_written() {
    let file = prepared(PartitionTable::Gpt);
    let before = std::fs::read(file.path()).unwrap();
    let (wanted, good) = loader(1);
    let mut flipped = good.clone();
    flipped[HEAD + 7] ^= 1;
    for bad in [
        Vec::new(),
        good[..HEAD].to_vec(),
        loader(2).1,
        flipped,
        vec![0; 2 << 20],
    ] {
        let mut device = FileDevice::open(file.path(), true).unwrap();
        assert!(install(&mut device, wanted, &mut || Ok(bad.clone())).is_err());
    }
    assert!(std::fs::read(file.path()).unwrap() == before);
}

#[test]
fn a_damaged_copy_is_written_again() {
    for at in [3, HEAD + 7, 3 * HEAD - 1] {
        let file = prepared(PartitionTable::Gpt);
        let mut device = FileDevice::open(file.path(), true).unwrap();
        let (wanted, bytes) = loader(1);
        install(&mut device, wanted, &mut || Ok(bytes.clone())).unwrap();
        let whole = std::fs::read(file.path()).unwrap();
        let offset = start(PartitionTable::Gpt) + at as u64;
        file.as_file().write_all_at(&[!bytes[at]], offset).unwrap();
        assert_eq!(install(&mut device, wanted, &mut || Ok(bytes.clone())), Ok(true));
        assert!(std::fs::read(file.path()).unwrap() == whole);
    }
}

#[test]
fn a_loader_that_does_not_fit_is_not_fetched() {
    let file = prepared(PartitionTable::Mbr);
    for size in [0, HEAD as u32, HEAD as u32 * 2 + 1, 964 << 10, u32::MAX] {
        let mut device = FileDevice::open(file.path(), false).unwrap();
        let wanted = DiskLoader { size, crc: 0 };
        let failure = install(&mut device, wanted, &mut || panic!("fetched")).unwrap_err();
        assert!(failure.to_string().contains(&size.to_string()), "{failure}");
    }
}

#[test]
fn a_disk_without_our_final_marker_is_left_alone() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4 << 20).unwrap();
    let mut device = FileDevice::open(file.path(), false).unwrap();
    assert!(install(&mut device, loader(1).0, &mut || panic!("fetched")).is_err());
}

/// Fails the write number `left`, as a power cut would.
struct Cut(FileDevice, u32);

impl BlockDevice for Cut {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn sector(&self) -> u32 {
        self.0.sector()
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.1 = self
            .1
            .checked_sub(1)
            .ok_or_else(|| std::io::Error::other("power cut"))?;
        self.0.write_at(offset, bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn after_a_power_cut_a_head_means_a_whole_loader_and_the_next_boot_writes_it_again() {
    for writes in 0..5 {
        let file = prepared(PartitionTable::Mbr);
        let (old, bytes) = loader(1);
        let mut device = FileDevice::open(file.path(), true).unwrap();
        install(&mut device, old, &mut || Ok(bytes.clone())).unwrap();
        let (wanted, newer) = loader(2);
        let mut cut = Cut(FileDevice::open(file.path(), true).unwrap(), writes);
        let done = install(&mut cut, wanted, &mut || Ok(newer.clone())).is_ok();
        let disk = std::fs::read(file.path()).unwrap();
        let region = &disk[64 << 10..][..bytes.len()];
        let whole = if done { &newer } else { &bytes };
        assert!(
            !region.starts_with(b"RKSB") || region == whole,
            "cut after {writes} writes"
        );
        install(&mut device, wanted, &mut || Ok(newer.clone())).unwrap();
        assert!(std::fs::read(file.path()).unwrap()[64 << 10..].starts_with(&newer));
    }
}
