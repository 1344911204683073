//! The site file `rackstrap.toml`, which is checked as a whole. Services use only the checked [`Site`].
//!
//! Reading goes from text to tables with their places to checked values, with one file for each section. Every check
//! continues after a problem if it can, so that one run names all problems. Syntax comes first: a file that is not TOML is
//! checked for that only.

mod backup;
mod bmc;
mod cluster;
mod dhcp_options;
mod diagnostic;
mod disk;
mod dns;
mod hooks;
pub mod kernel_args;
mod layout;
mod layouts;
mod loader;
mod meant;
mod mount;
mod naming;
mod network;
mod network_card;
mod network_checks;
mod own;
mod partition_content;
mod profile;
mod section;
mod server;
mod site;
mod subnet;
#[cfg(test)]
mod tests;
mod users;
pub mod value;
pub mod vars;

pub use bmc::{ADDRESS as BMC_ADDRESS, PASSWORD_FILE as BMC_PASSWORD_FILE, SUFFIX as BMC_SUFFIX, USER as BMC_USER};
pub use diagnostic::{ConfigError, Diagnostic, Warning};
pub use diagnostic::{excerpt, harmless, one_line};
pub use mount::expanded as expanded_mount;
pub use network_card::expanded as expanded_card;
pub use own::{
    HIDDEN, IPADDR, NodeSettings, SettingProblem, meant as meant_setting, own_keys, split as split_key, variable,
};
pub use profile::{BOOT_LOCAL, Descriptor, Form, NETWORK_FIRST, SETTINGS};
pub use server::SYSTEM_LOADER_DIRS;
pub use site::{
    Backup, Bmc, BmcDriver, Cluster, Dns, Hooks, LayoutPolicy, Limits, LoaderFile, LoaderRule, Mount, Network, Profile,
    Server, Site, Users,
};

use diagnostic::{Report, quote, shown};
use rackstrap_base::{subnet::Subnet, words::closest};
use section::{KEYS, Section, article};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The path of the site file, unless `--config` names another one.
pub const DEFAULT_PATH: &str = "/etc/rackstrap/rackstrap.toml";

/// A larger site file is refused without reading it: it is an image or a log, not a configuration.
pub const MAX_BYTES: u64 = 1 << 20;

/// At most this many subnets, profiles and layouts each.
const MOST_SECTIONS: usize = 1000;

/// The daemon's state directory, unless the site file names another one.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/rackstrap";

/// The name of a cluster whose site file has none.
pub const DEFAULT_CLUSTER: &str = "cluster";

/// The absolute path for a path `text` of `[server]` in the site file at `path`, as [`load`] makes it.
///
/// # Errors
/// The problems, with their corrections.
pub fn server_path(text: &str, path: &Path) -> Result<PathBuf, String> {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let directory = whole.parent().unwrap_or(Path::new("/"));
    server::read_path(text, directory).map_err(|(what, help)| format!("{what}; {help}"))
}

/// Reads and checks the site file at `path`. Relative paths in it start at its directory.
///
/// # Errors
/// The file cannot be read, is larger than [`MAX_BYTES`], or has problems: all of them, each with its place.
pub fn load(path: &Path) -> Result<(Site, Vec<Warning>), ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let whole = std::path::absolute(path).map_err(failed)?;
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    let directory = whole.parent().unwrap_or(Path::new("/"));
    check_bytes(&bytes, path.display().to_string(), directory)
}

/// Checks `text` as the site file `origin`, which is used as a name only: no file is read.
///
/// # Errors
/// [`ConfigError::Invalid`] with every problem.
pub fn parse(text: &str, origin: &Path) -> Result<(Site, Vec<Warning>), ConfigError> {
    let directory = origin.parent().unwrap_or(Path::new(""));
    check_bytes(text.as_bytes(), origin.display().to_string(), directory)
}

fn check_bytes(bytes: &[u8], file: String, directory: &Path) -> Result<(Site, Vec<Warning>), ConfigError> {
    if bytes.len() as u64 > MAX_BYTES {
        let mut report = Report::new("", file);
        let message = "the file is larger than 1 MiB, too large for a site file";
        report.missing(message, "give the path of a site file, such as rackstrap.example.toml");
        return Err(invalid(report));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let before = std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default();
            let mut report = Report::new(before, file);
            let message = format!("byte 0x{:02x} after this place is not UTF-8", bytes[e.valid_up_to()]);
            report.error(before.len()..before.len(), message, "save the file as UTF-8");
            return Err(invalid(report));
        }
    };
    let mut report = Report::new(text, file);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().unwrap_or_default();
        let help = syntax_help(error.message());
        report.error(at, format!("this is not TOML: {}", error.message()), help);
    }
    if !errors.is_empty() {
        return Err(invalid(report));
    }
    let site = check(document.get_ref(), directory, &mut report);
    match (site, report.is_clean()) {
        (Some(site), true) => Ok((site, report.finish()?)),
        (None, true) => {
            report.missing("a section could not be checked", "see rackstrap.example.toml");
            Err(invalid(report))
        }
        (_, false) => Err(invalid(report)),
    }
}

/// The report as an error. It contains at least one problem.
fn invalid(report: Report<'_>) -> ConfigError {
    report.finish().err().unwrap_or(ConfigError::Invalid {
        problems: Vec::new(),
        omitted: 0,
        warnings: Vec::new(),
    })
}

fn syntax_help(message: &str) -> &'static str {
    if message.contains("duplicate key") {
        "each key may occur once in its section: remove one of the two"
    } else if message.contains("string values must be quoted") {
        "put text in double quotes, such as name = \"lab\""
    } else {
        "a line is key = value, [section] or # comment; text is in double quotes, lists are in [ ]"
    }
}

/// Checks the whole document. Returns none only if a problem was reported.
fn check(document: &DeTable<'_>, directory: &Path, report: &mut Report<'_>) -> Option<Site> {
    const TOP: [&str; 14] = [
        "cluster", "server", "subnet", "network", "profile", "layout", "mount", "loader", "bmc", "users", "dns",
        "hooks", "backup", "limits",
    ];
    for (key, _) in document
        .iter()
        .filter(|(key, _)| !TOP.contains(&key.get_ref().as_ref()))
    {
        let word = key.get_ref().as_ref();
        let section = KEYS.iter().find(|(_, keys)| keys.contains(&word));
        let help = match (closest(word, TOP), section) {
            (Some(near), _) => format!("did you mean '{near}'?"),
            (None, Some((title, _))) => format!("'{word}' belongs in {title}"),
            (None, None) => format!("remove it; the sections are {}", TOP.join(", ")),
        };
        report.error(
            key.span(),
            format!("the site file has no section {}", quote(word)),
            help,
        );
    }

    let cluster = single(document, "cluster", report).map(|section| cluster::read(report, &section));
    if document.get("cluster").is_none() {
        report.missing("section [cluster] is missing", cluster::EXAMPLE);
    }
    let section = single(document, "server", report);
    let server = server::read(report, section.as_ref(), directory);
    let section = single(document, "hooks", report);
    let hooks = hooks::read(report, section.as_ref(), directory);
    let section = single(document, "backup", report);
    let backup = backup::read(report, section.as_ref(), directory, &server.state_dir);
    let section = single(document, "limits", report);
    let limits = server::limits(report, section.as_ref());

    let mut subnets = Vec::new();
    for (value, at) in subnet_tables(document, report) {
        let title = "[[subnet]]".to_owned();
        if let Some(section) = Section::new(report, "[[subnet]]", title, at, value) {
            subnets.extend(subnet::read(report, &section));
        }
    }
    let (layouts, profiles) = layouts_and_profiles(document, report);
    let users = single(document, "users", report).and_then(|section| users::read(report, &section, directory));
    let dns = single(document, "dns", report).map(|section| dns::read(report, &section));
    let cluster = cluster.flatten()?;
    subnet::check_all(report, &subnets, &cluster);
    let dns = dns.map(|read| dns::settle(report, read, &cluster.value, &mut subnets));
    let subnets: Vec<Subnet> = subnets.into_iter().map(|s| s.value).collect();
    let networks = network::read_all(document, report, &cluster, &subnets, &profiles);
    let bmc = single(document, "bmc", report).map(|section| {
        let rest = bmc::Rest {
            cluster: &cluster.value,
            subnets: &subnets,
            networks: &networks,
            directory,
        };
        bmc::read(report, &section, &rest)
    });
    let rest = mount::Rest {
        profiles: &profiles,
        layouts: &layouts,
        subnets: &subnets,
        nfs_port: server.nfs_port,
    };
    let mounts = mount::read_all(document, report, &rest);
    let places = places(document, report);
    let loaders = loaders(document, report, &profiles);
    Some(Site {
        cluster: cluster.value,
        server,
        subnets,
        profiles,
        layouts,
        mounts,
        networks,
        loaders,
        bmc,
        users,
        hooks,
        backup,
        limits,
        dns,
        places,
    })
}

/// `[layout.NAME]` and `[profile.NAME]`, which refer to each other.
fn layouts_and_profiles(
    document: &DeTable<'_>,
    report: &mut Report<'_>,
) -> (BTreeMap<String, LayoutPolicy>, BTreeMap<String, Profile>) {
    let mut layouts = BTreeMap::new();
    let all = named(document, "layout", report);
    for (name, value) in &all {
        let title = format!("[layout.{}]", shown(name.get_ref()));
        if let Some(section) = Section::new(report, "[layout.NAME]", title, name.span(), value)
            && let Some(policy) = layout::read(report, name.get_ref(), &section)
        {
            layouts.insert(name.get_ref().clone(), policy);
        }
    }
    // A layout with problems exists, so it is not reported as unknown.
    let names: Vec<&str> = all.iter().map(|(name, _)| name.get_ref().as_str()).collect();
    let known: layouts::Known<'_> = names.iter().map(|name| (*name, layouts.get(*name))).collect();
    let mut profiles = BTreeMap::from([("default".to_owned(), Profile::default())]);
    let written = named(document, "profile", report);
    near_default(report, &written);
    for (name, value) in &written {
        let title = format!("[profile.{}]", shown(name.get_ref()));
        if let Some(section) = Section::new(report, "[profile.NAME]", title, name.span(), value) {
            profiles.insert(name.get_ref().clone(), profile::read(report, name, &section, &known));
        }
    }
    for (name, _) in &written {
        if let Some((message, help)) = layouts::disk_of_two(name.get_ref(), &profiles, &layouts) {
            report.error(name.span(), message, help);
        }
    }
    let uses = |p: &Profile, name: &str| {
        let names = p.layout.as_deref().unwrap_or_default();
        names.split_ascii_whitespace().any(|used| used == name)
    };
    let used = |name: &str| profiles.values().any(|p| uses(p, name));
    for (name, _) in all.iter().filter(|(name, _)| !used(name.get_ref())) {
        let message = format!("no profile uses the layout {}", quote(name.get_ref()));
        let mut help = format!(
            "write layout = \"{}\" in a profile, or remove the layout",
            shown(name.get_ref())
        );
        if let Some(near) = closest(name.get_ref(), names.iter().copied().filter(|name| used(name))) {
            help = format!("did you mean [layout.{near}], which a profile uses? else {help}");
        }
        report.warn(name.span(), message, help);
    }
    (layouts, profiles)
}

/// The places of the texts that read variables: [`Site::places`].
fn places(document: &DeTable<'_>, report: &Report<'_>) -> BTreeMap<String, String> {
    let text = |table: &DeTable<'_>, key: &str| -> Option<(String, String)> {
        let value = table.get(key)?;
        let text = value.get_ref().as_str().filter(|text| vars::has_variables(text))?;
        Some((vars::compact(text).ok()?, report.shown_place(&value.span())))
    };
    let mut all = BTreeMap::new();
    let table = |name: &str| document.get(name).map(Spanned::get_ref);
    for (name, profile) in table("profile")
        .and_then(DeValue::as_table)
        .into_iter()
        .flat_map(|all| all.iter())
    {
        if let Some((_, place)) = profile
            .get_ref()
            .as_table()
            .and_then(|table| text(table, "kernel-args"))
        {
            all.insert(format!("profile {}", name.get_ref()), place);
        }
    }
    for mount in table("mount")
        .and_then(DeValue::as_array)
        .into_iter()
        .flat_map(|all| all.iter())
    {
        let Some(table) = mount.get_ref().as_table() else {
            continue;
        };
        for (text, place) in ["what", "options"].into_iter().filter_map(|key| text(table, key)) {
            all.entry(format!("mount {text}")).or_insert(place);
        }
    }
    for network in table("network")
        .and_then(DeValue::as_array)
        .into_iter()
        .flat_map(|all| all.iter())
    {
        let Some(table) = network.get_ref().as_table() else {
            continue;
        };
        if let (Some(name), Some(wanted)) = (table.get("name"), table.get("match"))
            && let Some(name) = name.get_ref().as_str()
        {
            all.insert(format!("network {name}"), report.shown_place(&wanted.span()));
        }
    }
    all
}

/// `[loader.NAME]`, in the order of the file.
fn loaders(document: &DeTable<'_>, report: &mut Report<'_>, profiles: &BTreeMap<String, Profile>) -> Vec<LoaderRule> {
    let mut all = Vec::new();
    for (name, value) in &named(document, "loader", report) {
        let title = format!("[loader.{}]", shown(name.get_ref()));
        if let Some(section) = Section::new(report, "[loader.NAME]", title, name.span(), value) {
            all.extend(loader::read(report, name, &section, profiles));
        }
    }
    loader::against_each_other(report, &all);
    all.into_iter().map(|read| read.value).collect()
}

/// Warns of a profile whose name is almost `default`: no node has it automatically.
fn near_default(report: &mut Report<'_>, all: &[(Spanned<String>, &Spanned<DeValue<'_>>)]) {
    const DEFAULT: &str = "default";
    let written = all.iter().any(|(name, _)| name.get_ref() == DEFAULT);
    for (name, _) in all.iter().filter(|(name, _)| name.get_ref() != DEFAULT) {
        let word = name.get_ref().as_str();
        // If [profile.default] exists, default2 is another profile and not a typing error.
        let chosen = written && word.starts_with(DEFAULT);
        if closest(word, [DEFAULT]).is_some() && !chosen {
            let message = format!(
                "[profile.{}] is only for nodes that name it; all nodes have [profile.default]",
                shown(word)
            );
            report.warn(name.span(), message, "did you mean [profile.default]?");
        }
    }
}

/// A section that may occur once.
fn single<'a>(document: &'a DeTable<'a>, name: &str, report: &mut Report<'_>) -> Option<Section<'a>> {
    let (key, value) = document.get_key_value(name)?;
    let title = format!("[{name}]");
    Section::new(report, &title.clone(), title, key.span(), value)
}

/// The `[[subnet]]` sections, each with its place.
fn subnet_tables<'a>(
    document: &'a DeTable<'a>,
    report: &mut Report<'_>,
) -> Vec<(&'a Spanned<DeValue<'a>>, Range<usize>)> {
    let Some((key, value)) = document.get_key_value("subnet") else {
        report.missing("section [[subnet]] is missing", subnet::EXAMPLE);
        return Vec::new();
    };
    match value.get_ref() {
        DeValue::Array(all) if all.is_empty() => {
            report.error(key.span(), "no subnet is defined", subnet::EXAMPLE);
            Vec::new()
        }
        DeValue::Array(all) if all.len() > MOST_SECTIONS => {
            let message = format!("there are {} subnets, at most {MOST_SECTIONS}", all.len());
            report.error(key.span(), message, "join some of them to larger networks");
            Vec::new()
        }
        DeValue::Array(all) => all.iter().map(|table| (table, table.span())).collect(),
        DeValue::Table(_) => {
            let message = "[subnet] has one pair of brackets, but there may be several";
            report.error(key.span(), message, "write [[subnet]]");
            Vec::new()
        }
        other => {
            let message = format!("'subnet' is a section, and not {}", article(other));
            report.error(value.span(), message, subnet::EXAMPLE);
            Vec::new()
        }
    }
}

/// The `[kind.NAME]` sections.
fn named<'a>(
    document: &'a DeTable<'a>,
    kind: &str,
    report: &mut Report<'_>,
) -> Vec<(Spanned<String>, &'a Spanned<DeValue<'a>>)> {
    let Some((key, value)) = document.get_key_value(kind) else {
        return Vec::new();
    };
    let Some(table) = value.get_ref().as_table() else {
        let message = format!("[{kind}.NAME] is a section, not {}", article(value.get_ref()));
        report.error(key.span(), message, format!("write [{kind}.default], for example"));
        return Vec::new();
    };
    if table.len() > MOST_SECTIONS {
        let message = format!(
            "there are {} sections [{kind}.NAME], at most {MOST_SECTIONS}",
            table.len()
        );
        report.error(key.span(), message, "leave out what no node uses");
        return Vec::new();
    }
    let keys = KEYS.iter().find(|(title, _)| title.starts_with(&format!("[{kind}.")));
    let mut all = Vec::new();
    for (name, value) in table.iter() {
        let word = name.get_ref().as_ref();
        if !value.get_ref().is_table() && keys.is_some_and(|(_, keys)| keys.contains(&word)) {
            let message = format!("'{word}' stands in [{kind}], which has no name");
            report.error(name.span(), message, format!("write [{kind}.default] above it"));
            continue;
        }
        all.push((Spanned::new(name.span(), word.to_owned()), value));
    }
    all
}
