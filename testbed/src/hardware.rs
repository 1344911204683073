//! The network cards and disks of a machine.

use crate::Disk;

/// The network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// virtio-net, the card of most virtual machines.
    Virtio,
    /// Intel 82540EM.
    E1000,
    /// Intel 82574L.
    E1000e,
    /// Realtek 8139C+.
    Rtl8139,
    /// The card of VMware's machines.
    Vmxnet3,
}

impl Nic {
    /// Its name in QEMU.
    pub(crate) fn model(self) -> &'static str {
        match self {
            Nic::Virtio => "virtio-net-pci",
            Nic::E1000 => "e1000",
            Nic::E1000e => "e1000e",
            Nic::Rtl8139 => "rtl8139",
            Nic::Vmxnet3 => "vmxnet3",
        }
    }
}

/// The connection of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk, without a serial number.
    Virtio,
    /// NVMe. Its identity belongs to the disk's file and not to its slot.
    Nvme,
    /// An SD card in an SDHCI reader. Its size is a power of two.
    SdCard,
    /// SATA, at the AHCI controller of the chipset.
    Sata,
    /// SCSI, at a controller of its own (virtio-scsi).
    Scsi,
}

/// The arguments for the disk with number `index`.
pub(crate) fn disk_arguments(index: usize, bus: Bus, disk: &Disk) -> Vec<String> {
    let path = disk.path();
    let drive = format!("file={},format=raw,if=none,id=disk{index}", path.display());
    let boot = index + 2;
    let devices = match bus {
        Bus::Virtio => vec![format!("virtio-blk-pci,drive=disk{index},bootindex={boot}")],
        Bus::Nvme => {
            let serial = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            // QEMU's own EUI-64 depends on the slot.
            let eui = serial
                .bytes()
                .fold(0x5254_0000_u64, |eui, byte| (eui << 5 ^ eui >> 27) ^ u64::from(byte));
            vec![
                format!("nvme,id=nvme{index},serial={serial}"),
                format!("nvme-ns,drive=disk{index},bus=nvme{index},nsid=1,eui64={eui:#x},bootindex={boot}"),
            ]
        }
        Bus::SdCard => vec![
            format!("sdhci-pci,id=reader{index}"),
            format!("sd-card,drive=disk{index},bus=sd-bus"),
        ],
        // q35 has an AHCI controller with the ports ide.0 to ide.5.
        Bus::Sata => vec![format!("ide-hd,drive=disk{index},bus=ide.{index},bootindex={boot}")],
        Bus::Scsi => vec![
            format!("virtio-scsi-pci,id=scsi{index}"),
            format!("scsi-hd,drive=disk{index},bus=scsi{index}.0,bootindex={boot}"),
        ],
    };
    let devices = devices.into_iter().flat_map(|device| ["-device".to_owned(), device]);
    ["-drive".to_owned(), drive].into_iter().chain(devices).collect()
}
