//! A new layout version is applied at the next boot, and not before.

use super::{GIB2, expect_scratch};
use testbed::{Cluster, Result, Site};

#[test]
fn a_raised_layout_version_is_applied_at_the_next_boot_only() -> Result {
    let mut site = Site::small();
    let cluster = Cluster::start_small(site.clone())?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    node.power_on()?;
    node.wait_ready()?;
    let first = node.disk()?.slices()?;

    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    // `check` runs in another namespace than the daemon, and reports that with its exit status.
    let said_by = |command: &str| cli(&[command]).unwrap_or_else(|error| format!("{error:#}"));

    // Another layout with the same version: both commands report it, and no data is lost.
    site.scratch().partitions[2].fs = "xfs".to_owned();
    cluster.daemon.write_site(&site)?;
    for command in ["check", "reload"] {
        let said = said_by(command);
        assert!(
            said.contains("layout scratch v1 changed under the same version"),
            "{command}: {said}"
        );
        assert!(said.contains("r01n01: "), "{command}: {said}");
    }
    cluster.daemon.reload(&Site::small())?;

    // A new version: the reload names the nodes that lose data before it takes effect.
    node.shell("head -c 94371840 /dev/urandom > /tmp/results && sync")?;
    site.scratch().version = 2;
    cluster.daemon.write_site(&site)?;
    let lost = "the next boot prepares the disk for layout scratch v2 and loses scratch v1: /tmp ";
    let told = node.wait_until("what is on the disk", || {
        let said = said_by("check");
        let line = said
            .lines()
            .find(|line| line.contains(lost) && line.contains("MB used"));
        let (_, used) = line.and_then(|line| line.split_once(lost)).unwrap_or_default();
        let megabytes = used.split(' ').next().and_then(|number| number.parse::<u32>().ok());
        Ok(megabytes
            .filter(|megabytes| (90..200).contains(megabytes))
            .map(|_| format!("{lost}{used}")))
    })?;
    let refused = format!("{:#}", cli(&["reload"]).unwrap_err());
    assert!(refused.contains(&format!("r01n01: {lost}")), "{told} {refused}");
    assert!(refused.contains("rackstrap reload --reprep"), "{refused}");
    assert!(!cli(&["status"])?.contains(lost), "the new file is in use");
    cluster.daemon.reload_and_lose_disks(&site)?;
    for question in ["status", "explain"] {
        let said = cli(&[question, "r01n01"])?;
        assert!(said.contains(lost), "{question}: {said}");
    }

    // The running node keeps its disk, even after some heartbeats.
    node.shell("sync")?;
    for _ in 0..2 {
        let heard = cluster.status("r01n01")?["heard"].as_u64();
        node.wait_until("a heartbeat", || {
            Ok((cluster.status("r01n01")?["heard"].as_u64() > heard).then_some(()))
        })?;
    }
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
    assert_ne!(second[2].uuid, first[2].uuid, "/tmp was not made again");
    let untouched = node.disk()?.fingerprint()?;

    node.power_on()?;
    assert_eq!(node.wait_disk()?, "/tmp and /var on vda (kept: scratch v2)");
    node.pull_plug();
    assert_eq!(node.disk()?.fingerprint()?, untouched);
    assert_eq!(node.disk()?.slices()?, second);

    // Returning to version 1 is another layout too.
    cluster.daemon.reload_and_lose_disks(&Site::small())?;
    node.power_on()?;
    assert_eq!(
        node.wait_disk()?,
        "/tmp and /var on vda (prepared: scratch v2 -> scratch v1)"
    );
    node.pull_plug();
    expect_scratch(&node.disk()?)?;
    Ok(())
}
