//! A node boots without a usable disk, and reports it.

use testbed::{Cluster, Disk, Result, Site};

#[test]
fn a_node_without_a_disk_or_with_a_small_one_boots_and_shows_why_it_is_degraded() -> Result {
    let cluster = Cluster::start_small(Site::small())?;
    let node = cluster.node("r01n01");

    node.power_on()?;
    node.wait_ready()?;
    node.wait_state("degraded")?;
    assert_eq!(
        node.status("disk")?,
        "degraded: no disk found; /tmp and /var are in RAM"
    );
    assert!(node.status("last_error")?.contains("no disk"));
    assert_eq!(
        node.shell("touch /tmp/x && findmnt -no FSTYPE -T /tmp")?,
        "overlay",
        "/tmp is not in the overlay"
    );
    node.pull_plug();

    // A swap of 256 MiB alone would fill this disk.
    let small = Disk::blank(&cluster.dir().join("small.raw"), 200 << 20)?;
    let before = small.copy("small-before.raw")?;
    node.insert_disk(Some(small.clone()));
    node.power_on()?;
    node.wait_ready()?;
    node.wait_state("degraded")?;
    let shown = node.status("disk")?;
    assert!(shown.contains("degraded") && shown.contains("200"), "{shown}");
    node.pull_plug();
    small.expect_same(&before)
}
