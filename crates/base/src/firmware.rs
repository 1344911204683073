//! What firmware says of itself: its architecture, the loader that it gets first, and what was last seen of each node's.

use crate::sync::lock;
use rackstrap_wire::HwAddr;
use std::{collections::HashMap, net::Ipv4Addr, sync::Mutex};

/// Names of the architectures of RFC 4578 option 93 by their number, with those that IANA added since
/// ("Processor Architecture Types" in its DHCPv6 parameters).
const NAMES: [&str; 42] = [
    "BIOS",
    "NEC PC98",
    "Itanium",
    "DEC Alpha",
    "Arc x86",
    "Intel Lean Client",
    "x86 UEFI",
    "x64 UEFI",
    "Xscale UEFI",
    "x64 UEFI",
    "ARM 32-bit UEFI",
    "arm64 UEFI",
    "PowerPC Open Firmware",
    "PowerPC ePAPR",
    "POWER OPAL",
    "x86 UEFI HTTP boot",
    "x64 UEFI HTTP boot",
    "EBC HTTP boot",
    "ARM 32-bit UEFI HTTP boot",
    "arm64 UEFI HTTP boot",
    "BIOS HTTP boot",
    "ARM 32-bit U-Boot",
    "arm64 U-Boot",
    "ARM 32-bit U-Boot HTTP boot",
    "arm64 U-Boot HTTP boot",
    "RISC-V 32-bit UEFI",
    "RISC-V 32-bit UEFI HTTP boot",
    "RISC-V 64-bit UEFI",
    "RISC-V 64-bit UEFI HTTP boot",
    "RISC-V 128-bit UEFI",
    "RISC-V 128-bit UEFI HTTP boot",
    "s390 Basic",
    "s390 Extended",
    "MIPS 32-bit UEFI",
    "MIPS 64-bit UEFI",
    "Sunway 32-bit UEFI",
    "Sunway 64-bit UEFI",
    "LoongArch 32-bit UEFI",
    "LoongArch 32-bit UEFI HTTP boot",
    "LoongArch 64-bit UEFI",
    "LoongArch 64-bit UEFI HTTP boot",
    "Raspberry Pi boot ROM",
];

/// What people read for an architecture: `x64 UEFI`.
pub fn name(arch: u16) -> String {
    match NAMES.get(usize::from(arch)) {
        Some(name) => (*name).to_owned(),
        None => format!("unknown architecture {arch}"),
    }
}

/// Which loader firmware of that architecture gets first.
///
/// # Errors
/// No loader is made for that architecture. The text names those that are.
pub fn first_loader(arch: Option<u16>) -> Result<&'static str, String> {
    match arch {
        // Firmware too old for option 93 is a PC's BIOS.
        None | Some(0) => Ok("undionly.kpxe"),
        // x64 UEFI; 9 is what many x64 machines say (RFC 4578's table had 7 and 9 swapped), 16 is its HTTP boot.
        Some(7 | 9 | 16) => Ok("snponly.efi"),
        // arm64 UEFI and its HTTP boot; not in Debian's package, so it comes from the site's own directory.
        Some(11 | 19) => Ok("snponly-arm64.efi"),
        Some(other) => Err(format!(
            "there is no boot loader for {} (architecture {other}), only for BIOS, x64 UEFI and arm64 UEFI; look for another \
             boot mode in the machine's firmware setup",
            name(other)
        )),
    }
}

/// The architectures for which there is a first loader, with it and whether they boot by HTTP.
pub fn with_loader() -> impl Iterator<Item = (u16, &'static str, bool)> {
    (0u16..).zip(NAMES).filter_map(|(arch, name)| {
        let loader = first_loader(Some(arch)).ok()?;
        Some((arch, loader, name.ends_with("HTTP boot")))
    })
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

/// What was last seen of each node's card, since the daemon started.
#[derive(Debug, Default)]
pub struct Firmwares(Mutex<HashMap<HwAddr, Seen>>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    arch: Option<u16>,
    address: Option<Ipv4Addr>,
}

impl Firmwares {
    /// Firmware on the card of a node asked for an address.
    pub fn note(&self, hwaddr: HwAddr, arch: u16) {
        self.change(hwaddr, |seen| seen.arch = Some(arch));
    }

    /// Its architecture; none if its firmware sent nothing since the daemon started.
    pub fn of(&self, hwaddr: HwAddr) -> Option<u16> {
        lock(&self.0).get(&hwaddr)?.arch
    }

    /// Another DHCP server gave that address to the card of a node.
    pub fn note_address(&self, hwaddr: HwAddr, address: Ipv4Addr) {
        self.change(hwaddr, |seen| seen.address = Some(address));
    }

    /// The address that another DHCP server gave to it; none if that was not seen since the daemon started.
    pub fn address_of(&self, hwaddr: HwAddr) -> Option<Ipv4Addr> {
        lock(&self.0).get(&hwaddr)?.address
    }

    fn change(&self, hwaddr: HwAddr, change: impl FnOnce(&mut Seen)) {
        let mut known = lock(&self.0);
        if known.len() < MOST || known.contains_key(&hwaddr) {
            change(known.entry(hwaddr).or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_have_the_names_of_their_numbers() {
        assert_eq!(name(0), "BIOS");
        assert_eq!(name(10), "ARM 32-bit UEFI");
        assert_eq!(name(19), "arm64 UEFI HTTP boot");
        assert_eq!(name(27), "RISC-V 64-bit UEFI");
        assert_eq!(name(41), "Raspberry Pi boot ROM");
        assert_eq!(name(42), "unknown architecture 42");
    }

    #[test]
    fn firmware_without_a_loader_is_named() {
        assert_eq!(first_loader(None), Ok("undionly.kpxe"));
        assert_eq!(first_loader(Some(9)), Ok("snponly.efi"));
        let why = first_loader(Some(10)).unwrap_err();
        assert!(why.contains("ARM 32-bit UEFI (architecture 10)"), "{why}");
    }

    #[test]
    fn architectures_with_a_loader_are_listed() {
        let all: Vec<_> = with_loader().map(|(arch, _, http)| (arch, http)).collect();
        assert_eq!(
            all,
            [(0, false), (7, false), (9, false), (11, false), (16, true), (19, true)]
        );
    }

    #[test]
    fn architecture_and_address_of_a_card_are_kept_apart() {
        let (seen, card) = (Firmwares::default(), HwAddr([2; 6]));
        seen.note(card, 7);
        assert_eq!((seen.of(card), seen.address_of(card)), (Some(7), None));
        seen.note_address(card, Ipv4Addr::LOCALHOST);
        assert_eq!(
            (seen.of(card), seen.address_of(card)),
            (Some(7), Some(Ipv4Addr::LOCALHOST))
        );
        assert_eq!(seen.address_of(HwAddr([4; 6])), None);
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
