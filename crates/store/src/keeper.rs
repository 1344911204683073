//! The one way to keep a promise: change a draft, commit its batch, publish.
//!
//! Whoever asks is answered from what was published, which is on disk. A batch that cannot be written publishes nothing. The disk is
//! waited for with one lock only, that of changes: no reader takes it, so no packet waits for a flush.

use super::{Batch, Store, StoreError};
use rackstrap_base::sync::lock;
use std::sync::Mutex;

/// Drafts of one change at most: another keeper of the same rows, or what is written behind, may be faster than the first ones.
const DRAFTS: u32 = 3;

/// Makes one change at a time. `S` is what only changes need; readers have what `publish` gives them.
pub struct Keeper<S = ()> {
    store: Store,
    changing: Mutex<S>,
}

impl<S> Keeper<S> {
    /// Keeps rows of `store`.
    pub fn new(store: Store, state: S) -> Self {
        Keeper {
            store,
            changing: Mutex::new(state),
        }
    }

    /// Makes a change: has `draft` say what is to be, and the batch for it; writes the batch; and then has `publish` show it to
    /// readers. Blocks for a disk flush, unless the batch is empty.
    ///
    /// `draft` is called again if what its batch expects was changed by somebody else meanwhile.
    ///
    /// # Errors
    /// Those of `draft`, and of the store. Nothing is published then.
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

    /// The same, where another keeper writes what is drafted together with rows of its own.
    ///
    /// # Errors
    /// Those of `draft` and `commit`. Nothing is published then.
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

    /// Does something while nothing changes. Waits for a change that is under way.
    pub fn while_unchanged<A>(&self, act: impl FnOnce(&S) -> A) -> A {
        act(&lock(&self.changing))
    }
}

#[cfg(test)]
mod tests;
