//! A name server of the cluster's own zones (RFC 1034, 1035), and a forwarder of its machines' other questions.
//!
//! ```text
//! task      sockets: UDP and TCP on each server address
//! engine    packet -> answer, silence, or a question to pass on, and why; pure
//! answer    question, view -> records; pure
//! zones     which names are ours; pure
//! view      what one query is answered from: zones, nodes, serial number
//! relay     the question that is passed on, and what comes back; pure
//! upstream  sockets to the forwarders
//! ```
//!
//! It knows neither the site file nor the inventory: the program says which names and subnets are the site's ([`Zones::new`]), and answers
//! what is asked of its nodes ([`Nodes`]).
//!
//! Messages are hickory-proto's. hickory-server (0.26) starts a task for every datagram and every connection, without a bound, and
//! hickory-resolver takes answers apart and caches them, where passing them on as they are is all that is needed.

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
