//! A layout by the serial number of its disk: whatever place it has, no other disk is written, and leftovers on those are named.

use super::{GIB2, expect_scratch_of};
use testbed::{Bus::Nvme, Cluster, Disk, Result, Site};

/// Size of the disks with leftovers.
const OTHER: u64 = 64 << 20;
/// MiB of the partitions for swap and /tmp.
const PARTITIONS: [u64; 2] = [16, 32];
/// What an earlier installation leaves on a disk.
struct Leftover {
    /// Name of the disk.
    disk: &'static str,
    /// Signatures: offset and bytes.
    signatures: &'static [(u64, &'static [u8])],
    /// Its name for people.
    shown: &'static str,
}

const LEFTOVERS: [Leftover; 4] = [
    Leftover {
        disk: "lvm",
        signatures: &[(512, b"LABELONE"), (536, b"LVM2 001")],
        shown: "LVM physical volume",
    },
    Leftover {
        disk: "md",
        signatures: &[(4096, b"\xfc\x4e\x2b\xa9\x01\0\0\0")],
        shown: "mdraid member",
    },
    Leftover {
        disk: "luks",
        signatures: &[(0, b"LUKS\xba\xbe\0\x02")],
        shown: "LUKS",
    },
    Leftover {
        disk: "zfs",
        signatures: &[(128 << 10, b"\x0c\xb1\xba\0\0\0\0\0")],
        shown: "ZFS member",
    },
];

#[test]
fn a_layout_by_serial_number_writes_to_no_other_disk_and_leftovers_are_named() -> Result {
    let mut site = Site::small();
    // `wipe` applies only to the disk that the rule chose.
    site.scratch().wipe = Some("known".to_owned());
    for (partition, mib) in site.scratch().partitions.iter_mut().zip(PARTITIONS) {
        partition.size = format!("{mib}MiB");
    }
    let cluster = Cluster::start_small(site)?;
    let node = cluster.node("r01n01");
    // QEMU's disks have the name of their file as their serial number.
    let disk = |name: &str, bytes| Disk::blank(&cluster.dir().join(format!("{name}.raw")), bytes);
    let own = disk("own", GIB2)?;
    let mut others = Vec::new();
    for leftover in &LEFTOVERS {
        let other = disk(leftover.disk, OTHER)?;
        for (at, bytes) in leftover.signatures {
            other.write(*at, bytes)?;
        }
        let before = other.copy(&format!("{}-before.raw", leftover.disk))?;
        others.push((other, before));
    }
    let untouched = || others.iter().try_for_each(|(other, before)| other.expect_same(before));
    let place = |first: usize| {
        let (before, after) = others.split_at(first);
        let before = before.iter().map(|(other, _)| (Nvme, other.clone()));
        let after = after.iter().map(|(other, _)| (Nvme, other.clone()));
        node.insert_disks(before.chain([(Nvme, own.clone())]).chain(after));
    };
    let unused = |names: [&str; 4]| {
        let one = |(name, leftover): (&&str, &Leftover)| format!("{name} 67 MB ({})", leftover.shown);
        names.iter().zip(&LEFTOVERS).map(one).collect::<Vec<_>>().join(", ")
    };
    node.add()?;
    cluster.daemon.cli(&["node", "set", "r01n01", "disk=serial=OWN"])?;

    place(1);
    node.power_on()?;
    assert_eq!(
        node.wait_disk()?,
        format!(
            "/tmp and /var on nvme1n1 (prepared: blank -> scratch v1); unused: {}",
            unused(["nvme0n1", "nvme2n1", "nvme3n1", "nvme4n1"])
        )
    );
    node.pull_plug();
    untouched()?;
    expect_scratch_of(&own, PARTITIONS, 1900)?;
    let prepared = own.fingerprint()?;

    // Its controller has another place.
    place(3);
    node.power_on()?;
    assert_eq!(
        node.wait_disk()?,
        format!(
            "/tmp and /var on nvme3n1 (kept: scratch v1); unused: {}",
            unused(["nvme0n1", "nvme1n1", "nvme2n1", "nvme4n1"])
        )
    );
    node.pull_plug();
    untouched()?;
    assert_eq!(own.fingerprint()?, prepared);

    // The disk was taken out, which is confirmed, and a rule that fits all of the remaining ones chooses none.
    node.insert_disks(others.iter().map(|(other, _)| (Nvme, other.clone())));
    cluster.daemon.cli(&["node", "set", "r01n01", "disk=transport=nvme"])?;
    cluster.daemon.cli(&["node", "reprep", "r01n01", "--new-disk"])?;
    node.power_on()?;
    let shown = node.wait_disk()?;
    assert!(
        shown.starts_with(
            "degraded: 4 disks fit the rule transport=nvme: nvme0n1 (67 MB, nvme, lvm), nvme1n1 (67 MB, nvme, md)"
        ),
        "{shown}"
    );
    assert!(
        shown.contains("nothing was written; /tmp and /var are in RAM"),
        "{shown}"
    );
    node.pull_plug();
    untouched()?;
    let explained = cluster.daemon.cli(&["explain", "r01n01"])?;
    for part in ["serial=luks", "transport=nvme", "ZFS member", "disk=serial=SERIAL"] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    Ok(())
}
