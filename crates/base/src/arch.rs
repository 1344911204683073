//! Processor architectures, as firmware, kernels and people name them.

use std::fmt;

/// What a processor runs. People read the names that Debian and container images use: `amd64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Architecture {
    /// x86 of 64 bits.
    Amd64,
    /// x86 of 32 bits.
    I386,
    /// ARM of 64 bits.
    Arm64,
    /// ARM of 32 bits.
    Arm,
    /// RISC-V of 64 bits.
    Riscv64,
}

impl Architecture {
    /// Of a machine as `uname -m` names it; none for one that is not known here.
    pub fn of_machine(machine: &str) -> Option<Architecture> {
        Some(match machine {
            "x86_64" => Architecture::Amd64,
            "i386" | "i486" | "i586" | "i686" => Architecture::I386,
            "aarch64" => Architecture::Arm64,
            "armv6l" | "armv7l" => Architecture::Arm,
            "riscv64" => Architecture::Riscv64,
            _ => return None,
        })
    }

    /// Of a machine whose firmware says that number (RFC 4578 option 93, IANA's "Processor Architecture Types"). A BIOS is taken
    /// for that of a machine of 64 bits. None for a number that is not known here.
    pub fn of_firmware(arch: u16) -> Option<Architecture> {
        Some(match arch {
            0 | 7 | 9 | 16 | 20 => Architecture::Amd64,
            6 | 15 => Architecture::I386,
            // Raspberry Pi 3 and later have processors of 64 bits, and no earlier one boots by itself from a network.
            11 | 19 | 22 | 24 | 41 => Architecture::Arm64,
            10 | 18 | 21 | 23 => Architecture::Arm,
            27 | 28 => Architecture::Riscv64,
            _ => return None,
        })
    }

    /// With the name that people read: `arm64`.
    pub fn of_name(name: &str) -> Option<Architecture> {
        Architecture::ALL
            .into_iter()
            .find(|architecture| architecture.to_string() == name)
    }

    /// All that are known here.
    pub const ALL: [Architecture; 5] = [
        Architecture::Amd64,
        Architecture::I386,
        Architecture::Arm64,
        Architecture::Arm,
        Architecture::Riscv64,
    ];

    /// That of this program; none if it is not known here.
    pub fn native() -> Option<Architecture> {
        Architecture::of_machine(match std::env::consts::ARCH {
            "x86" => "i686",
            "arm" => "armv7l",
            other => other,
        })
    }

    /// As `uname -m` names it.
    pub fn machine(self) -> &'static str {
        match self {
            Architecture::Amd64 => "x86_64",
            Architecture::I386 => "i686",
            Architecture::Arm64 => "aarch64",
            Architecture::Arm => "armv7l",
            Architecture::Riscv64 => "riscv64",
        }
    }

    /// True if a system that was built for `self` runs on a machine of `machine`.
    pub fn runs_on(self, machine: Architecture) -> bool {
        // Most processors of arm64 run programs of arm, as those of amd64 run i386's.
        let older = [
            (Architecture::I386, Architecture::Amd64),
            (Architecture::Arm, Architecture::Arm64),
        ];
        self == machine || older.contains(&(self, machine))
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Architecture::Amd64 => "amd64",
            Architecture::I386 => "i386",
            Architecture::Arm64 => "arm64",
            Architecture::Arm => "arm",
            Architecture::Riscv64 => "riscv64",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_and_uname_name_the_same_architectures() {
        for (numbers, machine, name) in [
            (&[0u16, 7, 9, 16, 20][..], "x86_64", "amd64"),
            (&[6, 15], "i686", "i386"),
            (&[11, 19, 22, 24, 41], "aarch64", "arm64"),
            (&[10, 18, 21, 23], "armv7l", "arm"),
            (&[27, 28], "riscv64", "riscv64"),
        ] {
            let architecture = Architecture::of_machine(machine).unwrap();
            assert_eq!(
                (architecture.to_string().as_str(), architecture.machine()),
                (name, machine)
            );
            for number in numbers {
                assert_eq!(Architecture::of_firmware(*number), Some(architecture), "{number}");
            }
        }
        for architecture in Architecture::ALL {
            assert_eq!(Architecture::of_name(&architecture.to_string()), Some(architecture));
        }
        assert_eq!(Architecture::of_name("x86_64"), None);
        assert_eq!(Architecture::of_firmware(2), None);
        assert_eq!(Architecture::of_machine(""), None);
    }

    #[test]
    fn a_machine_of_64_bits_runs_systems_of_32() {
        assert!(Architecture::I386.runs_on(Architecture::Amd64));
        assert!(!Architecture::Amd64.runs_on(Architecture::I386));
        assert!(!Architecture::Amd64.runs_on(Architecture::Arm64));
    }
}
