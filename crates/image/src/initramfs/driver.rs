//! Finds out what a module drives, from the kernel functions that it calls.
//!
//! This is for modules from outside the kernel's sources: they lie flat in `extra/`, `updates/` or `weak-updates/`, where neither a
//! directory nor a known name shows their purpose.

use super::elf;

/// Functions that register a driver on a bus. A module without one drives no hardware: file systems and tunnels also have devices.
const BUSES: &[&str] = &[
    "__pci_register_driver",
    "__platform_driver_register",
    "__vmbus_driver_register",
    "__auxiliary_driver_register",
    "__register_virtio_driver",
    "register_virtio_driver",
    "usb_register_driver",
];

/// Functions that create a network card, or a disk or its controller.
const DEVICES: &[&str] = &[
    "alloc_etherdev_mqs",
    "devm_alloc_etherdev_mqs",
    "alloc_netdev_mqs",
    "usbnet_probe",
    "scsi_host_alloc",
    "ata_host_alloc",
    "ata_host_alloc_pinfo",
    "ata_pci_sff_init_one",
    "usb_stor_probe1",
    "mmc_alloc_host",
    "devm_mmc_alloc_host",
    "blk_mq_alloc_tag_set",
    "__blk_mq_alloc_disk",
];

/// Functions of drivers for devices from which no node boots: wireless, Fibre Channel, iSCSI.
const NOT: &[&str] = &[
    "wiphy_new_nm",
    "ieee80211_alloc_hw_nm",
    "fc_attach_transport",
    "iscsi_register_transport",
    "iscsi_host_alloc",
];

/// True for the driver of a network card or of disks. `module` is the uncompressed file.
pub(super) fn boots_nodes(module: &[u8]) -> bool {
    let (mut bus, mut device) = (false, false);
    for symbol in elf::undefined_symbols(module) {
        let is_in = |list: &[&str]| list.iter().any(|name| name.as_bytes() == symbol);
        if is_in(NOT) {
            return false;
        }
        bus |= is_in(BUSES);
        device |= is_in(DEVICES);
    }
    bus && device
}

#[cfg(test)]
mod tests {
    use super::{super::tests::module, *};

    #[test]
    fn drivers_are_told_by_what_they_call() {
        for (calls, wanted) in [
            (&["__pci_register_driver", "alloc_etherdev_mqs", "printk"][..], true),
            (&["__pci_register_driver", "scsi_host_alloc"], true),
            (
                &["__pci_register_driver", "scsi_host_alloc", "fc_attach_transport"],
                false,
            ),
            (&["__pci_register_driver", "alloc_netdev_mqs", "wiphy_new_nm"], false),
            (&["alloc_netdev_mqs", "rtnl_link_register"], false),
            (&["__blk_mq_alloc_disk"], false),
            (&["__pci_register_driver", "drm_dev_alloc"], false),
            (&[], false),
        ] {
            assert_eq!(boots_nodes(&module(b"license=GPL\0", calls)), wanted, "{calls:?}");
        }
        assert!(!boots_nodes(b"no module"));
    }
}
