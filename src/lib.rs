//! rackstrap boots clusters of diskless machines. docs/contributing/architecture.md tells the path of a boot through
//! these modules.

mod cli;
mod control;
mod freebsd;
mod http;
mod netconsole;
mod pinning;
mod power;
mod preflight;
mod serve;
#[cfg(test)]
mod testkit;

pub use cli::run;
pub use rackstrap_cli::{completion, error_line};

/// The items that tests and examples of this package use. Nothing else is public, so the compiler reports unused items.
pub mod parts {
    /// The command line.
    pub mod cli {
        pub use rackstrap_cli::Cli;
    }
    /// The protocol between the command line and the daemon.
    pub mod control {
        pub use crate::control::{bind, serve};
        pub use rackstrap_control::Client;
        /// Paths and bodies of requests and responses.
        pub mod api {
            pub use rackstrap_control::api::{Changes, ChangesAnswer, Reloaded, paths};
        }
    }
    /// The HTTP server for nodes.
    pub mod http {
        pub use crate::http::{Limits, Service, task::serve};
    }
    /// The messages of nodes' kernels.
    pub mod netconsole {
        pub use crate::netconsole::lines::{Heard, Kernels};
    }
    /// A daemon before it binds a port.
    pub mod serve {
        pub use crate::serve::{Shared, open};
    }
}
