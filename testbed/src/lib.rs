//! Virtual clusters for rackstrap's demo and tests.
//!
//! A [`Cluster`] is a network namespace with a bridge, a daemon on a site file of its own, and nodes that are QEMU machines with blank
//! disks. All processes that it starts die with the process that started it, and all files that it makes are removed with it. Leftovers
//! of a killed process are removed by the next one. Everything runs in software emulation: nothing here needs `/dev/kvm`.
//!
//! ```no_run
//! # fn main() -> testbed::Result {
//! let cluster = testbed::Cluster::start(testbed::Site::demo())?;
//! let node = cluster.node("r01n01").blank_disk(2 << 30)?;
//! node.power_on()?;
//! node.wait_ready()?;
//! println!("{}", node.shell("findmnt /")?);
//! # Ok(())
//! # }
//! ```

pub mod binaries;
pub mod disk;
pub mod foreign;
pub mod image;
pub mod kernels;
pub mod netns;
pub mod networks;
pub mod packages;
pub mod paths;
pub mod played;
pub mod process;
pub mod small;
pub mod ssh;
pub mod timeline;
pub mod unit;

mod cluster;
mod console;
mod daemon;
mod firmware;
mod hardware;
mod lacp;
mod monitor;
mod node;
mod plain_rom;
mod site;
mod sys;
mod vlan;

pub use binaries::Binaries;
pub use cluster::Cluster;
pub use console::{Console, Typed};
pub use daemon::Daemon;
pub use disk::Disk;
pub use firmware::Firmware;
pub use hardware::{BootOrder, Bus, Nic, UNREADABLE_SECTOR};
pub use netns::Namespace;
pub use node::Node;
pub use site::{Layout, Partition, Profile, Site, Subnet};
pub use timeline::Event;

/// The result type of this crate. Tests also return it, so that a failure prints its whole chain of causes.
pub type Result<T = ()> = anyhow::Result<T>;
