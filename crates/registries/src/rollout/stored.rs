//! The assigned versions in the store, for the start of the daemon and for commands that run without a daemon.

use super::{
    RolloutError,
    ledger::{Ledger, changes},
};
use rackstrap_model::decide::{Assignments, Renaming};
use rackstrap_store::{Store, StoreError, Table};

/// The assignments of the store, for a command that runs without a daemon.
///
/// # Errors
/// An error of the store.
pub fn stored(store: &Store) -> Result<Assignments, StoreError> {
    Ok(load(store)?.assignments())
}

/// Renames an image in the store, for a command that runs without a daemon.
///
/// # Errors
/// An error of the store, or an unfinished rollout of the image.
pub fn rename_stored(store: &Store, renaming: &Renaming) -> Result<(), RolloutError> {
    let before = load(store)?;
    let mut after = before.clone();
    after.rename(renaming).map_err(RolloutError::Refused)?;
    Ok(store.commit_blocking(changes(&before, &after))?)
}

/// All rows of the store.
///
/// # Errors
/// An error of the store.
pub(super) fn load(store: &Store) -> Result<Ledger, StoreError> {
    let current = store.scan(Table::Current, b"")?;
    let rollouts = store.scan(Table::Rollouts, b"")?;
    Ok(Ledger::load(
        current.into_iter().map(|(_, row)| row).collect(),
        rollouts.into_iter().map(|(_, row)| row).collect(),
        store.scan(Table::RolloutNodes, b"")?,
        store.scan(Table::Trials, b"")?,
    ))
}
