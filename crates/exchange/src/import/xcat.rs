//! xCAT's tables, as `tabdump` prints them: mac, hosts, nodelist, nics, ipmi and nodepos, one or several in one file.
//!
//! The columns are those of `Table.pm` in xCAT's `perl-xCAT/xCAT/Schema.pm`; each table begins with a line `#node,...`.

use super::{
    Draft,
    foreign::{Leftovers, address, attribute, card, field_variable, join, table_variable, variable_name},
    mac,
    report::{Report, shown},
    tables::{Row, rows},
};
use std::collections::BTreeMap;

const HELP: &str = "dump the tables together: (tabdump mac; tabdump hosts; tabdump nodelist) > FILE";

/// The table with these columns.
fn table(header: &[String]) -> Option<&'static str> {
    let has = |column: &str| header.iter().any(|name| name == column);
    Some(match () {
        () if has("interface") && has("mac") => "mac",
        () if has("ip") && has("hostnames") => "hosts",
        () if has("groups") && has("status") => "nodelist",
        () if has("nicips") => "nics",
        () if has("bmc") => "ipmi",
        () if has("rack") && has("u") => "nodepos",
        () => return None,
    })
}

/// Whether the line is the header of one of xCAT's tables.
pub(super) fn is_header(line: &str) -> bool {
    line.starts_with("#node,") && line.ends_with(",comments,disable")
}

pub(super) fn read(report: &mut Report<'_>) -> Vec<Draft> {
    let mut left = Leftovers::default();
    let mut nodes: BTreeMap<String, Draft> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut header: Vec<String> = Vec::new();
    let mut now = None;
    let mut has_cards = false;
    for row in rows(report) {
        if let Some(first) = row.fields.first().and_then(|field| field.strip_prefix('#')) {
            header = [first.to_owned()]
                .into_iter()
                .chain(row.fields.iter().skip(1).cloned())
                .collect();
            now = table(&header);
            has_cards |= now == Some("mac");
            if now.is_none() {
                left.add(
                    "a table of xCAT with other columns",
                    &row.at,
                    "mac, hosts, nodelist, nics, ipmi and nodepos are read",
                );
            }
            continue;
        }
        let Some(table) = now else {
            if header.is_empty() {
                report.error(row.at, "no header of a table is above this row", HELP);
                return Vec::new();
            }
            continue;
        };
        let Some(name) = row.get(&header, "node") else { continue };
        let off = row
            .get(&header, "disable")
            .is_some_and(|flag| matches!(flag, "1" | "yes" | "Y" | "y"));
        if off {
            left.add(
                &format!("a disabled row of table {table}"),
                &row.at,
                "delete the row, or its disable",
            );
            continue;
        }
        let computed = row
            .fields
            .iter()
            .any(|field| field.starts_with('|') && field.ends_with('|'));
        if name.contains(|c: char| "|[]*/,+-".contains(c) && c != '-') || computed {
            let what = format!(
                "the row of '{}' in table {table}, which stands for several nodes,",
                shown(name)
            );
            left.add(
                &what,
                &row.at,
                "write each node's own values: lsdef -t node -o NODE shows them",
            );
            continue;
        }
        let draft = nodes.entry(name.to_owned()).or_insert_with(|| {
            order.push(name.to_owned());
            Draft {
                at: row.at.clone(),
                name: Some(name.to_owned()),
                adds: true,
                ..Draft::default()
            }
        });
        values(report, draft, &mut left, table, &header, &row);
    }
    let mut drafts = Vec::new();
    for name in order {
        let Some(draft) = nodes.remove(&name) else { continue };
        // Switches and other machines have a row in hosts, and none in mac.
        if has_cards && draft.hwaddrs.is_empty() && !draft.reported {
            left.add(
                "a machine without a row in table mac",
                &draft.at,
                "if it is a node, add its card: chtab node=NODE mac.mac=MAC",
            );
            continue;
        }
        drafts.push(draft);
    }
    left.report(report);
    if !has_cards && !drafts.is_empty() {
        report.error_whole(
            "the file has no table mac, so that no machine could be recognised",
            HELP,
        );
        return Vec::new();
    }
    drafts
}

fn values(report: &mut Report<'_>, draft: &mut Draft, left: &mut Leftovers, table: &str, header: &[String], row: &Row) {
    let at = &row.at;
    for (column, field) in header.iter().zip(&row.fields).skip(1) {
        let text = field.trim();
        if text.is_empty() {
            continue;
        }
        match (table, column.as_str()) {
            ("mac", "mac") => {
                // `MAC!NAME|MAC!NAME`: cards, each with the name of the machine on its network.
                for one in text.split('|') {
                    let word = one.split('!').next().unwrap_or_default().trim();
                    match mac::hwaddr(word) {
                        None if word.len() > 17 && word.contains(':') => {
                            left.add(
                                "a hardware address that is longer than six bytes",
                                at,
                                "InfiniBand needs no entry",
                            );
                        }
                        _ => card(report, draft, at, word),
                    }
                }
            }
            ("hosts", "ip") => draft.ipaddr = address(report, at, text),
            ("hosts", "otherinterfaces") => {
                let mut settings = draft.settings.take().unwrap_or_default();
                for one in text.split(',') {
                    let (name, ip) = one.split_once(':').unwrap_or((one, ""));
                    let short = name
                        .strip_prefix(draft.name.as_deref().unwrap_or_default())
                        .unwrap_or(name);
                    match variable_name(short.trim_start_matches('-').trim()) {
                        Some(key) if !ip.is_empty() => {
                            // `-ib0` is what follows the node's own name.
                            let node = draft.name.as_deref().filter(|_| name.trim().starts_with('-'));
                            let name = format!("{}{}", node.unwrap_or_default(), name.trim());
                            let value = serde_json::json!({ "ipaddr": ip.trim(), "name": name });
                            table_variable(&mut settings, "networks", at, &key, value);
                        }
                        _ => left.add(&format!("the interface '{}'", shown(one)), at, "set it as a variable"),
                    }
                }
                draft.settings = Some(settings);
            }
            ("nodelist", "groups") => {
                let groups = draft.groups.get_or_insert_default();
                for one in text
                    .split(',')
                    .map(str::trim)
                    .filter(|one| !one.is_empty() && *one != "all")
                {
                    join(groups, left, at, one);
                }
            }
            ("nics", "nicips" | "nictypes" | "nicnetworks") => {
                let field = match column.as_str() {
                    "nicips" => "ipaddr",
                    "nictypes" => "type",
                    _ => "network",
                };
                let settings = draft.settings.get_or_insert_default();
                // `ib0!10.6.1.1|10.7.1.1,eth1!192.0.2.3`: the first value of each interface.
                for (name, values) in text.split(',').filter_map(|one| one.split_once('!')) {
                    let mut values = values.split('|').map(str::trim);
                    let first = values.next().unwrap_or_default();
                    match variable_name(name.trim()) {
                        Some(key) if !first.is_empty() => {
                            field_variable(settings, "networks", at, &key, field, first.to_lowercase().into());
                        }
                        _ => left.add(&format!("the interface '{}'", shown(name)), at, "set it as a variable"),
                    }
                    if values.next().is_some() {
                        left.add(&format!("a second value of nics.{column}"), at, "set it as a variable");
                    }
                }
            }
            ("ipmi", "bmc" | "username" | "password") => {
                let key = match column.as_str() {
                    "bmc" => "vars.bmc_ipaddr",
                    "username" => "vars.bmc_user",
                    _ => "vars-secret.bmc_password",
                };
                let settings = draft.settings.get_or_insert_default();
                settings.insert(key.to_owned(), (at.clone(), text.into()));
            }
            ("nodepos", "rack" | "u" | "chassis" | "slot" | "room") => attribute(draft, left, at, column, text),
            (_, "comments") => attribute(draft, left, at, "comment", text),
            // What xCAT itself records, and what says nothing.
            ("nodelist", name) if name.contains("status") || name == "primarysn" || name == "hidden" => {}
            ("hosts", "hostnames") if Some(text) == draft.name.as_deref() => {}
            ("mac", "interface") => {
                left.add(
                    "mac.interface",
                    at,
                    "the agent finds the interface by its hardware address",
                );
            }
            (table, column) => {
                left.add(
                    &format!("{table}.{column}"),
                    at,
                    "if templates read it, set it as a variable",
                );
            }
        }
    }
}
