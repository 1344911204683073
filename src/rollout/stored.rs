//! What the store says of versions, while no daemon runs.

use super::{RolloutError, ledger::Ledger};
use rackstrap_model::decide::{Assignments, Renaming};
use rackstrap_store::{Store, StoreError, Table};

/// What the store says of versions, for whoever looks into it while no daemon runs.
///
/// # Errors
/// The store's.
pub fn stored(store: &Store) -> Result<Assignments, StoreError> {
    Ok(load(store)?.assignments())
}

/// Has the store know an image by another name, while no daemon runs.
///
/// # Errors
/// The store's, and a rollout of it that is on.
pub fn rename_stored(store: &Store, renaming: &Renaming) -> Result<(), RolloutError> {
    let mut ledger = load(store)?;
    ledger.rename(renaming).map_err(RolloutError::Refused)?;
    Ok(store.commit_blocking(ledger.unwritten())?)
}

fn load(store: &Store) -> Result<Ledger, StoreError> {
    let current = store.scan(Table::Current, b"")?;
    let rollouts = store.scan(Table::Rollouts, b"")?;
    Ok(Ledger::load(
        current.into_iter().map(|(_, row)| row).collect(),
        rollouts.into_iter().map(|(_, row)| row).collect(),
        store.scan(Table::RolloutNodes, b"")?,
        store.scan(Table::Trials, b"")?,
    ))
}
