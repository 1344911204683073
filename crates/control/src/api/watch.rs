//! Watched answers.

use super::Failure;
use rackstrap_base::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// Content type of a watched answer. An older daemon answers once, with `application/json`.
pub const WATCH_TYPE: &str = "application/x-ndjson";

/// One line of a watched answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchLine<T> {
    /// The present answer: the first line, and one line for each change.
    Answer(T),
    /// Nothing has changed, and the daemon runs.
    Alive,
    /// There is no answer any more, for example because the node was deleted. This is the last line.
    Failed(Failure),
    /// The daemon stops. This is the last line.
    Ending,
}

/// An answer that can be watched.
pub trait Watchable {
    /// When the answer was made, by the daemon's clock; none if it has no time. A different time alone is not a change.
    fn now(&mut self) -> Option<&mut Timestamp>;
}
