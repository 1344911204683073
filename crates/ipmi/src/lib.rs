//! Power by IPMI 2.0 over LAN (RMCP+, "lanplus"), cipher suites 3 and 17.
//!
//! Pure: `packet` turns packets to bytes and back, `crypto` has keys and codes, [`commands`] the requests and their answers, and [`Session`] is a login and one
//! request at a time, as a state machine. [`Client`] next to them has the socket and the clock.
//!
//! The specification is "IPMI Specification, v2.0, rev. 1.1" with errata 7 of 2015.

pub mod commands;
mod crypto;
mod failure;
#[cfg(test)]
mod fake;
mod login;
mod packet;
mod session;
mod task;
mod window;

pub use crypto::Suite;
pub use failure::{Failure, Reason, Step};
pub use login::{Login, LoginError, Privilege};
pub use packet::PORT;
pub use session::{Ended, Next, Random, Session};
pub use task::Client;
