//! A layout with an MBR: the marker is the fourth entry of the table.

use super::{GIB2, LOADER_ON_MBR};
use testbed::{Cluster, Partition, Result, Site};

#[test]
fn a_disk_with_an_mbr_is_prepared_and_kept() -> Result {
    let mut site = Site::small();
    site.scratch().table = Some("mbr".to_owned());
    site.scratch().partitions = vec![
        Partition::new("swap", "128MiB", "swap", ""),
        Partition::new("tmp", "400MiB", "xfs", "/tmp"),
        Partition::new("var", "rest", "ext4", "/var"),
    ];
    let cluster = Cluster::start_small(site)?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;

    node.power_on()?;
    node.wait_ready()?;
    assert_eq!(
        node.status("disk")?,
        "/tmp and /var on vda (prepared: blank -> scratch v1)"
    );
    assert_eq!(node.shell("findmnt -no FSTYPE /tmp")?, "xfs");
    node.pull_plug();
    let disk = node.disk()?;
    assert_eq!(disk.table(), "dos");
    assert_eq!(disk.read(LOADER_ON_MBR, 4)?, *b"RKSB");
    let slices = disk.slices()?;
    let kinds: Vec<&str> = slices.iter().map(|slice| slice.fs.as_str()).collect();
    assert_eq!(kinds, ["swap", "xfs", "ext4"]);
    disk.check(&slices[2])?;
    let untouched = disk.fingerprint()?;

    node.power_on()?;
    assert_eq!(node.wait_disk()?, "/tmp and /var on vda (kept: scratch v1)");
    node.pull_plug();
    assert_eq!(disk.fingerprint()?, untouched);
    assert_eq!(disk.slices()?, slices);
    Ok(())
}
