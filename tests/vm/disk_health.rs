//! Disks that fail while their node runs: one says so itself, and of the other the kernel reports a read that failed.

use testbed::{Bus, Cluster, Disk, Result, Site, UNREADABLE_SECTOR};

#[test]
fn a_failing_disk_and_a_sector_that_cannot_be_read_degrade_a_node_with_what_and_since_when() -> Result {
    let mut site = Site::small();
    site.default_profile().layout = None;
    let cluster = Cluster::start_small(site)?;
    let node = cluster.node("r01n01");
    let disk = |name: &str| Disk::blank(&cluster.dir().join(name), 64 << 20);
    node.insert_disks([
        (Bus::Unreadable, disk("sector.raw")?),
        (Bus::FailingNvme, disk("failing.raw")?),
    ]);
    node.power_on()?;
    node.wait_ready()?;

    // The first heartbeat has what the disk says.
    node.wait_state("degraded")?;
    let said = "nvme0n1 is failing (its reliability is degraded by errors of the medium)";
    let error = node.status("last_error")?;
    assert!(error.contains(said) && !error.contains("vda"), "{error}");
    let since = |device: &str, kind: &str| -> Result<Option<u64>> {
        let shown = cluster.daemon.json(&["node", "show", "r01n01"])?;
        let shown = if shown.is_array() { shown[0].clone() } else { shown };
        let disks = shown["disks"].as_array().cloned().unwrap_or_default();
        let disk = disks.iter().find(|disk| disk["device"] == device);
        Ok(disk.and_then(|disk| disk["since"][kind].as_u64()))
    };
    let began = since("nvme0n1", "failing")?;
    assert!(began.is_some_and(|began| began >= node.powered_on_at()), "{began:?}");
    assert_eq!(since("vda", "io-errors")?, None);
    let shown = cluster.daemon.cli(&["node", "show", "r01n01"])?;
    assert!(shown.contains("is failing: its reliability is degraded"), "{shown}");

    // A read of the sector fails, and the kernel says so.
    node.shell(&format!(
        "! dd if=/dev/vda of=/dev/null bs=512 count=1 skip={UNREADABLE_SECTOR} 2> /dev/null"
    ))?;
    node.wait_until("the error of the read", || {
        let error = node.status("last_error")?;
        Ok(error
            .contains("vda has I/O errors (the kernel reports failed requests")
            .then_some(()))
    })?;
    assert_eq!(since("nvme0n1", "failing")?, began, "it was failing before");
    assert!(since("vda", "io-errors")? > began);
    let timeline = cluster.daemon.cli(&["timeline", "r01n01"])?;
    assert!(timeline.contains("vda has I/O errors"), "{timeline}");
    node.pull_plug();
    Ok(())
}
