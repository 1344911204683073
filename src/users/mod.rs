//! The server's own users and groups, as far as nodes are to know them: what NIS did, without its daemons.
//!
//! [`rackstrap_wire::users`] reads lines of passwd, group and shadow and puts the server's behind an image's own, as agents do that
//! too; `select` takes those in the site's ranges; both are pure. `source` reads the server's files.

mod select;
mod source;
#[cfg(test)]
mod tests;

pub use rackstrap_wire::users::{EtcFiles, hide_hashes, lacking, merge};
pub use select::Accounts;
pub use source::{Source, Stamps};
#[cfg(test)]
use {rackstrap_wire::users::Merged, select::select};
