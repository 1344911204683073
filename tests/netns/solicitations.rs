//! IPv6 router solicitations: hosts are answered, and get neither a route nor an address from it.

use std::{process::Stdio, time::Duration};
use testbed::{Cluster, Namespace, Result, Site, process::Running, timeline::poll};

const PATIENCE: Duration = Duration::from_secs(60);

fn answered(cluster: &Cluster) -> Result<u64> {
    let counters = cluster.daemon.json(&["counters"])?;
    Ok(counters["ndp solicitations-answered"].as_u64().unwrap_or_default())
}

/// Waits until `times` solicitations were answered. Linux asks by itself when its link comes up.
fn wait_answered(cluster: &Cluster, times: u64) -> Result {
    let reached = poll(PATIENCE, || Ok((answered(cluster)? >= times).then_some(())))?;
    assert!(reached.is_some(), "{}", cluster.daemon.json(&["counters"])?);
    Ok(())
}

fn default_route(host: &Namespace) -> Result<String> {
    host.ip(&["-6", "route", "show", "default"])
}

#[test]
fn hosts_take_no_route_and_keep_that_of_a_real_router() -> Result {
    let cluster = Cluster::start(Site::demo())?;
    let host = cluster.namespace.client("52:54:00:00:01:01")?;
    wait_answered(&cluster, 1)?;
    assert_eq!(default_route(&host)?, "");
    assert_eq!(host.ip(&["-6", "address", "show", "scope", "global"])?, "");

    // A router of the network, as it were: its hosts have a route through it, whoever else answers.
    let router = cluster.namespace.client("52:54:00:00:09:01")?;
    router.ip(&["address", "add", "2001:db8:5::1/64", "dev", "eth0", "nodad"])?;
    let mut dnsmasq = router.command("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--port=0",
        "--enable-ra",
        "--dhcp-range=2001:db8:5::,ra-only",
        "--leasefile-ro",
        "--interface=eth0",
    ]);
    let quiet = dnsmasq.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _router = Running::start("a router", quiet)?;
    let before = answered(&cluster)?;
    let other = cluster.namespace.client("52:54:00:00:01:02")?;
    wait_answered(&cluster, before + 1)?;
    let routed = poll(PATIENCE, || {
        let route = default_route(&other)?;
        Ok(route.contains("via fe80::5054:ff:fe00:901").then_some(route))
    })?;
    assert!(routed.is_some(), "{}", default_route(&other)?);
    assert_eq!(default_route(&other)?.lines().count(), 1);
    cluster.daemon.stop()
}
