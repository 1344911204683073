//! Commands that change nodes: each is one transaction.

use super::settings::{split_set, split_unset};
use crate::{
    ask,
    hostlist::{self, Wanted},
    output::{self, Format},
};
use anyhow::{Result, bail};
use clap::Args;
use rackstrap_control::{
    Client,
    api::{self, NodeChange, NodeRow},
    segment,
};
use rackstrap_hostlist::NodeSet;
use rackstrap_model::{
    disks::describe_effects,
    inventory::{Change, Changed, NewNode, Patch, summary},
};
use rackstrap_site::{split_key, value::Value};
use rackstrap_wire::HwAddr;
use std::collections::BTreeMap;

#[derive(Debug, Args)]
pub struct AddArgs {
    /// Name by the site's pattern, such as r01n01; the address follows from it. Any other name needs ipaddr=ADDRESS
    name: String,
    /// Settings of its own: its address (ipaddr=10.5.200.4), or by the key of a profile
    #[arg(value_name = "KEY=VALUE", add = crate::complete::settings())]
    settings: Vec<String>,
    /// MAC address of the network card, the booting one first; repeat for further cards
    #[arg(long, visible_alias = "mac", value_name = "MAC", required = true)]
    hwaddr: Vec<HwAddr>,
    /// Profile of the site file, such as compute; repeat for more, later ones win
    #[arg(long, add = crate::complete::profiles())]
    profile: Vec<String>,
    /// Group that the node joins, such as big; repeat for more
    #[arg(long)]
    group: Vec<String>,
    /// Attribute for templates and boot scripts; repeat for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attr: Vec<(String, String)>,
    #[command(flatten)]
    format: Format,
}

// clap does not wrap a usage line, and with all options this one would be wider than a terminal.
#[derive(Debug, Args)]
#[command(override_usage = "rackstrap node set <NODES>... [KEY=VALUE]... [OPTIONS]")]
pub struct SetArgs {
    /// Names or hostlists, and settings by the key of a profile (image=debian@2, kernel-args+=quiet)
    #[arg(required = true, value_name = "NODES|KEY=VALUE", add = crate::complete::nodes_and_settings())]
    nodes: Vec<String>,
    /// Replace all profiles with this one; repeat for more, later ones win
    #[arg(long, add = crate::complete::profiles())]
    profile: Vec<String>,
    /// Group to join, such as big; repeat for more
    #[arg(long, value_name = "GROUP")]
    join: Vec<String>,
    /// Group to leave; repeat for more
    #[arg(long, value_name = "GROUP")]
    leave: Vec<String>,
    /// Attribute to set, for templates and boot scripts; repeat for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attr: Vec<(String, String)>,
    /// Replace all MAC addresses of a single node; repeat for more cards
    #[arg(long, visible_alias = "mac", value_name = "MAC")]
    hwaddr: Vec<HwAddr>,
    /// Change the address of a node that is up; it loses its root and hangs until it is restarted
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
#[command(override_usage = "rackstrap node unset <NODES>... [KEY]... [OPTIONS]")]
pub struct UnsetArgs {
    /// Names or hostlists, and keys of settings (console, kernel-args)
    #[arg(required = true, value_name = "NODES|KEY", add = crate::complete::nodes_and_keys())]
    nodes: Vec<String>,
    /// Profile to remove; repeat for more
    #[arg(long, conflicts_with = "profiles", add = crate::complete::profiles())]
    profile: Vec<String>,
    /// Remove all profiles
    #[arg(long)]
    profiles: bool,
    /// Group to remove; repeat for more
    #[arg(long, conflicts_with = "groups")]
    group: Vec<String>,
    /// Remove all groups
    #[arg(long)]
    groups: bool,
    /// Attribute to remove; repeat for more
    #[arg(long, value_name = "NAME")]
    attr: Vec<String>,
    /// MAC address to remove; the node keeps its other cards
    #[arg(long, visible_alias = "mac", value_name = "MAC")]
    hwaddr: Vec<HwAddr>,
    /// Change the address of a node that is up; it loses its root and hangs until it is restarted
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// Name
    #[arg(value_name = "NODE", add = crate::complete::nodes())]
    name: String,
    /// MAC address of the new network card; repeat for further cards
    #[arg(long, visible_alias = "mac", value_name = "MAC", required = true)]
    hwaddr: Vec<HwAddr>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub struct RenameArgs {
    /// Present name or hostlist, or - to read names from standard input
    #[arg(value_name = "NODES", add = crate::complete::nodes())]
    from: String,
    /// New name, or a hostlist of as many names, paired in order
    #[arg(value_name = "NAMES")]
    to: String,
    /// Do it although the node is up; it loses its root and hangs until it is restarted
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Names or hostlists
    #[arg(required = true, value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Delete nodes that are up; they lose their roots and hang until they are restarted
    #[arg(long)]
    running: bool,
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

/// At most this many nodes are listed before they are deleted, and this many lines about nodes' disks are shown.
const LISTED: usize = 20;

/// How a change is made and printed.
#[derive(Debug, Args)]
pub struct How {
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: Format,
}

/// Splits `NAME=VALUE`; the daemon checks both parts.
fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("write NAME=VALUE, such as location='row 3'")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Sends changes to the daemon, or has it report what they would change.
pub fn send(client: &Client, changes: Vec<Change>, dry_run: bool, running: bool) -> Result<Vec<NodeChange>> {
    let asked = api::Changes {
        changes,
        dry_run,
        running,
    };
    let answer: api::ChangesAnswer = client.post(api::paths::CHANGES, &asked)?;
    for line in answer
        .dropped
        .into_iter()
        .chain(answer.warnings)
        .chain(describe_effects(&answer.effects, LISTED))
    {
        eprintln!("warning: {line}");
    }
    Ok(answer.changed)
}

fn summarised(changed: Vec<NodeChange>) -> Vec<String> {
    summary(&changed.into_iter().map(Changed::from).collect::<Vec<_>>())
}

/// Sends changes and prints the differences.
fn send_and_print(client: &Client, changes: Vec<Change>, how: &How, running: bool) -> Result<()> {
    let changed = send(client, changes, how.dry_run, running)?;
    if how.format.json {
        return output::print_json(&changed);
    }
    let mut lines = summarised(changed);
    match (lines.is_empty(), how.dry_run) {
        (true, _) => lines.push("nothing to change: the nodes already have these settings".to_owned()),
        (false, true) => lines.push("nothing was changed: --dry-run".to_owned()),
        (false, false) => {}
    }
    output::print(&lines.join("\n"))
}

/// `rackstrap node add`
pub fn add(client: &Client, args: AddArgs) -> Result<()> {
    let (others, settings) = split_set(args.settings)?;
    if let Some(other) = others.first() {
        bail!("{other}: one node is added at a time\nhelp: `rackstrap node import` adds the nodes of a file");
    }
    // Nothing is there yet to which a setting could be added, or from which it could be taken away.
    let settings: BTreeMap<String, Value> = settings.into_iter().collect();
    let new = NewNode {
        name: args.name,
        hwaddrs: args.hwaddr,
        profiles: args.profile,
        groups: args.group.into_iter().collect(),
        attributes: args.attr.into_iter().collect(),
        settings: settings.into(),
    };
    let changed = send(client, vec![Change::Add(new)], false, false)?;
    let Some(node) = changed.into_iter().find_map(|changed| changed.after) else {
        bail!("the daemon added nothing");
    };
    if args.format.json {
        return output::print_json(&node);
    }
    let mut text = format!(
        "{} added: address {}, hwaddr {}",
        node.name,
        node.ipaddr,
        output::list(&node.hwaddrs)
    );
    if !node.profiles.is_empty() {
        text += &format!(", profiles {}", output::list(&node.profiles));
    }
    if !node.groups.is_empty() {
        text += &format!(", groups {}", output::list(&node.groups));
    }
    output::print(&text)?;
    output::print(&prospects(client, &node.name)?)
}

/// What a node will boot, or why it cannot boot, so that a missing image is noticed now and not at the node's console.
pub fn prospects(client: &Client, node: &str) -> Result<String> {
    let explained: api::ExplainAnswer = client.get(&format!("{}{}", api::paths::EXPLAIN, segment(node)))?;
    Ok(match explained.decision {
        Some(api::ExplainDecision { image: Some(image), .. }) => {
            format!(
                "it boots {image} when you switch it on, or now if it is waiting; to watch: rackstrap status --watch"
            )
        }
        Some(decision) => {
            let problem = decision.image_problem.unwrap_or_default();
            format!("it cannot boot yet: {problem}")
        }
        None => format!("it cannot boot yet; why: rackstrap explain {node}"),
    })
}

/// The same patch for each of `nodes`.
fn patch_all(nodes: Vec<String>, patch: Patch) -> Vec<Change> {
    let set = |name| Change::Set {
        name,
        patch: patch.clone(),
    };
    nodes.into_iter().map(set).collect()
}

/// `rackstrap node set`
pub fn set(client: &Client, args: SetArgs) -> Result<()> {
    let (nodes, settings) = split_set(args.nodes)?;
    let lists = args.profile.is_empty() && args.join.is_empty() && args.leave.is_empty();
    let nothing = lists && args.attr.is_empty() && args.hwaddr.is_empty() && settings.is_empty();
    if nodes.is_empty() || nothing {
        let what = if nodes.is_empty() {
            "no nodes"
        } else {
            "nothing to change"
        };
        bail!(
            "{what}: name nodes, and KEY=VALUE or an option such as --profile\nhelp: `rackstrap node set r01n03 image=debian@2`; all: \
             `rackstrap node set --help`"
        );
    }
    let named = Wanted::new(nodes)?;
    let nodes = named.some_names(client)?;
    if !args.leave.is_empty() {
        let leave = Patch {
            leave: args.leave.iter().cloned().collect(),
            ..Patch::default()
        };
        for missing in held_by_none(&named.nodes(client)?, &leave) {
            eprintln!("warning: none of these nodes has {missing}");
        }
    }
    if nodes.len() > 1 && !args.hwaddr.is_empty() {
        bail!("--hwaddr: two nodes cannot have the same card; name one node");
    }
    let patch = Patch {
        hwaddrs: Some(args.hwaddr).filter(|list| !list.is_empty()),
        profiles: Some(args.profile).filter(|list| !list.is_empty()),
        join: args.join.into_iter().collect(),
        leave: args.leave.into_iter().collect(),
        attributes: args.attr.into_iter().collect(),
        settings,
        ..Patch::default()
    };
    send_and_print(client, patch_all(nodes, patch), &args.how, args.running)
}

/// `rackstrap node unset`
pub fn unset(client: &Client, args: UnsetArgs) -> Result<()> {
    let (nodes, keys) = split_unset(args.nodes)?;
    let lists = args.profile.is_empty() && args.group.is_empty() && args.attr.is_empty() && args.hwaddr.is_empty();
    let nothing = lists && !args.profiles && !args.groups && keys.is_empty();
    if nodes.is_empty() || nothing {
        let what = if nodes.is_empty() {
            "no nodes"
        } else {
            "nothing to remove"
        };
        bail!(
            "{what}: name nodes, and keys of settings or an option such as --group\nhelp: `rackstrap node unset r01n03 console`; all: \
             `rackstrap node unset --help`"
        );
    }
    let named = Wanted::new(nodes)?;
    named.some_names(client)?;
    let nodes = named.nodes(client)?;
    let patch = Patch {
        profiles: args.profiles.then(Vec::new),
        drop_profiles: args.profile.into_iter().collect(),
        drop_hwaddrs: args.hwaddr.into_iter().collect(),
        leave: args.group.into_iter().collect(),
        drop_attributes: args.attr.into_iter().collect(),
        drop_settings: keys.into_iter().collect(),
        ..Patch::default()
    };
    // This is not an error, so that a script may run twice. The warning shows typing errors.
    for missing in held_by_none(&nodes, &patch) {
        eprintln!("warning: none of these nodes has {missing}");
    }
    let unset = |node: NodeRow| Change::Set {
        name: node.name,
        patch: Patch {
            leave: match args.groups {
                true => node.groups,
                false => patch.leave.clone(),
            },
            ..patch.clone()
        },
    };
    let changes = nodes.into_iter().map(unset).collect();
    send_and_print(client, changes, &args.how, args.running)
}

/// The profiles, groups, attributes, addresses and settings that `patch` removes and none of `nodes` has.
fn held_by_none(nodes: &[NodeRow], patch: &Patch) -> Vec<String> {
    let none = |has: &dyn Fn(&NodeRow) -> bool| !nodes.iter().any(has);
    let mut missing = Vec::new();
    for profile in &patch.drop_profiles {
        missing.extend(none(&|node| node.profiles.contains(profile)).then(|| format!("the profile '{profile}'")));
    }
    for group in &patch.leave {
        missing.extend(none(&|node| node.groups.contains(group)).then(|| format!("the group '{group}'")));
    }
    for name in &patch.drop_attributes {
        missing.extend(none(&|node| node.attributes.contains_key(name)).then(|| format!("the attribute '{name}'")));
    }
    for hwaddr in &patch.drop_hwaddrs {
        missing.extend(none(&|node| node.hwaddrs.contains(hwaddr)).then(|| format!("the MAC address {hwaddr}")));
    }
    for key in &patch.drop_settings {
        let has = |node: &NodeRow| node.settings.keys().any(|own| split_key(own).0 == key);
        missing.extend(none(&has).then(|| format!("a setting '{key}' of its own")));
    }
    missing
}

/// `rackstrap node replace`
pub fn replace(client: &Client, args: ReplaceArgs) -> Result<()> {
    let patch = Patch {
        hwaddrs: Some(args.hwaddr),
        ..Patch::default()
    };
    let nodes = Wanted::new(vec![args.name])?.some_names(client)?;
    if let [_, second, ..] = nodes.as_slice() {
        bail!(
            "a new machine can replace only one node, but {} and {second} are two; name one of them",
            nodes[0]
        );
    }
    send_and_print(client, patch_all(nodes, patch), &args.how, false)
}

/// `rackstrap node rename`
pub fn rename(client: &Client, args: RenameArgs) -> Result<()> {
    let changes = hostlist::pairs(client, &args.from, &args.to)?
        .into_iter()
        .map(|(from, to)| Change::Rename { from, to })
        .collect();
    send_and_print(client, changes, &args.how, args.running)
}

/// `rackstrap node delete`
pub fn delete(client: &Client, args: &DeleteArgs) -> Result<()> {
    let names = Wanted::new(args.nodes.clone())?.some_names(client)?;
    let changes: Vec<Change> = names.into_iter().map(|name| Change::Delete { name }).collect();
    if args.dry_run {
        let changed = send(client, changes, true, args.running)?;
        return output::print(&format!(
            "{}\n{} would be deleted, with timelines and ssh host keys\nnothing was changed: --dry-run",
            to_be_deleted(&changed).join("\n"),
            output::count(changed.len(), "node")
        ));
    }
    if !args.yes {
        let changed = send(client, changes.clone(), true, args.running)?;
        for node in to_be_deleted(&changed) {
            eprintln!("{node}");
        }
        let question = format!(
            "delete {}, with timelines and ssh host keys?",
            output::count(changed.len(), "node")
        );
        if !ask::yes(&question, false)? {
            bail!("nothing was deleted");
        }
    }
    output::print(&summarised(send(client, changes, false, args.running)?).join("\n"))
}

/// One line for each of the first nodes, with address and MAC, and one line for the rest.
fn to_be_deleted(changed: &[NodeChange]) -> Vec<String> {
    let nodes: Vec<&NodeRow> = changed.iter().filter_map(|changed| changed.before.as_ref()).collect();
    let described = |node: &&NodeRow| {
        format!(
            "{} ({}, hwaddr {})",
            node.name,
            node.ipaddr,
            output::list(&node.hwaddrs)
        )
    };
    let mut lines: Vec<String> = nodes.iter().take(LISTED).map(described).collect();
    let rest: NodeSet = nodes.iter().skip(LISTED).map(|node| node.name.as_str()).collect();
    if !rest.is_empty() {
        lines.push(format!("and {rest}"));
    }
    lines
}
