//! Names of PXELINUX, of U-Boot's `pxe` command, and of a Raspberry Pi (pure).

use super::{BootName, ScriptLanguage, ScriptName};
use rackstrap_wire::HwAddr;

/// The directory in which PXELINUX and U-Boot look for their script, beside the boot file.
const PXELINUX_DIR: &str = "pxelinux.cfg/";

/// `name` without the directory of a `[loader.NAME]`, beside whose file its loader looks for further ones.
pub(super) fn below_loader(name: &str) -> &str {
    match name.split_once('/') {
        Some((dir, rest)) if dir.starts_with("loader.") => rest,
        _ => name,
    }
}

/// A script of PXELINUX or U-Boot.
///
/// Both ask for the UUID, the card (`01-52-54-00-01-01-01`; 01 is Ethernet), the address in hexadecimal, the same without its last digit, and so
/// on, U-Boot then for `default-ARCH-SOC-BOARD`, both for `default` (doc/pxelinux.txt of SYSLINUX; doc/README.pxe of U-Boot). The first that tells
/// which machine it is is answered.
pub(super) fn pxelinux(name: &str) -> Option<BootName<'_>> {
    // A script that U-Boot reads from a disk, by TFTP (`sysboot` with a file name).
    if matches!(name, "extlinux/extlinux.conf" | "extlinux.conf") {
        return Some(by_address());
    }
    // What U-Boot loads before, if DHCP names no file: its address in hexadecimal (net_auto_load() and default_filename() in its net/).
    let hexadecimal = |text: &str| text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if name.strip_suffix(".img").is_some_and(hexadecimal) {
        return Some(BootName::Optional);
    }
    let rest = name.strip_prefix(PXELINUX_DIR)?;
    let (failed, card) = match rest.strip_prefix("failed-").and_then(|rest| rest.split_once('/')) {
        Some((failed, card)) if matches!(failed, "boot" | "wait") => (failed, card),
        Some(_) => return Some(BootName::Optional),
        None => ("", rest),
    };
    if let Some(card) = card.strip_prefix("01-").and_then(card_of) {
        return Some(BootName::Script(ScriptName {
            language: ScriptLanguage::Pxelinux,
            hwaddr: Some(card),
            failed,
            locked: false,
            arch: None,
            on_disk: None,
        }));
    }
    match hexadecimal(rest) || rest == "default" || rest.starts_with("default-") {
        true => Some(by_address()),
        false => Some(BootName::Optional),
    }
}

/// For a loader that does not say its card: the machine is the one that has the sender's address.
fn by_address() -> BootName<'static> {
    BootName::Script(ScriptName {
        language: ScriptLanguage::Pxelinux,
        hwaddr: None,
        failed: "",
        locked: false,
        arch: None,
        on_disk: None,
    })
}

/// `dc-a6-32-01-36-c2`
fn card_of(text: &str) -> Option<HwAddr> {
    let hyphens = text.len() == 17 && text.bytes().skip(2).step_by(3).all(|b| b == b'-');
    hyphens.then(|| text.parse().ok())?
}

/// A file of a Raspberry Pi: below its serial number or MAC address (TFTP_PREFIX of its bootloader), or the files that it asks for without one.
pub(super) fn raspberry_pi(name: &str) -> Option<BootName<'_>> {
    if let Some((prefix, file)) = name.split_once('/') {
        let serial = prefix.len() == 8 && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if serial {
            return Some(BootName::RaspberryPi { serial: prefix, file });
        }
        if card_of(prefix).is_some() {
            return Some(BootName::RaspberryPi { serial: "", file });
        }
    }
    let numbered = |begin: &str, end: &str| name.starts_with(begin) && name.ends_with(end) && !name.contains('/');
    let known = matches!(
        name,
        "bootcode.bin" | "bootsig.bin" | "config.txt" | "cmdline.txt" | "initramfs"
    ) || numbered("start", ".elf")
        || numbered("fixup", ".dat")
        || numbered("kernel", ".img")
        || numbered("bcm27", ".dtb")
        || name.starts_with("overlays/");
    known.then_some(BootName::RaspberryPi { serial: "", file: name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(hwaddr: Option<&str>, failed: &'static str) -> Option<BootName<'static>> {
        Some(BootName::Script(ScriptName {
            language: ScriptLanguage::Pxelinux,
            hwaddr: hwaddr.map(|text| text.parse().unwrap()),
            failed,
            locked: false,
            arch: None,
            on_disk: None,
        }))
    }

    #[test]
    fn the_first_name_that_tells_the_machine_is_a_script() {
        let card = script(Some("52:54:00:77:01:01"), "");
        for (name, expected) in [
            // As in tests/captures/bios-pxelinux.0.pcap.
            (
                "pxelinux.cfg/44454c4c-4c00-1032-8051-b4c04f4b4631",
                Some(BootName::Optional),
            ),
            ("pxelinux.cfg/01-52-54-00-77-01-01", card),
            ("loader.bios/pxelinux.cfg/01-52-54-00-77-01-01", card),
            (
                "pxelinux.cfg/failed-boot/01-52-54-00-77-01-01",
                script(Some("52:54:00:77:01:01"), "boot"),
            ),
            (
                "pxelinux.cfg/failed-wait/01-52-54-00-77-01-01",
                script(Some("52:54:00:77:01:01"), "wait"),
            ),
            (
                "pxelinux.cfg/failed-\u{1b}/01-52-54-00-77-01-01",
                Some(BootName::Optional),
            ),
            ("pxelinux.cfg/0A050103", script(None, "")),
            ("pxelinux.cfg/0A05010", Some(BootName::Optional)),
            ("pxelinux.cfg/0", Some(BootName::Optional)),
            ("pxelinux.cfg/default-arm-rk3399-rockpro64", script(None, "")),
            ("pxelinux.cfg/default", script(None, "")),
            ("extlinux/extlinux.conf", script(None, "")),
            ("0A050103.img", Some(BootName::Optional)),
            ("0A050103.IMG", None),
            // Another type of hardware, and texts that are not addresses of cards.
            ("pxelinux.cfg/20-52-54-00-77-01-01", Some(BootName::Optional)),
            ("pxelinux.cfg/01-52-54-00-77-01", Some(BootName::Optional)),
            ("pxelinux.cfg/01-52:54:00:77:01:01", Some(BootName::Optional)),
            ("pxelinux.cfg/01-525400770101", Some(BootName::Optional)),
            ("mypxelinux.cfg/default", None),
            ("other/pxelinux.cfg/default", None),
        ] {
            assert_eq!(BootName::parse(name), expected, "{name}");
        }
    }

    #[test]
    fn a_raspberry_pi_asks_below_its_serial_number() {
        let pi = |serial, file| Some(BootName::RaspberryPi { serial, file });
        for (name, expected) in [
            ("9ffefdef/config.txt", pi("9ffefdef", "config.txt")),
            (
                "9ffefdef/overlays/vc4-kms-v3d.dtbo",
                pi("9ffefdef", "overlays/vc4-kms-v3d.dtbo"),
            ),
            ("dc-a6-32-01-36-c2/start4.elf", pi("", "start4.elf")),
            ("bootcode.bin", pi("", "bootcode.bin")),
            ("start4cd.elf", pi("", "start4cd.elf")),
            ("kernel8.img", pi("", "kernel8.img")),
            ("9FFEFDEF/config.txt", None),
            ("9ffefde/config.txt", None),
            ("undionly.kpxe", None),
            ("start/x.elf", None),
        ] {
            assert_eq!(BootName::parse(name), expected, "{name}");
        }
    }

    #[test]
    fn device_trees_of_a_boot_have_paths() {
        let tree = |path| Some(BootName::DeviceTree { boot: "k3v9", path });
        assert_eq!(
            BootName::parse("boot/k3v9/dtb/rockchip/rk3399-rockpro64.dtb"),
            tree("rockchip/rk3399-rockpro64.dtb")
        );
        assert_eq!(BootName::parse("loader.x/boot/k3v9/dtb/a.dtb"), tree("a.dtb"));
        assert_eq!(BootName::parse("boot/k3v9/dtb/a.txt"), None);
        assert_eq!(
            BootName::parse("loader.x/boot/k3v9/kernel"),
            Some(BootName::File {
                boot: "k3v9",
                file: super::super::BootFile::Kernel
            })
        );
    }
}
