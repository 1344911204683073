//! The firmware of a machine, and what QEMU needs for it.

/// The firmware of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS and the iPXE ROM of the network card.
    Bios,
    /// SeaBIOS and a PXE ROM that loads a file by TFTP: iPXE's ROM, which does not say that it is iPXE.
    BiosPlainRom,
    /// OVMF with its own PXE stack, because the card has no ROM.
    Uefi,
    /// The same with Microsoft's keys, and with Secure Boot enforced.
    SecureBoot,
    /// OVMF without PXE, so that it boots by HTTP.
    UefiHttp,
    /// OVMF and the iPXE ROM of the network card.
    UefiRom,
    /// AAVMF, the same firmware for machines with arm64, with its own PXE stack.
    UefiArm64,
    /// U-Boot for x86, in place of a BIOS.
    UBoot,
}

impl Firmware {
    /// The program that emulates its machine.
    pub(crate) fn qemu(self) -> &'static str {
        match self {
            Firmware::UefiArm64 => "qemu-system-aarch64",
            _ => "qemu-system-x86_64",
        }
    }

    /// QEMU's name of the machine. Its default processor for arm64, a Cortex-A15, has 32 bits and is set by [`Firmware::processor`].
    pub(crate) fn machine(self) -> &'static str {
        match self {
            // OVMF protects its variables by SMM if it enforces Secure Boot.
            Firmware::SecureBoot => "q35,smm=on",
            Firmware::UefiArm64 => "virt",
            _ => "q35",
        }
    }

    /// QEMU's name of the processor; none for the default one. Later ones than this have pointer authentication, whose emulation is
    /// slow.
    pub(crate) fn processor(self) -> Option<&'static str> {
        (self == Firmware::UefiArm64).then_some("cortex-a57")
    }

    /// Whether the ROM of the card boots from the network, and not the firmware's own network stack.
    pub(crate) fn uses_rom(self) -> bool {
        matches!(self, Firmware::Bios | Firmware::BiosPlainRom | Firmware::UefiRom)
    }

    /// The files of UEFI: its code, and its variables as they are at first.
    pub(crate) fn flash(self) -> Option<(&'static str, &'static str)> {
        match self {
            Firmware::Bios | Firmware::BiosPlainRom | Firmware::UBoot => None,
            Firmware::Uefi | Firmware::UefiHttp | Firmware::UefiRom => {
                Some(("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"))
            }
            Firmware::SecureBoot => Some((
                "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
            )),
            Firmware::UefiArm64 => Some(("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd")),
        }
    }
}
