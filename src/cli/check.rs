//! `rackstrap check`: is the site file right?

use super::output;
use crate::{
    boots::{DiskEffect, NodeDisk, changed_layouts, describe_effects, disk_effects},
    config::{self, ConfigError, Diagnostic, Site, Warning},
    control::{Client, api},
    image::{load_catalog, selinux_note},
    loaders::Loaders,
    overlay::{self, Templates, TreeError},
    preflight::{self, Finding},
    users::Source,
};
use anyhow::Context;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

/// Checks a site file and says everything that is wrong with it. Nothing is changed, and no daemon is needed.
///
/// Exits with 0 if the file can be used (there may be warnings), with 1 if it cannot, or if no node can boot from this machine.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rackstrap check                             /etc/rackstrap/rackstrap.toml
  rackstrap --config rackstrap.toml check
  rackstrap check --json                      for programs
  rackstrap check --file-only                 on another machine than the server, such as in CI")]
pub struct CheckArgs {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Check the file only, and not whether nodes can boot from this machine
    #[arg(long)]
    pub file_only: bool,
}

/// Runs the command.
///
/// # Errors
/// Standard output cannot be written to.
pub fn run(config: &Path, args: CheckArgs) -> anyhow::Result<ExitCode> {
    write(config, &args, &mut io::stdout().lock())
}

/// Problems are the result of this command, so they go where results go.
fn write(path: &Path, args: &CheckArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let result = config::load(path);
    let trees = result.as_ref().map_or(Vec::new(), |(site, _)| trees(site));
    let found = match &result {
        Ok((site, _)) if !args.file_only => {
            let (images, _) = load_catalog(&site.server.state_dir.join("images"));
            let loaders = Loaders::load(&site.server.loader_dirs).map(Arc::new);
            preflight::findings(site, &images, &loaders)
        }
        _ => Vec::new(),
    };
    let on_disks = match &result {
        Ok((site, _)) if !args.file_only => disks(path, site),
        _ => Vec::new(),
    };
    let good = result.is_ok() && trees.is_empty() && !found.iter().any(|finding| finding.fatal);
    let text = match args.json {
        true => format!(
            "{:#}\n",
            with_findings(as_json(path, &result, &trees), &found, &on_disks)
        ),
        false => {
            let on_disks = on_disks.iter().map(|line| format!("warning: {line}\n\n"));
            let shown: String = found.iter().map(describe_finding).chain(on_disks).collect();
            format!("{shown}{}{}", as_text(path, &result, &trees), verdict(&found))
        }
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `rackstrap check | head`: the reader has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.context("cannot write the result to standard output")?,
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe_finding(finding: &Finding) -> String {
    let level = if finding.fatal { "error" } else { "warning" };
    format!("{level}: {}\n  help: {}\n\n", finding.message, finding.help)
}

/// The last line, if no node can boot although the file is right.
fn verdict(found: &[Finding]) -> String {
    match found.iter().filter(|finding| finding.fatal).count() {
        0 => String::new(),
        errors => format!(
            "no node can boot from this machine: {} above; to check the file alone: rackstrap check --file-only\n",
            output::count(errors, "error")
        ),
    }
}

/// The result with `findings` of this machine and what becomes of nodes' `disks`; `ok` only if no finding is fatal.
fn with_findings(mut result: Value, found: &[Finding], on_disks: &[String]) -> Value {
    result["disks"] = json!(on_disks);
    let all = found.iter().map(|finding| {
        json!({ "topic": finding.topic, "message": finding.message, "help": finding.help, "fatal": finding.fatal })
    });
    result["findings"] = all.collect();
    if found.iter().any(|finding| finding.fatal) {
        result["ok"] = json!(false);
    }
    result
}

/// What is wrong with the trees of nodes' files. A directory that is not on this machine is only warned of, elsewhere.
fn trees(site: &Site) -> Vec<Diagnostic> {
    let dir = site.server.templates_dir.as_deref();
    if dir.is_some_and(|dir| !dir.is_dir()) {
        return Vec::new();
    }
    match Templates::load(dir) {
        Ok(templates) => overlay::check(site, &templates),
        Err(TreeError::Place(place)) => vec![*place],
        Err(other) => {
            let help = "the daemon does not start with it, nor reload".to_owned();
            vec![Diagnostic {
                file: dir.unwrap_or(Path::new("templates")).display().to_string(),
                line: 0,
                column: 0,
                message: other.to_string(),
                help,
                excerpt: None,
            }]
        }
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
            for finding in machine(site) {
                text.push_str(&format!("warning: {finding}\n\n"));
            }
            if !trees.is_empty() {
                for problem in trees {
                    text.push_str(&format!("{problem}\n\n"));
                }
                let problems = output::count(trees.len(), "problem");
                text.push_str(&format!(
                    "{}: {problems} in the templates; nothing was changed\n",
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

/// What the file says, in a few lines.
fn summary(site: &Site) -> String {
    let naming = &site.cluster.naming;
    let first = naming.first_address(Default::default(), &site.cluster.reserved);
    let first = first.and_then(|a| Some(format!(", the first node is {} at {a}", naming.address_to_name(a)?)));
    let mut text = format!(
        "  names     {} at {}{}\n",
        naming.name_pattern(),
        naming.address_pattern(),
        first.unwrap_or_default()
    );
    for subnet in &site.subnets {
        let by = subnet
            .interface
            .as_ref()
            .map_or("through relays".to_owned(), |i| format!("on {i}"));
        let pool = subnet
            .pool
            .map_or("no pool".to_owned(), |(first, last)| format!("pool {first}-{last}"));
        text.push_str(&format!(
            "  subnet    {} {by}, server {}, {pool}\n",
            subnet.network, subnet.server
        ));
    }
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
            .map_or("no image of its own".to_owned(), |i| format!("image {i}"));
        let image = match &site.profiles.get("default").and_then(|p| p.image.as_ref()) {
            None if profile.image.is_none() => "no image: nodes with it cannot boot".to_owned(),
            _ => image,
        };
        let layout = profile.layout.as_deref().filter(|l| !l.is_empty());
        let layout = layout.map_or(String::new(), |l| format!(", layout {l}"));
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
    for (name, policy) in &site.layouts {
        let parts: Vec<String> = policy.layout.partitions.iter().map(describe).collect();
        let layout = &policy.layout;
        text.push_str(&format!(
            "  layout    {name} v{} ({}): {}\n",
            layout.version,
            layout.table,
            parts.join(", ")
        ));
    }
    text
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
            "machine": machine(site),
            "cluster": {
                "name": site.cluster.name,
                "domain": site.cluster.domain,
                "node-name": site.cluster.naming.name_pattern(),
                "node-address": site.cluster.naming.address_pattern(),
                "reserved": site.cluster.reserved,
            },
            "subnets": site.subnets.iter().map(|s| json!({
                "network": s.network,
                "interface": s.interface,
                "server": s.server,
                "router": s.router,
                "pool": s.pool.map(|(first, last)| [first, last]),
            })).collect::<Vec<_>>(),
            "mounts": site.mounts.iter().map(|m| json!({
                "what": m.what, "where": m.place, "type": m.kind, "options": m.options, "profiles": m.profiles,
                "required": m.required,
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
                "name": name, "version": l.layout.version, "digest": l.digest, "wipe": l.wipe, "layout": l.layout,
            })).collect::<Vec<_>>(),
        }),
    }
}

/// What the file does to nodes' disks at their next boots, and layouts that changed under the same version, as far as a running
/// daemon knows the nodes.
fn disks(path: &Path, site: &Site) -> Vec<String> {
    const MOST_LINES: usize = 20;
    let socket = &site.server.socket;
    if !socket.exists() {
        return Vec::new();
    }
    let asked = || -> anyhow::Result<(Vec<api::DiskRow>, Vec<api::LayoutRow>)> {
        let client = Client::new(socket)?;
        Ok((client.get(api::paths::DISKS)?, client.get(api::paths::LAYOUTS)?))
    };
    let (rows, layouts) = match asked() {
        Ok(answers) => answers,
        Err(error) => {
            let file = path.display();
            return vec![format!("what {file} does to nodes' disks was not checked: {error:#}")];
        }
    };
    let known: BTreeMap<&str, &Option<NodeDisk>> = rows.iter().map(|row| (row.node.name.as_str(), &row.disk)).collect();
    let nodes = rows.iter().map(|row| &row.node);
    let mut effects = disk_effects(site, nodes, |node| known.get(node).copied().cloned().flatten());
    let held = rows.iter().filter_map(|row| row.held.as_ref());
    let held: BTreeMap<&str, &DiskEffect> = held.map(|effect| (effect.node.as_str(), effect)).collect();
    for effect in effects.iter_mut().filter(|effect| effect.needs_consent()) {
        // The daemon has this file already, and holds back what it would do.
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
    lines
}

/// What this machine lacks for the site. Only warnings: the file may be checked elsewhere than where it is used.
fn machine(site: &Site) -> Vec<String> {
    let mut findings = Vec::new();
    for name in site.subnets.iter().filter_map(|s| s.interface.as_ref()) {
        if !Path::new("/sys/class/net").join(name).exists() {
            findings.push(format!(
                "this machine has no network interface '{name}'; `ip link` lists those it has"
            ));
        }
    }
    let server = &site.server;
    let own = [
        ("templates-dir", &server.templates_dir),
        ("bootscripts-dir", &server.bootscripts_dir),
    ];
    for (key, dir) in own {
        if let Some(dir) = dir.as_ref().filter(|d| !d.is_dir()) {
            findings.push(format!(
                "{key}: there is no directory {} on this machine",
                dir.display()
            ));
        }
    }
    let (images, _) = load_catalog(&server.state_dir.join("images"));
    findings.extend(overlay::lacking(site, &images));
    let enforcing = overlay::enforcing_selinux(site, &images);
    findings.extend(enforcing.iter().map(|image| selinux_note(&image.to_string())));
    if let Some(policy) = &site.users {
        match Source::default().read(policy) {
            Err(problem) => findings.push(problem),
            Ok(accounts) => {
                findings.extend(
                    accounts
                        .refused
                        .iter()
                        .map(|line| format!("{}/{line}", policy.from.display())),
                );
                if accounts.omitted > 0 {
                    findings.push(format!("{} more lines are left out", accounts.omitted));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(Site, Vec<Warning>), ConfigError> {
        config::parse(text, Path::new("site.toml"))
    }

    #[test]
    fn a_good_file_is_summed_up() {
        let result = check(include_str!("../../rackstrap.example.toml"));
        let (site, warnings) = result.as_ref().unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        insta::assert_snapshot!(summary(site), @r"
        names     r{rack:02}n{slot:02} at 10.5.{rack}.{slot}, the first node is r01n01 at 10.5.1.1
        subnet    10.5.0.0/16 on eth1, server 10.5.0.1, pool 10.5.255.1-10.5.255.254
        profile   default: image debian, layout scratch
        layout    scratch v1 (gpt): swap 512MiB swap, tmp rest ext4 on /tmp
        ");
        let json = as_json(Path::new("site.toml"), &result, &[]);
        assert_eq!(json["ok"], true);
        assert_eq!(json["layouts"][0]["digest"], site.layouts["scratch"].digest);
        assert!(as_text(Path::new("site.toml"), &result, &[]).contains("site.toml: ok\n"));
    }

    #[cfg(feature = "dns")]
    #[test]
    fn a_name_server_is_summed_up() {
        let text = include_str!("../../rackstrap.example.toml");
        for (forward, others) in [
            ("", "other names refused"),
            ("forward = [\"10.0.0.53\"]\n", "other names from 10.0.0.53:53"),
        ] {
            let result = check(&format!("{text}\n[dns]\n{forward}"));
            let said = as_text(Path::new("site.toml"), &result, &[]);
            let line = "  dns       cluster.example and its addresses by rackstrap.cluster.example, ";
            assert!(said.contains(&format!("{line}{others}\n")), "{said}");
            assert_eq!(
                as_json(Path::new("site.toml"), &result, &[])["dns"]["name"],
                "rackstrap"
            );
        }
    }

    #[test]
    fn a_bad_file_is_told_off() {
        let text = include_str!("../../rackstrap.example.toml").replace("http-port = 80", "http-prot = 80");
        let result = check(&text);
        insta::assert_snapshot!(as_text(Path::new("site.toml"), &result, &[]), @r"
        site.toml:23:1: [server] has no key 'http-prot'
           |
        23 | http-prot = 80
           | ^^^^^^^^^
           = did you mean 'http-port'?

        site.toml: 1 problem; nothing was changed
        ");
        let json = as_json(Path::new("site.toml"), &result, &[]);
        assert_eq!(json["ok"], false);
        assert_eq!(json["problems"][0]["line"], 23);
    }

    #[test]
    fn the_exit_code_follows_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.toml");
        let code = |json| {
            let (config, mut out) = (path.clone(), Vec::new());
            let code = write(&config, &CheckArgs { json, file_only: true }, &mut out).unwrap();
            (format!("{code:?}"), String::from_utf8(out).unwrap())
        };
        let (good, bad) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
        let (exit, out) = code(true);
        assert_eq!(exit, bad);
        let json: Value = serde_json::from_str(&out).unwrap();
        assert!(
            json["problems"][0]["message"]
                .as_str()
                .unwrap()
                .contains("No such file")
        );
        std::fs::write(&path, include_str!("../../rackstrap.example.toml")).unwrap();
        let (exit, out) = code(false);
        assert!(exit == good && out.contains("site.toml: ok\n"), "{out}");
        let here = CheckArgs {
            json: false,
            file_only: false,
        };
        let mut out = Vec::new();
        let exit = format!("{:?}", write(&path, &here, &mut out).unwrap());
        let out = String::from_utf8(out).unwrap();
        assert!(exit == bad, "this machine does not have the server's address: {out}");
        assert!(
            out.contains("error: server address 10.5.0.1 is not an address"),
            "{out}"
        );
        std::fs::write(&path, "name = 1\n").unwrap();
        let (exit, out) = code(false);
        assert!(
            exit == bad && out.ends_with("site.toml: 3 problems; nothing was changed\n"),
            "{out}"
        );
    }

    #[test]
    fn says_what_this_machine_lacks() {
        let (mut site, _) = check(include_str!("../../rackstrap.example.toml")).unwrap();
        site.subnets[0].interface = Some("no-such-card".to_owned());
        site.server.templates_dir = Some(std::path::PathBuf::from("/nonexistent/templates"));
        let all = machine(&site).join("\n");
        assert!(
            all.contains("'no-such-card'") && all.contains("/nonexistent/templates"),
            "{all}"
        );
    }
}
