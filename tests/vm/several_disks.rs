//! Several disks in one node: the one with the marker is the node's under any kernel name, and others are not written.

use super::{GIB2, expect_scratch_of, make_foreign};
use testbed::{
    Bus::{Nvme, SdCard},
    Cluster, Disk, Result, Site,
};

/// Size of the card. QEMU's card discards sector by sector, which takes a fifth of a second for each MiB.
const CARD: u64 = 128 << 20;
/// MiB of the partitions for swap and /tmp, which fit on the card.
const PARTITIONS: [u64; 2] = [16, 32];

#[test]
fn the_disk_with_the_marker_is_the_nodes_under_any_kernel_name() -> Result {
    let mut site = Site::small();
    // `wipe` applies only to the disk that the rule chose.
    site.scratch().wipe = Some("always".to_owned());
    for (partition, mib) in site.scratch().partitions.iter_mut().zip(PARTITIONS) {
        partition.size = format!("{mib}MiB");
    }
    let cluster = Cluster::start_small_whole(site)?;
    let node = cluster.node("r01n01");
    let disk = |name: &str, bytes| Disk::blank(&cluster.dir().join(format!("{name}.raw")), bytes);
    let (own, foreign, card) = (disk("own", GIB2)?, disk("foreign", GIB2)?, disk("card", CARD)?);
    make_foreign(&foreign)?;
    make_foreign(&card)?;
    let (foreign_before, card_before) = (foreign.copy("foreign-before.raw")?, card.copy("card-before.raw")?);
    let untouched = || {
        foreign.expect_same(&foreign_before)?;
        card.expect_same(&card_before)
    };

    // Among disks without a marker, NVMe precedes the card. Unused disks are named.
    node.insert_disks([(Nvme, own.clone()), (Nvme, foreign.clone()), (SdCard, card.clone())]);
    node.power_on()?;
    let found = "(MBR with 2 partitions (ext2/3/4))";
    assert_eq!(
        node.wait_disk()?,
        format!(
            "/tmp and /var on nvme0n1 (prepared: blank -> scratch v1); unused: nvme1n1 2.1 GB {found}, mmcblk0 134 MB {found}"
        )
    );
    node.pull_plug();
    untouched()?;
    expect_scratch_of(&own, PARTITIONS, 1900)?;
    let prepared = own.fingerprint()?;

    // The disks are swapped.
    node.insert_disks([(Nvme, foreign.clone()), (Nvme, own.clone()), (SdCard, card.clone())]);
    node.power_on()?;
    node.wait_ready()?;
    assert_eq!(node.status("state")?, "ready");
    assert_eq!(
        node.status("disk")?,
        format!("/tmp and /var on nvme1n1 (kept: scratch v1); unused: nvme0n1 2.1 GB {found}, mmcblk0 134 MB {found}")
    );
    assert_eq!(node.shell("findmnt -no SOURCE /tmp")?, "/dev/nvme1n1p3");
    node.pull_plug();
    untouched()?;
    assert_eq!(own.fingerprint()?, prepared);

    // The node's disk is missing, and no other disk replaces it.
    node.insert_disks([(Nvme, foreign.clone()), (SdCard, card.clone())]);
    node.power_on()?;
    node.wait_ready()?;
    node.wait_state("degraded")?;
    let shown = node.status("disk")?;
    assert!(
        shown.starts_with("degraded: the disk of the last boot (nvme1n1, nvme."),
        "{shown}"
    );
    assert!(
        shown.contains(") is missing; nothing was written; /tmp and /var are in RAM"),
        "{shown}"
    );
    assert!(node.status("last_error")?.contains("is missing"), "{shown}");
    for question in ["status", "explain"] {
        let said = cluster.daemon.cli(&[question, "r01n01"])?;
        assert!(said.contains("`rackstrap node reprep r01n01 --new-disk`"), "{said}");
    }
    node.pull_plug();
    untouched()?;

    // It comes back together with a copy, so it is unclear which one is the node's.
    let copy = own.copy("copy.raw")?;
    node.insert_disks([(Nvme, own.clone()), (Nvme, copy.clone())]);
    node.power_on()?;
    let shown = node.wait_disk()?;
    assert!(
        shown.starts_with(
            "degraded: several disks carry a rackstrap marker: nvme0n1 (scratch v1), nvme1n1 (scratch v1); nothing was written"
        ),
        "{shown}"
    );
    node.pull_plug();
    own.expect_same(&copy)?;
    assert_eq!(own.fingerprint()?, prepared);

    // Both are gone for good, and only the card is left. The administrator orders the new disk, and the layout allows overwriting it.
    node.insert_disks([(SdCard, card.clone())]);
    cluster.daemon.cli(&["node", "reprep", "r01n01", "--new-disk"])?;
    node.power_on()?;
    let shown = node.wait_disk()?;
    assert!(
        shown.starts_with(
            "/tmp and /var on mmcblk0 (prepared: foreign (MBR with 2 partitions (ext2/3/4)) -> scratch v1)"
        ),
        "{shown}"
    );
    node.pull_plug();
    expect_scratch_of(&card, PARTITIONS, 70)?;
    Ok(())
}
