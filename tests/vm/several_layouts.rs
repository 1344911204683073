//! A node with two layouts: each has a disk of its own, and no layout takes the disk of the other one.

use super::GIB2;
use testbed::{Bus::Nvme, Cluster, Disk, Result, Site};

/// Size of the disk for the second layout.
const DATA: u64 = 256 << 20;

const LAYOUT: &str = r#"
[layout.data]
version = 1
disk = { transport = "nvme", pick = "smallest" }
partition = [{ name = "data", size = "rest", fs = "ext4", mount = "/data" }]
"#;

#[test]
fn each_layout_keeps_its_disk_when_disks_change_places_or_are_missing() -> Result {
    let mut site = Site::small();
    site.more = LAYOUT.to_owned();
    for (partition, mib) in site.scratch().partitions.iter_mut().zip([16, 32]) {
        partition.size = format!("{mib}MiB");
    }
    let cluster = Cluster::start_small(site)?;
    let node = cluster.node("r01n01");
    let disk = |name: &str, bytes| Disk::blank(&cluster.dir().join(format!("{name}.raw")), bytes);
    let (own, data) = (disk("own", GIB2)?, disk("data", DATA)?);
    node.add()?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    cli(&[
        "node",
        "set",
        "r01n01",
        "layout=[\"scratch\", \"data\"]",
        "disk=largest",
    ])?;

    node.insert_disks([(Nvme, own.clone()), (Nvme, data.clone())]);
    node.power_on()?;
    assert_eq!(
        node.wait_disk()?,
        "/tmp and /var on nvme0n1 (prepared: blank -> scratch v1); /data on nvme1n1 (prepared: blank -> data v1)"
    );
    node.wait_ready()?;
    assert_eq!(node.status("state")?, "ready");
    node.shell("echo result > /data/result && sync")?;
    assert_eq!(node.shell("findmnt -no SOURCE /data")?, "/dev/nvme1n1p2");
    node.pull_plug();
    let prepared = data.fingerprint()?;

    // The disks change places, and only the disk of the first layout is prepared again, by an order for it.
    let refused = format!("{:#}", cli(&["node", "reprep", "r01n01", "--yes"]).unwrap_err());
    assert!(refused.contains("--layout data"), "{refused}");
    cli(&["node", "reprep", "r01n01", "--layout", "scratch", "--yes"])?;
    let explained = cli(&["explain", "r01n01"])?;
    assert!(
        explained.contains("prepares the disk for layout scratch v1, as ordered"),
        "{explained}"
    );
    node.insert_disks([(Nvme, data.clone()), (Nvme, own.clone())]);
    node.power_on()?;
    assert_eq!(
        node.wait_disk()?,
        "/tmp and /var on nvme1n1 (prepared: scratch v1 -> scratch v1); /data on nvme0n1 (kept: data v1)"
    );
    node.wait_ready()?;
    assert_eq!(node.shell("cat /data/result")?, "result");
    node.pull_plug();
    assert_eq!(data.fingerprint()?, prepared);

    // The disk of the second layout is missing, and the rule of the first one fits whatever is there.
    let before = own.fingerprint()?;
    node.insert_disks([(Nvme, own.clone())]);
    node.power_on()?;
    let shown = node.wait_disk()?;
    assert!(
        shown.starts_with(
            "/tmp and /var on nvme0n1 (kept: scratch v1); layout data: degraded: the disk of the last boot (nvme0n1, "
        ),
        "{shown}"
    );
    assert!(
        shown.contains("is missing; nothing was written; /data is in RAM"),
        "{shown}"
    );
    node.pull_plug();
    assert_eq!(own.fingerprint()?, before);

    // The disk of the first layout is missing, and the other one is not taken for it.
    node.insert_disks([(Nvme, data.clone())]);
    node.power_on()?;
    let shown = node.wait_disk()?;
    assert!(
        shown.starts_with("layout scratch: degraded: the disk of the last boot"),
        "{shown}"
    );
    assert!(shown.contains("; /data on nvme0n1 (kept: data v1)"), "{shown}");
    node.pull_plug();
    let said = cli(&["status", "r01n01"])?;
    assert!(
        said.contains("`rackstrap node reprep r01n01 --layout scratch --new-disk`"),
        "{said}"
    );
    Ok(())
}
