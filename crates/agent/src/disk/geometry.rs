//! Computes byte ranges from a layout and a disk's size (pure).

use super::marker;
use rackstrap_wire::{Layout, PartitionTable, Size};
use std::{collections::BTreeSet, fmt};

/// Partitions begin and end at multiples of this many bytes.
pub const ALIGN: u64 = 1 << 20;
/// Entries of a GPT (UEFI 2.10, 5.3.1: at least 16,384 bytes), without the marker's own.
const MOST_GPT: usize = 127;
/// Entries of an MBR, without the marker's own.
const MOST_MBR: usize = 3;

/// A range of a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
}

impl Range {
    /// First byte after the range.
    pub fn end(self) -> u64 {
        self.start + self.len
    }
}

/// The ranges of all partitions of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The marker partition; GPT only.
    pub marker: Option<Range>,
    /// The layout's partitions, in its order.
    pub partitions: Vec<Range>,
}

/// Why a layout does not fit onto a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// The layout needs more bytes than the disk has.
    TooSmall {
        /// Bytes needed, with the table.
        needed: u64,
        /// Bytes of the disk.
        disk: u64,
    },
    /// The layout itself is wrong, for any disk.
    Layout(String),
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GeometryError::TooSmall { needed, disk } => write!(
                f,
                "too small: the layout needs {} MiB, the disk has {} MiB",
                needed.div_ceil(ALIGN),
                disk / ALIGN
            ),
            GeometryError::Layout(what) => f.write_str(what),
        }
    }
}

/// The kernel's number of a layout's partition: `vda2` is the first one of a GPT.
pub fn partition_number(table: PartitionTable, index: usize) -> u32 {
    index as u32 + if table == PartitionTable::Gpt { 2 } else { 1 }
}

/// Places `layout` on a disk of `disk` bytes with logical blocks of `sector` bytes.
pub fn place(layout: &Layout, disk: u64, sector: u32) -> Result<Geometry, GeometryError> {
    check(layout, sector)?;
    let gpt = layout.table == PartitionTable::Gpt;
    let first = if gpt { marker::PARTITION_AT + ALIGN } else { ALIGN };
    // The backup GPT is 16 KiB of entries and one block at the very end.
    let reserve = if gpt { (16 << 10) + u64::from(sector) } else { 0 };
    let mut last = disk.saturating_sub(reserve);
    if !gpt {
        // An MBR counts blocks with 32 bits; blocks after that cannot be used.
        last = last.min(u64::from(u32::MAX) * u64::from(sector));
    }
    last = last / ALIGN * ALIGN;

    let fixed = layout.partitions.iter().try_fold(0u64, |sum, p| match p.size {
        Size::Bytes(n) => sum.checked_add(n),
        Size::Rest => sum.checked_add(ALIGN),
    });
    let fixed = fixed.ok_or_else(|| GeometryError::Layout("the sizes of all partitions together overflow".into()))?;
    let needed = fixed.saturating_add(first).saturating_add(reserve);
    if last < first || fixed > last - first {
        return Err(GeometryError::TooSmall { needed, disk });
    }
    let rest = ALIGN + (last - first - fixed);
    let mut start = first;
    let partitions = layout.partitions.iter().map(|p| {
        let len = match p.size {
            Size::Bytes(n) => n,
            Size::Rest => rest,
        };
        let range = Range { start, len };
        start += len;
        range
    });
    Ok(Geometry {
        partitions: partitions.collect(),
        marker: gpt.then_some(Range {
            start: marker::PARTITION_AT,
            len: ALIGN,
        }),
    })
}

fn check(layout: &Layout, sector: u32) -> Result<(), GeometryError> {
    let wrong = |what: String| Err(GeometryError::Layout(format!("layout {}: {what}", layout.name)));
    let most = match layout.table {
        PartitionTable::Gpt => MOST_GPT,
        PartitionTable::Mbr => MOST_MBR,
    };
    if !marker::valid_name(&layout.name) {
        return wrong("its name is not 1 to 16 characters of a-z, 0-9 and -".into());
    }
    if sector < 512 || !sector.is_power_of_two() || u64::from(sector) > ALIGN {
        return wrong(format!("the disk has blocks of {sector} bytes"));
    }
    let count = layout.partitions.len();
    if count > most {
        return wrong(format!("{count} partitions; {} takes at most {most}", layout.table));
    }
    if layout.partitions.iter().filter(|p| p.size == Size::Rest).count() > 1 {
        return wrong("two partitions have size 'rest'".into());
    }
    let mut names = BTreeSet::new();
    let mut mounts = BTreeSet::new();
    for p in &layout.partitions {
        if !marker::valid_name(&p.name) || p.name.len() > 12 {
            return wrong(format!(
                "partition name '{}' is not 1 to 12 characters of a-z, 0-9 and -",
                p.name
            ));
        }
        if !names.insert(&p.name) {
            return wrong(format!("two partitions are called {}", p.name));
        }
        if let Some(mount) = &p.mount {
            let parts = || mount.split('/').skip(1);
            if !mount.starts_with('/') || mount.len() < 2 || parts().any(|c| matches!(c, "" | "." | "..")) {
                return wrong(format!("mount point '{mount}' is not a plain absolute path below /"));
            }
            if !mounts.insert(mount) {
                return wrong(format!("two partitions are mounted on {mount}"));
            }
        }
        if let Size::Bytes(n) = p.size
            && (n == 0 || n % ALIGN != 0)
        {
            return wrong(format!(
                "partition {} has {n} bytes, which is not a whole number of MiB",
                p.name
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "geometry_tests.rs"]
mod tests;
