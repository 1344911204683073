//! The server's own users and groups, for nodes: the purpose of NIS, without its daemons.
//!
//! [`rackstrap_wire::users`] reads lines of passwd, group and shadow, and appends the server's entries to an image's own, as
//! agents do. `select` chooses the entries in the site's ranges. Both are pure. `source` reads the server's files.

mod select;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use rackstrap_wire::users::{EtcFiles, hide_hashes, lacking, merge};
pub use select::Accounts;
pub use source::Source;
pub(crate) use source::Stamps;
#[cfg(test)]
use {rackstrap_wire::users::Merged, select::select};
