//! Users and groups that a node has beside its image's own: their lines, and how they come behind those of the image.
//!
//! The server does so for a boot, and the agent for a node that runs; that both have the same users afterwards is why it is here.

mod file;
mod merge;

pub use file::{Group, User, group, lines, shadow, user, valid_name};
pub use merge::{Added, EtcFiles, Index, Merged, hide_hashes, index, lacking, merge, without};

use serde::{Deserialize, Serialize};

/// `GET /v1/users/{id}`: the users that a node is to have beside its own, as lines of passwd(5), group(5) and shadow(5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUsers {
    /// Names all that follows; empty without any users at all.
    pub digest: String,
    /// Users.
    pub passwd: String,
    /// Groups.
    pub group: String,
    /// Hashes of passwords of those users who have one here.
    pub shadow: String,
}

/// Which of the server's users a node has: what an overlay brought, and later what its agent keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUsers {
    /// The one of [`NodeUsers`].
    pub digest: String,
    /// What stands in the node's files because of them.
    pub added: Added,
}

/// Said with a heartbeat: which users the node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsersReport {
    /// [`GivenUsers::digest`].
    pub digest: String,
    /// What changed, or why it could not, for people, at most 200 bytes; said once, and empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// True if `detail` is about a failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

impl NodeUsers {
    /// Those users and groups, without a digest.
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

    /// The users, each with what shadow says, and the groups. A line that is none is left out.
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
