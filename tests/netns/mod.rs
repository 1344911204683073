//! Real clients against the engines, on loopback and in namespaces that the tests make themselves.

mod boards;
mod dhcp;
#[cfg(feature = "dns")]
mod dns;
mod findings;
mod freebsd;
mod health;
mod http;
mod layouts;
mod netconsole;
mod nfs;
mod orders;
mod panics;
mod power;
mod promises;
mod proxy;
mod racking;
mod rivals;
mod rollout;
mod scheduler;
mod serve;
mod settings;
mod solicitations;
mod storm;
mod tftp;
mod unit;
mod variants;
mod vlan;

use std::process::Stdio;
use testbed::{Namespace, Result, process::Running};

/// dnsmasq on a machine, without files of its own; `more` says what it serves.
pub fn dnsmasq(machine: &Namespace, more: &[&str]) -> Result<Running> {
    let mut dnsmasq = machine.command("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
    ]);
    dnsmasq.args(more);
    let quiet = dnsmasq.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running::start("dnsmasq", quiet)
}

/// The usual soft limit of 1,024 descriptors is less than some tests open.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
