//! A layout whose version is raised is applied at the next boot, and only then.

use super::{GIB2, expect_scratch};
use testbed::{Cluster, Result, Site};

#[test]
fn a_raised_layout_version_is_applied_at_the_next_boot_only() -> Result {
    let mut site = Site::demo();
    let cluster = Cluster::start(site.clone())?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    node.power_on()?;
    node.wait_ready()?;
    let first = node.disk()?.slices()?;

    // The running node keeps what it has, also over a heartbeat or two.
    site.scratch().version = 2;
    site.scratch().partitions[2].fs = "xfs".to_owned();
    cluster.daemon.reload(&site)?;
    node.shell("sync; sleep 8")?;
    node.wait_state("ready")?;
    assert_eq!(node.disk()?.slices()?, first);
    node.pull_plug();

    node.power_on()?;
    node.wait_ready()?;
    assert_eq!(
        node.status("disk")?,
        "/tmp and /var on vda (prepared: scratch v1 -> scratch v2)"
    );
    assert_eq!(node.shell("findmnt -no FSTYPE /var")?, "xfs");
    node.pull_plug();
    let second = node.disk()?.slices()?;
    assert_eq!(second[3].fs, "xfs");
    assert_eq!(second[0].name, "rackstrap scratch v2");
    assert_ne!(second[2].uuid, first[2].uuid, "/tmp was made anew");
    let untouched = node.disk()?.fingerprint()?;

    node.power_on()?;
    assert_eq!(node.wait_disk()?, "/tmp and /var on vda (kept: scratch v2)");
    node.pull_plug();
    assert_eq!(node.disk()?.fingerprint()?, untouched);
    assert_eq!(node.disk()?.slices()?, second);

    // Back to version 1 is another layout as well.
    cluster.daemon.reload(&Site::demo())?;
    node.power_on()?;
    assert_eq!(
        node.wait_disk()?,
        "/tmp and /var on vda (prepared: scratch v2 -> scratch v1)"
    );
    node.pull_plug();
    expect_scratch(&node.disk()?)?;
    Ok(())
}
