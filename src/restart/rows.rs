//! The rows of a request in the store. Each of its nodes has its own row, because nodes change one by one.

use rackstrap_lifecycle::restart::Request;
use rackstrap_store::{Batch, Table};

/// A request without its nodes.
fn head(request: &Request) -> Request {
    Request {
        nodes: Vec::new(),
        ..request.clone()
    }
}

/// Writes the row of a node of a request.
pub(super) fn row(batch: Batch, request: &Request, index: usize) -> Batch {
    batch.put(Table::Restarts, key(request, index), &request.nodes[index])
}

fn key(request: &Request, index: usize) -> Vec<u8> {
    format!("{}/{index}", request.id).into_bytes()
}

/// Writes all rows of a request.
pub(super) fn whole(batch: Batch, request: &Request) -> Batch {
    let batch = batch.put(Table::Restarts, request.id.as_bytes(), &head(request));
    (0..request.nodes.len()).fold(batch, |batch, index| row(batch, request, index))
}

/// Writes the differences between `before` and `after`. Nodes are only ever added at the end.
pub(super) fn differences(mut batch: Batch, before: &Request, after: &Request) -> Batch {
    if head(before) != head(after) {
        batch = batch.put(Table::Restarts, after.id.as_bytes(), &head(after));
    }
    let changed = (0..after.nodes.len()).filter(|index| before.nodes.get(*index) != after.nodes.get(*index));
    changed.fold(batch, |batch, index| row(batch, after, index))
}

/// Deletes all rows of a request.
pub(super) fn forget(batch: Batch, request: &Request) -> Batch {
    let batch = batch.delete(Table::Restarts, request.id.as_bytes());
    (0..request.nodes.len()).fold(batch, |batch, index| batch.delete(Table::Restarts, key(request, index)))
}
