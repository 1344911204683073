//! The routes of the inventory: nodes, changes and history.

use super::{
    api, disks,
    meant::{Meant, meant},
    refusal::{Refusal, Shared, blocking, broken},
    signed::Signed,
};
use crate::{
    http::{base_url, script::script_url_of_any},
    preflight,
};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use rackstrap_base::{
    clock::{Timestamp, duration},
    subnet::{DhcpPart, Subnet, wrong_address},
};
use rackstrap_control::answers::{checks_of, describe_boot_order, describe_start, is_stale, status};
use rackstrap_loaders::Loaders;
use rackstrap_model::{
    bmc::{bmc_name, bmc_of},
    decide::{Decision, Requester, World, decide, hosts_of, loaders_of},
    inventory::{Change, Changed, Node, Patch, Settings, differences, rack_of},
};
use rackstrap_registries::timeline::{NodeState, NodeStatus, Subject, dropped_order, summarise};
use rackstrap_site::{IPADDR, Site};
use rackstrap_store::StoreError;
use std::{cmp::Reverse, collections::BTreeMap};

pub(super) async fn list(State(context): State<Shared>) -> Json<Vec<api::NodeRow>> {
    let world = context.world.load();
    Json(world.inventory.iter().map(|node| api::NodeRow::from(&**node)).collect())
}

/// Groups without nodes are listed, too, if their names are known: `@state:lost` with no nodes is not an error.
pub(super) async fn groups(State(context): State<Shared>) -> Json<BTreeMap<String, Vec<String>>> {
    let world = context.world.load_full();
    let now = Timestamp::now();
    let nodes = world.inventory.iter().map(|node| &**node);
    let mut groups = rackstrap_model::inventory::groups(nodes, &world.site.cluster.naming, |node| {
        let status = NodeStatus::of(&world, &context.recorder, &context.boots, &node.name, now);
        vec![format!("state:{}", status.state)]
    });
    let states = NodeState::OF_NODES.iter().map(|state| format!("state:{state}"));
    for group in states.chain(world.site.profiles.keys().map(|profile| format!("profile:{profile}"))) {
        groups.entry(group).or_default();
    }
    Json(groups)
}

/// Why a node is stalled or lost; none if it is neither.
pub(super) fn overdue(context: &Shared, world: &World, node: &str) -> Option<String> {
    let now = Timestamp::now();
    let status = NodeStatus::of(world, &context.recorder, &context.boots, node, now);
    let since = || duration(now.since(status.since.unwrap_or(now)));
    match status.state {
        NodeState::Stalled => Some(format!("the node is stalled for {}: {}", since(), status.reason)),
        NodeState::Lost => Some(format!("the node is lost: no heartbeat for {}", since())),
        _ => None,
    }
}

/// What a node gets from another DHCP server; none if rackstrap is the only one.
pub(super) fn dhcp_part(subnet: &Subnet) -> Option<String> {
    let network = subnet.network;
    match subnet.dhcp {
        DhcpPart::Full => None,
        DhcpPart::Proxy => Some(format!(
            "dhcp = \"proxy\" in {network}: another DHCP server gives the node its address, and this server its boot file"
        )),
        DhcpPart::Off => Some(format!(
            "dhcp = \"off\" in {network}: another DHCP server gives the node its address and its boot file"
        )),
    }
}

/// Why the node cannot boot with the address that another DHCP server gave it; none if it has its own, or was not seen.
pub(super) fn wrong_address_of(context: &Shared, node: &Node, subnet: &Subnet) -> Option<String> {
    if !subnet.dhcp.is_of_another_server() {
        return None;
    }
    let has = context.firmware.last_address_of(&node.hwaddrs)?;
    (has != node.ipaddr).then(|| wrong_address(&node.name, has, node.ipaddr))
}

/// `GET`: what each network boots, one row for the nodes that boot the same.
pub(super) async fn export_boot(State(context): State<Shared>) -> Json<Vec<api::ExportSubnet>> {
    let (world, loaders) = (context.world.load_full(), context.loaders.load_full());
    let site = &world.site;
    // What a node's firmware loads follows from its profiles.
    let mut by_profiles: BTreeMap<&[String], Vec<api::ExportFile>> = BTreeMap::new();
    let mut all: Vec<api::ExportSubnet> = Vec::new();
    for subnet in &site.subnets {
        let (base, begin) = (base_url(site, subnet.server), all.len());
        let is_proxy = subnet.dhcp == DhcpPart::Proxy;
        for node in world
            .inventory
            .iter()
            .filter(|node| subnet.network.contains(&node.ipaddr))
        {
            let files = match is_proxy {
                true => Vec::new(),
                false => by_profiles
                    .entry(&node.profiles)
                    .or_insert_with(|| files(site, &loaders, &node.profiles))
                    .clone(),
            };
            match all[begin..].iter_mut().find(|row| row.files == files) {
                Some(row) => row.nodes.push(node.name.clone()),
                None => all.push(api::ExportSubnet {
                    network: subnet.network,
                    server: subnet.server,
                    base: base.clone(),
                    script: script_url_of_any(&base),
                    is_proxy,
                    files,
                    nodes: vec![node.name.clone()],
                }),
            }
        }
    }
    Json(all)
}

/// The files that firmware of nodes with these profiles loads, those of the longest vendor classes first.
fn files(site: &Site, loaders: &Loaders, profiles: &[String]) -> Vec<api::ExportFile> {
    let mut all: Vec<api::ExportFile> = Vec::new();
    for (class, arch, choice) in loaders_of(site, profiles) {
        let Some(file) = loaders.name_of(&choice) else { continue };
        match all.iter_mut().find(|row| row.class == class && row.file == file) {
            Some(row) => row.archs.push(arch),
            None => all.push(api::ExportFile {
                class,
                archs: vec![arch],
                file: file.to_owned(),
            }),
        }
    }
    let place = |row: &api::ExportFile| (Reverse(row.class.len()), row.class.clone(), row.file.clone());
    all.sort_by_key(place);
    all
}

/// The query about local disks in an export.
#[derive(serde::Deserialize)]
pub(super) struct ExportOf {
    /// The directory of jobs' temporary files.
    tmp: String,
    /// Whether host keys are read.
    #[serde(default)]
    keys: bool,
}

pub(super) async fn export(
    State(context): State<Shared>,
    Query(asked): Query<ExportOf>,
) -> Result<Json<Vec<api::ExportRow>>, Refusal> {
    // Host keys are in the store.
    let rows = blocking(move || {
        let world = context.world.load_full();
        let now = Timestamp::now();
        let nodes = world.inventory.iter();
        nodes
            .map(|node| export_row(&context, &world, node, &asked, now))
            .collect::<Result<_, _>>()
    });
    Ok(Json(rows.await?.map_err(broken)?))
}

fn export_row(
    context: &Shared,
    world: &World,
    node: &Node,
    asked: &ExportOf,
    now: Timestamp,
) -> Result<api::ExportRow, StoreError> {
    let cluster = &world.site.cluster;
    let status = NodeStatus::of(world, &context.recorder, &context.boots, &node.name, now);
    let mounts = status.disk().map(|disk| &disk.mounts);
    let tmp = mounts.and_then(|mounts| mounts.iter().find(|m| m.mount.as_ref() == Some(&asked.tmp)));
    let settings = Settings::of_node(&world.site, node, |_| ());
    let vars = settings.plain_vars().into_iter();
    let bmc = bmc_of(&world.site, node).map(|bmc| (bmc_name(&node.name), bmc.address));
    Ok(api::ExportRow {
        name: node.name.clone(),
        ipaddr: node.ipaddr,
        hwaddrs: node.hwaddrs.clone(),
        domain: Some(cluster.domain.clone()).filter(|domain| !domain.is_empty()),
        profiles: node.profiles.clone(),
        groups: node.groups.iter().cloned().collect(),
        hardware: status.hardware().cloned(),
        scratch: tmp.map(|mount| mount.size).filter(|size| *size > 0),
        networks: hosts_of(&world.site, node).into_iter().chain(bmc).collect(),
        rack: rack_of(&cluster.naming, node).unwrap_or_default().to_owned(),
        state: Some(status.state),
        attributes: node.attributes.clone(),
        settings: node.hide_secrets().settings.written().clone(),
        vars: vars.map(|(name, value)| (name.to_owned(), value.clone())).collect(),
        host_keys: match asked.keys {
            true => context.overlays.public_host_keys(&node.name)?,
            false => Vec::new(),
        },
        image: status.version,
    })
}

pub(super) async fn show(
    State(context): State<Shared>,
    Path(text): Path<String>,
) -> Result<Json<api::NodeAnswer>, Refusal> {
    let world = context.world.load_full();
    let node = match meant(&world, &text)? {
        Meant::Node(node) => Node::clone(&node),
        Meant::Machine(_) | Meant::Address(_) => {
            let text = format!("{text} belongs to no node; to see what it is: rackstrap explain {text}");
            return Err(Refusal(StatusCode::NOT_FOUND, text));
        }
    };
    let name = node.name.clone();
    let rows = status(&world, &context.recorder, &context.boots, Timestamp::now());
    let row = rows.into_iter().find(|row| row.node == name);
    let boots = context.boots.of_node(&name);
    let requester = Requester {
        hwaddr: node.hwaddrs.first().copied(),
        ipaddr: Some(node.ipaddr),
        arch: node.hwaddrs.first().and_then(|hwaddr| context.firmware.of(*hwaddr)),
        ..Requester::default()
    };
    let hardware = boots.iter().find_map(|boot| boot.hardware.clone());
    let started_by = describe_start(hardware.as_ref());
    let (mut warnings, next, boot_order, networks) = match decide(&world, &requester) {
        Decision::Node(decision) => {
            let boot_order = describe_boot_order(hardware.as_ref(), decision.network_first);
            let (context, world, next) = (context.clone(), world.clone(), decision.all_checks());
            let networks = decision.networks.clone();
            let disks = disks::warnings(&context, &world, &decision.node);
            let mut warnings = blocking(move || context.overlays.warnings(&world, &decision)).await?;
            warnings.extend(disks);
            (warnings, next, boot_order, networks)
        }
        Decision::Unknown { .. } => Default::default(),
    };
    let disk_health = (context.boots.disks().get(&name)).map_or_else(Vec::new, |disk| {
        disk.health.into_iter().map(api::DiskHealthRow::from).collect()
    });
    let row = row.ok_or_else(|| broken(format!("node {name} went away")))?;
    let boot = context.boots.get(&row.boot);
    if row.state.is_up() && boot.as_ref().is_some_and(|boot| is_stale(&world, &node, boot)) {
        let text = "the settings below changed since it booted: they take effect at its next boot";
        warnings.push(text.to_owned());
    }
    let checks = match boot {
        Some(boot) => checks_of(&boot),
        None => next.into_iter().map(api::CheckRow::of_nobody).collect(),
    };
    Ok(Json(api::NodeAnswer {
        warnings,
        checks,
        networks,
        bmc: bmc_of(&world.site, &node)
            .map(|bmc| bmc.to_string())
            .unwrap_or_default(),
        settings: api::SettingRow::of(&world, &node),
        status: row,
        hardware,
        boot_order,
        disks: disk_health,
        started_by,
        boots: (summarise(&context.recorder.of(&Subject::Node(name))).into_iter())
            .map(api::BootSummary::from)
            .collect(),
        node: api::NodeRow::from(&node),
    }))
}

pub(super) async fn change(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::Changes>,
) -> Result<Json<api::ChangesAnswer>, Refusal> {
    if !asked.running {
        refuse_if_running(&context, &asked.changes)?;
    }
    let answer = blocking(move || {
        // Computed before the change, because the rows of disks follow it.
        let mut changed = context.nodes.preview(&asked.changes)?;
        changed.retain(|changed| !changed.is_nothing());
        let mut answer = api::ChangesAnswer {
            effects: disks::effects_of(&context, &changed),
            dropped: dropped_orders(&context, &changed),
            warnings: long_lines(&context.world.load(), &changed),
            changed: changes_of(&changed),
        };
        if !asked.dry_run {
            let by = by.as_str();
            let changed = context.nodes.change(&asked.changes, by, Timestamp::now())?;
            tell(&changed, by);
            answer.changed = changes_of(&changed);
        }
        Ok::<_, Refusal>(answer)
    })
    .await??;
    Ok(Json(answer))
}

fn changes_of(changed: &[Changed]) -> Vec<api::NodeChange> {
    changed.iter().map(api::NodeChange::from).collect()
}

/// Kernel command lines of the changed nodes that a loader would not pass on.
fn long_lines(world: &World, changed: &[Changed]) -> Vec<String> {
    let nodes = changed.iter().filter_map(|changed| changed.after.as_ref());
    let found = preflight::lines_of_nodes(&world.site, &world.images, nodes).into_iter();
    found.map(|finding| finding.message).collect()
}

/// Orders about disks that are dropped together with the machines that they concerned.
fn dropped_orders(context: &Shared, changed: &[Changed]) -> Vec<String> {
    let dropped = changed.iter().filter_map(|changed| {
        Some(format!(
            "{}: {}",
            changed.name(),
            dropped_order(&context.boots, changed)?
        ))
    });
    dropped.collect()
}

/// Logs the changes.
fn tell(changed: &[Changed], by: &str) {
    for changed in changed {
        tracing::info!("node {}: {}, by {by}", changed.name(), differences(changed).join(", "));
    }
}

/// Refuses changes by which running nodes lose their roots. A root belongs to a node at its address: a node that loses its
/// name or address loses the root, and everything on it hangs.
pub(super) fn refuse_if_running(context: &Shared, changes: &[Change]) -> Result<(), Refusal> {
    let world = context.world.load_full();
    let now = Timestamp::now();
    let mut running = Vec::new();
    for change in changes {
        let (name, what) = match change {
            Change::Rename { from, .. } => (from, "rename"),
            Change::Delete { name } => (name, "delete"),
            Change::Set { name, patch } if readdresses(&world, name, patch) => (name, "change"),
            Change::Add(_) | Change::Set { .. } => continue,
        };
        if world.inventory.get(name).is_none() {
            continue;
        }
        let state = NodeStatus::of(&world, &context.recorder, &context.boots, name, now).state;
        if state.has_root() {
            running.push(format!(
                "node {name} is {state} and runs from its root: without it, it would hang until it is restarted; switch \
                 it off first, or {what} it with --running"
            ));
        }
    }
    match running.is_empty() {
        true => Ok(()),
        false => Err(Refusal(StatusCode::CONFLICT, running.join("\n"))),
    }
}

/// Whether the node gets another address.
fn readdresses(world: &World, name: &str, patch: &Patch) -> bool {
    let Some(node) = world.inventory.get(name) else {
        return false;
    };
    let of_name = || world.site.cluster.naming.name_to_address(name).ok();
    match patch.settings.get(IPADDR) {
        Some(value) => value.as_str().and_then(|text| text.parse().ok()) != Some(node.ipaddr),
        None => {
            patch.drop_settings.contains(IPADDR) && node.settings.ipaddr().is_some() && of_name() != Some(node.ipaddr)
        }
    }
}

pub(super) async fn history(
    State(context): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<Vec<api::HistoryRow>>, Refusal> {
    let entries = blocking({
        let (context, name) = (context.clone(), name.clone());
        move || rackstrap_registries::nodes::history(&context.store, &name)
    })
    .await?
    .map_err(broken)?;
    if entries.is_empty() {
        // A name that never existed gets a suggestion.
        let world = context.world.load_full();
        rackstrap_model::inventory::find(&world.inventory, &name)?;
    }
    Ok(Json(entries.into_iter().map(api::HistoryRow::from).collect()))
}
