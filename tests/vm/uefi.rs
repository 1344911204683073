//! OVMF's own PXE stack fetches iPXE by TFTP, and iPXE then requests its script.

use super::GIB2;
use testbed::{Cluster, Firmware, Result, Site};

#[test]
fn a_machine_with_uefi_boots_by_way_of_a_loader() -> Result {
    let cluster = Cluster::start_small(Site::small())?;
    let node = cluster.node("r01n01").firmware(Firmware::Uefi).blank_disk(GIB2)?;
    node.power_on()?;
    let loader = node.wait_event("the loader by TFTP", |event| event.step == "tftp")?;
    assert!(loader.detail.contains(".efi"), "{loader}");
    node.wait_ready()?;
    assert_eq!(node.shell("test -d /sys/firmware/efi && echo efi")?, "efi");
    assert_eq!(
        node.status("disk")?,
        "/tmp and /var on vda (prepared: blank -> scratch v1)"
    );
    Ok(())
}
