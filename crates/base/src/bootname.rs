//! Names by which boot loaders ask for what is no file: their scripts, and the files of a boot (pure).
//!
//! TFTP and HTTP use the same names, so that a script can try one after the other. [`BootName::parse`] reads what any machine can send.

mod boards;

use rackstrap_wire::HwAddr;

/// The languages of boot scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptLanguage {
    /// iPXE's, by HTTP at `/ipxe`.
    Ipxe,
    /// GRUB's, by HTTP or TFTP.
    Grub,
    /// That of PXELINUX and of U-Boot's `pxe` command, by TFTP.
    Pxelinux,
    /// A Raspberry Pi's `cmdline.txt`, by TFTP: the kernel's arguments and nothing else, so that no machine can wait in it.
    RaspberryPi,
}

impl ScriptLanguage {
    /// How its files are called in `bootscripts/`: `node.grub.j2`.
    pub fn suffix(self) -> &'static str {
        match self {
            ScriptLanguage::Ipxe => "ipxe",
            ScriptLanguage::Grub => "grub",
            ScriptLanguage::Pxelinux => "pxelinux",
            ScriptLanguage::RaspberryPi => "raspberrypi",
        }
    }

    /// What people call the loader.
    pub fn loader(self) -> &'static str {
        match self {
            ScriptLanguage::Ipxe => "iPXE",
            ScriptLanguage::Grub => "GRUB",
            ScriptLanguage::Pxelinux => "PXELINUX or U-Boot",
            ScriptLanguage::RaspberryPi => "Raspberry Pi",
        }
    }
}

/// A file of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootFile {
    /// The kernel.
    Kernel,
    /// The initramfs.
    Initramfs,
    /// FreeBSD's boot loader for a BIOS.
    PxeLoader,
    /// FreeBSD's boot loader for UEFI.
    EfiLoader,
}

impl BootFile {
    /// Its name in the directory of its version, and in requests.
    pub const fn name(self) -> &'static str {
        match self {
            BootFile::Kernel => "kernel",
            BootFile::Initramfs => "initramfs",
            BootFile::PxeLoader => "pxeboot",
            BootFile::EfiLoader => "loader.efi",
        }
    }

    /// The file of that name.
    pub fn of_name(name: &str) -> Option<BootFile> {
        [
            BootFile::Kernel,
            BootFile::Initramfs,
            BootFile::PxeLoader,
            BootFile::EfiLoader,
        ]
        .into_iter()
        .find(|file| file.name() == name)
    }
}

/// A request for a script that is made for one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptName<'a> {
    /// The language of the loader that asks.
    pub language: ScriptLanguage,
    /// The card that it booted from; none if it does not know it, so that its address has to do.
    pub hwaddr: Option<HwAddr>,
    /// The step at which its last script failed; empty at the first request.
    pub failed: &'a str,
    /// Whether the loader starts signed kernels only.
    pub locked: bool,
    /// The type of the firmware for which the loader was built (DHCP option 93); none if it does not say, or is not known here.
    pub arch: Option<u16>,
    /// How often it asked in vain since it was started, if it is one that was started from the node's disk.
    pub on_disk: Option<u8>,
}

/// What a name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootName<'a> {
    /// The script that a loader looks for by itself: it is the same for all machines, and asks for the machine's own.
    Start(ScriptLanguage),
    /// A script for one machine.
    Script(ScriptName<'a>),
    /// A file of a pinned boot.
    File {
        /// The id of the boot.
        boot: &'a str,
        /// Which one.
        file: BootFile,
    },
    /// A device tree of a pinned boot's image.
    DeviceTree {
        /// The id of the boot.
        boot: &'a str,
        /// `rockchip/rk3399-rockpro64.dtb`
        path: &'a str,
    },
    /// A file of a Raspberry Pi, which is that of the machine at the sender's address.
    RaspberryPi {
        /// The serial number that it says; empty if it says none.
        serial: &'a str,
        /// `config.txt`
        file: &'a str,
    },
    /// A file that loaders look for and do without.
    Optional,
}

/// Directories in which GRUB looks for its configuration: Debian's and Ubuntu's signed builds for networks, those of their installers, and
/// builds of `grub-mknetdir`, each with a directory for the platform below.
const GRUB_DIRS: [&str; 5] = [
    "grub",
    "boot/grub",
    "debian-installer/amd64/grub",
    "debian-installer/arm64/grub",
    "EFI/debian",
];

/// GRUB's targets (`$grub_cpu-$grub_platform`) for machines that boot from a network, as types of DHCP option 93.
const GRUB_TARGETS: [(&str, u16); 6] = [
    ("i386-pc", 0),
    ("i386-efi", 6),
    ("x86_64-efi", 7),
    ("arm-efi", 10),
    ("arm64-efi", 11),
    ("riscv64-efi", 27),
];

/// Where GRUB's first script asks for the machine's own.
const GRUB_SCRIPT: &str = "grub/script/mac-";

/// Files beside it that shim looks for and does without (`load_revocations_file` and `load_certs` of shim 16).
const OPTIONAL_OF_SHIM: [&str; 2] = ["revocations", "shim_certificate"];

impl<'a> BootName<'a> {
    /// What `name` asks for: components joined by single slashes, none in front, as TFTP's engine hands it over. None for any other file.
    pub fn parse(name: &'a str) -> Option<Self> {
        let whole = name;
        let name = boards::below_loader(name);
        if let Some(rest) = name.strip_prefix(GRUB_SCRIPT) {
            return grub_script(rest).map(BootName::Script);
        }
        if let Some((boot, file)) = name.strip_prefix("boot/").and_then(|rest| rest.split_once('/'))
            && let Some(file) = BootFile::of_name(file)
        {
            return Some(BootName::File { boot, file });
        }
        if let Some((boot, path)) = name.strip_prefix("boot/").and_then(|rest| rest.split_once("/dtb/"))
            && !boot.contains('/')
            && (path.ends_with(".dtb") || path.ends_with(".dtbo"))
        {
            return Some(BootName::DeviceTree { boot, path });
        }
        if let Some(script) = boards::pxelinux(name) {
            return Some(script);
        }
        let (dir, file) = name.rsplit_once('/').unwrap_or(("", name));
        let grub = GRUB_DIRS.iter().any(|own| {
            let below = dir.strip_prefix(own);
            below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        });
        if grub {
            return Some(match file {
                "grub.cfg" => BootName::Start(ScriptLanguage::Grub),
                // GRUB that searches by itself asks for this after the machine's UUID, and before its address in hexadecimal
                // (grub_net_search_config_file in grub-core/net/net.c).
                _ if file.starts_with("grub.cfg-01-") => BootName::Start(ScriptLanguage::Grub),
                _ => BootName::Optional,
            });
        }
        let of_shim = file.ends_with(".efi") && OPTIONAL_OF_SHIM.iter().any(|own| file.starts_with(own));
        match of_shim {
            true => Some(BootName::Optional),
            false => boards::raspberry_pi(whole),
        }
    }
}

/// `52:54:00:01:01:01/failed-kernel/lockdown-y/arm64-efi`. GRUB puts variables in, which are empty if they are not set. A script that an
/// older daemon sent, and that still runs, asks without the last part. GRUB on a disk adds `/disk-3` with its rounds in vain.
fn grub_script(rest: &str) -> Option<ScriptName<'_>> {
    let mut parts = rest.split('/');
    let mac = parts.next()?;
    let failed = parts.next()?.strip_prefix("failed-")?;
    let lockdown = parts.next()?.strip_prefix("lockdown-")?;
    let arch = parts.next().unwrap_or_default();
    let on_disk = match parts.next() {
        None => None,
        Some(part) => Some(part.strip_prefix("disk-")?.parse().ok()?),
    };
    let known = failed.len() <= 32 && failed.bytes().all(|b| b.is_ascii_lowercase());
    if parts.next().is_some() || !known {
        return None;
    }
    Some(ScriptName {
        language: ScriptLanguage::Grub,
        hwaddr: match mac {
            "" => None,
            mac => Some(mac.parse().ok()?),
        },
        failed,
        locked: lockdown == "y",
        arch: GRUB_TARGETS
            .iter()
            .find(|(name, _)| *name == arch)
            .map(|(_, arch)| *arch),
        on_disk,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_grub_and_shim_are_understood() {
        let start = Some(BootName::Start(ScriptLanguage::Grub));
        for (name, expected) in [
            // As in tests/captures/uefi-grubnetx64.efi.signed.pcap.
            ("grub/x86_64-efi/command.lst", Some(BootName::Optional)),
            ("grub/grub.cfg", start),
            ("grub/x86_64-efi/grub.cfg", start),
            ("debian-installer/amd64/grub/grub.cfg", start),
            ("boot/grub/grub.cfg", start),
            ("grub/grub.cfg-01-52-54-00-01-01-01", start),
            ("grub/grub.cfg-0A050101", Some(BootName::Optional)),
            ("grub.cfg", None),
            ("mygrub/grub.cfg", None),
            ("grubx64.efi", None),
            ("revocations_sbat.efi", Some(BootName::Optional)),
            ("loader.own/shim_certificate_0.efi", Some(BootName::Optional)),
            ("revocations", None),
            (
                "boot/k3v9/kernel",
                Some(BootName::File {
                    boot: "k3v9",
                    file: BootFile::Kernel,
                }),
            ),
            (
                "boot/k3v9/initramfs",
                Some(BootName::File {
                    boot: "k3v9",
                    file: BootFile::Initramfs,
                }),
            ),
            (
                "boot/k3v9/loader.efi",
                Some(BootName::File {
                    boot: "k3v9",
                    file: BootFile::EfiLoader,
                }),
            ),
            ("boot/k3v9/root", None),
            ("boot/k3v9", None),
        ] {
            assert_eq!(BootName::parse(name), expected, "{name}");
        }
    }

    #[test]
    fn a_script_is_asked_for_with_the_card_and_what_failed() {
        let card = Some("52:54:00:01:01:01");
        let script = |hwaddr: Option<&str>, failed, locked| {
            Some(BootName::Script(ScriptName {
                language: ScriptLanguage::Grub,
                hwaddr: hwaddr.map(|text| text.parse().unwrap()),
                failed,
                locked,
                arch: None,
                on_disk: None,
            }))
        };
        let of = |arch| {
            let Some(BootName::Script(script)) = script(card, "kernel", false) else {
                unreachable!("it is a script")
            };
            Some(BootName::Script(ScriptName {
                arch: Some(arch),
                ..script
            }))
        };
        let Some(BootName::Script(by_uefi)) = script(card, "", true) else {
            unreachable!("it is a script")
        };
        let of_disk = |asked| {
            Some(BootName::Script(ScriptName {
                arch: Some(7),
                on_disk: Some(asked),
                ..by_uefi
            }))
        };
        for (name, expected) in [
            ("52:54:00:01:01:01/failed-/lockdown-y/x86_64-efi/disk-0", of_disk(0)),
            ("52:54:00:01:01:01/failed-/lockdown-y/x86_64-efi/disk-7", of_disk(7)),
            ("52:54:00:01:01:01/failed-/lockdown-y/x86_64-efi/disk-", None),
            ("52:54:00:01:01:01/failed-/lockdown-y/x86_64-efi/disk-256", None),
            ("52:54:00:01:01:01/failed-/lockdown-y/x86_64-efi/disk-1/x", None),
            ("52:54:00:01:01:01/failed-/lockdown-", script(card, "", false)),
            (
                "52-54-00-01-01-01/failed-kernel/lockdown-y",
                script(card, "kernel", true),
            ),
            ("/failed-/lockdown-", script(None, "", false)),
            // Another card, or none, must not become the one at the sender's address.
            ("52:54:00:01:01/failed-/lockdown-", None),
            ("52:54:00:01:01:01", None),
            ("52:54:00:01:01:01/failed-", None),
            ("52:54:00:01:01:01/failed-kernel/lockdown-/arm64-efi", of(11)),
            ("52:54:00:01:01:01/failed-kernel/lockdown-/i386-pc", of(0)),
            ("52:54:00:01:01:01/failed-/lockdown-/x", script(card, "", false)),
            ("52:54:00:01:01:01/failed-/lockdown-/x/y", None),
            ("52:54:00:01:01:01/failed-Kernel\u{1b}/lockdown-", None),
            (
                "52:54:00:01:01:01/failed-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/lockdown-",
                None,
            ),
        ] {
            assert_eq!(BootName::parse(&format!("grub/script/mac-{name}")), expected, "{name}");
        }
    }
}
