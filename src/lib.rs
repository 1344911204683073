//! rackstrap boots clusters of diskless machines. docs/contributing/architecture.md tells the path of a boot through
//! these modules.

mod author;
pub mod boots;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod decide;
pub mod dhcp;
pub mod discovery;
mod disk_loader;
#[cfg(feature = "dns")]
pub mod dns;
pub mod firmware;
pub mod hooks;
pub mod http;
pub mod image;
mod inet;
pub mod inventory;
mod link;
pub mod loaders;
pub mod ndp;
pub mod nfs;
pub mod overlay;
mod panics;
pub mod preflight;
mod rare;
pub mod restart;
pub mod rollout;
mod seats;
pub mod serve;
pub mod store;
pub mod tftp;
pub mod timeline;
pub mod users;
pub mod warnings;
mod words;
