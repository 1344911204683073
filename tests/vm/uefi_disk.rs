//! A machine with UEFI whose firmware boots from the disk: the disk's own program starts its network loader.

use super::{GIB2, expect_scratch};
use testbed::{BootOrder, Cluster, Firmware, Result, Site};

#[test]
fn a_prepared_disk_with_uefi_boots_from_the_network_by_its_own_program() -> Result {
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
    second.plug_in()?;
    second.wait_console("rackstrap: this disk asks the network.")?;
    second.wait_ready()?;
    assert_eq!(second.status("disk")?, "/tmp and /var on vda (kept: scratch v1)");
    // The agent removes the number of rounds that firmware keeps. The other one goes with a reset, and cannot be changed before (UEFI 2.10, 8.2).
    let left = second.shell("ls /sys/firmware/efi/efivars | grep -c RackstrapTotal; true")?;
    assert_eq!(left.trim(), "0", "the counter is still there");
    let remark = second.status("remark")?;
    assert!(
        remark.starts_with("boot order: ") && remark.ends_with(" before the network"),
        "{remark}"
    );
    Ok(())
}
