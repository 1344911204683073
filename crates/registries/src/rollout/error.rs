//! Why an order failed.

use rackstrap_store::StoreError;
use thiserror::Error;

/// Why an order was not carried out. Nothing was changed then.
#[derive(Debug, Error)]
pub enum RolloutError {
    /// The order makes no sense now; the text says why, and what to do.
    #[error("{0}")]
    Refused(String),
    /// The store failed.
    #[error("nothing was changed: {0}")]
    Store(#[from] StoreError),
}

/// Makes a refusal.
pub(super) fn refuse<T>(why: impl Into<String>) -> Result<T, RolloutError> {
    Err(RolloutError::Refused(why.into()))
}
