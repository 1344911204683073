//! Discovery: turns unknown machines into named nodes, and fills racks in order.
//!
//! ```text
//! machine   an unknown machine, with its reported properties
//! owners    which node a card belongs to that the inventory does not name; pure
//! places    where nodes are plugged in
//! session   a rack that is being filled: its next position, and which machines it takes
//! state     all machines and sessions, and which machine is placed next; pure
//! task      the one thread that records packets, places machines, and writes both to the store
//! view      views for the command line and the machines' screens
//! ```

mod load;
mod machine;
mod owners;
mod places;
mod placing;
mod session;
mod state;
mod task;
#[cfg(test)]
mod tests;
mod view;

pub use machine::{LoaderReport, Machine, NoRoom, Observation, Place};
pub use owners::Owner;
pub use places::{Moved, Places};
pub use session::{LONGEST_SESSION, Placed, Session, Sessions, Wanted, Where};
pub use state::FullPool;
#[cfg(test)]
use state::RackingState;
pub use task::{Discovery, DiscoveryError};
pub use view::{Filling, Waiting};
