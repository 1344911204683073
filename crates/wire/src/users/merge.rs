//! Adds the server's users and groups to those of an image.

use super::file::{self, Group, User};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The files in `/etc` of an image or a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcFiles {
    /// `passwd`
    pub passwd: String,
    /// `group`
    pub group: String,
    /// `shadow`; none if the image does not have it.
    pub shadow: Option<String>,
}

/// Entries in files that were added for the server's users, so that they can be removed again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Names of users.
    pub users: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
    /// Own groups with added members: `lab:alice`.
    pub members: Vec<String>,
}

/// The files in `/etc` of a node, with the added entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The files; `shadow` if the image has one.
    pub files: EtcFiles,
    /// The added entries.
    pub added: Added,
    /// Users and groups that could not be added, and why; one line each.
    pub conflicts: Vec<String>,
}

/// The fields after the name without a password: all dates are empty, so nothing expires. `*` is not a password's hash and, unlike
/// `!`, does not lock the account, so keys still work.
const NO_PASSWORD: &str = "*:::::::";

/// Indexes of names in a list. It is the only kind of map here, because each kind costs the agent some kilobytes.
pub type Index<'a> = HashMap<&'a str, usize>;

/// The index of each of `names`; of equal ones, the first.
pub fn index<'a>(names: impl IntoIterator<Item = &'a str>) -> Index<'a> {
    let mut index = Index::new();
    for (place, name) in names.into_iter().enumerate() {
        index.entry(name).or_insert(place);
    }
    index
}

/// Adds users and groups to those of `image`, whose entries do not change: a name or number that the image has is not added again.
/// Only groups that are the same in both get members.
pub fn merge(image: &EtcFiles, users: &[User], groups: &[Group]) -> Merged {
    let mut conflicts = Vec::new();
    let own_users: Vec<User> = entries(&image.passwd, file::user).collect();
    let own_names = index(own_users.iter().map(|user| user.name.as_str()));
    let numbers: Vec<String> = own_users.iter().map(|user| user.uid.to_string()).collect();
    let own_numbers = index(numbers.iter().map(String::as_str));

    let mut names = Added::default();
    // Users that may be members of groups: the image's own www-data is not the server's, although it has the same name.
    let mut known = Index::new();
    let (mut passwd, mut shadow) = (String::new(), String::new());
    let password = if image.shadow.is_some() { "x" } else { "*" };
    for user in users {
        let same_name = own_names.get(user.name.as_str()).map(|place| &own_users[*place]);
        let same_number = own_numbers
            .get(user.uid.to_string().as_str())
            .map(|place| &own_users[*place]);
        match (same_name, same_number) {
            // The image already has the same user.
            (Some(own), _) if own.uid == user.uid => {
                known.insert(&user.name, 0);
            }
            (Some(own), _) => conflicts.push(left_out("user", &user.name, user.uid, Some(own.uid), "")),
            (None, Some(own)) => conflicts.push(left_out("user", &user.name, user.uid, None, &own.name)),
            (None, None) => {
                known.insert(&user.name, 0);
                passwd.push_str(&user.line(password));
                let rest = user.shadow.as_deref().unwrap_or(NO_PASSWORD);
                shadow.push_str(&format!("{}:{rest}\n", user.name));
                names.users.push(user.name.clone());
            }
        }
    }

    let own_groups: Vec<Group> = entries(&image.group, file::group).collect();
    let (mut joined, mut joining) = (Index::new(), Vec::new());
    let mut new_groups = String::new();
    for group in groups {
        let members = group.members.iter().map(String::as_str);
        let members: Vec<&str> = members.filter(|member| known.contains_key(member)).collect();
        let same_name = own_groups.iter().find(|own| own.name == group.name);
        let same_number = own_groups.iter().find(|own| own.gid == group.gid);
        match (same_name, same_number) {
            (Some(own), _) if own.gid == group.gid => {
                joined.insert(&group.name, joining.len());
                joining.push(members);
            }
            (Some(own), _) => conflicts.push(left_out("group", &group.name, group.gid, Some(own.gid), "")),
            (None, Some(own)) => conflicts.push(left_out("group", &group.name, group.gid, None, &own.name)),
            (None, None) => {
                names.groups.push(group.name.clone());
                new_groups.push_str(&file::group_line(&group.name, group.gid, &members.join(",")));
            }
        }
    }

    let (own_with_members, members) = with_members(&image.group, &joined, &joining);
    names.members = members;
    Merged {
        files: EtcFiles {
            passwd: behind(&image.passwd, &passwd),
            group: behind(&own_with_members, &new_groups),
            shadow: image.shadow.as_ref().map(|own| behind(own, &shadow)),
        },
        added: names,
        conflicts,
    }
}

/// Why an entry is not added: the name has another number (`theirs`), or the number another name.
fn left_out(what: &str, name: &str, number: u32, theirs: Option<u32>, other: &str) -> String {
    let why = match theirs {
        Some(theirs) => format!("the image has a {what} of that name with the number {theirs}"),
        None => format!("in the image that number belongs to {other}"),
    };
    format!("{what} {name} ({number}) is left out: {why}")
}

/// Missing parts of users that [`merge`] added: shells (`has` tells whether a path exists), and groups.
pub fn lacking(merged: &Merged, users: &[User], has: impl Fn(&str) -> bool) -> Vec<String> {
    let added = index(merged.added.users.iter().map(String::as_str));
    let gids: BTreeSet<u32> = entries(&merged.files.group, file::group)
        .map(|group| group.gid)
        .collect();
    let mut lacking: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for user in users.iter().filter(|user| added.contains_key(user.name.as_str())) {
        if !user.shell.is_empty() && !has(&user.shell) {
            let what = format!("the image has no {}, the shell of", user.shell);
            lacking.entry(what).or_default().push(&user.name);
        }
        if !gids.contains(&user.gid) {
            let what = format!("nodes have no group {}, the primary group of", user.gid);
            lacking.entry(what).or_default().push(&user.name);
        }
    }
    let line = |(what, names): (String, Vec<&str>)| format!("{what} {}", shortened(&names));
    lacking.into_iter().map(line).collect()
}

/// The files without the entries that an earlier [`merge`] added: those of the image, and those added on the node since.
pub fn without(files: &EtcFiles, added: &Added) -> EtcFiles {
    let rows = |text: &str, names: &[String]| -> String {
        let names = index(names.iter().map(String::as_str));
        let kept = text
            .split_inclusive('\n')
            .filter(|line| !line.split_once(':').is_some_and(|(name, _)| names.contains_key(name)));
        kept.collect()
    };
    let guests = index(added.members.iter().map(String::as_str));
    let mut group = String::new();
    for line in rows(&files.group, &added.groups).split_inclusive('\n') {
        let whole = line.trim_end_matches('\n');
        let (Some(name), Some((head, members))) = (whole.split(':').next(), whole.rsplit_once(':')) else {
            group.push_str(line);
            continue;
        };
        let stays = |member: &&str| !guests.contains_key(format!("{name}:{member}").as_str());
        let members: Vec<&str> = members.split(',').filter(stays).collect();
        group.push_str(&format!("{head}:{}{}", members.join(","), &line[whole.len()..]));
    }
    EtcFiles {
        passwd: rows(&files.passwd, &added.users),
        group,
        shadow: files.shadow.as_ref().map(|shadow| rows(shadow, &added.users)),
    }
}

/// The entries that can be parsed. Other lines of the image stay in its file and do not count as entries.
pub(super) fn entries<'a, T>(
    text: &'a str,
    read: impl Fn(&str) -> Result<T, String> + 'a,
) -> impl Iterator<Item = T> + 'a {
    file::lines(text.as_bytes()).filter_map(move |(_, line)| read(line.ok()?).ok())
}

fn behind(own: &str, added: &str) -> String {
    let end = if own.is_empty() || own.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{own}{end}{added}")
}

/// The image's groups, with members added to groups that the server also has; and the added members by group.
fn with_members(own: &str, joined: &Index<'_>, joining: &[Vec<&str>]) -> (String, Vec<String>) {
    let (mut text, mut added) = (String::new(), Vec::new());
    for line in own.split_inclusive('\n') {
        let whole = line.trim_end_matches('\n');
        let more = whole.split(':').next().and_then(|name| Some((name, joined.get(name)?)));
        let (Some((name, place)), Some((head, members))) = (more, whole.rsplit_once(':')) else {
            text.push_str(line);
            continue;
        };
        let mut all: Vec<&str> = members.split(',').filter(|member| !member.is_empty()).collect();
        for member in &joining[*place] {
            if !all.contains(member) {
                all.push(member);
                added.push(format!("{name}:{member}"));
            }
        }
        text.push_str(&format!("{head}:{}{}", all.join(","), &line[whole.len()..]));
    }
    (text, added)
}

fn shortened(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    match names.len() {
        0..=SHOWN => names.join(", "),
        count => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
    }
}

/// A shadow file for display: everything that could be a hash is hidden.
pub fn hide_hashes(shadow: &str) -> String {
    let lines = shadow.split_inclusive('\n').map(|line| {
        let Some((name, rest)) = line.split_once(':') else {
            return line.to_owned();
        };
        let (hash, ageing) = rest.split_at(rest.find([':', '\n']).unwrap_or(rest.len()));
        match hash {
            "" | "*" | "!" | "!!" | "!*" => line.to_owned(),
            _ => format!("{name}:(hidden){ageing}"),
        }
    });
    lines.collect()
}
