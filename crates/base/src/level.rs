//! How severe something is that happened.

use serde::{Deserialize, Serialize};

/// Whether an event is normal or a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// A normal event.
    Ok,
    /// The node works, with less than was asked for (a degraded disk).
    Degraded,
    /// A failed attempt that is repeated.
    Retry,
    /// A failure that nothing repeats.
    Error,
}
