//! Which of the server's users and groups nodes get.

use rackstrap_site::Users;
use rackstrap_wire::users::{self as file, Group, NodeUsers, User};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// At most this many refused lines are kept; the rest is counted.
const MOST_REFUSED: usize = 100;
/// At most this many users, and this many groups: the files of a node stay well below the limit of an agent (16 MiB).
const MOST: usize = 20_000;

/// Users and groups in the site's ranges, in the order of their files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// The selected users, in the order of the source.
    pub users: Vec<User>,
    /// The selected groups, in the order of the source.
    pub groups: Vec<Group>,
    /// Lines that could not be used.
    pub refused: Vec<Refused>,
    /// How many further lines could not be used.
    pub omitted: usize,
}

/// A line that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// `passwd`, `group` or `shadow`.
    pub file: String,
    /// Number of the line, from 1.
    pub line: usize,
    /// The reason. It does not repeat the line, which may contain a hash.
    pub why: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: left out: {}", self.file, self.line, self.why)
    }
}

impl Accounts {
    /// The entries in the form that agents read. The digest is keyed with `key`, so that it cannot be used to try passwords.
    /// It is empty if there are no entries, so that a site without users equals one whose users were not read yet.
    pub(crate) fn for_nodes(&self, key: &[u8; 32]) -> NodeUsers {
        let mut all = NodeUsers::of(&self.users, &self.groups);
        if !(all.passwd.is_empty() && all.group.is_empty()) {
            let mut hasher = blake3::Hasher::new_keyed(key);
            for text in [&all.passwd, &all.group, &all.shadow] {
                hasher
                    .update(&(text.len() as u64).to_le_bytes())
                    .update(text.as_bytes());
            }
            all.digest = hasher.finalize().to_hex()[..32].to_owned();
        }
        all
    }

    fn refuse(&mut self, file: &str, line: usize, why: String) {
        if self.refused.len() == MOST_REFUSED {
            self.omitted += 1;
            return;
        }
        self.refused.push(Refused {
            file: file.to_owned(),
            line,
            why,
        });
    }
}

/// The users and groups of the files that `policy` selects. An error in a line affects that line only.
pub fn select(policy: &Users, passwd: &[u8], group: &[u8], shadow: &[u8]) -> Accounts {
    let mut found = Accounts::default();
    let excluded = |name: &str| policy.exclude.iter().any(|one| one == name);
    let mut names = BTreeSet::new();
    for (line, text) in file::lines(passwd) {
        match text.and_then(file::user) {
            Ok(user) if !policy.uid.contains(&user.uid) || excluded(&user.name) => {}
            // As in getent, the first one counts.
            Ok(user) if names.contains(&user.name) => {
                found.refuse("passwd", line, format!("{} is already defined above", user.name));
            }
            Ok(_) if found.users.len() == MOST => found.refuse("passwd", line, format!("{MOST} users are the limit")),
            Ok(user) => {
                names.insert(user.name.clone());
                found.users.push(user);
            }
            Err(why) => found.refuse("passwd", line, why),
        }
    }
    names.clear();
    for (line, text) in file::lines(group) {
        match text.and_then(file::group) {
            Ok(group) if !policy.gid.contains(&group.gid) || excluded(&group.name) => {}
            Ok(group) if names.contains(&group.name) => {
                found.refuse("group", line, format!("{} is already defined above", group.name));
            }
            Ok(_) if found.groups.len() == MOST => found.refuse("group", line, format!("{MOST} groups are the limit")),
            Ok(group) => {
                names.insert(group.name.clone());
                found.groups.push(group);
            }
            Err(why) => found.refuse("group", line, why),
        }
    }
    if policy.shadow {
        let mut secrets: HashMap<String, String> = HashMap::new();
        for (line, text) in file::lines(shadow) {
            match text.and_then(file::shadow) {
                Ok((name, rest)) => drop(secrets.entry(name).or_insert(rest)),
                Err(why) => found.refuse("shadow", line, why),
            }
        }
        for user in &mut found.users {
            user.shadow = secrets.remove(&user.name);
        }
    }
    found
}
