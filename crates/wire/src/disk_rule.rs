//! Which disk of a node a layout is for: a rule over the properties of disks.
//!
//! A rule is sent as text in [`DiskPlan::device`](crate::DiskPlan::device), such as `transport=nvme, pick=smallest`. No kernel name
//! contains `=`, so an agent that is older than rules finds no disk of that name, and writes to none.

use crate::text::cut;
use std::{fmt, str::FromStr};

/// Longest text of a property, in bytes.
const TEXT: usize = 128;
/// Longest text of a rule, in bytes.
const RULE: usize = 1024;

/// A rule for the disk of a layout. A disk fits if all properties of the rule apply to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskRule {
    /// Serial number, as a pattern; empty for any.
    pub serial: String,
    /// Model, as a pattern; empty for any.
    pub model: String,
    /// World-wide name, as a pattern without the prefix (`wwn-0x`, `naa.`, `eui.`); empty for any.
    pub wwn: String,
    /// Name of its link in `/dev/disk/by-path`, as a pattern; empty for any.
    pub by_path: String,
    /// Least and greatest size in bytes; none for any.
    pub size: Option<(u64, u64)>,
    /// How it is connected; none for any.
    pub transport: Option<Transport>,
    /// Whether it has rotating platters; none for any.
    pub rotational: Option<bool>,
    /// Which one is taken if several fit; none if that is refused.
    pub pick: Option<Pick>,
}

/// How a disk is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// NVM Express.
    Nvme,
    /// ATA, on any controller.
    Sata,
    /// SCSI over a serial attached SCSI controller.
    Sas,
    /// A virtual machine's virtio-blk or virtio-scsi.
    Virtio,
    /// USB.
    Usb,
    /// eMMC, or an SD card.
    Mmc,
}

/// Which of several disks that fit is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The smallest one.
    Smallest,
    /// The largest one.
    Largest,
    /// The one that `auto` would take: NVMe before SATA, SAS and virtio, these before eMMC and SD cards, and then by kernel name.
    First,
}

/// Why a text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRuleError {
    /// The problem.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl fmt::Display for DiskRuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for DiskRuleError {}

impl Transport {
    /// All, in the order of the documentation.
    pub const ALL: [Transport; 6] = [
        Transport::Nvme,
        Transport::Sata,
        Transport::Sas,
        Transport::Virtio,
        Transport::Usb,
        Transport::Mmc,
    ];

    /// Its name in a rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Nvme => "nvme",
            Transport::Sata => "sata",
            Transport::Sas => "sas",
            Transport::Virtio => "virtio",
            Transport::Usb => "usb",
            Transport::Mmc => "mmc",
        }
    }
}

impl Pick {
    const ALL: [Pick; 3] = [Pick::Smallest, Pick::Largest, Pick::First];

    /// Its name in a rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Pick::Smallest => "smallest",
            Pick::Largest => "largest",
            Pick::First => "first",
        }
    }
}

impl DiskRule {
    /// The properties of a rule, in the order of its text.
    pub const KEYS: [&'static str; 8] = [
        "serial",
        "model",
        "wwn",
        "by-path",
        "size",
        "transport",
        "rotational",
        "pick",
    ];

    /// Whether a plan's `device` is a rule, and neither `auto` nor a kernel name.
    pub fn is_rule(device: &str) -> bool {
        device.contains('=')
    }

    /// Whether the rule names single disks: by serial number, world-wide name or place.
    pub fn names_disks(&self) -> bool {
        !self.serial.is_empty() || !self.wwn.is_empty() || !self.by_path.is_empty()
    }

    /// Sets one property from its text. `rotational` is `yes` or `no`.
    ///
    /// # Errors
    /// The property does not exist, or has not that form.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), DiskRuleError> {
        let wrong = |message: String, help: &str| {
            Err(DiskRuleError {
                message,
                help: help.to_owned(),
            })
        };
        let value = value.trim();
        let shown = cut(value, 60);
        match key {
            "serial" => self.serial = pattern(key, value)?,
            "model" => self.model = pattern(key, value)?,
            "wwn" => match plain_wwn(&pattern(key, value)?) {
                name if name.is_empty() => {
                    let help = "write it as in /dev/disk/by-id, such as wwn = \"0x5000c500a1b2c3d4\"";
                    return wrong(format!("'{shown}' is not a world-wide name"), help);
                }
                name => self.wwn = name,
            },
            "by-path" => {
                let name = value.strip_prefix("/dev/disk/by-path/").unwrap_or(value);
                if name.contains('/') {
                    let help =
                        "write the name of a link in /dev/disk/by-path, such as by-path = \"pci-0000:3b:00.0-nvme-1\"";
                    return wrong(format!("'{shown}' is not such a name"), help);
                }
                self.by_path = pattern(key, name)?;
            }
            "size" => self.size = Some(size_range(value)?),
            "transport" => match Transport::ALL.into_iter().find(|one| one.as_str() == value) {
                Some(one) => self.transport = Some(one),
                None => {
                    let help = "write one of nvme, sata, sas, virtio, usb and mmc";
                    return wrong(format!("'{shown}' is not a transport of disks"), help);
                }
            },
            "rotational" => match value {
                "yes" | "true" => self.rotational = Some(true),
                "no" | "false" => self.rotational = Some(false),
                _ => return wrong(format!("rotational is not '{shown}'"), "write true or false"),
            },
            "pick" => match Pick::ALL.into_iter().find(|one| one.as_str() == value) {
                Some(one) => self.pick = Some(one),
                None => {
                    let help = "write smallest, largest or first";
                    return wrong(format!("'{shown}' does not say which disk to pick"), help);
                }
            },
            _ => {
                let message = format!("'{}' is not a property of disks", cut(key, 40));
                let help = format!("the properties are {}", DiskRule::KEYS.join(", "));
                return wrong(message, &help);
            }
        }
        Ok(())
    }
}

/// A text of a device that `*` and `?` may stand in.
fn pattern(key: &str, value: &str) -> Result<String, DiskRuleError> {
    let clean = |c: char| (c.is_ascii_graphic() || c == ' ') && !matches!(c, ',' | '"' | '=');
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let value = words.join(" ");
    match !value.is_empty() && value.len() <= TEXT && value.chars().all(clean) {
        true => Ok(value),
        false => Err(DiskRuleError {
            message: format!("'{}' is not the {key} of a disk", cut(&value, 60)),
            help: "write printable ASCII of at most 128 characters; for commas, quotes and =, write ?".to_owned(),
        }),
    }
}

/// A world-wide name without the prefixes of sysfs and udev, in lower case: `wwn-0x5000c500a1b2c3d4`, `naa.5000c500a1b2c3d4` and
/// `0x5000c500a1b2c3d4` are one name.
pub fn plain_wwn(text: &str) -> String {
    const PREFIXES: [&str; 5] = ["wwn-", "nvme-", "naa.", "eui.", "0x"];
    let text = text.to_ascii_lowercase();
    let mut rest = text.as_str();
    while let Some(less) = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = less;
    }
    rest.to_owned()
}

/// Whether `text` fits `pattern`, in which `*` stands for any characters and `?` for one. Upper and lower case are the same.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last star: it takes one character more.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || c.eq_ignore_ascii_case(&text[t]) => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// `400GB..2TB`, `..2TB`, `400GB..`.
fn size_range(text: &str) -> Result<(u64, u64), DiskRuleError> {
    let wrong = || DiskRuleError {
        message: format!("'{}' is not a range of sizes", cut(text, 60)),
        help: "write size = \"400GB..2TB\", \"400GB..\" or \"..2TB\", in MB, GB, TB, MiB, GiB or TiB".to_owned(),
    };
    let (least, most) = text.split_once("..").ok_or_else(wrong)?;
    let (least, most) = (least.trim(), most.trim());
    if least.is_empty() && most.is_empty() {
        return Err(wrong());
    }
    let read = |text: &str, open: u64| match text {
        "" => Ok(open),
        text => bytes(text).ok_or_else(wrong),
    };
    let (least, most) = (read(least, 0)?, read(most, u64::MAX)?);
    match least <= most && (least, most) != (0, u64::MAX) {
        true => Ok((least, most)),
        false => Err(wrong()),
    }
}

/// Powers of ten, as disks are sold, and of two.
const UNITS: [(&str, u64); 6] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
];

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*unit)
}

/// `2TB`, in the largest unit that divides it.
fn shown_bytes(bytes: u64) -> String {
    let fits = |unit: u64| bytes >= unit && bytes.is_multiple_of(unit);
    let unit = UNITS.iter().find(|(_, unit)| fits(*unit));
    unit.map_or_else(
        || format!("{}MB", bytes / 1_000_000),
        |(name, unit)| format!("{}{name}", bytes / unit),
    )
}

impl fmt::Display for DiskRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        let texts = [&self.serial, &self.model, &self.wwn, &self.by_path];
        for (key, text) in DiskRule::KEYS.iter().zip(texts).filter(|(_, text)| !text.is_empty()) {
            parts.push(format!("{key}={text}"));
        }
        if let Some((least, most)) = self.size {
            let least = if least == 0 { String::new() } else { shown_bytes(least) };
            let most = if most == u64::MAX {
                String::new()
            } else {
                shown_bytes(most)
            };
            parts.push(format!("size={least}..{most}"));
        }
        parts.extend(self.transport.map(|one| format!("transport={}", one.as_str())));
        let rotational = self.rotational.map(|yes| if yes { "yes" } else { "no" });
        parts.extend(rotational.map(|yes| format!("rotational={yes}")));
        parts.extend(self.pick.map(|one| format!("pick={}", one.as_str())));
        f.write_str(&parts.join(", "))
    }
}

impl FromStr for DiskRule {
    type Err = DiskRuleError;

    /// Reads what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |message: String| DiskRuleError {
            message,
            help: "write properties with commas between them, such as serial=S4EMNX0R or transport=nvme, pick=smallest"
                .to_owned(),
        };
        if text.len() > RULE {
            return Err(wrong(format!("a rule of {} bytes is too long", text.len())));
        }
        let mut rule = DiskRule::default();
        let mut seen: Vec<&str> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(wrong(format!("'{}' is not a property with its value", cut(part, 60))));
            };
            let key = key.trim();
            if seen.contains(&key) {
                return Err(wrong(format!("{key} is there twice")));
            }
            rule.set(key, value)?;
            seen.push(key);
        }
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules_are_read_and_written_unchanged() {
        for text in [
            "serial=S4EMNX0R",
            "model=Samsung SSD 980*, pick=first",
            "wwn=5000c500a1b2c3d4",
            "by-path=pci-0000:3b:00.0-nvme-1",
            "size=400GB..2TB, transport=nvme, rotational=no, pick=smallest",
            "size=..2TiB",
            "size=480GB.., transport=sata, rotational=yes, pick=largest",
        ] {
            assert_eq!(text.parse::<DiskRule>().unwrap().to_string(), text);
            assert!(DiskRule::is_rule(text));
        }
        for (text, other) in [
            ("wwn=wwn-0x5000C500A1B2C3D4", "wwn=5000c500a1b2c3d4"),
            ("wwn=eui.0025385b11b2a4c1", "wwn=0025385b11b2a4c1"),
            (
                "by-path=/dev/disk/by-path/virtio-pci-0000:00:05.0",
                "by-path=virtio-pci-0000:00:05.0",
            ),
            ("pick=smallest,transport=nvme", "transport=nvme, pick=smallest"),
            ("size=1000GB..", "size=1TB.."),
        ] {
            assert_eq!(text.parse::<DiskRule>().unwrap().to_string(), other);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_right_form() {
        for text in [
            "",
            "smallest",
            "serial=",
            "serial=a=b",
            "serial=ä",
            "serial=A, serial=B",
            "colour=red",
            "size=2TB",
            "size=..",
            "size=0GB..",
            "wwn=0x",
            "size=2TB..1TB",
            "size=1PB..",
            "size=99999999999999999999GB..",
            "transport=scsi",
            "rotational=maybe",
            "pick=any",
            "by-path=/dev/sda",
        ] {
            let error = text.parse::<DiskRule>().unwrap_err();
            assert!(!error.message.is_empty() && !error.help.is_empty(), "{text}");
        }
        assert!(format!("serial={}", "x".repeat(2000)).parse::<DiskRule>().is_err());
        assert!(!DiskRule::is_rule("auto") && !DiskRule::is_rule("nvme0n1"));
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, fits) in [
            ("S4EMNX0R", "s4emnx0r", true),
            ("S4EMNX0R", "S4EMNX0R1", false),
            ("Samsung*", "Samsung SSD 980", true),
            ("*980*", "Samsung SSD 980 PRO", true),
            ("*980", "Samsung SSD 980 PRO", false),
            ("a*b*c", "aXbXbXc", true),
            ("?1", "A1", true),
            ("?1", "1", false),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_the_same(text in ".{0,80}", value in "[ -~]{0,40}", key in 0..8usize) {
            let _ = text.parse::<DiskRule>();
            if let Ok(rule) = format!("{}={value}", DiskRule::KEYS[key]).parse::<DiskRule>() {
                prop_assert_eq!(rule.to_string().parse::<DiskRule>(), Ok(rule));
            }
        }

        #[test]
        fn a_text_matches_itself_and_any_of_its_prefixes_with_a_star(text in "[a-z0-9 ]{0,60}", at in 0..60usize) {
            prop_assert!(matches(&text, &text));
            let at = at.min(text.len());
            let pattern = format!("{}*", &text[..at]);
            prop_assert!(matches(&pattern, &text));
        }
    }
}
