//! Why a change of the inventory is refused, in words that say what to do.

use super::check::{ATTRIBUTE_NAME, ATTRIBUTE_VALUE, GROUP_NAME};
use rackstrap_site::SettingProblem;
use rackstrap_wire::HwAddr;
use std::{fmt, net::Ipv4Addr};
use thiserror::Error;

/// Why a change of the inventory is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InventoryError {
    /// The name is not a node name.
    #[error("{0}")]
    Name(String),
    /// The name is taken.
    #[error(
        "node {name} already exists, with hwaddr {hwaddrs}; to see it: rackstrap node show {name}; to give it other \
         hardware: rackstrap node replace {name} --hwaddr MAC"
    )]
    Exists {
        /// The name.
        name: String,
        /// Its hardware addresses.
        hwaddrs: List,
    },
    /// The node has no hardware address.
    #[error(
        "node {0} has no hardware address, so it could not be recognised; add --hwaddr with the address that its \
         network card shows at boot, such as --hwaddr 52:54:00:01:01:01"
    )]
    NoHwaddr(String),
    /// The last hardware address would be removed.
    #[error(
        "node {0} would lose its last hardware address and could not be recognised; to give it another: rackstrap node replace {0} --hwaddr \
         MAC; if the machine is gone: rackstrap node delete {0}"
    )]
    LastHwaddr(String),
    /// A hardware address is named twice.
    #[error("node {name}: hwaddr {hwaddr} is named twice; name each once")]
    Repeated {
        /// The node.
        name: String,
        /// The hardware address.
        hwaddr: HwAddr,
    },
    /// No card can have this address.
    #[error("node {name}: hwaddr {hwaddr} is {what}, which no network card has; check the card's label")]
    NoCard {
        /// The node.
        name: String,
        /// The hardware address.
        hwaddr: HwAddr,
        /// The role of the address.
        what: &'static str,
    },
    /// Another node has the address.
    #[error(
        "node {name}: hwaddr {hwaddr} already belongs to {owner}; if the machine was moved: rackstrap node rename \
         {owner} {name}; if {owner} is gone: rackstrap node delete {owner}, then try again"
    )]
    Taken {
        /// The node.
        name: String,
        /// The hardware address.
        hwaddr: HwAddr,
        /// The node that has it.
        owner: String,
    },
    /// The address that follows from the name cannot be used.
    #[error("node {name}: its address would be {ipaddr}, {why}")]
    Address {
        /// The node.
        name: String,
        /// The address.
        ipaddr: Ipv4Addr,
        /// The problem and the remedy.
        why: String,
    },
    /// The profile does not exist.
    #[error("node {name}: profile '{profile}' does not exist{}", hint(near, known))]
    Profile {
        /// The node.
        name: String,
        /// The name in the change.
        profile: String,
        /// The profile that was probably meant.
        near: Option<String>,
        /// The profiles that exist.
        known: List,
    },
    /// The name of a group is invalid.
    #[error(
        "node {name}: '{group}' is not a group name; write letters, digits, -, _ and dots, a letter or digit first, at \
         most {GROUP_NAME} of them"
    )]
    Group {
        /// The node.
        name: String,
        /// The name in the change.
        group: String,
    },
    /// The name of an attribute is invalid.
    #[error(
        "node {name}: '{attribute}' is not an attribute name; write letters, digits and _, a letter first, at most \
         {ATTRIBUTE_NAME} of them"
    )]
    AttributeName {
        /// The node.
        name: String,
        /// The name in the change.
        attribute: String,
    },
    /// The value of an attribute is not one line of text.
    #[error("node {name}: the attribute '{attribute}' is not one line of at most {ATTRIBUTE_VALUE} bytes")]
    AttributeValue {
        /// The node.
        name: String,
        /// The name of the attribute.
        attribute: String,
    },
    /// A setting of the node is not one that a profile could have.
    #[error("node {name}: {problem}")]
    Setting {
        /// The node.
        name: String,
        /// The setting, the problem and the remedy.
        problem: Box<SettingProblem>,
    },
    /// The node has too many of something.
    #[error("node {name}: {count} {what}; a node has at most {most}")]
    TooMany {
        /// The node.
        name: String,
        /// How many it would have.
        count: usize,
        /// The kind of entries over the limit.
        what: &'static str,
        /// How many a node may have.
        most: usize,
    },
    /// The node is named twice in one change.
    #[error("node {0} is named twice; write all its changes in one place")]
    Twice(String),
    /// The node does not exist.
    #[error("node {name} is not in the inventory; {}", near.as_ref().map_or(
        "`rackstrap node list` shows all".to_owned(), |near| format!("did you mean {near}?")))]
    Unknown {
        /// The name in the change.
        name: String,
        /// The node that was probably meant.
        near: Option<String>,
    },
}

impl InventoryError {
    pub(super) fn setting(name: &str, problem: SettingProblem) -> Self {
        InventoryError::Setting {
            name: name.to_owned(),
            problem: Box::new(problem),
        }
    }
}

/// Several values, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List(Vec<String>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl<T: ToString> FromIterator<T> for List {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        List(items.into_iter().map(|item| item.to_string()).collect())
    }
}

fn hint(near: &Option<String>, known: &List) -> String {
    match near {
        Some(near) => format!("; did you mean '{near}'?"),
        None => format!("; the site file has: {known}"),
    }
}

/// All reasons against changes: the index of the change, from 0, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals(pub Vec<(usize, InventoryError)>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(|(_, error)| error.to_string()).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Refusals {}
