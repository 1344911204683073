//! The server's own users and groups, as far as nodes are to know them: what NIS did, without its daemons.
//!
//! `file` reads lines of passwd, group and shadow, `select` takes those in the site's ranges, `merge` puts them behind
//! an image's own; all three are pure. `source` reads the server's files.

mod file;
mod merge;
mod select;
mod source;
#[cfg(test)]
mod tests;

pub use file::{Group, User, valid_name};
pub use merge::{ImageFiles, Merged, hide_hashes, merge};
pub use select::{Accounts, Refused, select};
pub use source::Source;
