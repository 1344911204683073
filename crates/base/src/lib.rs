//! What the engines and the program share: each module is one small thing that knows no other part of rackstrap.

pub mod arch;
pub mod clock;
pub mod connection_limit;
pub mod counters;
pub mod firmware;
pub mod inet;
pub mod level;
pub mod link;
pub mod panics;
pub mod rare;
pub mod subnet;
pub mod sync;
pub mod threads;
pub mod warnings;
pub mod words;

// The agent has these too, and it does not depend on this package.
pub use rackstrap_wire::{backoff, text};
