//! An NFS version 3 server with its MOUNT protocol, on one TCP port: RFC 1813 on RFC 5531.
//!
//! ```text
//! task     sockets: one task a connection, replies in batches, disks on other threads
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
//! Exports are read-only so far: what would change something answers NFS3ERR_ROFS.

pub mod access;
pub mod acl;
pub mod attr;
pub mod buf;
pub mod context;
pub mod counters;
pub mod engine;
pub mod export;
pub mod exports;
pub mod handle;
mod index;
mod mount;
mod mounts;
mod procs;
pub mod record;
pub mod rpc;
pub mod status;
mod sys;
pub mod task;
pub mod xdr;

pub use counters::Counters;
pub use export::{ExportError, ExportRoot};
pub use exports::{Exports, NfsEvent, Refusal};
pub use handle::ExportId;
pub use task::{Config, serve};
