//! Firmware of single boards, which loads its files by names of its own and needs no loader: Raspberry Pi and U-Boot.

use rackstrap_wire::HwAddr;

/// The architecture type of a Raspberry Pi's boot ROM in the registry. The boards say 0, a PC's BIOS, in DHCP for IPv4
/// (github.com/raspberrypi/rpi-eeprom issue 182); this program says 41 for them.
pub const RASPBERRY_PI: u16 = 41;

/// How the vendor class of U-Boot begins: `U-Boot.armv8` (CONFIG_BOOTP_VCI_STRING in its cmd/Kconfig).
pub const U_BOOT: &str = "U-Boot";

/// Option 43 for a Raspberry Pi: a boot menu (PXE 2.1, table 2-1) with one entry, whose text the boot ROM looks for. It takes no offer without
/// it. The three spaces at its end are those of the first Raspberry Pi 3, whose ROM cannot be changed. The bytes are those that
/// dnsmasq sends, with which boards boot (captures in github.com/raspberrypi/firmware issues 871 and 941): discovery control 3, a menu
/// prompt of 0 s, the menu, the end.
pub const RASPBERRY_PI_MENU: [u8; 35] = *b"\x06\x01\x03\x0a\x04\0PXE\x09\x17\0\0\x14Raspberry Pi Boot   \xff";

/// The vendors' parts of the addresses of Raspberry Pi's cards, in IEEE's registry.
const CARDS: [[u8; 3]; 7] = [
    [0xb8, 0x27, 0xeb],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0x28, 0xcd, 0xc1],
    [0xd8, 0x3a, 0xdd],
    [0x2c, 0xcf, 0x67],
    [0x88, 0xa2, 0x9e],
];

/// Whether the card is one of a Raspberry Pi, by its vendor.
pub fn is_raspberry_pi_card(hwaddr: HwAddr) -> bool {
    CARDS.iter().any(|vendor| hwaddr.0.starts_with(vendor))
}

/// Whether a packet comes from the boot ROM or the EEPROM of a Raspberry Pi: from its card, with the class of a PC's firmware, or with a GUID
/// of the form that Raspberry Pi 4 and later send. UEFI and U-Boot on such a board have other architecture types.
pub fn is_raspberry_pi(hwaddr: HwAddr, arch: Option<u16>, class: &str, guid: Option<&[u8; 16]>) -> bool {
    match arch {
        Some(RASPBERRY_PI) => true,
        None | Some(0) => {
            let pxe = class.starts_with(super::PXE_CLIENT);
            // Its REQUEST has no class (github.com/raspberrypi/rpi-eeprom issue 87).
            (pxe && is_raspberry_pi_card(hwaddr)) || ((pxe || class.is_empty()) && guid.is_some_and(of_pi))
        }
        Some(_) => false,
    }
}

/// "RPi4", "RPi5" (DHCP_OPTION97 in the documentation of the bootloader's configuration).
fn of_pi(guid: &[u8; 16]) -> bool {
    guid.starts_with(b"RPi") && guid[3].is_ascii_digit()
}

/// Whether it is U-Boot, by its class or its architecture type. U-Boot of x86 says type 0.
pub fn is_u_boot(arch: Option<u16>, class: &str) -> bool {
    class.starts_with(U_BOOT) || matches!(arch, Some(21 | 22))
}

/// Firmware that finds its files by itself on the TFTP server: its name in `rackstrap loaders`, and what it asks for.
pub fn loads_itself(arch: Option<u16>, class: &str) -> Option<(&'static str, &'static str)> {
    if arch == Some(RASPBERRY_PI) {
        return Some((
            "raspberry-pi",
            "a Raspberry Pi loads its firmware and config.txt of the node's image, below its serial number",
        ));
    }
    is_u_boot(arch, class).then_some((
        "u-boot",
        "U-Boot loads pxelinux.cfg/01-MAC, which is the node's boot script",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: &str = "PXEClient:Arch:00000:UNDI:002001";

    #[test]
    fn a_raspberry_pi_is_told_from_a_pc() {
        let (pi, pc) = (
            HwAddr([0xb8, 0x27, 0xeb, 0x86, 0x96, 0xf5]),
            HwAddr([0x52, 0x54, 0, 0, 1, 1]),
        );
        // Of a Raspberry Pi 3, the serial number four times; of a Raspberry Pi 4, with its revision, card and serial number.
        let repeated = [0xf5, 0x96, 0x86, 0x8d].repeat(4).try_into().unwrap();
        let modern = *b"RPi4\x11\x31\xc0\x00\x32\x01\x36\xc2\x0d\xdb\xfe\x9f";
        for (hwaddr, arch, class, guid, expected) in [
            (pi, Some(0), CLASS, Some(&repeated), true),
            (pi, None, CLASS, None, true),
            (pc, Some(0), CLASS, Some(&modern), true),
            (pc, None, "", Some(&modern), true),
            (pc, Some(41), "", None, true),
            (pc, Some(0), CLASS, Some(&repeated), false),
            (pc, None, "", None, false),
            // A system, U-Boot and UEFI on the board.
            (pi, None, "", None, false),
            (pi, None, "udhcp 1.35.0", None, false),
            (pi, Some(22), "U-Boot.armv8", None, false),
            (pi, Some(11), "PXEClient:Arch:00011:UNDI:003000", Some(&modern), false),
        ] {
            assert_eq!(
                is_raspberry_pi(hwaddr, arch, class, guid),
                expected,
                "{hwaddr} {arch:?} {class}"
            );
        }
    }

    #[test]
    fn the_menu_has_the_text_that_boot_roms_look_for() {
        let menu = RASPBERRY_PI_MENU.escape_ascii().to_string();
        assert!(menu.contains("Raspberry Pi Boot   \\xff"), "{menu}");
        // Each tag's length leads to the next tag, and the last one is the end.
        let (mut rest, mut tags) = (&RASPBERRY_PI_MENU[..], Vec::new());
        while let [tag, len, tail @ ..] = rest {
            tags.push(*tag);
            rest = &tail[usize::from(*len)..];
        }
        assert_eq!((tags, rest), (vec![6, 10, 9], &[255][..]));
    }

    #[test]
    fn boards_find_their_files_by_themselves() {
        let name = |arch, class| loads_itself(arch, class).map(|(name, _)| name);
        assert_eq!(name(Some(41), CLASS), Some("raspberry-pi"));
        assert_eq!(name(Some(22), "U-Boot.armv8"), Some("u-boot"));
        assert_eq!(name(Some(0), "U-Boot"), Some("u-boot"));
        assert_eq!(name(Some(0), CLASS), None);
        assert_eq!(name(None, ""), None);
        // By HTTP it loads an EFI program.
        assert_eq!(name(Some(24), "HTTPClient:Arch:00024"), None);
    }
}
