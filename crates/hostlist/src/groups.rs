//! Where the names behind `@` and `*` come from.

use std::collections::BTreeMap;

/// What a hostlist may refer to; the inventory, mostly.
pub trait Groups {
    /// The names of all nodes: `*` and `@*`.
    fn all(&self) -> Vec<String>;

    /// The members of the group `name`, which is written without its `@` and with its source if it has one
    /// (`profile:compute`); none if the group does not exist.
    fn members(&self, name: &str) -> Option<Members>;

    /// The names of all groups, for what is said about one that does not exist.
    fn names(&self) -> Vec<String>;
}

/// The members of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// Names of nodes, taken as they are.
    Names(Vec<String>),
    /// A hostlist, which may name other groups.
    Hostlist(String),
}

/// For hostlists that stand alone: there is no `*`, and there are no groups.
#[derive(Clone, Copy, Debug)]
pub struct NoGroups;

impl Groups for NoGroups {
    fn all(&self) -> Vec<String> {
        Vec::new()
    }

    fn members(&self, _: &str) -> Option<Members> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Groups that are looked up in memory.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    all: Vec<String>,
    members: BTreeMap<String, Vec<String>>,
    defined: BTreeMap<String, String>,
}

impl Membership {
    /// All names, and the members of each group.
    pub fn new(all: Vec<String>, members: BTreeMap<String, Vec<String>>) -> Membership {
        Membership {
            all,
            members,
            ..Membership::default()
        }
    }

    /// Adds a node, a member of `groups` (`gpu`, `profile:compute`).
    pub fn node<S: Into<String>>(&mut self, name: &str, groups: impl IntoIterator<Item = S>) {
        self.all.push(name.to_owned());
        for group in groups {
            self.members.entry(group.into()).or_default().push(name.to_owned());
        }
    }

    /// Adds a group that a hostlist defines, in place of what its name means otherwise.
    pub fn define(&mut self, group: &str, hostlist: &str) {
        self.defined.insert(group.to_owned(), hostlist.to_owned());
    }
}

impl Groups for Membership {
    fn all(&self) -> Vec<String> {
        self.all.clone()
    }

    fn members(&self, name: &str) -> Option<Members> {
        let defined = self.defined.get(name).cloned().map(Members::Hostlist);
        defined.or_else(|| self.members.get(name).cloned().map(Members::Names))
    }

    fn names(&self) -> Vec<String> {
        self.members.keys().chain(self.defined.keys()).cloned().collect()
    }
}
