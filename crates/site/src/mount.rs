//! `[[mount]]`: what nodes mount in addition to their root and their local disk.

use super::{
    LayoutPolicy, Mount, Profile, Subnet,
    diagnostic::{Report, quote, shown},
    layout::{plain_path, system_path},
    section::{Section, article},
    vars::{Readable, compact, expand, without_variables},
};
use rackstrap_base::words::closest;
use std::{collections::BTreeMap, ops::Range};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A longer list is generated, and should be the map of an automounter.
const MOST: usize = 200;
const EXAMPLE: &str = "write [[mount]], and below it what = \"10.5.0.2:/home\", where = \"/home\" and type = \"nfs\"";

type Problem = (String, String);

/// A mount, with the places of its values.
struct Read {
    value: Mount,
    what_at: Range<usize>,
    where_at: Range<usize>,
}

/// The parts of the site that mounts depend on.
pub(super) struct Rest<'a> {
    pub(super) profiles: &'a BTreeMap<String, Profile>,
    pub(super) layouts: &'a BTreeMap<String, LayoutPolicy>,
    pub(super) subnets: &'a [Subnet],
    pub(super) nfs_port: u16,
}

/// All `[[mount]]` sections, in their order.
pub(super) fn read_all(document: &DeTable<'_>, report: &mut Report<'_>, rest: &Rest<'_>) -> Vec<Mount> {
    let Some((key, value)) = document.get_key_value("mount") else {
        return Vec::new();
    };
    let tables = match value.get_ref() {
        DeValue::Array(all) if all.len() > MOST => {
            let message = format!("there are {} mounts, at most {MOST}", all.len());
            report.error(key.span(), message, "give the nodes an automounter, by a template");
            return Vec::new();
        }
        DeValue::Array(all) => all,
        DeValue::Table(_) => {
            let message = "[mount] has one pair of brackets, but there may be several";
            report.error(key.span(), message, "write [[mount]]");
            return Vec::new();
        }
        other => {
            let message = format!("'mount' is a section, not {}", article(other));
            report.error(value.span(), message, EXAMPLE);
            return Vec::new();
        }
    };
    let mut all: Vec<Read> = Vec::new();
    for table in tables.iter() {
        let section = Section::new(report, "[[mount]]", "[[mount]]".to_owned(), table.span(), table);
        all.extend(section.and_then(|section| read(report, &section, rest)));
    }
    for (i, this) in all.iter().enumerate() {
        against_mounts(report, &all[..i], this);
        against_layouts(report, this, rest);
        against_ourselves(report, this, rest);
    }
    all.into_iter().map(|read| read.value).collect()
}

fn read(report: &mut Report<'_>, section: &Section<'_>, rest: &Rest<'_>) -> Option<Read> {
    section.require(report, "what", "\"10.5.0.2:/home\"");
    section.require(report, "where", "\"/home\"");
    section.require(report, "type", "\"nfs\"");
    let kind = section.parsed(report, "type", "\"nfs\"", read_type);
    let what = section.parsed(report, "what", "\"10.5.0.2:/home\"", |text| {
        read_what(text, kind.as_ref().map_or("", |kind| kind.get_ref()))
    });
    let place = section.parsed(report, "where", "\"/home\"", read_where);
    let options = section.parsed(report, "options", "\"rw,hard\"", |text| {
        read_options(&without_variables(text)?)?;
        Ok(compact(text)?.trim_matches(',').to_owned())
    });
    let required = section.boolean(report, "required");
    let profiles = section.list(report, "profiles", "[\"compute\"]", |text| {
        read_profile(text, rest.profiles)
    });
    if let Some(profiles) = &profiles
        && profiles.is_empty()
        && section
            .get("profiles")
            .and_then(|p| p.get_ref().as_array())
            .is_some_and(|all| all.is_empty())
    {
        let message = "a mount for no profile reaches no node";
        report.error(
            section.key_at("profiles"),
            message,
            "name a profile, or leave 'profiles' out for all nodes",
        );
    }
    let asked = options.as_ref().map_or("", |options| options.get_ref().as_str());
    if required.as_ref().is_some_and(|required| *required.get_ref()) && has_option(asked, "nofail") {
        let message = "the mount is required, but 'nofail' makes it optional";
        report.error(
            section.key_at("options"),
            message,
            "remove 'nofail', or write required = false",
        );
    }
    if asked
        .split(',')
        .any(|option| option.starts_with("password=") || option.starts_with("pass="))
    {
        let message = "every user of a node can read /etc/fstab, and so this password";
        let help = "write credentials=/etc/cifs-credentials, and write that file by a template of mode 0600";
        report.warn(section.key_at("options"), message, help);
    }
    let (what, place, kind) = (what?, place?, kind?);
    if section.get("options").is_some() && options.is_none() {
        return None;
    }
    Some(Read {
        what_at: what.span(),
        where_at: place.span(),
        value: Mount {
            what: what.into_inner(),
            place: place.into_inner(),
            kind: kind.into_inner(),
            options: options.map(Spanned::into_inner).unwrap_or_default(),
            profiles: profiles.map(|all| all.into_iter().map(Spanned::into_inner).collect()),
            required: required.is_some_and(Spanned::into_inner),
        },
    })
}

/// Whether `option` is in a list of options for mount(8).
fn has_option(list: &str, option: &str) -> bool {
    list.split(',').any(|one| one == option)
}

fn read_type(text: &str) -> Result<String, Problem> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !first || text.len() > 32 || !text.bytes().all(plain) {
        let help = "write the name that mount -t takes, such as type = \"nfs\", \"beegfs\" or \"fuse.sshfs\"";
        return Err((format!("{} is not a type of file system", quote(text)), help.to_owned()));
    }
    if text == "swap" {
        let help = "remove it; a layout's partition with fs = \"swap\" is used";
        return Err(("swap is not mounted".to_owned(), help.to_owned()));
    }
    Ok(text.to_owned())
}

/// The same, with the values of variables.
///
/// # Errors
/// A variable is not defined, or the mount would not be valid with its value.
pub fn expanded<'v>(mount: &Mount, value: impl Fn(&str) -> Option<Readable<'v>>) -> Result<Mount, String> {
    let (what, options) = (expand(&mount.what, &value)?, expand(&mount.options, &value)?);
    let said = |(message, help): Problem| format!("{message}; {help}");
    check_what(&what, &mount.kind).map_err(said)?;
    read_options(&options).map_err(said)?;
    Ok(Mount {
        what,
        options,
        ..mount.clone()
    })
}

fn read_what(text: &str, kind: &str) -> Result<String, Problem> {
    check_what(&without_variables(text)?, kind)?;
    compact(text)
}

fn check_what(text: &str, kind: &str) -> Result<(), Problem> {
    let wrong = |why: &str, help: &str| Err((format!("{} {why}", quote(text)), help.to_owned()));
    if text.trim().is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        return wrong(
            "is nothing to mount",
            "write what = \"10.5.0.2:/home\", or another source, such as LABEL=scratch",
        );
    }
    let host = |separator: &str| {
        let found = text.split_once(separator);
        found.is_some_and(|(host, path)| !host.is_empty() && path.starts_with('/'))
    };
    match kind {
        "nfs" | "nfs4" if !host(":") => wrong("is not an NFS export", "write SERVER:/PATH, such as \"10.5.0.2:/home\""),
        "cifs" | "smb3" if !text.starts_with("//") => wrong("is not a share", "write //SERVER/SHARE"),
        "lustre" if !text.contains(":/") => wrong(
            "is not a Lustre file system",
            "write MGS-NID:/FSNAME, such as \"10.5.0.3@tcp:/scratch\"",
        ),
        "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" if !text.starts_with('/') && !text.contains('=') => wrong(
            "is not a device",
            "write LABEL=NAME, UUID=… or a path below /dev, such as \"LABEL=data\"",
        ),
        _ => Ok(()),
    }
}

fn read_where(text: &str) -> Result<String, Problem> {
    let place = plain_path(text, "where", "where = \"/home\"")?;
    let wrong = |why: &str| {
        let help = "choose another place, such as /home, /scratch or /opt/software";
        Err((format!("{} {why}", quote(text)), help.to_owned()))
    };
    if place == "/" {
        return wrong("is the root, which rackstrap's agent mounts");
    }
    match (system_path(&place), place.as_str()) {
        (Some(why), _) => wrong(why),
        (None, "/var" | "/var/lib") => wrong("holds what each node writes for itself"),
        (None, "/root" | "/root/.ssh") => wrong("would hide the keys that root logs in with"),
        (None, _) => Ok(place),
    }
}

fn read_options(text: &str) -> Result<String, Problem> {
    match text.len() <= 1000 && text.chars().all(|c| c.is_ascii_graphic() && !"\"'#".contains(c)) {
        true => Ok(text.trim_matches(',').to_owned()),
        false => Err((
            format!("{} are not mount options", quote(text)),
            "write them as in fstab, with commas and no blanks, such as options = \"rw,hard,nosuid\"".to_owned(),
        )),
    }
}

pub(super) fn read_profile(text: &str, profiles: &BTreeMap<String, Profile>) -> Result<String, Problem> {
    if profiles.contains_key(text) {
        return Ok(text.to_owned());
    }
    let help = match closest(text, profiles.keys().map(String::as_str)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("add [profile.{}], or leave 'profiles' out for all nodes", shown(text)),
    };
    Err((format!("profile {} does not exist", quote(text)), help))
}

/// Reports two mounts in one place on one node. If their lists of profiles have no name in common, they conflict only on
/// nodes that have profiles of both, which is allowed.
fn against_mounts(report: &mut Report<'_>, before: &[Read], this: &Read) {
    for other in before.iter().filter(|other| other.value.place == this.value.place) {
        let shared = match (&other.value.profiles, &this.value.profiles) {
            (Some(a), Some(b)) => {
                a.iter().any(|name| b.contains(name) || name == "default") || b.iter().any(|b| b == "default")
            }
            _ => true,
        };
        if shared {
            let message = format!("two mounts have the place {} on the same nodes", this.value.place);
            let help = "mount one of them somewhere else, or name different 'profiles' for the two";
            report.error(this.where_at.clone(), message, help);
            return;
        }
    }
}

/// Reports conflicts with a node's local partitions, which the agent mounts first.
fn against_layouts(report: &mut Report<'_>, this: &Read, rest: &Rest<'_>) {
    let place = &this.value.place;
    for (name, own) in rest.profiles {
        if !this.value.applies_to(std::slice::from_ref(name)) {
            continue;
        }
        let default = rest.profiles.get("default").and_then(|p| p.layout.as_ref());
        let names = own.layout.as_ref().or(default).map(String::as_str).unwrap_or_default();
        let layouts = names
            .split_ascii_whitespace()
            .filter_map(|layout| rest.layouts.get(layout));
        let local = layouts.flat_map(|policy| policy.layout.partitions.iter().map(|p| (&policy.layout, p)));
        for (layout, local) in local.filter_map(|(layout, p)| Some((layout, p.mount.as_ref()?))) {
            let below = local
                .strip_prefix(place.as_str())
                .is_some_and(|rest| rest.starts_with('/'));
            if local == place || below {
                let what = if below { "hide" } else { "be mounted over" };
                let message = format!(
                    "{place} would {what} {local} on the local disk of nodes with the profile '{name}' (layout '{}')",
                    layout.name
                );
                let help = "mount it somewhere else, or name 'profiles' whose layout has no such partition";
                report.error(this.where_at.clone(), message, help);
                return;
            }
        }
    }
}

/// Reports a mount from rackstrap's own NFS server, which exports only the nodes' roots.
fn against_ourselves(report: &mut Report<'_>, this: &Read, rest: &Rest<'_>) {
    if !matches!(this.value.kind.as_str(), "nfs" | "nfs4") || rest.nfs_port != 2049 {
        return;
    }
    let host = this.value.what.split(':').next().unwrap_or_default();
    let ours = rest.subnets.iter().any(|subnet| subnet.server.to_string() == host);
    if ours && !this.value.options.split(',').any(|option| option.starts_with("port=")) {
        let message = format!("{host} port 2049 is rackstrap's own NFS server, which exports only the nodes' roots");
        let help =
            "write nfs-port = 2050 in [server] and run the system's own NFS server on 2049, or name another server";
        report.error(this.what_at.clone(), message, help);
    }
}
