//! NetBox's CSV exports of devices and interfaces, one or both in one file.
//!
//! Hardware addresses are at interfaces; devices have the rack, the role and the serial number. The columns are those of NetBox's list views
//! (`DeviceTable` and `InterfaceTable` in `netbox/dcim/tables/devices.py`), or of its import forms, whatever their spelling.

use super::{
    Draft,
    foreign::{Leftovers, attribute, card, field_variable, ipv4, join, table_variable, variable_name},
    report::{Report, shown},
    tables::{Row, rows},
};
use rackstrap_site::value::Value;
use std::collections::BTreeMap;

const HELP: &str = "export the interfaces with their columns Device, Name, MAC Address and Mgmt Only";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Devices,
    Interfaces,
}

/// `MAC Address` and `mac_address` are `macaddress`.
fn plain(column: &str) -> String {
    let letters = column.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

fn table(header: &[String]) -> Option<Table> {
    let has = |all: &[&str]| header.iter().any(|name| all.contains(&name.as_str()));
    if has(&["device"]) && has(&["name"]) && has(&["macaddress", "primarymacaddress"]) {
        Some(Table::Interfaces)
    } else if has(&["name"]) && has(&["role", "devicerole"]) && has(&["type", "devicetype"]) {
        Some(Table::Devices)
    } else {
        None
    }
}

/// Whether the line is the header of such a table.
pub(super) fn is_header(line: &str) -> bool {
    let header: Vec<String> = line.split(',').map(plain).collect();
    table(&header).is_some()
}

pub(super) fn read(report: &mut Report<'_>) -> Vec<Draft> {
    let mut left = Leftovers::default();
    let mut nodes: BTreeMap<String, Draft> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut now: Option<(Table, Vec<String>)> = None;
    let mut has_cards = false;
    for row in rows(report) {
        let header: Vec<String> = row.fields.iter().map(|field| plain(field)).collect();
        if let Some(found) = table(&header) {
            has_cards |= found == Table::Interfaces;
            now = Some((found, header));
            continue;
        }
        let Some((table, header)) = &now else {
            report.error(row.at, "no header of a table is above this row", HELP);
            return Vec::new();
        };
        let column = if *table == Table::Interfaces { "device" } else { "name" };
        let Some(name) = row.get(header, column) else {
            left.add("a device without a name", &row.at, "give the device a name in NetBox");
            continue;
        };
        let draft = nodes.entry(name.to_owned()).or_insert_with(|| {
            order.push(name.to_owned());
            Draft {
                at: row.at.clone(),
                // NetBox shows names as people write them.
                name: Some(name.to_ascii_lowercase()),
                adds: true,
                ..Draft::default()
            }
        });
        match table {
            Table::Interfaces => interface(report, draft, &mut left, header, &row),
            Table::Devices => device(report, draft, &mut left, header, &row),
        }
    }
    let mut drafts = Vec::new();
    for name in order {
        let Some(draft) = nodes.remove(&name) else { continue };
        if has_cards && draft.hwaddrs.is_empty() && !draft.reported {
            left.add(
                "a device without an interface with a MAC address",
                &draft.at,
                "if it is a node, add the address in NetBox",
            );
            continue;
        }
        drafts.push(draft);
    }
    left.report(report);
    if !has_cards && !drafts.is_empty() {
        report.error_whole(
            "NetBox keeps hardware addresses at interfaces, and the file has only devices",
            HELP,
        );
        return Vec::new();
    }
    drafts
}

fn interface(report: &mut Report<'_>, draft: &mut Draft, left: &mut Leftovers, header: &[String], row: &Row) {
    let at = &row.at;
    let field = |all: &[&str]| all.iter().find_map(|column| row.get(header, column));
    let name = field(&["name"]).unwrap_or_default();
    let mac = field(&["macaddress", "primarymacaddress"]);
    let addresses = field(&["ipaddresses", "ipaddress"]);
    let words = || addresses.into_iter().flat_map(|text| text.split([',', ' ', '\n']));
    // An interface may have both kinds, in any order; the node's address is an IPv4 one.
    let first = words()
        .find(|word| !word.is_empty() && !word.contains(':'))
        .or_else(|| words().find(|word| !word.is_empty()));
    let yes = |text: &str| matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "1" | "✔");
    if field(&["mgmtonly", "managementonly"]).is_some_and(yes) {
        let mut settings = draft.settings.take().unwrap_or_default();
        for (key, value) in [
            ("vars.bmc_ipaddr", first.and_then(|one| one.split('/').next())),
            ("vars.bmc_hwaddr", mac),
        ] {
            settings.extend(value.map(|text| (key.to_owned(), (at.clone(), Value::from(text)))));
        }
        draft.settings = Some(settings).filter(|settings| !settings.is_empty());
        return;
    }
    let Some(mac) = mac else {
        // A bond, a bridge or a VLAN has addresses, and need have no hardware address of its own.
        match (variable_name(name), first) {
            (Some(key), Some(first)) => {
                let settings = draft.settings.get_or_insert_default();
                field_variable(settings, "networks", at, &key, "ipaddr", first.into());
                for (column, key_of_field) in [("lag", "lag"), ("parent", "parent"), ("mtu", "mtu")] {
                    if let Some(text) = field(&[column]) {
                        field_variable(settings, "networks", at, &key, key_of_field, text.into());
                    }
                }
            }
            (None, Some(_)) => left.add(&format!("the interface '{}'", shown(name)), at, "set it as a variable"),
            (_, None) => {}
        }
        return;
    };
    if draft.hwaddrs.is_empty() && !draft.reported {
        draft.ipaddr = draft.ipaddr.or_else(|| ipv4(report, left, at, first?));
        if let Some(mtu) = field(&["mtu"]).filter(|mtu| *mtu != "1500") {
            let value = mtu.parse::<i64>().map_or_else(|_| Value::from(mtu), Value::from);
            draft
                .settings
                .get_or_insert_default()
                .insert("mtu".to_owned(), (at.clone(), value));
        }
    } else if let Some(first) = first {
        match variable_name(name) {
            Some(key) => {
                let value = serde_json::json!({ "ipaddr": first, "hwaddr": mac });
                table_variable(draft.settings.get_or_insert_default(), "networks", at, &key, value);
            }
            None => left.add(&format!("the interface '{}'", shown(name)), at, "set it as a variable"),
        }
    }
    card(report, draft, at, mac);
    for column in ["lag", "parent", "untaggedvlan", "taggedvlans", "bridge", "wwn", "vrf"] {
        if field(&[column]).is_some() {
            left.add(
                &format!("the column {column} of interfaces"),
                at,
                "if templates read it, set it as a variable",
            );
        }
    }
}

fn device(report: &mut Report<'_>, draft: &mut Draft, left: &mut Leftovers, header: &[String], row: &Row) {
    let at = &row.at;
    for (column, field) in header.iter().zip(&row.fields) {
        let text = field.trim();
        if text.is_empty() || text == "—" {
            continue;
        }
        match column.as_str() {
            "name" | "id" => {}
            "status" if text.eq_ignore_ascii_case("active") => {}
            "rack" | "position" | "serial" | "site" | "location" | "tenant" => attribute(draft, left, at, column, text),
            "serialnumber" => attribute(draft, left, at, "serial", text),
            "u" | "positionu" => attribute(draft, left, at, "position", text),
            "assettag" => attribute(draft, left, at, "asset_tag", text),
            "comments" | "description" if !text.contains('\n') => attribute(draft, left, at, column, text),
            "ipaddress" | "primaryip" | "primaryip4" | "primaryipv4" | "ipv4address" => {
                draft.ipaddr = ipv4(report, left, at, text).or(draft.ipaddr)
            }
            "oobip" => {
                let value = Value::from(text.split('/').next().unwrap_or_default());
                draft
                    .settings
                    .get_or_insert_default()
                    .insert("vars.bmc_ipaddr".to_owned(), (at.clone(), value));
            }
            "role" | "devicerole" | "tags" => {
                let groups = draft.groups.get_or_insert_default();
                for one in text.split(',').map(|one| one.trim().to_lowercase().replace(' ', "-")) {
                    join(groups, left, at, &one);
                }
            }
            other => left.add(
                &format!("the column {} of devices", shown(other)),
                at,
                "if templates read it, set it as a variable",
            ),
        }
    }
}
