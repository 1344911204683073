//! rackstrap boots clusters of diskless machines. ARCHITECTURE.md tells the path of a boot through
//! these modules, which are listed here in that order.

mod author;
pub mod boots;
pub mod cli;
pub mod config;
pub mod control;
pub mod decide;
pub mod discovery;
mod disk_loader;
#[cfg(feature = "dns")]
pub mod dns;
pub mod hooks;
pub mod http;
pub mod inventory;
pub mod loaders;
pub mod overlay;
pub mod preflight;
pub mod restart;
pub mod rollout;
pub mod serve;
pub mod timeline;
pub mod users;
