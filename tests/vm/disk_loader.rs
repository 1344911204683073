//! Machines that are switched on before their server, and whose firmware has the disk only: the loader on the disk asks the network until the
//! daemon is there, and tells it how often it asked in vain. One disk serves both kinds of firmware.

use super::{GIB2, expect_scratch};
use testbed::{BootOrder, Cluster, Firmware, Node, Result, Site};

/// What each round ends with, on the serial console.
const ROUND: &str = "rackstrap: network boot failed, trying again in ";

#[test]
fn after_five_failed_rounds_from_the_disk_machines_with_bios_and_uefi_get_ready_once_the_daemon_starts() -> Result {
    let cluster = Cluster::start_small(Site::small())?;
    let first = cluster.node("r01n01").firmware(Firmware::Uefi).blank_disk(GIB2)?;
    first.power_on()?;
    first.wait_ready()?;
    first.pull_plug();
    expect_scratch(&first.disk()?)?;

    let uefi = cluster
        .node("r01n02")
        .firmware(Firmware::Uefi)
        .boot_order(BootOrder::DiskFirst);
    uefi.insert_disk(Some(first.disk()?.copy("uefi.raw")?));
    let bios = cluster.node("r01n03").warm_resets().boot_order(BootOrder::DiskAlone);
    bios.insert_disk(Some(first.disk()?.copy("bios.raw")?));
    for node in [&uefi, &bios] {
        node.add()?;
    }
    cluster.daemon.stop()?;

    for node in [&uefi, &bios] {
        node.plug_in()?;
        // Loaders poll without pause, so they get a low priority and leave the processors to other tests.
        node.nice(19)?;
    }
    for node in [&uefi, &bios] {
        node.wait_until("five failed rounds", || Ok((rounds(node) >= 5).then_some(())))?;
    }
    for node in [&uefi, &bios] {
        node.nice(0)?;
    }
    cluster.start_daemon()?;
    for node in [&uefi, &bios] {
        node.wait_ready()?;
        assert_eq!(node.status("disk")?, "/tmp and /var on vda (kept: scratch v1)");
        let failed = rounds(node);
        let told = format!("the loader on its disk asked the network {failed} times in vain");
        let events = node.events()?;
        let all: Vec<&str> = events.iter().map(|event| event.detail.as_str()).collect();
        assert_eq!(
            all.iter().filter(|detail| **detail == told).count(),
            1,
            "{told}: {all:#?}"
        );
        // Nothing counts a round twice.
        assert_eq!(
            all.iter().filter(|detail| detail.contains("in vain")).count(),
            1,
            "{all:#?}"
        );
        assert_eq!(cluster.status(node.name())?["retries"]["script"], failed, "{told}");
    }
    for said in [
        "rackstrap: this disk asks the network.",
        "the disk's loader asks the network",
    ] {
        assert!(uefi.console().text().contains(said), "{said}");
    }
    // The firmware keeps no counter of ours.
    let left = uefi.shell("ls /sys/firmware/efi/efivars | grep -c Rackstrap; true")?;
    assert_eq!(left.trim(), "0", "the counter is still there");
    let remark = uefi.status("remark")?;
    assert!(
        remark.starts_with("boot order: ") && remark.ends_with(" before the network"),
        "{remark}"
    );
    Ok(())
}

/// How many rounds a machine's console shows since it was switched on.
fn rounds(node: &Node) -> usize {
    node.console().text().matches(ROUND).count()
}
