//! Why something was not done.

use rackstrap_store::StoreError;
use thiserror::Error;

/// Why an order was not carried out; nothing was changed.
#[derive(Debug, Error)]
pub enum RolloutError {
    /// It makes no sense now; says why, and what to do.
    #[error("{0}")]
    Refused(String),
    /// The store failed.
    #[error("nothing was changed: {0}")]
    Store(#[from] StoreError),
}

/// A refusal.
pub(super) fn refuse<T>(why: impl Into<String>) -> Result<T, RolloutError> {
    Err(RolloutError::Refused(why.into()))
}
