//! Neighbour discovery (RFC 4861): answers the router solicitations of boot loaders, so that none of them waits for a router.
//!
//! iPXE, as Debian builds it, asks for an IPv6 router as well as for DHCP, and continues when both are done: 15 s later where no router
//! answers, which is so in almost every cluster network. The answer says that this is no router (lifetime 0) and names no
//! prefix, so nobody gets a route or an address from it. It comes from an address of its own, to the one machine that asked:
//! a real router on this machine or in this network keeps its routes.
//!
//! [`engine`] is pure; [`task`] has the sockets.

mod counters;
mod engine;
mod task;

pub use counters::{Counters, Ignored};
pub use engine::{answer, own_address};
pub use task::serve;

use engine::Bucket;
