//! What of a request stands in which row of the store: its nodes have one each, as they change one by one.

use super::request::Request;
use rackstrap_store::{Batch, Table};

/// The row of a request, without its nodes.
fn head(batch: Batch, request: &Request) -> Batch {
    let head = Request {
        nodes: Vec::new(),
        ..request.clone()
    };
    batch.put(Table::Restarts, request.id.as_bytes(), &head)
}

/// The row of a node of a request.
pub(super) fn row(batch: Batch, request: &Request, index: usize) -> Batch {
    batch.put(Table::Restarts, key(request, index), &request.nodes[index])
}

fn key(request: &Request, index: usize) -> Vec<u8> {
    format!("{}/{index}", request.id).into_bytes()
}

/// All rows of a request.
pub(super) fn whole(request: &Request) -> Batch {
    (0..request.nodes.len()).fold(head(Batch::new(), request), |batch, index| row(batch, request, index))
}

/// What is to be written to make `before` `after` on disk.
pub(super) fn differences(before: &Request, after: &Request) -> Batch {
    let mut batch = Batch::new();
    if before.stopped != after.stopped {
        batch = head(batch, after);
    }
    let pairs = before.nodes.iter().zip(&after.nodes).enumerate();
    pairs
        .filter(|(_, (before, after))| before != after)
        .fold(batch, |batch, (index, _)| row(batch, after, index))
}

/// Takes a request out of the store.
pub(super) fn forget(batch: Batch, request: &Request) -> Batch {
    let batch = batch.delete(Table::Restarts, request.id.as_bytes());
    (0..request.nodes.len()).fold(batch, |batch, index| batch.delete(Table::Restarts, key(request, index)))
}
