//! Real clients against the engines, on loopback and in namespaces that the tests make themselves.

mod dhcp;
#[cfg(feature = "dns")]
mod dns;
mod health;
mod http;
mod nfs;
mod promises;
mod racking;
mod rollout;
mod scheduler;
mod serve;
mod tftp;
