//! What the command line and the daemon say to each other over the control socket: HTTP and JSON over a unix socket that only root may use.
//!
//! `api.rs` and the files below `api/` define requests and answers, and `answers/` makes answers of the program's types. `client.rs`
//! sends requests, and `watch.rs` reads watched answers. The daemon's side of the socket is `src/control/` of the program.

pub mod answers;
pub mod api;
pub mod author;
mod client;
mod watch;

pub use client::{Client, ClientError, DEFAULT_SOCKET, segment};
pub use watch::{HEARTBEAT, Watch};
