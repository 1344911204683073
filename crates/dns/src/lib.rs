//! A name server of the cluster's own zones (RFC 1034, 1035), and a forwarder of its machines' other questions.
//!
//! ```text
//! task      sockets: UDP and TCP on each server address
//! engine    packet -> answer, silence, or a question to forward, and why; pure
//! answer    question, view -> records; pure
//! zones     which names are ours; pure
//! view      the data of one query: zones, nodes, serial number
//! relay     the question that is forwarded, and its answer; pure
//! upstream  sockets to the forwarders
//! ```
//!
//! The package knows neither the site file nor the inventory. The program passes the site's names and subnets ([`Zones::new`]),
//! and looks up nodes for it ([`Nodes`]).
//!
//! Messages are hickory-proto's. hickory-server (0.26) starts a task for every datagram and every connection without a bound.
//! hickory-resolver parses and caches answers; here they are forwarded unchanged.

mod answer;
mod counters;
mod engine;
mod framing;
mod relay;
mod task;
#[cfg(test)]
mod tests;
mod upstream;
mod view;
mod zones;

pub use counters::Outcome;
pub use engine::{Reaction, Transport, respond};
pub use relay::Relay;
pub use task::{Limits, Server, serve};
pub use view::{Nodes, View, Views};
pub use zones::Zones;

use answer::{Found, find};
use counters::Counters;
#[cfg(test)]
use upstream::Patience;
