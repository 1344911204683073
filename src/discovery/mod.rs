//! From an unknown machine to a named node: the waiting room, and racks that are filled in order.
//!
//! ```text
//! machine   an unknown machine, and what it told of itself
//! kin       which node a card belongs to that the inventory does not name; pure
//! places    where nodes are plugged in
//! session   a rack that is being filled: its next position, whose machines
//! floor     all of both, and who is to be placed next; pure
//! task      the one thread that hears of packets, places machines, and writes both down
//! view      what is shown of it, to the command line and on the machines' screens
//! ```

mod floor;
mod kin;
mod load;
mod machine;
mod places;
mod placing;
mod session;
mod task;
#[cfg(test)]
mod tests;
mod view;

#[cfg(test)]
use floor::Floor;
pub use floor::FullPool;
pub use kin::Owner;
pub use machine::{Machine, NoRoom, Place, Seen, Told};
pub use places::{Moved, Places};
#[cfg(test)]
pub use session::Sessions;
pub use session::{LONGEST_SESSION, Placed, Session, Wanted, Where};
pub use task::{Discovery, DiscoveryError};
pub use view::{Filling, Waiting};
