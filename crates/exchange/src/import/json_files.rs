//! JSON files: Grendel's hosts, Kea's reservations, and what `rackstrap export all` prints.

use super::{
    Draft, Format, Word,
    foreign::{Found, Leftovers, address, card, field_variable, ipv4, join, table_variable, variable, variable_name},
    report::{Report, shown},
    tree::{self, Item, Tree, Value as Kind},
};
use rackstrap_site::{HIDDEN, value::Value};

/// What such a file is: by its first keys.
pub(super) fn format(text: &str) -> Option<Format> {
    let begin = text.trim_start();
    // The first key of what `rackstrap export all` prints.
    if begin
        .strip_prefix('{')
        .is_some_and(|rest| rest.trim_start().starts_with("\"rackstrap\""))
    {
        return Some(Format::Json);
    }
    // Kea's files may begin with a comment.
    if begin.starts_with(['{', '/', '#']) && (text.contains("\"Dhcp4\"") || text.contains("\"hw-address\"")) {
        return Some(Format::Kea);
    }
    if !begin.starts_with(['{', '[']) {
        return None;
    }
    (text.contains("\"interfaces\"") && text.contains("\"mac\"")).then_some(Format::Grendel)
}

/// Grendel's hosts: a list, or `hosts` of a dump of its database. The keys are those of `Host`,
/// `NetInterface` and `Bond` in Grendel's `pkg/model`; of `kickstart`, `ToJSON` in `host.go` always says false.
pub(super) fn grendel(report: &mut Report<'_>) -> Vec<Draft> {
    let Some(document) = tree::json(report, report.text()) else {
        return Vec::new();
    };
    let mut left = Leftovers::default();
    for Item { at, key, value } in document
        .map()
        .iter()
        .filter(|item| !matches!(item.key.as_str(), "hosts" | "Hosts"))
    {
        if !value.is_empty() {
            left.add(&format!("'{key}'"), at, "only hosts are imported");
        }
    }
    let hosts = document
        .get("hosts")
        .or_else(|| document.get("Hosts"))
        .unwrap_or(&document);
    let hosts: Vec<&Tree> = match &hosts.value {
        Kind::Map(_) => vec![hosts],
        _ => hosts.list().iter().collect(),
    };
    let drafts = hosts
        .into_iter()
        .map(|host| grendel_host(report, &mut left, host))
        .collect();
    left.report(report);
    drafts
}

fn grendel_host(report: &mut Report<'_>, left: &mut Leftovers, host: &Tree) -> Draft {
    let name = host.get("name");
    let mut draft = Draft {
        at: name.map_or(host.at.clone(), |name| name.at.clone()),
        name: name.and_then(Tree::text).map(str::to_owned),
        adds: true,
        ..Draft::default()
    };
    let mut found = Found::new();
    for Item { at, key, value } in host.map() {
        match (key.as_str(), value.text()) {
            ("id" | "_id" | "uid" | "name", _) | ("kickstart", Some("false")) => {}
            ("provision", Some("true")) => {}
            ("provision", _) => left.add("provision = false", at, "a node boots as soon as it is added"),
            ("boot_image", Some(text)) => {
                left.add(
                    &format!("boot_image '{text}'"),
                    at,
                    "import the image, and name it with image = in the site file",
                );
            }
            ("firmware", Some(_)) => left.add(
                "firmware",
                at,
                "the loader follows from the firmware; [loader.NAME] changes it",
            ),
            ("tags", _) => {
                for tag in value.list() {
                    grendel_tag(&mut draft, &mut found, left, tag);
                }
            }
            ("interfaces", _) => {
                for interface in value.list() {
                    grendel_interface(report, &mut draft, &mut found, left, interface);
                }
            }
            ("bonds", _) => {}
            (_, _) if value.is_empty() => {}
            (other, _) => left.add(&format!("'{other}' of hosts"), at, "set it as a variable"),
        }
    }
    // After all interfaces, wherever they are in the file.
    let bonds = host.get("bonds").map(Tree::list).unwrap_or_default();
    for (number, bond) in bonds.iter().enumerate() {
        grendel_bond(report, &mut draft, &mut found, left, number, bond);
    }
    draft.settings = (!found.is_empty()).then_some(found);
    draft
}

/// A tag is a group, and `key:value` a variable, as `TagList` in Grendel's `host.go` reads it.
fn grendel_tag(draft: &mut Draft, found: &mut Found, left: &mut Leftovers, tag: &Tree) {
    let text = tag.text().unwrap_or_default();
    match text.split_once(':') {
        Some((key, value)) if !value.is_empty() && !value.contains(':') => {
            variable(found, left, key, &tag.at, value.into());
        }
        _ => join(draft.groups.get_or_insert_default(), left, &tag.at, text),
    }
}

/// A bond as one of `vars.networks`. A node whose boot interface has no address has that of its first bond.
fn grendel_bond(
    report: &mut Report<'_>,
    draft: &mut Draft,
    found: &mut Found,
    left: &mut Leftovers,
    number: usize,
    of: &Tree,
) {
    let text = |key: &str| of.get(key).and_then(|value| Some((&value.at, value.text()?)));
    let key = text("ifname").and_then(|(_, name)| variable_name(name));
    let key = key.unwrap_or_else(|| format!("bond{number}"));
    let peers = of.get("peers").map(Tree::list).unwrap_or_default();
    let peers: Vec<&str> = peers.iter().filter_map(Tree::text).collect();
    field_variable(found, "networks", &of.at, &key, "type", "bond".into());
    field_variable(found, "networks", &of.at, &key, "peers", peers.into());
    for (name, field) in [("ip", "ipaddr"), ("vlan", "vlan"), ("fqdn", "name"), ("mtu", "mtu")] {
        if let Some((at, value)) = text(name).filter(|(_, value)| *value != "0") {
            let number = value.parse::<i64>().ok().filter(|_| name == "mtu");
            let value = number.map_or_else(|| value.into(), Value::from);
            field_variable(found, "networks", at, &key, field, value);
        }
    }
    if let Some((at, ip)) = text("ip").filter(|_| draft.ipaddr.is_none()) {
        draft.ipaddr = ipv4(report, left, at, ip);
    }
}

fn grendel_interface(report: &mut Report<'_>, draft: &mut Draft, found: &mut Found, left: &mut Leftovers, of: &Tree) {
    let text = |key: &str| of.get(key).and_then(|value| Some((&value.at, value.text()?)));
    if text("bmc").is_some_and(|(_, flag)| flag == "true") {
        for (key, variable) in [
            ("ip", "vars.bmc_ipaddr"),
            ("mac", "vars.bmc_hwaddr"),
            ("fqdn", "vars.bmc_name"),
        ] {
            if let Some((at, value)) = text(key) {
                let plain = value.split('/').next().unwrap_or_default();
                found.insert(variable.to_owned(), (at.clone(), plain.into()));
            }
        }
        return;
    }
    let name = text("ifname").map_or("", |(_, name)| name);
    let boots = draft.hwaddrs.is_empty() && !draft.reported;
    let Some((at, mac)) = text("mac") else {
        // The address of this card is not known yet.
        if let (Some(key), Some((at, ip))) = (variable_name(name), text("ip")) {
            field_variable(found, "networks", at, &key, "ipaddr", ip.into());
        } else if !of.is_empty() {
            left.add(
                "an interface without a hardware address",
                &of.at,
                "set it as a variable",
            );
        }
        return;
    };
    card(report, draft, at, mac);
    if boots {
        draft.ipaddr = text("ip").and_then(|(at, ip)| ipv4(report, left, at, ip));
        if let Some((at, mtu)) = text("mtu").filter(|(_, mtu)| !matches!(*mtu, "0" | "1500")) {
            let value = mtu.parse::<i64>().map_or_else(|_| Value::from(mtu), Value::from);
            found.insert("mtu".to_owned(), (at.clone(), value));
        }
    } else if let Some((at, ip)) = text("ip") {
        let number = draft.hwaddrs.len();
        let key = variable_name(name).unwrap_or_else(|| format!("net{number}"));
        table_variable(
            found,
            "networks",
            at,
            &key,
            serde_json::json!({ "ipaddr": ip, "hwaddr": mac }),
        );
    }
    if let Some((at, vlan)) = text("vlan").filter(|(_, vlan)| *vlan != "0") {
        left.add(
            &format!("vlan '{}'", shown(vlan)),
            at,
            "the switch's port decides about the boot network",
        );
    }
    if let Some((at, fqdn)) = text("fqdn") {
        let short = fqdn.split([',', '.']).next();
        if short != draft.name.as_deref() {
            left.add(
                &format!("fqdn '{}'", shown(fqdn)),
                at,
                "a node has one name, and the domain of [cluster]",
            );
        }
    }
}

/// Kea's reservations: of subnets, shared networks, and all networks.
pub(super) fn kea(report: &mut Report<'_>) -> Vec<Draft> {
    let text = without_comments(report.text());
    let Some(document) = tree::json(report, &text) else {
        return Vec::new();
    };
    let mut left = Leftovers::default();
    let mut drafts = Vec::new();
    let dhcp4 = document.get("Dhcp4").unwrap_or(&document);
    let shared = dhcp4.get("shared-networks").map(Tree::list).unwrap_or_default();
    for section in [dhcp4].into_iter().chain(shared) {
        let subnets = section.get("subnet4").map(Tree::list).unwrap_or_default();
        for holder in [section].into_iter().chain(subnets) {
            for reservation in holder.get("reservations").map(Tree::list).unwrap_or_default() {
                drafts.extend(kea_host(report, &mut left, reservation));
            }
        }
    }
    left.report(report);
    drafts
}

fn kea_host(report: &mut Report<'_>, left: &mut Leftovers, of: &Tree) -> Option<Draft> {
    let text = |key: &str| of.get(key).and_then(|value| Some((&value.at, value.text()?)));
    let Some((at, mac)) = text("hw-address") else {
        left.add(
            "a reservation without hw-address",
            &of.at,
            "a node is recognised by the hardware address of its card",
        );
        return None;
    };
    let mut draft = Draft {
        at: at.clone(),
        name: text("hostname").map(|(_, name)| name.to_owned()),
        card: true,
        adds: true,
        ..Draft::default()
    };
    card(report, &mut draft, at, mac);
    draft.ipaddr = text("ip-address").and_then(|(at, ip)| address(report, at, ip));
    for Item { at, key, value } in of.map() {
        if !value.is_empty() && !matches!(key.as_str(), "hw-address" | "hostname" | "ip-address") {
            left.add(
                &format!("'{key}' of reservations"),
                at,
                "dhcp-options and [loader.NAME] of the site file are for this",
            );
        }
    }
    Some(draft)
}

/// The text with blanks instead of comments (`#`, `//`, `/* */`), which Kea's JSON may have.
fn without_comments(text: &str) -> String {
    #[derive(PartialEq)]
    enum In {
        Code,
        Text,
        Line,
        Block,
    }
    let mut at = In::Code;
    let mut plain = text.to_owned().into_bytes();
    let mut i = 0;
    while i < plain.len() {
        let next = plain.get(i + 1).copied();
        match (&at, plain[i]) {
            (In::Code, b'"') => at = In::Text,
            (In::Text, b'\\') => i += 1,
            (In::Text, b'"') | (In::Line, b'\n') => at = In::Code,
            (In::Code, b'#') => at = In::Line,
            (In::Code, b'/') if next == Some(b'/') => at = In::Line,
            (In::Code, b'/') if next == Some(b'*') => at = In::Block,
            (In::Block, b'*') if next == Some(b'/') => {
                plain[i] = b' ';
                plain[i + 1] = b' ';
                at = In::Code;
            }
            _ => {}
        }
        if matches!(at, In::Line | In::Block) && plain[i] != b'\n' {
            plain[i] = b' ';
        }
        i += 1;
    }
    // Only whole characters were replaced: each byte of a comment.
    String::from_utf8(plain).unwrap_or_default()
}

/// What `rackstrap export all` prints.
pub(super) fn own(report: &mut Report<'_>) -> Vec<Draft> {
    let Some(document) = tree::json(report, report.text()) else {
        return Vec::new();
    };
    let nodes = document.get("nodes").map(Tree::list).unwrap_or_default();
    // Settings keep the kinds of their values, which the tree does not have.
    let plain: Value = serde_json::from_str(report.text()).unwrap_or_default();
    let drafts = nodes.iter().enumerate();
    drafts
        .map(|(at, node)| own_node(report, node, plain.pointer(&format!("/nodes/{at}/settings"))))
        .collect()
}

fn own_node(report: &mut Report<'_>, node: &Tree, settings: Option<&Value>) -> Draft {
    let name = node.get("name");
    let mut draft = Draft {
        at: name.map_or(node.at.clone(), |name| name.at.clone()),
        name: name.and_then(Tree::text).map(str::to_owned),
        ..Draft::default()
    };
    let words = |value: &Tree| -> Vec<Word> {
        let all = value.list().iter();
        all.filter_map(|word| Some((word.at.clone(), word.text()?.to_owned())))
            .collect()
    };
    for Item { key, value, .. } in node.map() {
        match key.as_str() {
            "hwaddrs" => {
                for one in value.list() {
                    card(report, &mut draft, &one.at, one.text().unwrap_or_default());
                }
            }
            "profiles" => draft.profiles = Some(words(value)),
            "groups" => draft.groups = Some(words(value)),
            "attributes" => {
                let all = value.map().iter();
                let all = all.map(|item| (item.key.clone(), item.value.text().unwrap_or_default().to_owned()));
                draft.attributes = Some(all.collect());
            }
            "settings" => {
                let all = settings.and_then(Value::as_object).into_iter().flatten();
                // Secrets are in no listing.
                let open = all.filter(|(_, value)| value.as_str() != Some(HIDDEN));
                draft.settings = Some(
                    open.map(|(key, one)| (key.clone(), (value.at.clone(), one.clone())))
                        .collect(),
                );
            }
            "ipaddr" => draft.ipaddr = value.text().and_then(|ip| address(report, &value.at, ip)),
            // Facts about the node, which an import does not change.
            _ => {}
        }
    }
    draft
}
