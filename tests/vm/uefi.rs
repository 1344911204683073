//! OVMF's own PXE stack fetches iPXE by TFTP, and iPXE then requests its script. The agent puts the network first in OVMF's boot order, and the
//! machine boots by that order.

use super::GIB2;
use testbed::{BootOrder, Cluster, Firmware, Result, Site};

/// The vendor GUID of the specification's own variables, as a part of their files' names.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

#[test]
fn a_machine_with_uefi_boots_by_way_of_a_loader_and_has_the_network_first_afterwards() -> Result {
    let mut site = Site::small();
    site.default_profile().firmware = Some("network-first".to_owned());
    let cluster = Cluster::start_small(site)?;
    // The firmware tries the disk first, which is blank.
    let node = cluster.node("r01n01").firmware(Firmware::Uefi).blank_disk(GIB2)?;
    node.change_boot_order(BootOrder::DiskFirst);
    node.power_on()?;
    let loader = node.wait_event("the loader by TFTP", |event| event.step == "tftp")?;
    assert!(loader.detail.contains(".efi"), "{loader}");
    let changed = node.wait_event("the change of the boot order", |event| {
        event
            .detail
            .contains("the firmware's boot order has the network first now, and no longer ")
    })?;
    assert_eq!(changed.level, "ok");
    node.wait_ready()?;
    assert_eq!(node.shell("test -d /sys/firmware/efi && echo efi")?, "efi");
    assert_eq!(
        node.status("disk")?,
        "/tmp and /var on vda (prepared: blank -> scratch v1)"
    );
    let row = cluster.status("r01n01")?;
    assert!(row["remark"].is_null(), "the order is as it should be: {row}");
    for command in [["node", "show"].as_slice(), &["explain"]] {
        let shown = cluster.daemon.cli(&[command, &["r01n01"]].concat())?;
        assert!(
            shown.contains("the network first; the agent puts the network first (firmware = \"network-first\")"),
            "{shown}"
        );
        // BootCurrent of OVMF: the disk was first in the order, and blank.
        let by = shown
            .lines()
            .find(|line| line.contains("started by"))
            .unwrap_or_default();
        assert!(by.contains("PXEv4") && by.ends_with(", from the network"), "{shown}");
    }
    node.pull_plug();

    // Now the order in the firmware's variables counts. The disk has a program for UEFI, which is not started.
    node.change_boot_order(BootOrder::AsStored);
    node.plug_in()?;
    node.wait_ready()?;
    assert!(!node.console().text().contains("rackstrap: this disk asks the network."));
    node.shell("grep -q efivarfs /proc/mounts || mount -t efivarfs efivarfs /sys/firmware/efi/efivars")?;
    // Four bytes of attributes come before the value. efivarfs cannot skip them.
    let number = |name: &str| -> Result<Vec<String>> {
        let bytes = node.shell(&format!("od -An -v -tu1 < /sys/firmware/efi/efivars/{name}-{GLOBAL}"))?;
        Ok(bytes.split_whitespace().skip(4).take(2).map(str::to_owned).collect())
    };
    assert_eq!(number("BootCurrent")?, number("BootOrder")?);
    assert_eq!(node.status("disk")?, "/tmp and /var on vda (kept: scratch v1)");
    Ok(())
}
