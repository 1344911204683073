//! The architecture types of firmware: one table of their numbers, their names in the site file, and what people call them.
//!
//! The numbers are those of option 93 (RFC 4578 section 2.1; RFC 5970 section 3.3 opened the registry), as IANA lists them today:
//! "Processor Architecture Types" in <https://www.iana.org/assignments/dhcpv6-parameters>.

use crate::words::closest;

/// How the vendor class (option 60) of firmware begins that loads by TFTP (PXE 2.1 table 2-1).
pub const PXE_CLIENT: &str = "PXEClient";
/// How that of firmware begins that loads by HTTP (UEFI 2.10 section 24.7.3.1).
pub const HTTP_CLIENT: &str = "HTTPClient";

/// Option 43 for the firmware of a BIOS: PXE_DISCOVERY_CONTROL (PXE 2.1, table 2-1, tag 6), bit 3: load the boot file, ask no
/// boot server. The last byte is the end of the option's own list.
pub const DISCOVERY_CONTROL: [u8; 4] = [6, 1, 8, 255];

/// One row of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchType {
    /// The number in option 93, and in the vendor class `PXEClient:Arch:00007`.
    pub number: u16,
    /// Its name in the site file. Numbers with the same name need the same loader.
    pub name: &'static str,
    /// What people read, after the registry's text: `x64 UEFI`.
    pub label: &'static str,
}

impl ArchType {
    /// Whether this firmware fetches its loader by HTTP: its vendor class begins with `HTTPClient` (UEFI 2.10 section 24.7.3.1).
    pub fn is_http(&self) -> bool {
        self.name.ends_with("-http")
    }

    /// [`PXE_CLIENT`] or [`HTTP_CLIENT`].
    pub fn client(&self) -> &'static str {
        if self.is_http() { HTTP_CLIENT } else { PXE_CLIENT }
    }

    /// How its vendor class (option 60) begins: `PXEClient:Arch:00007` (PXE 2.1 table 2-1).
    pub fn class(&self) -> String {
        format!("{}:Arch:{:05}", self.client(), self.number)
    }
}

/// The whole registry, in the order of its numbers, without gaps.
///
/// RFC 4578's own table has 7 (EFI byte code) and 9 (x64) the other way round than the registry, after its erratum 4625. Firmware of
/// x64 machines sends either, so that both have one name. No firmware that runs EFI byte code only was ever built.
pub const ARCH_TYPES: [ArchType; 42] = [
    row(0, "bios", "BIOS"),
    row(1, "pc98", "NEC PC98"),
    row(2, "ia64-efi", "Itanium"),
    row(3, "alpha", "DEC Alpha"),
    row(4, "arc-x86", "Arc x86"),
    row(5, "lean-client", "Intel Lean Client"),
    row(6, "i386-efi", "x86 UEFI"),
    row(7, "x86_64-efi", "x64 UEFI"),
    row(8, "xscale-efi", "Xscale UEFI"),
    row(9, "x86_64-efi", "x64 UEFI"),
    row(10, "arm-efi", "ARM 32-bit UEFI"),
    row(11, "arm64-efi", "arm64 UEFI"),
    row(12, "powerpc-openfirmware", "PowerPC Open Firmware"),
    row(13, "powerpc-epapr", "PowerPC ePAPR"),
    row(14, "powerpc-opal", "POWER OPAL"),
    row(15, "i386-efi-http", "x86 UEFI HTTP boot"),
    row(16, "x86_64-efi-http", "x64 UEFI HTTP boot"),
    row(17, "ebc-http", "EBC HTTP boot"),
    row(18, "arm-efi-http", "ARM 32-bit UEFI HTTP boot"),
    row(19, "arm64-efi-http", "arm64 UEFI HTTP boot"),
    row(20, "bios-http", "BIOS HTTP boot"),
    row(21, "arm-uboot", "ARM 32-bit U-Boot"),
    row(22, "arm64-uboot", "arm64 U-Boot"),
    row(23, "arm-uboot-http", "ARM 32-bit U-Boot HTTP boot"),
    row(24, "arm64-uboot-http", "arm64 U-Boot HTTP boot"),
    row(25, "riscv32-efi", "RISC-V 32-bit UEFI"),
    row(26, "riscv32-efi-http", "RISC-V 32-bit UEFI HTTP boot"),
    row(27, "riscv64-efi", "RISC-V 64-bit UEFI"),
    row(28, "riscv64-efi-http", "RISC-V 64-bit UEFI HTTP boot"),
    row(29, "riscv128-efi", "RISC-V 128-bit UEFI"),
    row(30, "riscv128-efi-http", "RISC-V 128-bit UEFI HTTP boot"),
    row(31, "s390-basic", "s390 Basic"),
    row(32, "s390-extended", "s390 Extended"),
    row(33, "mips-efi", "MIPS 32-bit UEFI"),
    row(34, "mips64-efi", "MIPS 64-bit UEFI"),
    row(35, "sunway-efi", "Sunway 32-bit UEFI"),
    row(36, "sunway64-efi", "Sunway 64-bit UEFI"),
    row(37, "loongarch32-efi", "LoongArch 32-bit UEFI"),
    row(38, "loongarch32-efi-http", "LoongArch 32-bit UEFI HTTP boot"),
    row(39, "loongarch64-efi", "LoongArch 64-bit UEFI"),
    row(40, "loongarch64-efi-http", "LoongArch 64-bit UEFI HTTP boot"),
    row(41, "rpiboot", "Raspberry Pi boot ROM"),
];

const fn row(number: u16, name: &'static str, label: &'static str) -> ArchType {
    ArchType { number, name, label }
}

/// The row of a number; none if the registry does not have it.
pub fn arch_type(number: u16) -> Option<&'static ArchType> {
    ARCH_TYPES.get(usize::from(number))
}

/// What people read for a number: `x64 UEFI`.
pub fn name(number: u16) -> String {
    match arch_type(number) {
        Some(row) => row.label.to_owned(),
        None => format!("unknown architecture {number}"),
    }
}

/// A number with its name in the site file: `arm64-efi (11)`.
pub fn name_and_number(number: u16) -> String {
    let name = arch_type(number).map_or("architecture", |row| row.name);
    format!("{name} ({number})")
}

/// All numbers with that name in the site file; empty if it is not a name of the table.
pub fn numbers_of(name: &str) -> Vec<u16> {
    let rows = ARCH_TYPES.iter().filter(|row| row.name == name);
    rows.map(|row| row.number).collect()
}

/// The names of numbers as the site file writes them, each once, in the order of the numbers. A number alone of a name that has
/// several, and one that is not in the table, stay numbers.
pub fn names_of(numbers: &[u16]) -> Vec<String> {
    let mut all = Vec::new();
    for number in numbers {
        let whole = arch_type(*number).filter(|row| numbers_of(row.name).iter().all(|n| numbers.contains(n)));
        let text = whole.map_or_else(|| number.to_string(), |row| row.name.to_owned());
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

/// The name that `word` was probably meant to be: a slip of the pen, or how Debian, GRUB, Go or a vendor call it (`uefi-x64`,
/// `amd64-efi`, `aarch64`).
pub fn near_name(word: &str) -> Option<&'static str> {
    let names = || ARCH_TYPES.iter().map(|row| row.name);
    let lower = word.to_ascii_lowercase();
    let http = lower.contains("http");
    let processor = [
        ("x86_64", "x86_64"),
        ("x86-64", "x86_64"),
        ("amd64", "x86_64"),
        ("x64", "x86_64"),
        ("aarch64", "arm64"),
        ("arm64", "arm64"),
        ("aa64", "arm64"),
        ("ia32", "i386"),
        ("i386", "i386"),
        ("riscv64", "riscv64"),
        ("loongarch64", "loongarch64"),
    ];
    let found = processor.iter().find(|(spelt, _)| lower.contains(spelt));
    let uboot = if lower.contains("boot") && lower.contains("u") && !lower.contains("efi") {
        "uboot"
    } else {
        "efi"
    };
    let spelt = found.map(|(_, name)| format!("{name}-{uboot}{}", if http { "-http" } else { "" }));
    let meant = spelt.and_then(|spelt| names().find(|name| *name == spelt));
    let other = match lower.as_str() {
        "pc" | "pcbios" | "legacy" | "x86" | "pxe" => Some("bios"),
        "uefi" | "efi" => Some("x86_64-efi"),
        _ => None,
    };
    closest(word, names()).or(meant).or(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_in_its_place_and_each_name_has_one_label() {
        for (index, row) in ARCH_TYPES.iter().enumerate() {
            assert_eq!(usize::from(row.number), index);
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
            assert!(row.name.bytes().all(plain), "{}", row.name);
            // A word of digits is read as a number.
            assert!(!row.name.bytes().all(|b| b.is_ascii_digit()), "{}", row.name);
            for number in numbers_of(row.name) {
                assert_eq!(name(number), row.label);
            }
            assert_eq!(row.is_http(), row.label.ends_with("HTTP boot"), "{}", row.label);
        }
    }

    #[test]
    fn numbers_of_the_registry_have_their_names_and_classes() {
        for (number, name, label, class) in [
            (0, "bios", "BIOS", "PXEClient:Arch:00000"),
            (6, "i386-efi", "x86 UEFI", "PXEClient:Arch:00006"),
            (7, "x86_64-efi", "x64 UEFI", "PXEClient:Arch:00007"),
            (9, "x86_64-efi", "x64 UEFI", "PXEClient:Arch:00009"),
            (10, "arm-efi", "ARM 32-bit UEFI", "PXEClient:Arch:00010"),
            (11, "arm64-efi", "arm64 UEFI", "PXEClient:Arch:00011"),
            (15, "i386-efi-http", "x86 UEFI HTTP boot", "HTTPClient:Arch:00015"),
            (16, "x86_64-efi-http", "x64 UEFI HTTP boot", "HTTPClient:Arch:00016"),
            (19, "arm64-efi-http", "arm64 UEFI HTTP boot", "HTTPClient:Arch:00019"),
            (22, "arm64-uboot", "arm64 U-Boot", "PXEClient:Arch:00022"),
            (27, "riscv64-efi", "RISC-V 64-bit UEFI", "PXEClient:Arch:00027"),
            (39, "loongarch64-efi", "LoongArch 64-bit UEFI", "PXEClient:Arch:00039"),
            (41, "rpiboot", "Raspberry Pi boot ROM", "PXEClient:Arch:00041"),
        ] {
            let row = arch_type(number).unwrap();
            assert_eq!((row.name, row.label, row.class().as_str()), (name, label, class));
            assert_eq!(super::super::arch_of_class(class.as_bytes()), Some(number));
        }
        assert_eq!(arch_type(42), None);
        assert_eq!(name(42), "unknown architecture 42");
        assert_eq!(name_and_number(11), "arm64-efi (11)");
        assert_eq!(name_and_number(900), "architecture (900)");
    }

    #[test]
    fn a_name_covers_all_its_numbers() {
        assert_eq!(numbers_of("x86_64-efi"), [7, 9]);
        assert_eq!(numbers_of("bios"), [0]);
        assert_eq!(numbers_of("x64"), [0u16; 0]);
        assert_eq!(names_of(&[0, 7, 9, 16]), ["bios", "x86_64-efi", "x86_64-efi-http"]);
        assert_eq!(names_of(&[9, 11, 99]), ["9", "arm64-efi", "99"]);
    }

    #[test]
    fn names_of_other_programs_lead_to_those_of_the_table() {
        for (word, near) in [
            ("x86_64-eif", Some("x86_64-efi")),
            ("x86-64-efi", Some("x86_64-efi")),
            ("uefi-x64", Some("x86_64-efi")),
            ("amd64", Some("x86_64-efi")),
            ("UEFI", Some("x86_64-efi")),
            ("x64-http", Some("x86_64-efi-http")),
            ("aarch64", Some("arm64-efi")),
            ("aarch64-u-boot", Some("arm64-uboot")),
            ("legacy", Some("bios")),
            ("BIOS", Some("bios")),
            ("quantum", None),
        ] {
            assert_eq!(near_name(word), near, "{word}");
        }
    }
}
