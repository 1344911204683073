//! `rackstrap loaders`: the boot loaders of the site and of this machine. It works without a daemon; a running one adds the machines.

use super::{
    output::{self, Format},
    owners,
};
use anyhow::{Context, Result};
use clap::Args;
use rackstrap_base::firmware::{ARCH_TYPES, ArchType, DEFAULT_LOADERS, default_loader, names_of};
use rackstrap_control::{
    Client,
    api::{self, Level},
};
use rackstrap_loaders::{Family, Loaders};
use rackstrap_model::decide::{LoaderChoice, conditions};
use rackstrap_site::{LoaderRule, Site};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Arguments of `rackstrap loaders`.
#[derive(Debug, Args)]
#[command(after_help = "\
Loaders of the site file come first, then the default ones. It needs no daemon; a running one adds the machines that asked for each loader \
since it started. Exits with 1 if a loader of the site file is missing, or if a machine gets no loader.

Examples:
  rackstrap loaders
  rackstrap loaders --archs            names and numbers of architectures, for [loader.NAME]
  rackstrap loaders --json")]
pub struct LoadersArgs {
    /// List the architectures of firmware, with their names in the site file, instead of the loaders
    #[arg(long)]
    archs: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(config: &Path, args: LoadersArgs) -> Result<ExitCode> {
    if args.archs {
        match args.format.json {
            true => output::print_json(&ARCH_TYPES.iter().map(ArchRow::from).collect::<Vec<_>>())?,
            false => output::print(&archs())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (site, _) = rackstrap_site::load(config)?;
    let loaders = Loaders::load(&site).context("reading boot loaders")?;
    let family = Family::of_this_machine();
    let machines = machines(&site);
    let mut rows = rows(&site, &loaders, family, machines.as_deref().unwrap_or_default());
    let further = rows.iter().flat_map(|row| &row.then).map(|then| then.path.clone());
    let paths: Vec<PathBuf> = rows.iter().filter_map(|row| row.path.clone()).chain(further).collect();
    let found = owners::owners(family, &paths);
    for row in &mut rows {
        row.package = row.path.as_ref().and_then(|path| found.get(path).cloned());
        for then in &mut row.then {
            then.package = found.get(&then.path).cloned();
        }
    }
    let list = LoaderList {
        daemon: machines.is_some(),
        load_themselves: load_themselves(machines.as_deref().unwrap_or_default()),
        unserved: unserved(machines.unwrap_or_default()),
        loaders: rows,
        disks: disks(&loaders, family),
    };
    match args.format.json {
        true => output::print_json(&list)?,
        false => output::print_fitting(&describe(&list))?,
    }
    Ok(if list.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The result.
#[derive(Debug, Serialize)]
struct LoaderList {
    /// Whether a daemon answered; without one no machines are known.
    daemon: bool,
    /// All loaders: those of the site file in its order, then the default ones.
    loaders: Vec<LoaderRow>,
    /// The network loaders that prepared disks carry.
    disks: Vec<DiskRow>,
    /// Machines that get no loader.
    unserved: Vec<api::FirmwareRow>,
    /// Machines whose firmware needs none: U-Boot and Raspberry Pi ask for names of their own.
    load_themselves: Vec<api::FirmwareRow>,
}

/// A loader.
#[derive(Debug, Serialize)]
struct LoaderRow {
    /// NAME of the section, or of the default loader.
    name: String,
    /// Whether it is a default one.
    default: bool,
    /// What it is for: architectures, vendor class, profiles.
    #[serde(rename = "for")]
    condition: String,
    /// Numbers of its architectures; empty = all.
    arch: Vec<u16>,
    /// The name by which firmware asks for it.
    file: String,
    /// The file; none if it is not served.
    path: Option<PathBuf>,
    /// Bytes; none if it is not served.
    size: Option<usize>,
    /// The package that owns the file; none if that is unknown.
    package: Option<String>,
    /// What it loads in turn by a file of its own, as shim loads GRUB.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    then: Vec<ThenRow>,
    /// Whether the file is served.
    ready: bool,
    /// Whether a file exists that is not served.
    refused: bool,
    /// Why it is not served; empty if it is.
    problem: String,
    /// The remedy; empty if it is served.
    help: String,
    /// The package to install; none if it is served, or if no package is known.
    install: Option<String>,
    /// Nodes, and hardware addresses of unknown machines, whose firmware got it.
    used_by: Vec<String>,
}

impl LoaderRow {
    /// `shimx64.efi.signed, then grubx64.efi`
    fn chain(&self) -> String {
        let further = self.then.iter().map(|then| then.file.as_str());
        let all: Vec<&str> = std::iter::once(self.file.as_str()).chain(further).collect();
        all.join(", then ")
    }

    /// The packages of all its files; empty if none is known.
    fn packages(&self) -> String {
        let further = self.then.iter().filter_map(|then| then.package.as_deref());
        let all: Vec<&str> = self.package.as_deref().into_iter().chain(further).collect();
        all.join(", ")
    }
}

/// A file that a loader loads in turn.
#[derive(Debug, Serialize)]
struct ThenRow {
    /// The name by which the loader asks for it.
    file: String,
    /// The file.
    path: PathBuf,
    /// The package that owns it; none if that is unknown.
    package: Option<String>,
}

/// A network loader that prepared disks carry.
#[derive(Debug, Serialize)]
struct DiskRow {
    /// The firmware that starts it.
    firmware: &'static str,
    /// The file that it is made of.
    file: &'static str,
    /// Whether all disks get it.
    ready: bool,
    /// Why disks do not get it; empty if they do.
    problem: String,
    /// The remedy; empty if disks get it.
    help: String,
}

impl LoaderList {
    /// Whether each loader that somebody counts on is there. Default ones for firmware that no machine has may be missing: Debian has none for
    /// arm64.
    fn is_good(&self) -> bool {
        let ready = |row: &LoaderRow| row.ready || (row.default && row.used_by.is_empty());
        self.loaders.iter().all(ready) && self.loaders.iter().any(|row| row.ready) && self.unserved.is_empty()
    }
}

fn disks(loaders: &Loaders, family: Family) -> Vec<DiskRow> {
    let rows = loaders.on_disks(family).into_iter().map(|row| {
        let ready = row.lacks.is_none();
        let (problem, help) = row.lacks.unwrap_or_default();
        DiskRow {
            firmware: row.firmware,
            file: row.file,
            ready,
            problem,
            help,
        }
    });
    rows.collect()
}

/// What machines reported; none without a daemon that answers.
fn machines(site: &Site) -> Option<Vec<api::FirmwareRow>> {
    Client::ask_if_there(&site.server.socket, |client| client.get(api::paths::FIRMWARE))?.ok()
}

fn unserved(machines: Vec<api::FirmwareRow>) -> Vec<api::FirmwareRow> {
    machines
        .into_iter()
        .filter(|machine| machine.problem.is_some())
        .collect()
}

fn load_themselves(machines: &[api::FirmwareRow]) -> Vec<api::FirmwareRow> {
    let all = machines.iter();
    let mut found: Vec<_> = all
        .filter(|machine| machine.loader.is_some() && machine.file.is_none() && machine.problem.is_none())
        .cloned()
        .collect();
    found.sort_by_key(|machine| machine.name());
    found
}

fn rows(site: &Site, loaders: &Loaders, family: Family, machines: &[api::FirmwareRow]) -> Vec<LoaderRow> {
    let of_rule = |rule: &LoaderRule| {
        (
            rule.name.clone(),
            true,
            vec![rule.served()],
            conditions(rule),
            rule.archs.clone(),
        )
    };
    let of_default = DEFAULT_LOADERS.iter().map(|loader| {
        let files = loader.files.iter().map(|file| (*file).to_owned()).collect();
        let numbers = loader.archs.to_vec();
        (
            loader.name.to_owned(),
            false,
            files,
            names_of(&numbers).join(", "),
            numbers,
        )
    });
    let all = site.loaders.iter().map(of_rule).chain(of_default);
    let mut rows: Vec<LoaderRow> = all
        .map(|(name, of_site, files, condition, arch)| {
            let choice = LoaderChoice {
                name,
                of_site,
                files,
                why: String::new(),
            };
            row(loaders, family, choice, condition, arch)
        })
        .collect();
    for machine in machines {
        let who = machine.name();
        // A section may have the name of a default loader: of the two, the daemon's answer means the one with the file.
        let fits = |row: &&mut LoaderRow| {
            Some(&row.name) == machine.loader.as_ref() && machine.file.as_ref().is_none_or(|file| *file == row.file)
        };
        if let Some(row) = rows.iter_mut().find(fits)
            && !row.used_by.contains(&who)
        {
            row.used_by.push(who);
        }
    }
    rows
}

fn row(loaders: &Loaders, family: Family, choice: LoaderChoice, condition: String, arch: Vec<u16>) -> LoaderRow {
    let there = loaders.first_of(&choice);
    let (problem, help) = match there {
        Some(_) => Default::default(),
        None => loaders.lacks(&choice, family),
    };
    let refused = there.is_none() && choice.files.iter().any(|file| loaders.refused(file).is_some());
    let install = loaders
        .missing_package(&choice, family)
        .filter(|_| there.is_none() && !refused);
    let then = there.into_iter().flat_map(|(file, _)| loaders.further_of(file));
    LoaderRow {
        default: !choice.of_site,
        condition,
        arch,
        file: there.map_or(choice.files[0].as_str(), |(file, _)| file).to_owned(),
        path: there.map(|(_, content)| content.path.clone()),
        size: there.map(|(_, content)| content.bytes.len()),
        package: None,
        then: then
            .map(|(file, content)| ThenRow {
                file: file.to_owned(),
                path: content.path.clone(),
                package: None,
            })
            .collect(),
        ready: there.is_some(),
        refused,
        problem,
        help,
        install: install.map(str::to_owned),
        used_by: Vec::new(),
        name: choice.name,
    }
}

fn describe(list: &LoaderList) -> String {
    let mut table = output::table(["loader", "for", "file", "size", "package", "state", "used by"]);
    for row in &list.loaders {
        let state = match (&row.install, row.ready, row.refused) {
            (_, true, _) => output::level_cell(Level::Ok, "ready"),
            // More than one command installs it, which are below the table.
            (Some(package), ..) if package.contains(':') => output::level_cell(Level::Retry, "missing: see below"),
            (Some(package), ..) => output::level_cell(Level::Retry, format!("missing: install {package}")),
            (None, _, true) => output::level_cell(Level::Error, "refused"),
            (None, ..) => output::level_cell(Level::Retry, "missing"),
        };
        let name = match row.default {
            true => format!("{} *", row.name),
            false => row.name.clone(),
        };
        table.add_row(vec![
            name.as_str().into(),
            narrow(&row.condition).into(),
            row.chain().as_str().into(),
            row.size.map_or_else(|| "-".into(), |size| output::right(kib(size))),
            output::dash(&row.packages()).into(),
            state,
            used_by(&row.used_by, list.daemon).as_str().into(),
        ]);
    }
    let mut text = output::render(&table);
    text += "\n* default: for firmware that no loader of the site file is for";
    for row in list.loaders.iter().filter(|row| !row.ready) {
        text += &format!("\n{}: {}\n  help: {}", row.name, row.problem, row.help);
    }
    for row in list.disks.iter().filter(|row| !row.ready) {
        text += &format!("\ndisks, {}: {}\n  help: {}", row.firmware, row.problem, row.help);
    }
    for (problem, who) in grouped(&list.unserved) {
        text += &format!("\n{}: {problem}", who.join(", "));
    }
    for machine in &list.load_themselves {
        text += &format!("\n{}: needs no loader: {}", machine.name(), machine.firmware);
    }
    if !list.daemon {
        text += "\nno daemon answers, so the machines that use each loader are not known";
    }
    text
}

/// `x86_64-efi, x86_64-efi-http` as `x86_64-efi, -http`.
fn narrow(condition: &str) -> String {
    let mut before = "";
    let words = condition.split(", ").map(|word| {
        let same = !before.is_empty() && word.strip_prefix(before) == Some("-http");
        before = word;
        if same { "-http" } else { word }
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Machines by what is wrong with them: a rack of equal machines is one line.
fn grouped(unserved: &[api::FirmwareRow]) -> BTreeMap<&str, Vec<String>> {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for machine in unserved {
        let who = machine.name();
        all.entry(machine.problem.as_deref().unwrap_or_default())
            .or_default()
            .push(who);
    }
    all
}

fn used_by(all: &[String], daemon: bool) -> String {
    match (all, daemon) {
        (_, false) => "?".to_owned(),
        ([], true) => "-".to_owned(),
        ([one], true) => one.clone(),
        ([first, ..], true) => format!("{first} +{}", all.len() - 1),
    }
}

fn kib(bytes: usize) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

/// An architecture of `--archs`.
#[derive(Debug, Serialize)]
struct ArchRow {
    /// Number in option 93.
    number: u16,
    /// Name in the site file.
    name: &'static str,
    /// What people read.
    firmware: &'static str,
    /// How its vendor class begins.
    vendor_class: String,
    /// NAME of its default loader; none if it has none.
    default: Option<&'static str>,
}

impl From<&ArchType> for ArchRow {
    fn from(row: &ArchType) -> Self {
        ArchRow {
            number: row.number,
            name: row.name,
            firmware: row.label,
            vendor_class: row.class(),
            default: default_loader(Some(row.number)).map(|loader| loader.name),
        }
    }
}

fn archs() -> String {
    let mut table = output::table(["number", "name", "firmware", "vendor class", "default loader"]);
    for row in ARCH_TYPES.iter().map(ArchRow::from) {
        table.add_row(vec![
            output::right(row.number),
            row.name.into(),
            row.firmware.into(),
            row.vendor_class.as_str().into(),
            output::dash(row.default.unwrap_or_default()).into(),
        ]);
    }
    output::render(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn machine(node: Option<&str>, arch: u16, loader: Option<&str>, problem: Option<&str>) -> api::FirmwareRow {
        api::FirmwareRow {
            node: node.map(str::to_owned),
            hwaddr: "52:54:00:00:09:09".parse().unwrap(),
            arch: Some(arch),
            firmware: rackstrap_base::firmware::name(arch),
            vendor_class: "PXEClient".to_owned(),
            loader: loader.map(str::to_owned),
            file: loader
                .filter(|name| name.ends_with("-efi"))
                .map(|_| "snponly.efi".to_owned()),
            problem: problem.map(str::to_owned),
        }
    }

    /// The loaders of a site with these sections, on a Debian with these files in its loader directory.
    fn list(lines: &str, files: &[&str], machines: Option<Vec<api::FirmwareRow>>) -> LoaderList {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(dir.path().join(file), vec![0; 74_213]).unwrap();
        }
        let text = format!(
            "[cluster]\nnode-name = \"n{{n:02}}\"\nnode-address = \"10.5.1.{{n}}\"\n[[subnet]]\nnetwork = \"10.5.0.0/16\"\n\
             relayed = true\nserver = \"10.5.0.1\"\n{lines}"
        );
        let (mut site, _) = rackstrap_site::parse(&text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
        site.server.loader_dirs = vec![dir.path().to_owned()];
        let loaders = Loaders::load(&site).unwrap();
        LoaderList {
            daemon: machines.is_some(),
            loaders: rows(&site, &loaders, Family::Debian, machines.as_deref().unwrap_or_default()),
            load_themselves: load_themselves(machines.as_deref().unwrap_or_default()),
            unserved: unserved(machines.unwrap_or_default()),
            disks: disks(&loaders, Family::Debian),
        }
    }

    #[test]
    fn a_missing_loader_counts_only_if_somebody_needs_it() {
        const RULE: &str = "[loader.own]\nfile = \"own.efi\"\narch = [\"arm-efi\"]\n";
        let all = ["undionly.kpxe", "snponly.efi"];
        assert!(list("", &all, None).is_good(), "Debian has none for arm64");
        assert!(!list("", &[], None).is_good(), "no loader at all");
        assert!(!list(RULE, &all, None).is_good());
        let with = |machines| list("", &all, Some(machines)).is_good();
        assert!(with(vec![machine(Some("n01"), 7, Some("x86_64-efi"), None)]));
        assert!(!with(vec![machine(
            None,
            11,
            Some("arm64-efi"),
            Some("no loader for arm64-efi (11)")
        )]));
        assert!(!with(vec![machine(None, 10, None, Some("no loader for arm-efi (10)"))]));
    }

    #[test]
    fn the_table_names_the_state_the_machines_and_what_to_install() {
        let machines = vec![
            machine(Some("n01"), 7, Some("x86_64-efi"), None),
            machine(Some("n02"), 7, Some("x86_64-efi"), None),
            machine(Some("n03"), 22, Some("u-boot"), None),
            machine(
                None,
                10,
                None,
                Some("no loader for arm-efi (10), ARM 32-bit UEFI: add [loader.NAME]"),
            ),
        ];
        let text = describe(&list("", &["snponly.efi"], Some(machines)));
        let line = |name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_else(|| panic!("{text}"))
        };
        assert!(line("n03:").ends_with("needs no loader: arm64 U-Boot"), "{text}");
        assert!(line("bios *").contains("missing: install ipxe"), "{text}");
        assert!(line("arm64-efi *").contains("missing: see below"), "{text}");
        assert!(text.contains("apt install grub-efi-arm64-signed:arm64, then"), "{text}");
        assert!(
            line("x86_64-efi *").contains("ready") && text.contains("n01 +1"),
            "{text}"
        );
        assert!(
            line("bios:").starts_with("bios: undionly.kpxe does not exist in "),
            "{text}"
        );
        assert!(
            text.contains("\n  help: apt install ipxe, then: rackstrap reload"),
            "{text}"
        );
        assert!(
            line("52:54:00:00:09:09: no loader for arm-efi (10)").ends_with("[loader.NAME]"),
            "{text}"
        );
        // What disks carry is named, too.
        assert!(
            line("disks, x64 UEFI:").starts_with("disks, x64 UEFI: boot loader 'ipxe.efi' does not exist"),
            "{text}"
        );
        let uefi = list("", &["ipxe.efi"], None).disks;
        assert_eq!(
            uefi.iter().map(|row| row.ready).collect::<Vec<_>>(),
            [false, true, false]
        );
        let wide = text
            .lines()
            .filter(|line| !line.contains(": ") || line.contains("missing:"))
            .map(str::len)
            .max();
        assert!(wide <= Some(100), "{text}");
        let alone = describe(&list("", &["snponly.efi"], None));
        assert!(alone.contains("no daemon answers"), "{alone}");
    }

    #[test]
    fn all_architectures_are_listed_with_their_default_loaders() {
        let text = archs();
        assert_eq!(
            text.lines().filter(|line| line.contains("Client:Arch:")).count(),
            ARCH_TYPES.len()
        );
        let arm64 = text.lines().find(|line| line.contains("PXEClient:Arch:00011")).unwrap();
        assert!(
            arm64.contains("arm64 UEFI") && arm64.trim_end().ends_with("arm64-efi"),
            "{arm64}"
        );
    }
}
