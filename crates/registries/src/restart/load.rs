//! Reads requests from disk, including those of older releases.

use super::rows::{forget, whole};
use crate::boots::Boots;
use rackstrap_lifecycle::restart::{Member, Request};
use rackstrap_store::{Batch, Store, StoreError, Table};
use std::collections::BTreeMap;

/// All requests, the oldest first.
pub(super) fn load(store: &Store, boots: &Boots) -> Result<Vec<Request>, StoreError> {
    let mut requests: BTreeMap<String, Request> = BTreeMap::new();
    let mut members: Vec<(String, u64, Member)> = Vec::new();
    for (key, value) in store.scan::<serde_json::Value>(Table::Restarts, b"")? {
        let broken = |error: String| StoreError::Value {
            table: Table::Restarts.name(),
            key: String::from_utf8_lossy(&key).into_owned(),
            error,
        };
        let text = std::str::from_utf8(&key).map_err(|e| broken(e.to_string()))?;
        match text.split_once('/') {
            None => {
                let request: Request = serde_json::from_value(value).map_err(|e| broken(e.to_string()))?;
                requests.insert(text.to_owned(), request);
            }
            Some((id, number)) => {
                let member = serde_json::from_value(value).map_err(|e| broken(e.to_string()))?;
                let number = number.parse().map_err(|_| broken("not a number".to_owned()))?;
                members.push((id.to_owned(), number, member));
            }
        }
    }
    members.sort_by_key(|(_, number, _)| *number);
    for (id, _, member) in members {
        if let Some(request) = requests.get_mut(&id) {
            request.nodes.push(member);
        }
    }
    let mut requests: Vec<Request> = requests.into_values().collect();
    requests.sort_by_key(|request| request.wanted);
    let batch = merge(&mut requests, boots);
    if !batch.is_empty() {
        store.commit_blocking(batch)?;
    }
    Ok(requests)
}

/// Older releases made one request for each node of a rollout. Open ones are merged into one for each image; the planner
/// finds the rollout that it belongs to.
fn merge(requests: &mut Vec<Request>, boots: &Boots) -> Batch {
    let (mut merged, mut batch): (Vec<Request>, Batch) = (Vec::new(), Batch::new());
    requests.retain_mut(|request| {
        if !request.is_of_rollout() || request.number != 0 || request.is_over() {
            return true;
        }
        batch = forget(std::mem::take(&mut batch), request);
        let after: Vec<Option<u64>> = (request.nodes.iter())
            .map(|node| request.after.or_else(|| newest_before(boots, &node.name, request)))
            .collect();
        for (node, after) in request.nodes.iter_mut().zip(after) {
            node.after = node.after.or(after);
        }
        match merged.iter_mut().find(|other| other.rollout == request.rollout) {
            Some(other) => {
                other.after = other.after.max(request.after);
                other.within_secs = other.within_secs.max(request.within_secs);
                other.nodes.append(&mut request.nodes);
            }
            // An older release stopped a rollout's request when any node was late. Now the rollout knows whether it has
            // stopped.
            None => merged.push(Request {
                stopped: String::new(),
                ..request.clone()
            }),
        }
        false
    });
    for request in &merged {
        batch = whole(batch, request);
    }
    requests.extend(merged);
    batch
}

/// The number of the last boot of a node before a request whose release compared times.
fn newest_before(boots: &Boots, node: &str, request: &Request) -> Option<u64> {
    let boots = boots.of_node(node).into_iter();
    let before = boots.filter(|boot| boot.opened <= request.wanted);
    Some(before.map(|boot| boot.sequence).max().unwrap_or(0))
}
