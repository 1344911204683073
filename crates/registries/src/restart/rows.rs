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

fn key(request: &Request, index: usize) -> Vec<u8> {
    format!("{}/{index}", request.id).into_bytes()
}

/// Writes all rows of a request.
pub(super) fn whole(batch: Batch, request: &Request) -> Batch {
    let batch = batch.put(Table::Restarts, request.id.as_bytes(), &head(request));
    let rows = request.nodes.iter().enumerate();
    rows.fold(batch, |batch, (index, node)| {
        batch.put(Table::Restarts, key(request, index), node)
    })
}

/// Deletes all rows of a request.
pub(super) fn forget(batch: Batch, request: &Request) -> Batch {
    let batch = batch.delete(Table::Restarts, request.id.as_bytes());
    (0..request.nodes.len()).fold(batch, |batch, index| batch.delete(Table::Restarts, key(request, index)))
}

/// Writes the differences between `before` and `after`. The batch fails if a row that it changes is not as in `before`.
pub(super) fn changes(before: &[Request], after: &[Request]) -> Batch {
    let of = |requests: &[Request], id: &str| requests.iter().position(|request| request.id == id);
    let gone = before.iter().filter(|request| of(after, &request.id).is_none());
    let batch = gone.fold(Batch::new(), |batch, request| {
        let batch = batch.expect(Table::Restarts, request.id.as_bytes(), &head(request));
        forget(batch, request)
    });
    after
        .iter()
        .fold(batch, |batch, request| match of(before, &request.id) {
            Some(place) if before[place] == *request => batch,
            Some(place) => differences(batch, &before[place], request),
            None => whole(batch.expect_absent(Table::Restarts, request.id.as_bytes()), request),
        })
}

/// The same for one request. Nodes are only ever added at the end.
fn differences(mut batch: Batch, before: &Request, after: &Request) -> Batch {
    let (old, new) = (head(before), head(after));
    if old != new {
        let id = after.id.as_bytes();
        batch = batch.expect(Table::Restarts, id, &old).put(Table::Restarts, id, &new);
    }
    for (index, node) in after.nodes.iter().enumerate() {
        let known = before.nodes.get(index);
        if known != Some(node) {
            batch = batch.expect_read(Table::Restarts, key(after, index), known).put(
                Table::Restarts,
                key(after, index),
                node,
            );
        }
    }
    batch
}
