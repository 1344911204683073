//! `rackstrap rollout`, and what `rackstrap image` asks the daemon for: which version for whom.

mod current;

pub use current::{Order, obey};
