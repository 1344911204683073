//! Real clients against the engines, on loopback and in namespaces that the tests make themselves.

mod dhcp;
#[cfg(feature = "dns")]
mod dns;
mod findings;
mod health;
mod http;
mod layouts;
mod nfs;
mod panics;
mod promises;
mod racking;
mod rivals;
mod rollout;
mod scheduler;
mod serve;
mod solicitations;
mod tftp;
mod unit;

/// The usual soft limit of 1,024 descriptors is less than some tests open.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
