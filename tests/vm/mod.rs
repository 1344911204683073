//! Virtual machines that boot from a daemon in a namespace. `cargo xtask test --fast` skips these.
//!
//! Each file has one scenario. A boot takes most of a minute in software emulation, so a scenario follows one node through everything
//! that belongs together, and cuts its power as soon as possible.

mod arm64;
mod boards;
mod boot_bond;
mod boot_vlan;
mod degraded;
mod disk_health;
mod disk_loader;
mod disk_rules;
mod encrypted;
mod first_boot;
mod foreign_disk;
mod health;
mod layout_version;
mod matrix;
mod mbr;
mod mounts;
mod networks;
mod nics;
mod orders;
mod other_dhcp;
mod other_init;
mod outages;
mod power_cut;
mod racking;
mod retry;
mod rig;
mod rollout;
mod secure_boot;
mod secure_disk;
mod several_disks;
mod several_layouts;
mod three_nodes;
mod uefi;
mod unknown;
mod watchdog;

use std::process::Command;
use testbed::{Disk, Result, disk::Slice, process::output};

/// Size of most disks.
const GIB2: u64 = 2 << 30;
/// Offset of the network loader for BIOS on a disk with a GPT, and below on one with an MBR, in bytes.
const LOADER_ON_GPT: u64 = (1 << 20) + LOADER_ON_MBR;
const LOADER_ON_MBR: u64 = 64 << 10;

/// Fails unless the disk, of [`GIB2`], holds the layout `scratch`: the marker's partition, swap, and two valid file systems.
fn expect_scratch(disk: &Disk) -> Result<Vec<Slice>> {
    expect_scratch_of(disk, [256, 512], 1200)
}

/// The same for a layout with `[swap, tmp]` of these sizes, and more than `rest` for /var. All in MiB.
fn expect_scratch_of(disk: &Disk, swap_and_tmp: [u64; 2], rest: u64) -> Result<Vec<Slice>> {
    assert_eq!(disk.table(), "gpt");
    let slices = disk.slices()?;
    let seen: Vec<(&str, &str)> = slices.iter().map(|s| (s.name.as_str(), s.fs.as_str())).collect();
    // The EFI system partition has the last number, whatever the layout is.
    assert_eq!(
        seen[1..],
        [
            ("swap", "swap"),
            ("tmp", "ext4"),
            ("var", "ext4"),
            ("rackstrap EFI", "vfat")
        ],
        "{seen:?}"
    );
    assert!(
        seen[0].0.starts_with("rackstrap scratch v") && seen[0].1.is_empty(),
        "{seen:?}"
    );
    let sizes: Vec<u64> = slices.iter().map(|s| s.size >> 20).collect();
    assert_eq!(sizes[1..3], swap_and_tmp, "MiB of swap and tmp");
    assert!(sizes[3] > rest, "var should have the rest, but has {} MiB", sizes[3]);
    for slice in &slices[2..4] {
        disk.check(slice)?;
    }
    Ok(slices)
}

/// The properties of the partitions that are equal on every disk: all except the UUIDs.
fn shape(slices: &[Slice]) -> Vec<(String, String, u64, u64, String)> {
    let one = |s: &Slice| (s.name.clone(), s.kind.clone(), s.start, s.size, s.fs.clone());
    slices.iter().map(one).collect()
}

/// Makes a disk like one from another machine: a table with an ext4 file system that holds files on an eighth of it, another partition, and
/// something outside of both.
fn make_foreign(disk: &Disk) -> Result {
    let path = disk.path();
    let mib = path.metadata()?.len() >> 20;
    let table = format!(
        "label: dos\nstart=1MiB, size={}MiB, type=83\nsize={}MiB, type=83\n",
        mib / 8,
        mib / 4
    );
    output(
        Command::new("sh")
            .args(["-c", &format!("printf '{table}' | sfdisk --quiet \"$0\"")])
            .arg(path),
    )?;
    let files = "/usr/share/doc/mmdebstrap";
    output(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-d", files, "-E", "offset=1048576"])
            .arg(path)
            .arg(format!("{}M", mib / 8)),
    )?;
    disk.write((mib * 15 / 16) << 20, b"data outside of any file system")
}
