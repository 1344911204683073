//! Users and groups of the server on a node: their lines, and how they are added to those of the image.
//!
//! The server adds them for a boot, and the agent for a running node. The code is here so that both give the same result.

mod file;
mod merge;

pub use file::{Group, User, group, lines, shadow, user, valid_name};
pub use merge::{Added, EtcFiles, Index, Merged, hide_hashes, index, lacking, merge, without};

use serde::{Deserialize, Serialize};

/// `GET /v1/users/{id}`: the users that the node should have besides its own, as lines of passwd(5), group(5) and shadow(5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUsers {
    /// Digest of the other fields; empty without any users.
    pub digest: String,
    /// Lines of the users, in the form of passwd(5).
    pub passwd: String,
    /// Lines of the groups, in the form of group(5).
    pub group: String,
    /// Password hashes of the users who have one here.
    pub shadow: String,
}

/// The server's users that a node has: from an overlay, and later from its agent's record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUsers {
    /// [`NodeUsers::digest`].
    pub digest: String,
    /// The entries in the node's files that were added for them.
    pub added: Added,
}

/// Part of a heartbeat: the users that the node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsersReport {
    /// [`GivenUsers::digest`].
    pub digest: String,
    /// The change, or the failure, for people, at most 200 bytes; sent once, and empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Whether `detail` is about a failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

impl NodeUsers {
    /// The lines of these users and groups, without a digest.
    pub fn of(users: &[User], groups: &[Group]) -> Self {
        let mut all = NodeUsers::default();
        for user in users {
            all.passwd.push_str(&user.line("x"));
            if let Some(rest) = &user.shadow {
                all.shadow.push_str(&format!("{}:{rest}\n", user.name));
            }
        }
        for group in groups {
            all.group.push_str(&group.line());
        }
        all
    }

    /// The users, each with its shadow entry, and the groups. Lines that cannot be read are skipped.
    pub fn read(&self) -> (Vec<User>, Vec<Group>) {
        let mut users: Vec<User> = merge::entries(&self.passwd, user).collect();
        let groups = merge::entries(&self.group, group).collect();
        let secrets: Vec<(String, String)> = merge::entries(&self.shadow, shadow).collect();
        let places = index(secrets.iter().map(|(name, _)| name.as_str()));
        for user in &mut users {
            user.shadow = places.get(user.name.as_str()).map(|place| secrets[*place].1.clone());
        }
        (users, groups)
    }
}
