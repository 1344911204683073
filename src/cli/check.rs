//! `rackstrap check`: whether the site file is valid, and whether nodes can boot from this machine.

use super::{names, networks};
use crate::{
    http::script::Scripts,
    preflight::{self, Finding},
};
use anyhow::Context;
use rackstrap_base::subnet::DhcpPart;
use rackstrap_catalog::Catalog;
use rackstrap_cli::{CheckArgs, count};
use rackstrap_control::{Client, api};
use rackstrap_image::{load_catalog, needs_root, selinux_remark};
use rackstrap_loaders::Loaders;
use rackstrap_model::{
    decide::conditions,
    disks::{DiskEffect, NodeDisk, changed_layouts, describe_effects, disk_effects},
    inventory::{Inventory, Node},
};
use rackstrap_overlay::{Templates, TreeError, users::Source};
use rackstrap_site::{ConfigError, Diagnostic, LoaderRule, Site, Warning};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

/// Runs the command.
///
/// # Errors
/// Standard output cannot be written to.
pub fn run(config: &Path, args: CheckArgs) -> anyhow::Result<ExitCode> {
    write(config, &args, &mut io::stdout().lock())
}

/// Problems are the result of this command, so they go to standard output.
fn write(path: &Path, args: &CheckArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let result = rackstrap_site::load(path);
    let trees = result.as_ref().map_or(Vec::new(), |(site, _)| {
        let nodes = if args.file_only { Vec::new() } else { known_nodes(site) };
        own_files(site, &Inventory::new(nodes))
    });
    let here = match &result {
        Ok((site, _)) if !args.file_only => Here::look(path, site),
        _ => Here::default(),
    };
    let found = &here.found;
    let boots = match &result {
        Ok((site, _)) if !args.strict => !preflight::stops_all(found, site),
        _ => !found.iter().any(|finding| finding.fatal),
    };
    let good = result.is_ok() && trees.is_empty() && boots;
    let text = match args.json {
        true => format!("{:#}\n", with_findings(as_json(path, &result, &trees), &here, good)),
        false => {
            let lines = here.disks.iter().chain(&here.machine);
            let lines = lines.map(|line| format!("warning: {line}\n\n"));
            let shown: String = found.iter().map(describe_finding).chain(lines).collect();
            format!("{shown}{}{}", as_text(path, &result, &trees), verdict(found))
        }
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // In `rackstrap check | head`, the reader has closed the pipe.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.context("cannot write the result to standard output")?,
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe_finding(finding: &Finding) -> String {
    let level = if finding.fatal { "error" } else { "warning" };
    format!("{level}: {}\n  help: {}\n\n", finding.message, finding.help)
}

/// The last line, if nodes cannot boot although the file is valid.
fn verdict(found: &[Finding]) -> String {
    match found.iter().filter(|finding| finding.fatal).count() {
        0 => String::new(),
        errors => format!(
            "not all nodes can boot from this machine: see the {} above\nhelp: `rackstrap check --file-only` checks only the file\n",
            count(errors, "error")
        ),
    }
}

/// What this machine lacks for the site, and what happens to nodes' disks.
#[derive(Default)]
struct Here {
    /// Findings that the daemon reports, too.
    found: Vec<Finding>,
    /// What happens to nodes' disks.
    disks: Vec<String>,
    /// What images lack, and which of the server's users nodes do not get. The daemon reports this for each node.
    machine: Vec<String>,
}

impl Here {
    fn look(path: &Path, site: &Site) -> Self {
        let images_dir = site.server.state_dir.join("images");
        let (images, problems) = load_catalog(&images_dir);
        let loaders = Loaders::load(site).map(Arc::new);
        let mut machine: Vec<String> = problems.iter().map(ToString::to_string).collect();
        machine.extend(of_nodes(site, &images));
        let (disks, of_nodes) = of_inventory(path, site, &images);
        let mut found = preflight::findings(site, &images, &loaders);
        if needs_root(&images_dir).is_some() {
            // The images are unknown then; that is one of `problems`.
            found.retain(|finding| !finding.is_of_image());
        }
        found.extend(of_nodes);
        Here { found, disks, machine }
    }
}

/// The result with the findings on this machine. `ok` is `good`, as the exit code is: an error that keeps some nodes from booting, and not all,
/// is `fatal` among the findings.
fn with_findings(mut result: Value, here: &Here, good: bool) -> Value {
    result["disks"] = json!(here.disks);
    result["machine"] = json!(here.machine);
    let all = here.found.iter().map(|finding| {
        json!({ "topic": finding.topic, "message": finding.message, "help": finding.help, "fatal": finding.fatal })
    });
    result["findings"] = all.collect();
    result["ok"] = json!(good);
    result
}

/// Problems of the templates and boot scripts that belong to the file, if they are on this machine.
fn own_files(site: &Site, inventory: &Inventory) -> Vec<Diagnostic> {
    let mut all = trees(site, inventory);
    let dir = site.server.bootscripts_dir.as_deref();
    match (Scripts::load(dir), dir) {
        (Err(message), _) => all.push(of_directory(dir.unwrap_or(Path::new("bootscripts")), message)),
        (Ok(scripts), Some(dir)) => all.extend(scripts.problems(site, inventory, dir)),
        (Ok(_), None) => {}
    }
    all
}

/// The nodes that a running daemon has. Empty if it cannot be asked, which [`of_inventory`] reports.
fn known_nodes(site: &Site) -> Vec<Node> {
    let asked = Client::ask_if_there(&site.server.socket, |client| client.get(api::paths::NODES));
    asked.and_then(Result::ok).unwrap_or_default()
}

/// A problem that has no line.
fn of_directory(dir: &Path, message: String) -> Diagnostic {
    Diagnostic {
        file: dir.display().to_string(),
        line: 0,
        column: 0,
        message,
        help: "the daemon neither starts with this file nor reloads it".to_owned(),
        excerpt: None,
    }
}

/// Problems of the trees of nodes' files. If a directory is not on this machine, that is only a warning, reported elsewhere.
fn trees(site: &Site, inventory: &Inventory) -> Vec<Diagnostic> {
    let dir = site.server.templates_dir.as_deref();
    if dir.is_some_and(|dir| !dir.is_dir()) {
        return Vec::new();
    }
    match Templates::load(dir) {
        Ok(templates) => rackstrap_overlay::check(site, inventory, &templates),
        Err(TreeError::Place(place)) => vec![*place],
        Err(other) => vec![of_directory(dir.unwrap_or(Path::new("templates")), other.to_string())],
    }
}

fn as_text(path: &Path, result: &Result<(Site, Vec<Warning>), ConfigError>, trees: &[Diagnostic]) -> String {
    let mut text = String::new();
    match result {
        Err(error) => {
            if let ConfigError::Invalid { warnings, .. } = error {
                add_warnings(&mut text, warnings);
            }
            text.push_str(&format!("{error}\n"));
        }
        Ok((site, warnings)) => {
            add_warnings(&mut text, warnings);
            if !trees.is_empty() {
                for problem in trees {
                    text.push_str(&format!("{problem}\n\n"));
                }
                let problems = count(trees.len(), "problem");
                text.push_str(&format!(
                    "{}: {problems} in the templates and boot scripts; nothing was changed\n",
                    path.display()
                ));
                return text;
            }
            text.push_str(&format!("{}: ok\n", path.display()));
            text.push_str(&summary(site));
        }
    }
    text
}

fn add_warnings(text: &mut String, warnings: &[Diagnostic]) {
    for warning in warnings {
        text.push_str(&format!("warning: {warning}\n\n"));
    }
}

/// A summary of the file in a few lines.
fn summary(site: &Site) -> String {
    let mut text = names::summary(site);
    for subnet in &site.subnets {
        let by = subnet
            .interface
            .as_ref()
            .map_or("through relays".to_owned(), |i| format!("on {i}"));
        let pool = subnet
            .pool
            .map_or("no pool".to_owned(), |(first, last)| format!("pool {first}-{last}"));
        let pool = match subnet.dhcp {
            DhcpPart::Full => pool,
            DhcpPart::Proxy => {
                "boot files only: your DHCP server gives the addresses, also those of unknown machines".to_owned()
            }
            DhcpPart::Off => {
                "no DHCP: your DHCP server gives addresses and boot files, and unknown machines are not seen".to_owned()
            }
        };
        text.push_str(&format!(
            "  subnet    {} {by}, server {}, {pool}\n",
            subnet.network, subnet.server
        ));
    }
    text.push_str(&networks::summary(site));
    if let Some(dns) = &site.dns {
        let others = match dns.forward.is_empty() {
            true => "other names refused".to_owned(),
            false => format!("other names from {}", join(&dns.forward)),
        };
        text.push_str(&format!(
            "  dns       {domain} and its addresses by {}.{domain}, {others}\n",
            dns.name,
            domain = site.cluster.domain
        ));
    }
    for (name, profile) in &site.profiles {
        let image = profile
            .image
            .as_ref()
            .map_or("image of the profile default".to_owned(), |i| format!("image {i}"));
        let image = match &site.profiles.get("default").and_then(|p| p.image.as_ref()) {
            None if profile.image.is_none() => "no image: nodes with it cannot boot".to_owned(),
            _ => image,
        };
        let layout = profile.layout.as_deref().filter(|l| !l.is_empty());
        let layout = layout.map_or(String::new(), |l| format!(", layout {}", l.replace(' ', " and ")));
        text.push_str(&format!("  profile   {name}: {image}{layout}\n"));
    }
    for mount in &site.mounts {
        let whose = mount
            .profiles
            .as_ref()
            .map_or(String::new(), |names| format!(", profiles {}", join(names)));
        let required = if mount.required { ", required" } else { "" };
        let line = format!(
            "  mount     {} on {} ({}){whose}{required}\n",
            mount.what, mount.place, mount.kind
        );
        text.push_str(&line);
    }
    if let Some(users) = &site.users {
        let range = |range: &std::ops::RangeInclusive<u32>| format!("{}-{}", range.start(), range.end());
        let hashes = if users.shadow { "with" } else { "without" };
        text.push_str(&format!(
            "  users     {} and groups {} of {}, {hashes} passwords\n",
            range(&users.uid),
            range(&users.gid),
            users.from.display()
        ));
    }
    text.extend(site.loaders.iter().map(loader_line));
    for (name, policy) in &site.layouts {
        let parts: Vec<String> = policy.layout.partitions.iter().map(describe).collect();
        let layout = &policy.layout;
        text.push_str(&format!(
            "  layout    {name} v{} ({}){}: {}\n",
            layout.version,
            layout.table,
            policy.disk.as_ref().map_or(String::new(), |disk| format!(" on {disk}")),
            parts.join(", ")
        ));
    }
    text
}

fn loader_line(rule: &LoaderRule) -> String {
    let (name, file) = (&rule.name, rule.served());
    format!("  loader    {name}: {file} for {}\n", conditions(rule))
}

fn join(all: &[impl ToString]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn describe(partition: &rackstrap_wire::Partition) -> String {
    let place = partition.mount.as_ref().map_or(String::new(), |m| format!(" on {m}"));
    format!("{} {} {}{place}", partition.name, partition.size, partition.fs.as_str())
}

fn as_json(path: &Path, result: &Result<(Site, Vec<Warning>), ConfigError>, trees: &[Diagnostic]) -> Value {
    let file = path.display().to_string();
    match result {
        Err(ConfigError::Invalid {
            problems,
            omitted,
            warnings,
        }) => json!({ "file": file, "ok": false, "problems": problems, "omitted": omitted, "warnings": warnings }),
        Err(error) => json!({
            "file": file, "ok": false, "omitted": 0, "warnings": [],
            "problems": [{ "file": file, "line": 0, "column": 0, "message": error.to_string(), "help": "" }],
        }),
        Ok((site, warnings)) => json!({
            "file": file,
            "ok": trees.is_empty(),
            "problems": trees,
            "omitted": 0,
            "warnings": warnings,
            "cluster": {
                "name": site.cluster.name,
                "domain": site.cluster.domain,
                "node-name": site.cluster.naming.patterns()[0].name_pattern(),
                "node-address": site.cluster.naming.patterns()[0].address_pattern(),
                "naming": names::json(site),
                "reserved": site.cluster.reserved,
            },
            "subnets": site.subnets.iter().map(|s| json!({
                "network": s.network,
                "interface": s.interface,
                "server": s.server,
                "dhcp": s.dhcp.as_str(),
                "router": s.router,
                "pool": s.pool.map(|(first, last)| [first, last]),
            })).collect::<Vec<_>>(),
            "networks": networks::json(site),
            "mounts": site.mounts.iter().map(|m| json!({
                "what": m.what, "where": m.place, "type": m.kind, "options": m.options, "profiles": m.profiles,
                "required": m.required,
            })).collect::<Vec<_>>(),
            "loaders": site.loaders.iter().map(|l| json!({
                "name": l.name, "file": l.served(), "arch": l.archs, "vendor-class": l.vendor_class, "profiles": l.profiles,
            })).collect::<Vec<_>>(),
            "users": site.users.as_ref().map(|u| json!({
                "uid": [u.uid.start(), u.uid.end()], "gid": [u.gid.start(), u.gid.end()], "exclude": u.exclude,
                "shadow": u.shadow, "from": u.from,
            })),
            "dns": site.dns.as_ref().map(|d| json!({ "name": d.name, "forward": d.forward })),
            "profiles": site.profiles.iter().map(|(name, p)| json!({
                "name": name, "image": p.image, "layout": p.layout,
            })).collect::<Vec<_>>(),
            "layouts": site.layouts.iter().map(|(name, l)| json!({
                "name": name, "version": l.layout.version, "digest": l.digest, "wipe": l.wipe, "disk": l.disk, "layout": l.layout,
            })).collect::<Vec<_>>(),
        }),
    }
}

/// The effects of the file on nodes' disks at their next boots; layouts that changed under the same version; settings of nodes
/// that the file no longer has. The nodes come from a running daemon.
fn of_inventory(path: &Path, site: &Site, images: &Catalog) -> (Vec<String>, Vec<Finding>) {
    const MOST_LINES: usize = 20;
    let asked = Client::ask_if_there(&site.server.socket, |client| {
        let rows: Vec<api::DiskRow> = client.get(api::paths::DISKS)?;
        let layouts: Vec<api::LayoutRow> = client.get(api::paths::LAYOUTS)?;
        Ok((rows, layouts))
    });
    let Some(asked) = asked else {
        return (Vec::new(), Vec::new());
    };
    let (rows, layouts) = match asked {
        Ok(answers) => answers,
        Err(error) => {
            let file = path.display();
            let said = format!("the effect of {file} on nodes and their disks was not checked: {error}");
            return (vec![said], Vec::new());
        }
    };
    let nodes: Vec<Node> = rows.iter().map(|row| Node::from(row.node.clone())).collect();
    let disk = |row: &api::DiskRow| row.disk.clone().map(NodeDisk::from);
    let known: BTreeMap<&str, Option<NodeDisk>> = rows.iter().map(|row| (row.node.name.as_str(), disk(row))).collect();
    let mut effects = disk_effects(site, nodes.iter(), |node| known.get(node).cloned().flatten());
    let held = rows.iter().filter_map(|row| row.held.as_ref());
    let held: BTreeMap<&str, &DiskEffect> = held.map(|effect| (effect.node.as_str(), effect)).collect();
    for effect in effects.iter_mut().filter(|effect| effect.needs_consent()) {
        // The daemon has this file already, and does not apply its layouts.
        if let Some(held) = held
            .get(effect.node.as_str())
            .filter(|held| held.layout == effect.layout)
        {
            *effect = DiskEffect::clone(held);
        }
    }
    let in_use = layouts
        .iter()
        .map(|row| (row.layout.name.as_str(), row.layout.version, row.digest.as_str()));
    let mut lines = changed_layouts(site, in_use);
    lines.extend(describe_effects(&effects, MOST_LINES));
    (lines, preflight::of_nodes(site, images, nodes.iter()))
}

/// What images lack for the site, and which of the server's users nodes do not get.
fn of_nodes(site: &Site, images: &Catalog) -> Vec<String> {
    let mut lines = rackstrap_overlay::lacking(site, images);
    let enforcing = rackstrap_overlay::enforcing_selinux(site, images);
    lines.extend(enforcing.iter().map(|image| selinux_remark(&image.to_string())));
    // Unreadable files are reported as a finding.
    if let Some(policy) = &site.users
        && let Ok(accounts) = Source::default().read(policy)
    {
        let refused = accounts.refused.iter();
        lines.extend(refused.map(|line| format!("{}/{line}", policy.from.display())));
        if accounts.omitted > 0 {
            lines.push(format!("{} more lines are left out", accounts.omitted));
        }
    }
    lines
}

#[cfg(test)]
mod tests;
