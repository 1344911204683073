//! Warewulf's nodes.conf (4.x): YAML with `nodeprofiles` and `nodes`.
//!
//! The keys are those of `NodeConf` in Warewulf's `internal/pkg/node` (4.2 to 4.6), which gives some of them a second name over time.

use super::{
    Draft,
    foreign::{Found, Leftovers, address, attribute, card, kernel_arguments, table_variable, variable, variable_name},
    mac,
    report::{Report, shown},
    tree::{self, Item, Tree, Value as Kind},
};
use rackstrap_site::value::{Value, to_toml};
use std::collections::HashMap;

/// The profiles of the file, by name.
type Profiles<'t> = HashMap<&'t str, &'t Tree>;

/// The nodes, and the profiles as text for the site file.
#[derive(Default)]
pub(super) struct Read {
    pub drafts: Vec<Draft>,
    pub site_file: String,
}

pub(super) fn read(report: &mut Report<'_>) -> Read {
    let Some(document) = tree::yaml(report) else {
        return Read::default();
    };
    let mut left = Leftovers::default();
    let mut read = Read::default();
    let profiles = document.get("nodeprofiles").map(Tree::map).unwrap_or_default();
    let profiles: Profiles<'_> = profiles.iter().map(|item| (item.key.as_str(), &item.value)).collect();
    for item in document.map() {
        match item.key.as_str() {
            "WW_INTERNAL" => {}
            "nodeprofiles" => {
                for profile in item.value.map() {
                    read.site_file += &section(report, &mut left, profile);
                }
            }
            "nodes" => {
                for node in item.value.map() {
                    read.drafts.push(draft(report, &mut left, &profiles, node));
                }
            }
            other => left.add(&format!("'{other}'"), &item.at, "it is not about nodes"),
        }
    }
    left.report(report);
    read
}

/// A profile as a section of the site file.
fn section(report: &mut Report<'_>, left: &mut Leftovers, profile: &Item) -> String {
    let mut found = Found::new();
    let mut ignored = Draft::default();
    values(report, &mut ignored, &mut found, left, &profile.value);
    // Since 4.6 a profile may name further ones.
    for other in profile.value.get("profiles").map(Tree::list).unwrap_or_default() {
        left.add(
            &format!("the profile '{}' of profiles", other.text().unwrap_or_default()),
            &other.at,
            "name both profiles at each node",
        );
    }
    for network in profile.value.get("network devices").map(Tree::map).unwrap_or_default() {
        let help = "[[subnet]] of the site file has the network's addresses";
        left.add(
            &format!("network device '{}' of profiles", network.key),
            &network.at,
            help,
        );
    }
    let Some(name) = super::foreign::group(&profile.key) else {
        left.add(
            &format!("profile '{}'", profile.key),
            &profile.at,
            "a profile's name has letters, digits, - and _",
        );
        return String::new();
    };
    let mut text = format!("[profile.{name}]\n");
    for (key, (_, value)) in found {
        text += &format!("{key} = {}\n", to_toml(&value));
    }
    for (name, comment) in ignored.attributes.into_iter().flatten() {
        text += &format!("# {name}: {}\n", shown(&comment));
    }
    text + "\n"
}

fn draft(report: &mut Report<'_>, left: &mut Leftovers, sections: &Profiles<'_>, node: &Item) -> Draft {
    let mut draft = Draft {
        at: node.at.clone(),
        name: Some(node.key.clone()),
        adds: true,
        ..Draft::default()
    };
    let mut found = Found::new();
    values(report, &mut draft, &mut found, left, &node.value);
    let profiles = node.value.get("profiles").map(Tree::list).unwrap_or_default();
    let mut named = Vec::new();
    for (at, name) in profiles
        .iter()
        .filter_map(|profile| Some((&profile.at, profile.text()?)))
    {
        match name.strip_prefix('~') {
            // Every node has the default profile.
            None if name == "default" => {}
            None => named.push((at.clone(), name.to_owned())),
            Some(_) => left.add(
                &format!("the profile '{name}', which takes a profile away,"),
                at,
                "a node has the profiles that it names, and default",
            ),
        }
    }
    draft.profiles = Some(named);
    networks(report, &mut draft, &mut found, left, sections, &node.value);
    draft.settings = (!found.is_empty()).then_some(found);
    draft
}

/// What nodes and profiles have alike, except networks.
fn values(report: &mut Report<'_>, draft: &mut Draft, found: &mut Found, left: &mut Leftovers, of: &Tree) {
    for Item { at, key, value } in of.map() {
        if value.is_empty() {
            continue;
        }
        match (key.as_str(), value.text()) {
            ("profiles" | "network devices" | "primary network" | "discoverable", _) => {}
            ("comment", Some(text)) => attribute(draft, left, at, "comment", text),
            ("asset key", Some(text)) => attribute(draft, left, at, "asset_key", text),
            ("init", Some(text)) => drop(found.insert("init".to_owned(), (at.clone(), text.into()))),
            ("kernel args", Some(text)) => kernel_arguments(found, left, at, text),
            ("tags" | "keys", _) => {
                for tag in value.map() {
                    variable(found, left, &tag.key, &tag.at, json(&tag.value));
                }
            }
            ("kernel", _) => {
                for part in value.map() {
                    let list: Vec<&str> = part.value.list().iter().filter_map(Tree::text).collect();
                    match (part.key.as_str(), part.value.text()) {
                        ("args", Some(text)) => kernel_arguments(found, left, &part.at, text),
                        ("args", None) => kernel_arguments(found, left, &part.at, &list.join(" ")),
                        (other, _) => {
                            left.add(&format!("kernel {other}"), &part.at, "an image has its own kernel");
                        }
                    }
                }
            }
            ("ipmi", _) => {
                for part in value.map() {
                    bmc(report, found, left, &part.key, part);
                }
            }
            (name, _) if name.starts_with("ipmi ") => {
                let item = Item {
                    at: at.clone(),
                    key: name["ipmi ".len()..].to_owned(),
                    value: text_of(value),
                };
                bmc(report, found, left, &item.key, &item);
            }
            ("container name" | "image name", text) => {
                let what = format!("image '{}'", text.unwrap_or_default());
                left.add(
                    &what,
                    at,
                    "import it with `rackstrap image import`, and name it with image = in the site file",
                );
            }
            ("runtime overlay" | "system overlay", _) => {
                left.add(
                    key,
                    at,
                    "write templates, and name their tree with templates = in the site file",
                );
            }
            ("disks" | "filesystems", _) => left.add(key, at, "write a [layout.NAME] in the site file"),
            ("resources", _) => left.add(key, at, "write [[mount]] in the site file, or variables"),
            ("ipxe template" | "root" | "boot method", _) => {
                left.add(key, at, "rackstrap has its own boot scripts, and its root is over NFS");
            }
            ("cluster name", _) => left.add(key, at, "name of [cluster] in the site file is for all nodes"),
            (other, _) => left.add(&format!("'{other}'"), at, "if templates read it, set it as a variable"),
        }
    }
}

/// `bmc_ipaddr` and its like, as variables; the password as a secret one.
fn bmc(report: &mut Report<'_>, found: &mut Found, left: &mut Leftovers, key: &str, part: &Item) {
    let Some(text) = part.value.text() else {
        if !part.value.is_empty() {
            left.add(&format!("ipmi {key}"), &part.at, "set it as a variable");
        }
        return;
    };
    let name = match key {
        "ipaddr" | "ipmi" => {
            if address(report, &part.value.at, text).is_none() {
                return;
            }
            "vars.bmc_ipaddr".to_owned()
        }
        "username" => "vars.bmc_user".to_owned(),
        "password" => "vars-secret.bmc_password".to_owned(),
        other => match variable_name(&format!("bmc_{other}")) {
            Some(name) => format!("vars.{name}"),
            None => return left.add(&format!("ipmi {other}"), &part.at, "set it as a variable"),
        },
    };
    found.insert(name, (part.at.clone(), text.into()));
}

fn text_of(value: &Tree) -> Tree {
    Tree {
        at: value.at.clone(),
        value: Kind::Text(value.text().unwrap_or_default().to_owned()),
    }
}

/// The boot network's card and address, and all other networks as `vars.networks`.
fn networks(
    report: &mut Report<'_>,
    draft: &mut Draft,
    found: &mut Found,
    left: &mut Leftovers,
    sections: &Profiles<'_>,
    node: &Tree,
) {
    let all = node.get("network devices").map(Tree::map).unwrap_or_default();
    let profiles = node.get("profiles").map(Tree::list).unwrap_or_default();
    let sections = profiles
        .iter()
        .rev()
        .filter_map(|name| sections.get(name.text()?).copied());
    let primary = [node]
        .into_iter()
        .chain(sections)
        .find_map(|of| of.get("primary network")?.text());
    let is_primary = |item: &Item| {
        let flag = |key| {
            item.value
                .get(key)
                .and_then(Tree::text)
                .is_some_and(|text| text == "true")
        };
        primary == Some(item.key.as_str()) || primary.is_none() && (flag("primary") || flag("default"))
    };
    let boot = all.iter().position(is_primary);
    let boot = boot
        .or_else(|| all.iter().position(|item| item.key == "default"))
        .unwrap_or(0);
    if let Some(network) = all.get(boot) {
        for Item { at, key, value } in network.value.map() {
            let Some(text) = value.text() else {
                if !value.is_empty() {
                    left.add(&format!("{key} of the boot network"), at, "set it as a variable");
                }
                continue;
            };
            match key.as_str() {
                "hwaddr" => card(report, draft, &value.at, text),
                "ipaddr" => draft.ipaddr = address(report, &value.at, text),
                "mtu" => drop(found.insert("mtu".to_owned(), (at.clone(), number(text)))),
                "primary" | "default" | "onboot" => {}
                "type" if text == "ethernet" => {}
                "netmask" | "gateway" | "prefix" => {
                    left.add(
                        &format!("{key} of the boot network"),
                        at,
                        "the [[subnet]] of the site file has it",
                    );
                }
                other => left.add(
                    &format!("{other} of the boot network"),
                    at,
                    "the boot network needs none",
                ),
            }
        }
    }
    for (_, network) in all.iter().enumerate().filter(|(at, _)| *at != boot) {
        let infiniband = network.value.get("type").and_then(Tree::text) == Some("infiniband");
        let hwaddr = network.value.get("hwaddr");
        if let Some((at, text)) = hwaddr
            .filter(|_| !infiniband)
            .and_then(|tree| Some((&tree.at, tree.text()?)))
            && mac::hwaddr(text).is_some()
        {
            card(report, draft, at, text);
        }
        match variable_name(&network.key) {
            Some(name) => table_variable(found, "networks", &network.at, &name, json(&network.value)),
            None => left.add(
                &format!("network device '{}'", network.key),
                &network.at,
                "set it as a variable",
            ),
        }
    }
}

fn number(text: &str) -> Value {
    text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from)
}

/// The value of a variable: texts stay texts, as Warewulf's own are.
fn json(tree: &Tree) -> Value {
    match &tree.value {
        Kind::Text(text) => Value::from(text.as_str()),
        Kind::List(all) => Value::Array(all.iter().map(json).collect()),
        Kind::Map(all) => Value::Object(all.iter().map(|item| (item.key.clone(), json(&item.value))).collect()),
    }
}
