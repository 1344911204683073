//! The only way to change rows durably: change a draft, commit its batch, publish.
//!
//! Readers get the published data, which is on disk. A batch that cannot be written publishes nothing. Only the lock for changes is held
//! while the disk is written. Readers do not take it, so no packet waits for a flush.

use super::{Batch, Store, StoreError};
use rackstrap_base::sync::lock;
use std::sync::Mutex;

/// Most drafts of one change: another keeper of the same rows, or a queued write, may be faster than the first ones.
const DRAFTS: u32 = 3;

/// Makes one change at a time. `S` is the state that only changes need; `publish` updates the state of readers.
pub struct Keeper<S = ()> {
    store: Store,
    changing: Mutex<S>,
}

impl<S> Keeper<S> {
    /// A keeper of rows in `store`.
    pub fn new(store: Store, state: S) -> Self {
        Keeper {
            store,
            changing: Mutex::new(state),
        }
    }

    /// Makes a change: `draft` returns the new state and its batch, the batch is written, and then `publish` shows the new state to
    /// readers. Blocks for a disk flush, unless the batch is empty.
    ///
    /// `draft` is called again if the rows that its batch expects were changed meanwhile.
    ///
    /// # Errors
    /// Errors of `draft` and of the store. Nothing is published then.
    pub fn change<D, A, E: From<StoreError>>(
        &self,
        mut draft: impl FnMut(&S) -> Result<(D, Batch), E>,
        publish: impl FnOnce(&mut S, D) -> A,
    ) -> Result<A, E> {
        let mut state = lock(&self.changing);
        let mut drafts = 1;
        loop {
            let (drafted, batch) = draft(&state)?;
            let written = match batch.is_empty() {
                true => Ok(()),
                false => self.store.commit_blocking(batch),
            };
            match written {
                Ok(()) => return Ok(publish(&mut state, drafted)),
                Err(StoreError::Conflict { .. }) if drafts < DRAFTS => drafts += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Like [`Keeper::change`], but another keeper writes the draft together with rows of its own.
    ///
    /// # Errors
    /// Errors of `draft` and `commit`. Nothing is published then.
    pub fn change_by<D, A, E>(
        &self,
        draft: impl FnOnce(&S) -> Result<(D, Batch), E>,
        commit: impl FnOnce(&D, Batch) -> Result<(), E>,
        publish: impl FnOnce(&mut S, D) -> A,
    ) -> Result<A, E> {
        let mut state = lock(&self.changing);
        let (drafted, batch) = draft(&state)?;
        commit(&drafted, batch)?;
        Ok(publish(&mut state, drafted))
    }

    /// Calls `act` while nothing changes. Waits for a change in progress.
    pub fn while_unchanged<A>(&self, act: impl FnOnce(&S) -> A) -> A {
        act(&lock(&self.changing))
    }
}

#[cfg(test)]
mod tests;
