//! The network cards and disks of a machine, and in which order it boots from them.

use crate::Disk;

/// The card of a node: r01n02 has 52:54:00:00:01:02, with QEMU's prefix.
pub(crate) fn hwaddr_of(name: &str) -> String {
    let position = name.trim_start_matches('r').replace('n', ":");
    format!("52:54:00:00:{position}")
}

/// The network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// virtio-net, the card of most virtual machines.
    Virtio,
    /// The same, as a card of 10 Gb/s. Without this, its speed is unknown.
    VirtioWithSpeed,
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
            Nic::VirtioWithSpeed => "virtio-net-pci,speed=10000,duplex=full",
            Nic::E1000 => "e1000",
            Nic::E1000e => "e1000e",
            Nic::Rtl8139 => "rtl8139",
            Nic::Vmxnet3 => "vmxnet3",
        }
    }
}

/// A card of a machine after its first one.
#[derive(Clone, Debug)]
pub(crate) struct FurtherCard {
    /// QEMU's name of its cable.
    pub id: String,
    /// Its hardware address.
    pub hwaddr: String,
    /// The tap at the other end of its cable.
    pub tap: String,
}

impl FurtherCard {
    /// The card with that index, from 0, of the machine whose first card has the address `first`.
    pub(crate) fn new(first: &str, index: usize, tap: String) -> Self {
        let prefix = format!("52:54:00:{:02x}", index + 1);
        FurtherCard {
            id: format!("card{index}"),
            hwaddr: first.replacen("52:54:00:00", &prefix, 1),
            tap,
        }
    }

    /// The arguments for QEMU. `first` is whether the firmware tries it before all others.
    pub(crate) fn qemu_arguments(&self, nic: Nic, first: bool) -> [String; 4] {
        let place = if first { ",bootindex=0" } else { "" };
        let model = nic.model();
        let FurtherCard { id, hwaddr, tap } = self;
        [
            "-netdev".to_owned(),
            format!("tap,id={id},ifname={tap},script=no,downscript=no"),
            "-device".to_owned(),
            format!("{model},netdev={id},mac={hwaddr}{place}"),
        ]
    }
}

/// The boot order of SeaBIOS or OVMF. By default, SeaBIOS stops for ever if nothing was bootable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootOrder {
    /// The network card, then the disk.
    NetworkFirst,
    /// The disk, then the network card.
    DiskFirst,
    /// The disk only: the card has no ROM, so that the firmware cannot boot from it.
    DiskAlone,
    /// The order that OVMF keeps in its variables. With any other one it writes QEMU's order there at each start.
    AsStored,
}

/// The connection of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk, without a serial number.
    Virtio,
    /// NVMe. Its identity belongs to the disk's file and not to its slot.
    Nvme,
    /// NVMe whose health page says that the medium's errors degrade its reliability.
    FailingNvme,
    /// virtio-blk whose sector [`UNREADABLE_SECTOR`] cannot be read.
    Unreadable,
    /// An SD card in an SDHCI reader. Its size is a power of two.
    SdCard,
    /// SATA, at the AHCI controller of the chipset.
    Sata,
    /// SCSI, at a controller of its own (virtio-scsi).
    Scsi,
}

/// The sector that cannot be read on a disk with [`Bus::Unreadable`]: it is at 40 MiB.
pub const UNREADABLE_SECTOR: u64 = 81_920;

/// The arguments for the disk with number `index`. `ordered` is whether QEMU tells the firmware when to boot from it.
pub(crate) fn disk_arguments(index: usize, bus: Bus, disk: &Disk, ordered: bool) -> Vec<String> {
    let path = disk.path();
    let drive = match bus {
        Bus::Unreadable => format!(
            "if=none,id=disk{index},format=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename={},\
             file.inject-error.0.event=read_aio,file.inject-error.0.sector={UNREADABLE_SECTOR},file.inject-error.0.errno=5",
            path.display()
        ),
        _ => format!("file={},format=raw,if=none,id=disk{index}", path.display()),
    };
    let boot = match ordered {
        true => format!(",bootindex={}", index + 2),
        false => String::new(),
    };
    let devices = match bus {
        Bus::Virtio | Bus::Unreadable => vec![format!("virtio-blk-pci,drive=disk{index}{boot}")],
        Bus::Nvme | Bus::FailingNvme => {
            let serial = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            // QEMU's own EUI-64 depends on the slot.
            let eui = serial
                .bytes()
                .fold(0x5254_0000_u64, |eui, byte| (eui << 5 ^ eui >> 27) ^ u64::from(byte));
            // Bit 2 of Critical Warning (NVM Express Base Specification 2.0c, 5.16.1.3).
            let warning = match bus {
                Bus::FailingNvme => ",smart_critical_warning=4",
                _ => "",
            };
            vec![
                format!("nvme,id=nvme{index},serial={serial}{warning}"),
                format!("nvme-ns,drive=disk{index},bus=nvme{index},nsid=1,eui64={eui:#x}{boot}"),
            ]
        }
        Bus::SdCard => vec![
            format!("sdhci-pci,id=reader{index}"),
            format!("sd-card,drive=disk{index},bus=sd-bus"),
        ],
        // q35 has an AHCI controller with the ports ide.0 to ide.5.
        Bus::Sata => vec![format!("ide-hd,drive=disk{index},bus=ide.{index}{boot}")],
        Bus::Scsi => vec![
            format!("virtio-scsi-pci,id=scsi{index}"),
            format!("scsi-hd,drive=disk{index},bus=scsi{index}.0{boot}"),
        ],
    };
    let devices = devices.into_iter().flat_map(|device| ["-device".to_owned(), device]);
    ["-drive".to_owned(), drive].into_iter().chain(devices).collect()
}
