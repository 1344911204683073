//! The boots in memory, in their order, and which of them are forgotten.

use super::Boot;
use std::{collections::HashMap, sync::Arc};

/// Boots remembered per node, in addition to the one that its running system came up with and the last one whose files were
/// sent.
pub const KEPT_PER_NODE: usize = 3;

/// Boots by id, and the boots of each node in their order.
#[derive(Default)]
pub(super) struct State {
    pub by_id: HashMap<String, Arc<Boot>>,
    /// Boot ids by node, oldest first.
    pub by_node: HashMap<String, Vec<String>>,
    /// [`Boot::sequence`] of the newest boot of all nodes.
    pub sequence: u64,
}

impl State {
    pub fn insert(&mut self, boot: Arc<Boot>) {
        let ids = self.by_node.entry(boot.plan.node.clone()).or_default();
        // The commits of two boots of one node may finish in either order.
        let by_id = &self.by_id;
        let place = ids.partition_point(|id| by_id.get(id).is_some_and(|other| other.sequence <= boot.sequence));
        ids.insert(place, boot.plan.id.clone());
        self.by_id.insert(boot.plan.id.clone(), boot);
    }

    /// The boots of `node` from the one that its running system came up with (included) to the newest.
    pub fn live(&self, node: &str) -> impl Iterator<Item = &Arc<Boot>> {
        let ids = self.ids(node);
        let running = self.last(ids, |boot| boot.ready.is_some()).unwrap_or(0);
        ids[running..].iter().filter_map(|id| self.by_id.get(id))
    }

    /// Nodes that have a boot whose files were sent: the node may be in that boot.
    pub fn with_files(&self) -> impl Iterator<Item = &str> {
        let nodes = self
            .by_node
            .iter()
            .filter(|(_, ids)| self.last(ids, |boot| boot.redeemed).is_some());
        nodes.map(|(node, _)| node.as_str())
    }

    /// The last boot of `node` whose files were sent.
    pub fn last_with_files(&self, node: &str) -> Option<&Arc<Boot>> {
        let ids = self.ids(node);
        self.by_id.get(&ids[self.last(ids, |boot| boot.redeemed)?])
    }

    /// Whether no later boot of the same node has had its files sent.
    pub fn is_latest(&self, boot: &Boot) -> bool {
        let last = self.last_with_files(&boot.plan.node);
        last.is_none_or(|last| last.sequence <= boot.sequence)
    }

    /// Forgets old boots of `node`. Its running boot and the boot that its agent is in stay, however often a script of the
    /// node is fetched.
    pub fn forget_old(&mut self, node: &str) -> Vec<String> {
        let ids = self.ids(node);
        let held = [
            self.last(ids, |boot| boot.ready.is_some()),
            self.last(ids, |boot| boot.redeemed),
        ];
        let first_kept = ids.len().saturating_sub(KEPT_PER_NODE);
        let (kept, forgotten): (Vec<_>, Vec<_>) = ids
            .iter()
            .cloned()
            .enumerate()
            .partition(|(index, _)| *index >= first_kept || held.contains(&Some(*index)));
        self.by_node
            .insert(node.to_owned(), kept.into_iter().map(|(_, id)| id).collect());
        let forgotten: Vec<String> = forgotten.into_iter().map(|(_, id)| id).collect();
        for id in &forgotten {
            self.by_id.remove(id);
        }
        forgotten
    }

    fn ids(&self, node: &str) -> &[String] {
        self.by_node.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// Index of the newest of `ids` for which `is_so` holds.
    fn last(&self, ids: &[String], is_so: impl Fn(&Boot) -> bool) -> Option<usize> {
        ids.iter()
            .rposition(|id| self.by_id.get(id).is_some_and(|boot| is_so(boot)))
    }
}
