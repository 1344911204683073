//! A node, and the set of all nodes with the indexes for decisions about packets.

use rackstrap_site::{HIDDEN, NodeSettings, value::Value, variable};
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
    sync::Arc,
};

/// One node of the inventory, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Name by the site's pattern, `r01n03`.
    pub name: String,
    /// Hardware addresses; the first is the card that boots.
    pub hwaddrs: Vec<HwAddr>,
    /// Address; follows from the name, unless it is the node's own setting `ipaddr`.
    pub ipaddr: Ipv4Addr,
    /// Profiles of the site file; later ones win over earlier ones, and all of them over `default`.
    pub profiles: Vec<String>,
    /// Groups, sorted, for hostlists and exports.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// Attributes that administrators set, by name, for templates and boot scripts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Its own settings, which win over those of its profiles.
    #[serde(default, skip_serializing_if = "NodeSettings::is_empty")]
    pub settings: NodeSettings,
}

impl Node {
    /// Its secret variables, by their keys in `settings`.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &Value)> {
        let all = self.settings.written().iter();
        all.filter(|(key, _)| variable(key).is_some_and(|(_, secret)| secret))
            .map(|(key, value)| (key.as_str(), value))
    }

    /// The node without the values of its secret variables.
    #[must_use]
    pub fn hide_secrets(&self) -> Node {
        let mut node = self.clone();
        for (key, _) in self.secrets().filter(|(_, value)| value.as_str() != Some(CHANGED)) {
            // Cannot fail: the key is a variable's.
            let _ = node.settings.change(key, &Value::from(HIDDEN));
        }
        node
    }
}

/// Shown instead of the value of a secret variable that a change replaced.
pub(super) const CHANGED: &str = "(hidden, new)";

/// All nodes, immutable; a change makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    nodes: BTreeMap<String, Arc<Node>>,
    by_hwaddr: HashMap<HwAddr, Arc<Node>>,
    by_ipaddr: HashMap<Ipv4Addr, Arc<Node>>,
}

impl Inventory {
    /// Indexes `nodes`. The store ensures that they are unique; of duplicates the last one would win here.
    pub fn new(nodes: impl IntoIterator<Item = Node>) -> Self {
        let mut inventory = Inventory::default();
        for node in nodes {
            inventory.insert(Arc::new(node));
        }
        inventory
    }

    /// Adds a node, or replaces the one with its name.
    pub(super) fn insert(&mut self, node: Arc<Node>) {
        self.remove(&node.name);
        for hwaddr in &node.hwaddrs {
            self.by_hwaddr.insert(*hwaddr, node.clone());
        }
        self.by_ipaddr.insert(node.ipaddr, node.clone());
        self.nodes.insert(node.name.clone(), node);
    }

    /// Removes a node.
    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<Node>> {
        let node = self.nodes.remove(name)?;
        for hwaddr in &node.hwaddrs {
            self.by_hwaddr.remove(hwaddr);
        }
        self.by_ipaddr.remove(&node.ipaddr);
        Some(node)
    }

    /// The node with that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// The node that owns that hardware address.
    pub fn by_hwaddr(&self, hwaddr: HwAddr) -> Option<&Arc<Node>> {
        self.by_hwaddr.get(&hwaddr)
    }

    /// The node that has that address.
    pub fn by_ipaddr(&self, ipaddr: Ipv4Addr) -> Option<&Arc<Node>> {
        self.by_ipaddr.get(&ipaddr)
    }

    /// All nodes by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Node>> + Clone {
        self.nodes.values()
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}
