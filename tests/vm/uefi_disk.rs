//! A machine with UEFI whose firmware boots from the disk: the disk's own program asks the network until it gets an answer.

use super::{GIB2, expect_scratch};
use testbed::{BootOrder, Cluster, Firmware, Result, Site};

/// The program's line after a round in vain.
const FAILED: &str = "rackstrap: network boot failed, trying again in";

#[test]
fn a_prepared_disk_with_uefi_asks_the_network_until_the_daemon_is_back() -> Result {
    let cluster = Cluster::start_small(Site::small())?;
    let first = cluster.node("r01n01").firmware(Firmware::Uefi).blank_disk(GIB2)?;
    first.power_on()?;
    first.wait_ready()?;
    first.pull_plug();
    expect_scratch(&first.disk()?)?;

    let second = cluster
        .node("r01n02")
        .firmware(Firmware::Uefi)
        .boot_order(BootOrder::DiskFirst);
    second.insert_disk(Some(first.disk()?.copy("second.raw")?));
    second.add()?;
    cluster.daemon.stop()?;
    second.plug_in()?;
    second.nice(19)?;
    second.wait_until("five rounds in vain", || {
        let rounds = second.console().text().matches(FAILED).count();
        Ok((rounds >= 5).then_some(()))
    })?;
    second.nice(0)?;
    cluster.start_daemon()?;
    second.wait_ready()?;
    assert_eq!(second.status("disk")?, "/tmp and /var on vda (kept: scratch v1)");
    let told = second.wait_event("the number of rounds", |event| {
        event.detail.contains("asked the network") && event.detail.contains("times in vain")
    })?;
    let rounds = told.detail.split_whitespace().find_map(|word| word.parse::<u32>().ok());
    assert!(rounds.is_some_and(|rounds| rounds >= 5), "{told}");
    let left = second.shell("ls /sys/firmware/efi/efivars | grep -c Rackstrap; true")?;
    assert_eq!(left.trim(), "0", "the counters are still there");
    let remark = second.status("remark")?;
    assert!(
        remark.starts_with("boot order: ") && remark.ends_with(" before the network"),
        "{remark}"
    );
    Ok(())
}
