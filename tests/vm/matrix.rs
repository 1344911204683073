//! Firmware, network cards and disks: one machine for each row boots up to the agent's report about its disk, and is switched off then.

use std::fmt::Write;
use testbed::{
    Bus, Cluster, Event, Firmware,
    Nic::{self, E1000, E1000e, Rtl8139, Virtio, Vmxnet3},
    Node, Partition, Result, Site,
};

/// Size of the disk, enough for the table, the network loader and the partition of [`swap_only`].
const DISK: u64 = 64 << 20;

/// A machine, and what its boot shows.
struct Machine {
    firmware: Firmware,
    nic: Nic,
    /// Whether a card without a cable comes first.
    second_card: bool,
    /// The bus of its disk, and the kernel's name of that.
    disk: (Bus, &'static str),
    /// How its requests for an address are shown, in this order.
    asks: &'static [&'static str],
    /// The file that the firmware fetches by TFTP; none if it needs none.
    by_tftp: Option<&'static str>,
    /// Text on its console; empty: any.
    console: &'static str,
}

const BIOS: Machine = Machine {
    firmware: Firmware::Bios,
    nic: Virtio,
    second_card: false,
    disk: (Bus::Virtio, "vda"),
    asks: &["(BIOS, iPXE)"],
    by_tftp: None,
    console: "iPXE",
};
const UEFI: Machine = Machine {
    firmware: Firmware::Uefi,
    asks: &["(x64 UEFI)", "(x64 UEFI, iPXE)"],
    by_tftp: Some("snponly.efi"),
    console: "PXE over IPv4",
    ..BIOS
};
const PLAIN_ROM: Machine = Machine {
    firmware: Firmware::BiosPlainRom,
    asks: &["(BIOS)", "(BIOS, iPXE)"],
    by_tftp: Some("undionly.kpxe"),
    ..BIOS
};
const UEFI_HTTP: Machine = Machine {
    firmware: Firmware::UefiHttp,
    asks: &["(x64 UEFI HTTP boot, HTTP boot)", "(x64 UEFI, iPXE)"],
    by_tftp: None,
    console: "HTTP Boot over IPv4",
    ..BIOS
};
const UEFI_ROM: Machine = Machine {
    firmware: Firmware::UefiRom,
    asks: &["(x64 UEFI, iPXE)"],
    ..BIOS
};
const SATA: (Bus, &str) = (Bus::Sata, "sda");
const SCSI: (Bus, &str) = (Bus::Scsi, "sda");
const NVME: (Bus, &str) = (Bus::Nvme, "nvme0n1");

/// One test for each row, so that a failed row has its name, and the runner starts several at a time.
macro_rules! rows {
    ($($name:ident => $machine:expr;)+) => {
        $(
            #[test]
            fn $name() -> Result {
                $machine.boots()
            }
        )+
    };
}

rows! {
    bios_ipxe_rom_virtio_sata => Machine { disk: SATA, ..BIOS };
    bios_ipxe_rom_e1000_nvme => Machine { nic: E1000, disk: NVME, ..BIOS };
    bios_ipxe_rom_e1000e_scsi => Machine { nic: E1000e, disk: SCSI, ..BIOS };
    bios_ipxe_rom_rtl8139 => Machine { nic: Rtl8139, ..BIOS };
    bios_ipxe_rom_vmxnet3 => Machine { nic: Vmxnet3, ..BIOS };
    bios_ipxe_rom_second_of_two_cards => Machine { second_card: true, ..BIOS };
    bios_plain_rom_undionly => PLAIN_ROM;
    uefi_pxe_nvme => Machine { disk: NVME, ..UEFI };
    uefi_http_boot => UEFI_HTTP;
    uefi_ipxe_rom_e1000 => Machine { nic: E1000, ..UEFI_ROM };
}

/// The part in parentheses of `offer 10.5.1.1 (BIOS, iPXE): the address of r01n01`.
fn trait_of(detail: &str) -> Option<&str> {
    detail.get(detail.find('(')?..=detail.find(')')?)
}

/// A site with a layout that is prepared in a second, where the disk only has to be found and written.
pub fn swap_only() -> Site {
    let mut site = Site::small();
    site.scratch().partitions = vec![Partition::new("swap", "rest", "swap", "")];
    site
}

impl Machine {
    /// The kernel for virtual machines is unpacked faster; it has no drivers for Intel's and Realtek's cards and for SATA.
    fn cluster(&self) -> Result<Cluster> {
        match matches!(self.nic, Virtio | Vmxnet3) && self.disk.0 != Bus::Sata {
            true => Cluster::start_small(swap_only()),
            false => Cluster::start_small_whole(swap_only()),
        }
    }

    /// The kernel's name of the card with the cable.
    fn card(&self) -> &'static str {
        if self.second_card { "eth1" } else { "eth0" }
    }

    fn boots(&self) -> Result {
        let cluster = self.cluster()?;
        let mut node = cluster.node("r01n01").firmware(self.firmware).nic(self.nic);
        if self.second_card {
            node = node.empty_card();
        }
        node = node.blank_disk(DISK)?;
        let disk = node.disk()?;
        let (bus, name) = self.disk;
        node.insert_disks([(bus, disk)]);
        node.power_on()?;
        let shown = node.wait_disk()?;
        node.pull_plug();
        assert_eq!(shown, format!("{name} (prepared: blank -> scratch v1)"));
        let text = node.console().text();
        assert!(text.contains(self.console), "{}", node.evidence());
        self.expect_chain(&node)
    }

    /// The firmware fetched its file by TFTP or nothing, and the agent reported the card of the inventory.
    fn expect_chain(&self, node: &Node<'_>) -> Result {
        let events = node.events()?;
        let of = |step: &str| -> Vec<&Event> { events.iter().filter(|event| event.step == step).collect() };
        let mut asked: Vec<&str> = of("dhcp discover")
            .iter()
            .filter_map(|event| trait_of(&event.detail))
            .collect();
        // Each program asks as often as it needs to.
        asked.dedup();
        let files: Vec<&str> = of("tftp").iter().map(|event| event.detail.as_str()).collect();
        let mut told = String::new();
        events.iter().try_for_each(|event| writeln!(told, "{event}"))?;
        assert_eq!(asked, self.asks, "{told}");
        match self.by_tftp {
            None => assert!(files.is_empty(), "{told}"),
            Some(file) => assert!(files.iter().any(|detail| detail.contains(file)), "{told}"),
        }
        let card = format!("{} {} is 10.5.1.1/16", self.card(), node.hwaddr());
        assert!(of("agent network").iter().any(|event| event.detail == card), "{told}");
        Ok(())
    }
}
