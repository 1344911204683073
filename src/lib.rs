//! rackstrap boots clusters of diskless machines. docs/contributing/architecture.md tells the path of a boot through
//! these modules.

mod author;
mod boots;
mod cli;
mod control;
mod discovery;
mod disk_loader;
mod hooks;
mod http;
mod loaders;
mod nodes;
mod observed;
mod overlay;
mod preflight;
mod restart;
mod rollout;
mod serve;
#[cfg(test)]
mod testkit;
mod timeline;
mod users;

pub use cli::{completion, error_line, run};

/// The items that tests, examples and fuzz targets of this package use. Nothing else is public, so
/// the compiler reports unused items.
pub mod parts {
    /// The records of nodes' boots.
    pub mod boots {
        pub use crate::boots::{Boot, Boots, KEPT_PER_NODE};
    }
    /// The command line.
    pub mod cli {
        pub use crate::cli::Cli;
    }
    /// The protocol between the command line and the daemon.
    pub mod control {
        pub use crate::control::{Client, bind, serve};
        /// Paths and bodies of requests and responses.
        pub mod api {
            pub use crate::control::api::{Changes, ChangesAnswer, Reloaded, paths};
        }
    }
    /// Unknown machines.
    pub mod discovery {
        pub use crate::discovery::{Discovery, LoaderReport, Observation, Place};
    }
    /// The HTTP server for nodes.
    pub mod http {
        pub use crate::http::{Limits, Service, task::serve};
    }
    /// The registry of nodes.
    pub mod nodes {
        pub use crate::nodes::{Nodes, load};
    }
    /// The types of a rollout.
    pub mod rollout {
        pub use crate::rollout::{Member, Rollout, Share, Stage, State};
        pub use rackstrap_lifecycle::rollout::{Remark, Tally};
    }
    /// A daemon before it binds a port.
    pub mod serve {
        pub use crate::serve::{Registries, Shared, open};
    }
    /// The timeline: the record of all events.
    pub mod timeline {
        pub use crate::timeline::{DhcpMessage, Event, EventKind, Level, Recorder, Subject};
    }
}
