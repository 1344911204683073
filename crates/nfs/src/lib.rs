//! An NFS version 3 server with its MOUNT protocol, on one TCP port: RFC 1813 on RFC 5531. FreeBSD's loader needs both by UDP, and a
//! port mapper: RFC 1833.
//!
//! ```text
//! task     sockets: one task a connection, replies in batches, disks on other threads
//! datagram the same by UDP, with limits for senders that may be forged
//! portmap  which port NFS and MOUNT have
//! record   bytes -> records (record marking)
//! rpc      record -> call; reply headers
//! engine   call -> program, procedure -> reply
//! mount, procs/*   the procedures
//! context  what they may use: handle -> export, if it is the peer's -> file
//! handle, attr, access, status, xdr   what they are made of; pure
//! export, index, sys   files beneath an export's root
//! exports  what the daemon implements: who may mount what
//! ```
//!
//! Exports are read-only so far: calls that would change something get NFS3ERR_ROFS.

mod access;
mod acl;
mod attr;
mod buf;
mod context;
mod counters;
mod datagram;
mod engine;
mod export;
mod exports;
mod handle;
mod index;
mod mount;
mod mounts;
pub mod portmap;
mod procs;
mod record;
mod rpc;
mod status;
mod sys;
mod task;
mod xdr;

pub use buf::Buf;
pub use context::Peer;
pub use counters::Counters;
pub use datagram::serve_datagrams;
pub use engine::{Engine, Outcome};
pub use export::{ExportError, ExportRoot, Pace};
pub use exports::{Exports, NfsEvent, Refusal};
pub use handle::{ExportId, HandleKey, Source};
pub use record::Assembler;
pub use task::{Config, serve};
