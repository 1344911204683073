//! What the engines and the program share: each module is one small thing that knows no other part of rackstrap.

pub mod arch;
pub mod bootname;
pub mod clock;
#[cfg(feature = "tasks")]
pub mod connection_limit;
pub mod counters;
pub mod dhcp_option;
pub mod firmware;
pub mod holding;
pub mod inet;
pub mod level;
#[cfg(feature = "tasks")]
pub mod link;
pub mod panics;
pub mod pauses;
pub mod rare;
pub mod subnet;
pub mod sync;
#[cfg(feature = "tasks")]
pub mod threads;
pub mod warnings;
pub mod words;

// The agent has these too, and it does not depend on this package.
pub use rackstrap_wire::{backoff, text};

/// Directory of nightly backups below that of the store, unless the site file names another one.
pub const NIGHTLY_DIR: &str = "backups";
