//! Selects the modules of every initramfs: those that a node may need before it has mounted its root.
//!
//! These are network cards, disks, the file systems of the root and of layouts, and their buses. Left out are large groups from which
//! no node boots: wireless, InfiniBand, Fibre Channel and iSCSI adapters, PCMCIA and ISA cards, switch chips. An administrator can
//! add a module by name (`rackstrap image import --module NAME`).

use rackstrap_modindex::{name_of, plain_path};

/// Directories that are included completely, named as in the kernel's source tree.
const DIRS: &[&str] = &[
    "drivers/net/ethernet/",
    "drivers/net/phy/",
    "drivers/net/mdio/",
    "drivers/net/pcs/",
    "drivers/net/vmxnet3/",
    "drivers/net/hyperv/",
    "drivers/virtio/",
    "drivers/scsi/megaraid/",
    "drivers/scsi/mpt3sas/",
    "drivers/scsi/mpi3mr/",
    "drivers/scsi/smartpqi/",
    "drivers/scsi/aacraid/",
    "drivers/scsi/isci/",
    "drivers/scsi/pm8001/",
    "drivers/scsi/mvsas/",
    "fs/overlayfs/",
    "fs/ext4/",
    "fs/xfs/",
];

/// Parts of those directories that are left out, because no machine of a rack boots from them.
const NOT: &[&str] = &[
    // Switch chips and their test drivers.
    "mellanox/mlxsw/",
    "marvell/prestera/",
    "microchip/sparx5/",
    "microchip/lan966x/",
    "mscc/",
    // SmartNICs need programs of their own before they are network cards.
    "cavium/liquidio/",
    "netronome/nfp/",
    // PCMCIA, ISA and CardBus cards, and cards from before PXE.
    "ethernet/3com/3c5",
    "ethernet/8390/axnet_cs",
    "ethernet/8390/pcnet_cs",
    "ethernet/amd/nmclan_cs",
    "ethernet/fujitsu/",
    "ethernet/smsc/smc91c92_cs",
    "ethernet/xircom/",
    "ethernet/dec/tulip/xircom_cb",
    "ethernet/dec/tulip/winbond",
    "ethernet/dec/tulip/uli526x",
    "ethernet/dec/tulip/de",
    "ethernet/dec/tulip/dmfe",
    "ethernet/packetengines/",
    "ethernet/dlink/",
    "ethernet/alteon/",
    "ethernet/neterion/",
    "ethernet/tehuti/",
    "ethernet/sun/cassini",
    "ethernet/micrel/",
    "ethernet/chelsio/cxgb/",
    "ethernet/chelsio/inline_crypto/",
    "ethernet/broadcom/cnic",
    "ethernet/sfc/falcon/",
    "ethernet/brocade/",
    "ethernet/qlogic/netxen/",
];

/// Single modules by name.
const NAMES: &[&str] = &[
    // Virtual machines.
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "virtio_rng",
    "xen_netfront",
    "xen_blkfront",
    "hv_vmbus",
    "hv_storvsc",
    "pci_hyperv",
    "vmw_pvscsi",
    "hyperv_keyboard",
    // Network cards on USB that firmware can boot from; packet sockets.
    "r8152",
    "ax88179_178a",
    "asix",
    "cdc_ether",
    "cdc_ncm",
    "af_packet",
    // Boot networks that are a VLAN or a bond.
    "8021q",
    "bonding",
    // Network cards whose makers ship drivers outside the kernel (DKMS), with a path that shows nothing.
    "r8125",
    "r8126",
    "r8127",
    "r8168",
    "ixgbe",
    "ixgbevf",
    "i40e",
    "iavf",
    "ice",
    "igb",
    "igc",
    "e1000e",
    "bnxt_en",
    "tg3",
    "mlx4_core",
    "mlx4_en",
    "mlx5_core",
    "ena",
    "atlantic",
    "txgbe",
    "ngbe",
    "sfc",
    // Drivers of disk controllers.
    "ahci",
    "ahci_platform",
    "libahci",
    "ata_piix",
    "ata_generic",
    "pata_acpi",
    "pata_jmicron",
    "pata_marvell",
    "pata_amd",
    "nvme",
    "vmd",
    "sd_mod",
    "hpsa",
    "mptsas",
    "mptspi",
    "3w_9xxx",
    "3w_sas",
    "arcmsr",
    "myrs",
    "usb_storage",
    "uas",
    "mmc_block",
    "sdhci_pci",
    "sdhci_acpi",
    "sym53c8xx",
    // Buses of the above, and keyboards for a person in front of the machine.
    "xhci_pci",
    "ehci_pci",
    "ehci_hcd",
    "uhci_hcd",
    "ohci_pci",
    "xhci_plat_hcd",
    "usbhid",
    "hid_generic",
    "i8042",
    "atkbd",
    // The kernel's messages by UDP, and those of a kernel that crashed.
    "netconsole",
    "efi_pstore",
    "ramoops",
    // Watchdogs; the second one is a part of the chips after it.
    "i6300esb",
    "iTCO_wdt",
    "lpc_ich",
    "i2c_i801",
    "sp5100_tco",
    "wdat_wdt",
    // Root, layouts, EFI system partitions and variables.
    "nfs",
    "nfsv3",
    "overlay",
    "ext4",
    "xfs",
    "vfat",
    "efivarfs",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859_1",
    "nls_utf8",
    "crc32c_generic",
    "crc32c_intel",
    "crc32_pclmul",
    "libcrc32c",
];

/// True if the module at `path` (relative to `/lib/modules/RELEASE`) belongs into every initramfs.
pub fn is_wanted(path: &str) -> bool {
    // Distributions put replacements below `updates/` or `extra/`, with or without the path of the source.
    let inside = |dir: &str| {
        path.find(dir)
            .is_some_and(|at| at == 0 || path.as_bytes()[at - 1] == b'/')
    };
    let sata = || {
        let file = path.rsplit('/').next().unwrap_or(path);
        inside("drivers/ata/") && plain_path(file).starts_with("sata_")
    };
    if inside("drivers/net/") && NOT.iter().any(|part| path.contains(part)) {
        return false;
    }
    DIRS.iter().any(|dir| inside(dir)) || sata() || NAMES.contains(&name_of(path).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_for_booting_are_selected_and_no_others() {
        for path in [
            "kernel/drivers/net/ethernet/intel/e1000/e1000.ko",
            "kernel/drivers/net/ethernet/mellanox/mlx5/core/mlx5_core.ko.xz",
            "updates/drivers/net/ethernet/intel/ice/ice.ko",
            "updates/dkms/r8125.ko.zst",
            "kernel/drivers/net/virtio_net.ko",
            "kernel/drivers/ata/sata_sil.ko",
            "kernel/drivers/usb/storage/usb-storage.ko",
            "kernel/fs/nfs/nfsv3.ko",
        ] {
            assert!(is_wanted(path), "{path}");
        }
        for path in [
            "kernel/drivers/net/wireless/intel/iwlwifi/iwlwifi.ko",
            "kernel/drivers/infiniband/hw/mlx5/mlx5_ib.ko",
            "kernel/drivers/net/ethernet/mellanox/mlxsw/mlxsw_spectrum.ko",
            "kernel/drivers/scsi/lpfc/lpfc.ko",
            "kernel/drivers/gpu/drm/amd/amdgpu/amdgpu.ko",
            "updates/dkms/nvidia.ko",
            "kernel/xdrivers/net/ethernet/x.ko",
        ] {
            assert!(!is_wanted(path), "{path}");
        }
    }

    #[test]
    fn names_are_written_as_the_kernel_writes_them() {
        assert!(NAMES.iter().all(|n| !n.contains('-') && !n.contains('.')));
    }
}
