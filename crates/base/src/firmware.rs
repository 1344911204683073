//! What firmware says of itself: its architecture, the loader that it gets by default, and what was last seen of each node's.

mod boards;
mod chain;
mod types;
mod waiting;

pub use boards::{
    RASPBERRY_PI, RASPBERRY_PI_MENU, U_BOOT, is_raspberry_pi, is_raspberry_pi_card, is_u_boot, loads_itself,
};
pub use chain::{COMPANIONS, Companion, chain_of, companions_of, language_of};
pub use types::{
    ARCH_TYPES, ArchType, DISCOVERY_CONTROL, HTTP_CLIENT, PXE_CLIENT, arch_type, name, name_and_number, names_of,
    near_name, numbers_of,
};

use crate::{clock::monotonic, sync::lock, text::one_line};
use rackstrap_wire::HwAddr;
use std::{collections::HashMap, net::Ipv4Addr, sync::Mutex, time::Instant};
use waiting::WaitingAddresses;

/// A loader that firmware gets if the site file names none for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultLoader {
    /// Its name in `rackstrap loaders`. A `[loader.NAME]` may have the same.
    pub name: &'static str,
    /// The architecture types that it is for.
    pub archs: &'static [u16],
    /// Its file by the names that distributions give it, the best one first. `snponly` uses the firmware's own driver for the card that
    /// it booted from, which always fits; `ipxe` brings its own drivers.
    pub files: &'static [&'static str],
}

/// The loaders for firmware that the site file does not mention: iPXE, which fetches its script by HTTP.
pub const DEFAULT_LOADERS: [DefaultLoader; 3] = [
    DefaultLoader {
        name: "bios",
        archs: &[0],
        files: &["undionly.kpxe"],
    },
    DefaultLoader {
        name: "x86_64-efi",
        archs: &[7, 9, 16],
        // The last two are the names of Fedora's and Enterprise Linux's ipxe-bootimgs-x86.
        files: &["snponly.efi", "ipxe-snponly-x86_64.efi", "ipxe.efi", "ipxe-x86_64.efi"],
    },
    DefaultLoader {
        name: "arm64-efi",
        archs: &[11, 19],
        // The second and the fourth one are those of ipxe-bootimgs-aarch64, in a directory of their own. Debian 12 has no iPXE for
        // arm64, and this GRUB.
        files: &[
            "snponly-arm64.efi",
            "arm64-efi/snponly.efi",
            "ipxe-arm64.efi",
            "arm64-efi/ipxe.efi",
            "grubnetaa64.efi.signed",
        ],
    },
];

/// The architecture type that a loader is chosen by. Firmware too old for option 93 is a PC's BIOS.
pub fn or_bios(arch: Option<u16>) -> u16 {
    arch.unwrap_or(0)
}

/// The default loader of an architecture type; none if none is made for it.
pub fn default_loader(arch: Option<u16>) -> Option<&'static DefaultLoader> {
    DEFAULT_LOADERS
        .iter()
        .find(|loader| loader.archs.contains(&or_bios(arch)))
}

/// The architecture in a vendor class (option 60), `PXEClient:Arch:00007:UNDI:003016`, where option 93 is missing.
pub fn arch_of_class(class: &[u8]) -> Option<u16> {
    let rest = class
        .strip_prefix(b"PXEClient:Arch:")
        .or_else(|| class.strip_prefix(b"HTTPClient:Arch:"))?;
    let digits = rest.split(|byte| *byte == b':').next()?;
    // Five digits by PXE 2.1, table 2-1.
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The architecture of firmware that starts an iPXE of that `${buildarch}` (`BUILD_ARCH` in iPXE's Makefile); none for a word that is not
/// known here. An iPXE of 32 bits of x86 is that of a BIOS: firmware of x86 UEFI gets no loader.
pub fn arch_of_ipxe(buildarch: &str) -> Option<u16> {
    Some(match buildarch {
        "i386" => 0,
        "x86_64" => 7,
        "arm32" => 10,
        "arm64" => 11,
        "riscv64" => 27,
        _ => return None,
    })
}

/// Cards of nodes that are remembered at most.
const MOST: usize = 65_536;

/// Bytes of a vendor class that are kept. Those of PXE 2.1 and UEFI have 32.
const CLASS: usize = 64;

/// A vendor class as it is kept, compared and shown: on one line, and of limited length.
pub fn class_text(class: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(&class[..class.len().min(CLASS)]), CLASS)
}

/// What firmware says of itself when it asks for an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firmware {
    /// Its architecture type; none if it did not send one.
    pub arch: Option<u16>,
    /// Its vendor class by [`class_text`]; empty if it did not send one.
    pub class: String,
}

/// What was last seen of each node's card, since the daemon started, and the addresses of waiting machines.
#[derive(Debug, Default)]
pub struct Firmwares(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    nodes: HashMap<HwAddr, Seen>,
    /// Apart from nodes, so that a flood of machines takes no node's place.
    waiting: WaitingAddresses,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    said: Option<Firmware>,
    /// With the time at which it was noted.
    address: Option<(Instant, Ipv4Addr)>,
    /// The other DHCP server whose offer it took last, and the address.
    server: Option<(String, Ipv4Addr)>,
}

impl Firmwares {
    /// Firmware on the card of a node asked for an address. What it leaves out now is kept from before.
    pub fn note(&self, hwaddr: HwAddr, said: Firmware) {
        self.change(hwaddr, |seen| {
            let before = seen.said.take().unwrap_or_default();
            seen.said = Some(Firmware {
                arch: said.arch.or(before.arch),
                class: if said.class.is_empty() {
                    before.class
                } else {
                    said.class
                },
            });
        });
    }

    /// Its architecture; none if its firmware sent nothing since the daemon started.
    pub fn of(&self, hwaddr: HwAddr) -> Option<u16> {
        lock(&self.0).nodes.get(&hwaddr)?.said.as_ref()?.arch
    }

    /// All that it said; none if its firmware sent nothing since the daemon started.
    pub fn said(&self, hwaddr: HwAddr) -> Option<Firmware> {
        lock(&self.0).nodes.get(&hwaddr)?.said.clone()
    }

    /// Another DHCP server gave that address to the card of a node.
    pub fn note_address(&self, hwaddr: HwAddr, address: Ipv4Addr) {
        self.change(hwaddr, |seen| seen.address = Some((monotonic(), address)));
    }

    /// The address that another DHCP server gave to it; none if that was not seen since the daemon started.
    pub fn address_of(&self, hwaddr: HwAddr) -> Option<Ipv4Addr> {
        lock(&self.0).nodes.get(&hwaddr)?.address.map(|(_, address)| address)
    }

    /// `address` of another DHCP server was taken by the waiting machine `hwaddr`, as its own request says; none if a client took it that
    /// does not wait. At most 8192 machines are remembered.
    pub fn note_waiting(&self, address: Ipv4Addr, hwaddr: Option<HwAddr>) {
        lock(&self.0).waiting.took(address, hwaddr);
    }

    /// The waiting machine that took `address` from another DHCP server; none if that was not seen since the daemon started.
    pub fn waiting_at(&self, address: Ipv4Addr) -> Option<HwAddr> {
        lock(&self.0).waiting.holder(address)
    }

    /// The card of a node took an offer: of that other DHCP server, for people, with the address; none = of this one.
    pub fn note_server(&self, hwaddr: HwAddr, server: Option<(String, Ipv4Addr)>) {
        let known = lock(&self.0)
            .nodes
            .get(&hwaddr)
            .is_some_and(|seen| seen.server.is_some());
        if known || server.is_some() {
            self.change(hwaddr, |seen| seen.server = server);
        }
    }

    /// The other DHCP server whose offer it took last, `10.5.0.9 at 52:54:00:00:09:09`, and the address; none if it took this one's.
    pub fn server_of(&self, hwaddr: HwAddr) -> Option<(String, Ipv4Addr)> {
        lock(&self.0).nodes.get(&hwaddr)?.server.clone()
    }

    /// The address that another DHCP server gave last to one of a node's cards; none if that was not seen since the daemon started.
    pub fn last_address_of(&self, cards: &[HwAddr]) -> Option<Ipv4Addr> {
        let known = lock(&self.0);
        let noted = cards.iter().filter_map(|card| known.nodes.get(card)?.address);
        noted.max_by_key(|(at, _)| *at).map(|(_, address)| address)
    }

    /// Which of a node's cards booted at `address`: the one whose firmware took that address, or else the first one. None if `cards` is empty.
    pub fn booted(&self, cards: &[HwAddr], address: Ipv4Addr) -> Option<HwAddr> {
        let took = |card: &&HwAddr| self.address_of(**card) == Some(address);
        cards.iter().find(took).or(cards.first()).copied()
    }

    fn change(&self, hwaddr: HwAddr, change: impl FnOnce(&mut Seen)) {
        let known = &mut lock(&self.0).nodes;
        if known.len() < MOST || known.contains_key(&hwaddr) {
            change(known.entry(hwaddr).or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_architecture_has_at_most_one_default_loader() {
        for row in ARCH_TYPES {
            let loaders = DEFAULT_LOADERS
                .iter()
                .filter(|loader| loader.archs.contains(&row.number));
            assert!(loaders.count() <= 1, "{}", row.name);
        }
        let first = |arch| default_loader(arch).map(|loader| loader.files[0]);
        assert_eq!(first(None), Some("undionly.kpxe"));
        assert_eq!(first(Some(0)), Some("undionly.kpxe"));
        for x64 in [7, 9, 16] {
            assert_eq!(first(Some(x64)), Some("snponly.efi"));
        }
        assert_eq!(first(Some(19)), Some("snponly-arm64.efi"));
        for none in [6, 10, 20, 27, 42, u16::MAX] {
            assert_eq!(first(Some(none)), None, "{none}");
        }
    }

    #[test]
    fn an_architecture_that_is_left_out_later_is_kept() {
        let firmwares = Firmwares::default();
        let card: HwAddr = "52:54:00:00:01:01".parse().unwrap();
        assert_eq!((firmwares.of(card), firmwares.said(card)), (None, None));
        let class = |text: &str| class_text(text.as_bytes());
        firmwares.note(
            card,
            Firmware {
                arch: Some(11),
                class: class("PXEClient:Arch:00011"),
            },
        );
        // iPXE without option 93.
        firmwares.note(
            card,
            Firmware {
                arch: None,
                class: class("PXEClient\x1b[2J"),
            },
        );
        let said = firmwares.said(card).unwrap();
        assert_eq!((said.arch, said.class.contains('\x1b')), (Some(11), false));
        assert_eq!(class_text(&[0xff; 300]).chars().count(), CLASS / '\u{fffd}'.len_utf8());
    }

    #[test]
    fn architecture_and_address_of_a_card_are_kept_apart() {
        let (seen, card) = (Firmwares::default(), HwAddr([2; 6]));
        let said = Firmware {
            arch: Some(7),
            class: String::new(),
        };
        seen.note(card, said);
        assert_eq!((seen.of(card), seen.address_of(card)), (Some(7), None));
        seen.note_address(card, Ipv4Addr::LOCALHOST);
        assert_eq!(
            (seen.of(card), seen.address_of(card)),
            (Some(7), Some(Ipv4Addr::LOCALHOST))
        );
        let other = HwAddr([4; 6]);
        seen.note_address(other, Ipv4Addr::LOCALHOST);
        assert_eq!(
            (seen.address_of(other), seen.said(other)),
            (Some(Ipv4Addr::LOCALHOST), None)
        );
        assert_eq!(seen.last_address_of(&[HwAddr([6; 6])]), None);
        assert_eq!(seen.server_of(card), None);
        for server in [Some(("10.5.0.9".to_owned(), Ipv4Addr::LOCALHOST)), None] {
            seen.note_server(card, server.clone());
            assert_eq!(seen.server_of(card), server);
        }
        seen.note_address(card, Ipv4Addr::BROADCAST);
        for cards in [[card, other], [other, card]] {
            assert_eq!(seen.last_address_of(&cards), Some(Ipv4Addr::BROADCAST));
        }
    }

    #[test]
    fn ipxe_names_the_architecture_that_it_was_built_for() {
        use crate::arch::Architecture;
        let of = |word: &str| arch_of_ipxe(word).and_then(Architecture::of_firmware);
        assert_eq!(of("arm64"), Some(Architecture::Arm64));
        assert_eq!(of("arm32"), Some(Architecture::Arm));
        assert_eq!(of("x86_64"), Some(Architecture::Amd64));
        // undionly.kpxe, on machines of 64 bits as well.
        assert_eq!(of("i386"), Some(Architecture::Amd64));
        // A client that puts nothing in.
        assert_eq!((of("${buildarch}"), of("")), (None, None));
    }

    #[test]
    fn a_vendor_class_names_the_architecture() {
        for (class, arch) in [
            (&b"PXEClient:Arch:00007:UNDI:003016"[..], Some(7)),
            (b"HTTPClient:Arch:00016:UNDI:003001", Some(16)),
            (b"PXEClient:Arch:00000", Some(0)),
            (b"PXEClient", None),
            (b"PXEClient:Arch:", None),
            (b"PXEClient:Arch:-0007:UNDI", None),
            (b"PXEClient:Arch:99999:UNDI", None),
            (b"PXEClient:Arch:000007:UNDI", None),
            (b"PXEClient:Arch:0\xff007", None),
            (b"xPXEClient:Arch:00007", None),
        ] {
            assert_eq!(arch_of_class(class), arch, "{}", class.escape_ascii());
        }
    }
}
