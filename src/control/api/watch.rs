//! Answers that are watched.

use super::Failure;
use rackstrap_base::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// Content type of a watched answer. An older daemon answers with `application/json`, once.
pub const WATCH_TYPE: &str = "application/x-ndjson";

/// One line of a watched answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchLine<T> {
    /// The answer as it is now: the first line, and one for each change.
    Answer(T),
    /// Nothing has changed; the daemon is alive.
    Alive,
    /// There is no answer any more, and no further line: the node was deleted, for instance.
    Failed(Failure),
    /// The daemon stops, and there is no further line.
    Ending,
}

/// An answer that can be watched.
pub trait Watchable {
    /// When the answer was made, by the daemon's clock; none if it does not say. It alone is no change.
    fn now(&mut self) -> Option<&mut Timestamp>;
}
