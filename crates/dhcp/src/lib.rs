//! DHCP (RFC 2131): addresses by hardware address, and what to load.
//!
//! [`Request::parse`] checks a datagram, [`Engine::handle`] decides, [`Dhcp`] owns the sockets. Nodes
//! and loaders come from the [`Authority`], pool leases go to the [`LeaseStore`] before they are promised.

mod authority;
mod belief;
mod crowd;
mod datagram;
mod engine;
mod guard;
mod infiniband;
mod lease;
mod leases;
mod options;
mod place;
mod pool;
mod proxy;
mod reply;
mod request;
mod rival;
mod socket;
mod task;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use authority::{
    Answer, AnswerKind, Ask, Authority, DhcpEvent, LeaseStore, Link, Loader, NetRoot, Network, NodeTerms,
};
pub use engine::{Engine, Ingress, Outcome, Write};
pub use guard::{Counters, Malformed};
pub use infiniband::{Guid, Port};
pub use pool::{Granted, Heard, Lease, LeaseState, Pool, Refused};
pub use proxy::Left;
pub use reply::{Destination, Reply};
pub use request::{Kind, Request};
pub use rival::server_of;
pub use rival::task::{ASK_EVERY, Rival, Watch, asker, watch};
pub use task::{Dhcp, LeaseKeeper, LeaseView};
