//! An image's own users and groups, and the server's behind them.

use super::file::{self, Group, User};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What an image or a node has in `/etc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcFiles {
    /// `passwd`
    pub passwd: String,
    /// `group`
    pub group: String,
    /// `shadow`, if the image has one.
    pub shadow: Option<String>,
}

/// What stands in files because of the server's users, so that it can be taken out of them again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Names of users.
    pub users: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
    /// Own groups that got members, and who they are.
    pub members: Vec<(String, String)>,
}

/// What a node has in `/etc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The files; `shadow` if the image has one.
    pub files: EtcFiles,
    /// What was added.
    pub added: Added,
    /// Who could not be added, and why, and what is missing for others; one line each.
    pub conflicts: Vec<String>,
}

/// Days behind `*`: all empty, so that nothing ages. `*` is no password's hash, and other than `!` no locked account: keys let in.
const NO_PASSWORD: &str = "*:::::::";

/// Adds users and groups to `image`'s own, whose entries stay as they are: a name or number that it has already is not given
/// a second time. Only groups that are the same in both get members. `has` says whether a path is in the image.
pub fn merge(image: &EtcFiles, users: &[User], groups: &[Group], has: impl Fn(&str) -> bool) -> Merged {
    let mut conflicts = Vec::new();
    let (mut own_names, mut own_uids) = (HashMap::new(), HashMap::new());
    for user in entries(&image.passwd, file::user) {
        own_uids.entry(user.uid).or_insert_with(|| user.name.clone());
        own_names.insert(user.name.clone(), user.uid);
    }
    let own_groups: Vec<Group> = entries(&image.group, file::group).collect();

    let mut added = Vec::new();
    // Members that groups may have: the image's own www-data is not the server's, although it is called the same.
    let mut known: HashSet<&str> = HashSet::new();
    for user in users {
        match (own_names.get(&user.name), own_uids.get(&user.uid)) {
            // The image has it already.
            (Some(uid), _) if *uid == user.uid => drop(known.insert(&user.name)),
            (Some(uid), _) => conflicts.push(format!(
                "user {} ({}) is left out: the image has a user of that name with the number {uid}",
                user.name, user.uid
            )),
            (None, Some(other)) => conflicts.push(format!(
                "user {} ({}) is left out: in the image that number is {other}'s",
                user.name, user.uid
            )),
            (None, None) => {
                known.insert(&user.name);
                added.push(user);
            }
        }
    }

    let mut joined: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut new_groups = String::new();
    let mut names = Added::default();
    let mut gids: HashSet<u32> = own_groups.iter().map(|group| group.gid).collect();
    for group in groups {
        let members = group
            .members
            .iter()
            .map(String::as_str)
            .filter(|member| known.contains(member));
        let members: Vec<&str> = members.collect();
        let same_name = own_groups.iter().find(|own| own.name == group.name);
        let same_number = own_groups.iter().find(|own| own.gid == group.gid);
        match (same_name, same_number) {
            (Some(own), _) if own.gid == group.gid => {
                joined.insert(&group.name, members);
            }
            (Some(own), _) => conflicts.push(format!(
                "group {} ({}) is left out: the image has a group of that name with the number {}",
                group.name, group.gid, own.gid
            )),
            (None, Some(own)) => conflicts.push(format!(
                "group {} ({}) is left out: in the image that number is {}'s",
                group.name, group.gid, own.name
            )),
            (None, None) => {
                gids.insert(group.gid);
                names.groups.push(group.name.clone());
                let members = members.into_iter().map(str::to_owned).collect();
                let group = Group {
                    members,
                    ..group.clone()
                };
                new_groups.push_str(&group.line());
            }
        }
    }

    let mut lacking: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let (mut passwd, mut shadow) = (String::new(), String::new());
    for user in added {
        let password = if image.shadow.is_some() { "x" } else { "*" };
        passwd.push_str(&user.line(password));
        names.users.push(user.name.clone());
        shadow.push_str(&format!(
            "{}:{}\n",
            user.name,
            user.shadow.as_deref().unwrap_or(NO_PASSWORD)
        ));
        if !user.shell.is_empty() && !has(&user.shell) {
            let what = format!("the image has no {}, the shell of", user.shell);
            lacking.entry(what).or_default().push(&user.name);
        }
        if !gids.contains(&user.gid) {
            let what = format!("nodes know no group {}, the one of", user.gid);
            lacking.entry(what).or_default().push(&user.name);
        }
    }
    conflicts.extend(
        lacking
            .into_iter()
            .map(|(what, names)| format!("{what} {}", shortened(&names))),
    );
    let (own_with_members, members) = with_members(&image.group, &joined);
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

/// The files without what an earlier [`merge`] added: the image's own, and what came to the node otherwise since.
pub fn without(files: &EtcFiles, added: &Added) -> EtcFiles {
    let rows = |text: &str, names: &[String]| -> String {
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        let kept = text
            .split_inclusive('\n')
            .filter(|line| !line.split_once(':').is_some_and(|(name, _)| names.contains(name)));
        kept.collect()
    };
    let mut guests: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (group, member) in &added.members {
        guests.entry(group).or_default().insert(member);
    }
    let groups = rows(&files.group, &added.groups);
    let groups = groups.split_inclusive('\n').map(|line| {
        let whole = line.trim_end_matches('\n');
        let gone = whole.split(':').next().and_then(|name| guests.get(name));
        let (Some(gone), Some((head, members))) = (gone, whole.rsplit_once(':')) else {
            return line.to_owned();
        };
        let members: Vec<&str> = members.split(',').filter(|member| !gone.contains(member)).collect();
        format!("{head}:{}{}", members.join(","), &line[whole.len()..])
    });
    EtcFiles {
        passwd: rows(&files.passwd, &added.users),
        group: groups.collect(),
        shadow: files.shadow.as_ref().map(|shadow| rows(shadow, &added.users)),
    }
}

/// The entries that can be read; what an image has beside them stays in its file, and is nobody's name.
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

/// The image's groups, with members added where the server has the same group; and who was added to which.
fn with_members(own: &str, joined: &HashMap<&str, Vec<&str>>) -> (String, Vec<(String, String)>) {
    let mut added = Vec::new();
    let lines = own.split_inclusive('\n').map(|line| {
        let whole = line.trim_end_matches('\n');
        let (Some(name), Some((head, members))) = (whole.split(':').next(), whole.rsplit_once(':')) else {
            return line.to_owned();
        };
        let Some(more) = joined.get(name) else {
            return line.to_owned();
        };
        let mut all: Vec<&str> = members.split(',').filter(|member| !member.is_empty()).collect();
        for member in more {
            if !all.contains(member) {
                all.push(member);
                added.push((name.to_owned(), (*member).to_owned()));
            }
        }
        format!("{head}:{}{}", all.join(","), &line[whole.len()..])
    });
    let text = lines.collect();
    (text, added)
}

fn shortened(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    match names.len() {
        0..=SHOWN => names.join(", "),
        count => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
    }
}

/// A shadow file to be shown: whatever could be a hash is hidden.
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
