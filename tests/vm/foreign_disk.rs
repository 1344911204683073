//! A foreign disk is not changed, byte for byte, until an administrator decides: with wipefs, or with an order for the next boot.

use super::{GIB2, expect_scratch, make_foreign};
use testbed::{Cluster, Result, Site};

#[test]
fn a_foreign_disk_is_never_touched_unless_an_administrator_says_so() -> Result {
    let mut site = Site::small();
    let cluster = Cluster::start_small(site.clone())?;
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
        "a partition of it is mounted"
    );
    assert_eq!(node.shell("findmnt -no FSTYPE -T /var")?, "overlay");
    let status = cluster.daemon.cli(&["status", "--wide"])?;
    assert_eq!(
        status.matches("left untouched").count(),
        1,
        "the reason is not shown once: {status}"
    );
    let mended = "`wipefs -a /dev/vda` on the node, or `rackstrap node reprep r01n01 --wipe-foreign`";
    for said in [status, cluster.daemon.cli(&["explain", "r01n01"])?] {
        assert!(said.contains(mended), "{said}");
    }
    // A site file that would overwrite it is refused.
    site.scratch().wipe = Some("always".to_owned());
    let refused = format!("{:#}", cluster.daemon.reload(&site).unwrap_err());
    assert!(
        refused.contains("r01n01: the next boot overwrites MBR with 2 partitions"),
        "{refused}"
    );
    assert!(refused.contains("rackstrap reload --reprep"), "{refused}");
    cluster.daemon.reload(&Site::small())?;
    node.shell("sync")?;
    disk.expect_same(&before)?;

    // wipefs makes it blank.
    node.shell("wipefs -a /dev/vda && sync")?;
    node.pull_plug();
    assert!(before.expect_same(&disk).is_err());
    node.power_on()?;
    assert_eq!(
        node.wait_disk()?,
        "/tmp and /var on vda (prepared: blank -> scratch v1)"
    );
    node.pull_plug();
    expect_scratch(&disk)?;

    // An order for one boot does the same.
    node.insert_disk(Some(before));
    for order in ["--new-disk", "--wipe-foreign"] {
        cluster.daemon.cli(&["node", "reprep", "r01n01", order, "--yes"])?;
    }
    node.power_on()?;
    let shown = node.wait_disk()?;
    assert!(
        shown.starts_with("/tmp and /var on vda (prepared: foreign ("),
        "{shown}"
    );
    node.pull_plug();
    expect_scratch(&node.disk()?)?;
    Ok(())
}
