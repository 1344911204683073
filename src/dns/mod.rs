//! A name server of the cluster's own zones (RFC 1034, 1035), and a forwarder of its machines' other questions.
//!
//! ```text
//! task      sockets: UDP and TCP on each server address
//! engine    packet -> answer, silence, or a question to forward, and why; pure
//! answer    question, view -> records; pure
//! zones     which names are ours; pure
//! view      the world as of one query: zones, inventory, serial number
//! relay     the question that is forwarded, and its answer; pure
//! upstream  sockets to the forwarders
//! ```
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

pub use answer::Found;
#[cfg(test)]
use answer::find;
pub use counters::{Counters, Outcome};
pub use engine::{Reaction, Transport, respond};
pub use relay::Relay;
pub use task::{Limits, Server, serve};
#[cfg(test)]
use upstream::Patience;
pub use view::{View, Views};
pub use zones::Zones;
