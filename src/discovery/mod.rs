//! From an unknown machine to a named node: the waiting room, and racks that are filled in order.
//!
//! ```text
//! machine   an unknown machine, and what it told of itself
//! session   a rack that is being filled: its next position, whose machines
//! floor     all of both, and who is to be placed next; pure
//! task      the one thread that hears of packets, places machines, and writes both down
//! ```

mod floor;
mod machine;
mod session;
mod task;
#[cfg(test)]
mod tests;

pub use floor::{Floor, Noted};
pub use machine::{Machine, Place, Seen, Told};
pub use session::{Placed, Session, Sessions, Wanted, Where};
pub use task::{Discovery, DiscoveryError, Filling, View, Waiting};
