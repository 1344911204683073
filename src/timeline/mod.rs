//! What happened to each machine, from its first DISCOVER to `ready`.

mod event;

pub use event::{Event, Level, State, Subject};
