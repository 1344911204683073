//! A partition with `encrypt = "boot-key"`: what the node writes there is not on its disk in plain text, and not there at the next boot.

use super::GIB2;
use std::{path::Path, process::Command};
use testbed::{Cluster, Disk, Result, Site};

/// MiB of the partitions for swap and /tmp.
const PARTITIONS: [u64; 2] = [16, 64];
/// What is written to /tmp, and what to /var.
const SECRET: &str = "the-secret-of-this-boot";
const OPEN: &str = "what-all-may-read";

/// Whether the file has the text anywhere.
fn has(file: &Path, text: &str) -> Result<bool> {
    let status = Command::new("grep").args(["-aqF", text]).arg(file).status()?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => anyhow::bail!("grep in {}: {status}", file.display()),
    }
}

#[test]
fn nobody_reads_an_encrypted_partition_after_the_boot() -> Result {
    let mut site = Site::small();
    for (partition, mib) in site.scratch().partitions.iter_mut().zip(PARTITIONS) {
        partition.size = format!("{mib}MiB");
        partition.encrypt = Some("boot-key".to_owned());
    }
    let cluster = Cluster::start_small(site)?;
    let node = cluster.node("r01n01");
    let disk = Disk::blank(&cluster.dir().join("disk.raw"), GIB2)?;
    node.insert_disk(Some(disk.clone()));
    node.add()?;
    node.power_on()?;
    node.wait_ready()?;
    assert_eq!(
        node.status("disk")?,
        "/tmp (encrypted) and /var on vda (prepared: blank -> scratch v1)"
    );
    assert_eq!(
        node.shell("findmnt -no SOURCE,FSTYPE /tmp")?,
        "/dev/mapper/rackstrap-tmp ext4"
    );
    assert_eq!(node.shell("stat -c %a /tmp")?, "1777");
    assert_eq!(
        node.shell("tail -n +2 /proc/swaps | cut -d ' ' -f 1")?,
        "/dev/mapper/rackstrap-swap"
    );
    // The keys are in the tables of the kernel only.
    assert_eq!(node.shell("grep -c rackstrap: /proc/keys || true")?, "0");
    for (text, file) in [(SECRET, "/tmp/file"), (OPEN, "/var/file")] {
        node.shell(&format!("yes {text} | head -n 100000 > {file}; sync"))?;
    }
    node.pull_plug();
    // The second text shows that the first one would be found.
    assert!(has(disk.path(), OPEN)?);
    assert!(!has(disk.path(), SECRET)?);
    let kinds: Vec<(String, String)> = disk.slices()?.into_iter().map(|s| (s.name, s.fs)).collect();
    assert_eq!(
        kinds[1..3],
        [("swap", ""), ("tmp", "")].map(|(name, fs)| (name.to_owned(), fs.to_owned()))
    );

    node.power_on()?;
    node.wait_ready()?;
    assert_eq!(
        node.status("disk")?,
        "/tmp (encrypted) and /var on vda (kept: scratch v1)"
    );
    assert_eq!(node.shell("ls /tmp/file 2>/dev/null || ls /var/file")?, "/var/file");
    let explained = cluster.daemon.cli(&["explain", "r01n01"])?;
    assert!(
        explained.contains("swap and tmp are encrypted with a key of each boot"),
        "{explained}"
    );
    node.pull_plug();
    Ok(())
}
