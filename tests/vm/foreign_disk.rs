//! Somebody else's disk is left alone, byte for byte, until the layout says otherwise.

use super::{GIB2, expect_scratch};
use std::process::Command;
use testbed::{Cluster, Disk, Result, Site, process::output};

#[test]
fn a_foreign_disk_is_never_touched_unless_the_layout_says_so() -> Result {
    let mut site = Site::demo();
    let cluster = Cluster::start(site.clone())?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    let disk = node.disk()?;
    make_foreign(&disk)?;
    let before = disk.copy("before.raw")?;

    node.power_on()?;
    node.wait_ready()?;
    node.wait_state("degraded")?;
    let shown = node.status("disk")?;
    assert!(
        shown.contains("degraded") && shown.contains("foreign") && shown.contains("vda"),
        "{shown}"
    );
    let error = node.status("last_error")?;
    assert!(error.contains("foreign"), "{error}");
    assert_eq!(
        node.shell("grep -c ^/dev/vda /proc/mounts || true")?,
        "0",
        "it is not even mounted"
    );
    assert_eq!(node.shell("findmnt -no FSTYPE -T /var")?, "overlay");
    node.pull_plug();
    disk.expect_same(&before)?;

    site.scratch().wipe = Some("always".to_owned());
    cluster.daemon.reload(&site)?;
    node.power_on()?;
    let shown = node.wait_disk()?;
    assert!(
        shown.starts_with("/tmp and /var on vda (prepared: foreign ("),
        "{shown}"
    );
    node.pull_plug();
    expect_scratch(&disk)?;
    Ok(())
}

/// A disk as it comes out of another machine: a table with an ext4 and an xfs file system that hold files.
fn make_foreign(disk: &Disk) -> Result {
    let path = disk.path();
    let table = "label: dos\nstart=1MiB, size=256MiB, type=83\nsize=512MiB, type=83\n";
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
            .arg("256M"),
    )?;
    disk.write(1900 << 20, b"what nobody's file system knows of")
}
