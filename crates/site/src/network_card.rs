//! `match` of `[[network]]`: which card of a node is meant.

use super::{
    diagnostic::{Report, quote, shown},
    section::{Section, article},
    vars::{Readable, compact, expand, has_variables, without_variables},
};
use rackstrap_base::words::closest;
use rackstrap_wire::{CardMatch, HwAddr};
use toml::de::DeValue;

pub(super) const EXAMPLE: &str = "{ driver = \"mlx5_core\", port = 1 }";
const KEYS: [&str; 6] = ["driver", "port", "mac", "pci", "name", "label"];
/// More ports than a machine has.
const MOST_PORTS: u16 = 64;
/// Strings of SMBIOS have no limit of their own (DMTF DSP0134, section 6.1.3); labels on machines are short.
const LONGEST_LABEL: usize = 64;
/// `MODULE_NAME_LEN` of linux/moduleparam.h, without the NUL.
const LONGEST_DRIVER: usize = 55;

type Problem = (String, String);

pub(super) fn read(report: &mut Report<'_>, section: &Section<'_>) -> Option<CardMatch> {
    let value = section.get("match")?;
    let table = match value.get_ref() {
        DeValue::Table(table) => table,
        other => {
            let message = format!("'match' is a table, not {}", article(other));
            report.error(value.span(), message, format!("write match = {EXAMPLE}"));
            return None;
        }
    };
    let (mut card, mut complete) = (CardMatch::default(), true);
    for (key, value) in table {
        let word = key.get_ref().as_ref();
        let mut wrong = |at, (message, help): Problem| {
            report.error(at, message, help);
            complete = false;
        };
        if word == "port" {
            let number = value.get_ref().as_integer();
            let number = number.and_then(|n| u16::from_str_radix(n.as_str(), n.radix()).ok());
            match number.filter(|n| (1..=MOST_PORTS).contains(n)) {
                Some(number) => card.port = Some(number),
                None => {
                    let help = format!("write a number from 1 to {MOST_PORTS}, such as port = 1");
                    wrong(
                        value.span(),
                        ("'port' counts the ports of the cards that fit, from 1".to_owned(), help),
                    );
                }
            }
            continue;
        }
        let Some(text) = value.get_ref().as_str() else {
            let message = format!("'{}' is a string, not {}", shown(word), article(value.get_ref()));
            wrong(value.span(), (message, format!("write match = {EXAMPLE}")));
            continue;
        };
        let read = match word {
            "driver" => read_driver(text).map(|text| card.driver = Some(text)),
            "name" => read_card_name(text).map(|text| card.name = Some(text)),
            "label" => read_label(text).map(|text| card.label = Some(text)),
            "mac" => with_variables(text, read_mac).map(|text| card.mac = Some(text)),
            "pci" => with_variables(text, read_pci).map(|text| card.pci = Some(text)),
            _ => {
                let help = match closest(word, KEYS) {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => format!("the conditions are {}", KEYS.join(", ")),
                };
                wrong(key.span(), (format!("'match' has no condition {}", quote(word)), help));
                continue;
            }
        };
        if let Err(problem) = read {
            wrong(value.span(), problem);
        }
    }
    let only_port = CardMatch {
        port: None,
        ..card.clone()
    } == CardMatch::default();
    if complete && only_port {
        let help = format!("write match = {EXAMPLE}, or a MAC, PCI address or name");
        report.error(value.span(), "'match' has no condition that a card could fulfil", help);
        return None;
    }
    complete.then_some(card)
}

/// A text with variables is checked when their values are known.
fn with_variables(text: &str, read: impl Fn(&str) -> Result<String, Problem>) -> Result<String, Problem> {
    match has_variables(text) {
        true => without_variables(text).and_then(|_| compact(text)),
        false => read(text),
    }
}

fn read_driver(text: &str) -> Result<String, Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    match !text.is_empty() && text.len() <= LONGEST_DRIVER && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => {
            let help = "write it as `ethtool -i` shows it, such as driver = \"mlx5_core\"";
            Err((format!("{} is not the name of a driver", quote(text)), help.to_owned()))
        }
    }
}

fn read_card_name(text: &str) -> Result<String, Problem> {
    let fits = (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    match fits {
        true => Ok(text.to_owned()),
        false => {
            let help = "write it as `ip link` shows it, such as name = \"eno1\" or name = \"enp129s0f0\"";
            Err((
                format!("{} is not the name of a network card", quote(text)),
                help.to_owned(),
            ))
        }
    }
}

/// Blanks at the ends are those of the firmware.
fn read_label(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    let printable = |b: u8| b.is_ascii_graphic() || b == b' ';
    match (1..=LONGEST_LABEL).contains(&text.len()) && text.bytes().all(printable) {
        true => Ok(text.to_owned()),
        false => {
            let help = "write it as `dmidecode -t 41` shows it, such as label = \"NIC 1\"";
            Err((
                format!("{} is not the label of a network card", quote(text)),
                help.to_owned(),
            ))
        }
    }
}

fn read_mac(text: &str) -> Result<String, Problem> {
    let help = || "write six bytes, such as mac = \"52:54:00:01:01:02\"".to_owned();
    match text.parse::<HwAddr>() {
        Ok(mac) if mac.is_multicast() || mac.0 == [0; 6] => Err((format!("no card has the address {mac}"), help())),
        Ok(mac) => Ok(mac.to_string()),
        Err(error) if error.is_infiniband() => Err((
            format!(
                "{} is the address of an InfiniBand port, which begins with a number that changes",
                quote(text)
            ),
            "name the card by its PCI address, such as pci = \"0000:81:00.0\"".to_owned(),
        )),
        Err(_) => Err((format!("{} is not a hardware address", quote(text)), help())),
    }
}

/// `0000:81:00.0`; the domain may be left out.
fn read_pci(text: &str) -> Result<String, Problem> {
    let parts: Vec<&str> = text.split([':', '.']).collect();
    let (domain, rest) = match parts[..] {
        [domain, _, _, _] => (domain, &parts[1..]),
        _ => ("0000", &parts[..]),
    };
    let hex = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let fits = match rest {
        [bus, device, function] => {
            hex(domain, 4..=8) && hex(bus, 2..=2) && hex(device, 2..=2) && hex(function, 1..=1) && text.contains('.')
        }
        _ => false,
    };
    match fits {
        true => Ok(format!("{domain}:{}:{}.{}", rest[0], rest[1], rest[2]).to_ascii_lowercase()),
        false => {
            let help = "write it as `lspci -D` shows it, such as pci = \"0000:81:00.0\"";
            Err((format!("{} is not a PCI address", quote(text)), help.to_owned()))
        }
    }
}

/// The same, with the values of variables.
///
/// # Errors
/// A variable is not defined, or the condition would not be valid with its value.
pub fn expanded<'v>(card: &CardMatch, value: impl Fn(&str) -> Option<Readable<'v>>) -> Result<CardMatch, String> {
    let said = |(message, help): Problem| format!("{message}; {help}");
    let mut card = card.clone();
    if let Some(mac) = card.mac.as_mut().filter(|text| has_variables(text)) {
        *mac = read_mac(&expand(mac, &value)?).map_err(said)?;
    }
    if let Some(pci) = card.pci.as_mut().filter(|text| has_variables(text)) {
        *pci = read_pci(&expand(pci, &value)?).map_err(said)?;
    }
    Ok(card)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_cards_get_one_form() {
        assert_eq!(read_pci("81:00.A").unwrap(), "0000:81:00.a");
        assert_eq!(read_pci("10000:01:00.0").unwrap(), "10000:01:00.0");
        for wrong in [
            "",
            "81",
            "81:00",
            "81:00:0",
            "0000:81:00.0.0",
            "x:81:00.0",
            "0000:8:00.0",
        ] {
            assert!(read_pci(wrong).is_err(), "{wrong}");
        }
        assert_eq!(read_mac("5254.0001.010A").unwrap(), "52:54:00:01:01:0a");
        assert!(read_mac("01:00:00:00:00:00").is_err() && read_mac("").is_err());
    }

    #[test]
    fn labels_are_printable_and_short() {
        assert_eq!(read_label(" Onboard LAN #1 ").unwrap(), "Onboard LAN #1");
        for wrong in ["", "  ", "a\tb", "\u{e9}", &"x".repeat(LONGEST_LABEL + 1)] {
            assert!(read_label(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_variable_gives_each_node_its_card() {
        let card = CardMatch {
            mac: Some("{{vars.ib_mac}}".to_owned()),
            ..CardMatch::default()
        };
        let value = serde_json::Value::from("52-54-00-01-01-0A");
        let plain = |name: &str| (name == "ib_mac").then_some(Readable::Plain(&value));
        assert_eq!(expanded(&card, plain).unwrap().mac.unwrap(), "52:54:00:01:01:0a");
        assert!(expanded(&card, |_| None).unwrap_err().contains("ib_mac"));
        let wrong = serde_json::Value::from("nothing");
        let error = expanded(&card, |_| Some(Readable::Plain(&wrong))).unwrap_err();
        assert!(error.contains("'nothing' is not a hardware address"), "{error}");
    }
}
