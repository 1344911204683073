//! Disks of virtual machines: sparse raw files, inspected from outside with Debian's own tools.

use crate::{Result, process};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// The file of a disk.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
}

/// A partition, as sfdisk prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// GPT name; empty on MBR.
    pub name: String,
    /// Type, a GUID or two hex digits.
    pub kind: String,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// File system, by its superblock; empty if there is none.
    pub fs: String,
    /// The file system's UUID.
    pub uuid: String,
}

impl Disk {
    /// Makes a blank disk of `bytes`.
    pub fn blank(path: &Path, bytes: u64) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("making the disk {}", path.display()))?;
        file.set_len(bytes)?;
        Ok(Disk { path: path.to_owned() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A copy with the name `name` in the same directory.
    pub fn copy(&self, name: &str) -> Result<Disk> {
        let path = self.path.with_file_name(name);
        process::output(
            Command::new("cp")
                .args(["--sparse=always", "--reflink=auto"])
                .arg(&self.path)
                .arg(&path),
        )?;
        Ok(Disk { path })
    }

    /// Fails unless all bytes are equal, with the offset of the first difference.
    pub fn expect_same(&self, other: &Disk) -> Result {
        process::output(Command::new("cmp").arg(&self.path).arg(&other.path)).map(drop)
    }

    /// Writes `bytes` at `offset`.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result {
        let mut file = File::options().write(true).open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
            .with_context(|| format!("writing to {}", self.path.display()))
    }

    /// Reads `length` bytes at `offset`.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes)
            .with_context(|| format!("reading {}", self.path.display()))?;
        Ok(bytes)
    }

    /// The parts that a boot must not write if the disk is as it should be: the first MiB (boot sector, table, marker), the backup table in
    /// the last MiB, and everything outside of partitions with file systems or swap.
    pub fn fingerprint(&self) -> Result<Vec<(u64, Vec<u8>)>> {
        const MIB: u64 = 1 << 20;
        let size = self.path.metadata()?.len();
        let mut areas = vec![(0, MIB), (size - MIB, MIB)];
        for slice in self.slices()? {
            if slice.fs.is_empty() {
                areas.push((slice.start, slice.size.min(4 * MIB)));
            }
        }
        areas
            .into_iter()
            .map(|(start, length)| Ok((start, self.read(start, length as usize)?)))
            .collect()
    }

    /// The partitions.
    pub fn slices(&self) -> Result<Vec<Slice>> {
        let text = process::output(Command::new("sfdisk").arg("--json").arg(&self.path))?;
        let json: Value = serde_json::from_str(&text).with_context(|| format!("sfdisk printed {text:?}"))?;
        let table = &json["partitiontable"];
        let sector = table["sectorsize"].as_u64().unwrap_or(512);
        let mut slices = Vec::new();
        for entry in table["partitions"].as_array().into_iter().flatten() {
            let (Some(start), Some(size)) = (entry["start"].as_u64(), entry["size"].as_u64()) else {
                bail!("sfdisk printed a partition without start or size: {entry}");
            };
            // The marker in the MBR's fourth entry has no sectors, and Linux makes no partition from it.
            if size == 0 {
                continue;
            }
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            let start = start * sector;
            let (fs, uuid) = (self.probe(start, "TYPE"), self.probe(start, "UUID"));
            slices.push(Slice {
                name: text("name"),
                kind: text("type"),
                start,
                size: size * sector,
                fs,
                uuid,
            });
        }
        Ok(slices)
    }

    /// `gpt` or `dos`; empty for a disk without a table.
    pub fn table(&self) -> String {
        let done = process::output(
            Command::new("blkid")
                .args(["-p", "-s", "PTTYPE", "-o", "value"])
                .arg(&self.path),
        );
        done.unwrap_or_default().trim().to_owned()
    }

    /// Runs fsck on the file system in `slice` without changes. A journal that must be replayed is not a fault.
    pub fn check(&self, slice: &Slice) -> Result {
        let copy = self.path.with_extension("fsck");
        process::output(
            Command::new("dd")
                .args(["bs=1M", "conv=sparse", "status=none", "iflag=skip_bytes,count_bytes"])
                .arg(format!("if={}", self.path.display()))
                .arg(format!("of={}", copy.display()))
                .arg(format!("skip={}", slice.start))
                .arg(format!("count={}", slice.size)),
        )?;
        let done = Command::new("e2fsck").args(["-f", "-p"]).arg(&copy).output();
        std::fs::remove_file(&copy).ok();
        let done = done.context("running e2fsck")?;
        // e2fsck(8): 0 means clean, 1 repaired, which includes replaying the journal.
        match done.status.code() {
            Some(0 | 1) => Ok(()),
            _ => bail!("e2fsck on {}: {}", slice.name, String::from_utf8_lossy(&done.stdout)),
        }
    }

    fn probe(&self, offset: u64, what: &str) -> String {
        // blkid ends with status 2 if it finds nothing.
        let offset = offset.to_string();
        let done = process::output(
            Command::new("blkid")
                .args(["-p", "-O", &offset, "-s", what, "-o", "value"])
                .arg(&self.path),
        );
        done.unwrap_or_default().trim().to_owned()
    }
}
