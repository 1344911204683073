//! IPv6 router solicitations: hosts get an answer, and with it neither a route nor an address.

use super::dnsmasq;
use anyhow::Context;
use std::time::Duration;
use testbed::{Cluster, Namespace, Result, Site, process::output, timeline::poll};

const PATIENCE: Duration = Duration::from_secs(60);

fn answered(cluster: &Cluster) -> Result<u64> {
    let counters = cluster.daemon.json(&["counters"])?;
    Ok(counters["ndp solicitations-answered"].as_u64().unwrap_or_default())
}

/// Waits until `times` solicitations were answered. Linux sends them when its link comes up.
fn wait_answered(cluster: &Cluster, times: u64) -> Result {
    let reached = poll(PATIENCE, || Ok((answered(cluster)? >= times).then_some(())))?;
    assert!(reached.is_some(), "{}", cluster.daemon.json(&["counters"])?);
    Ok(())
}

fn default_route(host: &Namespace) -> Result<String> {
    host.ip(&["-6", "route", "show", "default"])
}

/// A counter of ICMPv6 in a host's network (/proc/net/snmp6).
fn icmp6(host: &Namespace, counter: &str) -> Result<u64> {
    let text = output(host.command("cat").arg("/proc/net/snmp6"))?;
    let mut found = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let value = found.find(|(name, _)| *name == counter).map(|(_, value)| value.trim());
    Ok(value.with_context(|| format!("no {counter}: {text}"))?.parse()?)
}

/// Waits until a host has sent `times` solicitations. Returns the number of advertisements that it got until then.
fn asked(host: &Namespace, times: u64) -> Result<u64> {
    let reached = poll(PATIENCE, || {
        Ok((icmp6(host, "Icmp6OutRouterSolicits")? >= times).then_some(()))
    })?;
    assert!(reached.is_some(), "{}", icmp6(host, "Icmp6OutRouterSolicits")?);
    icmp6(host, "Icmp6InRouterAdvertisements")
}

#[test]
fn the_site_file_switches_the_answers_off_and_without_the_key_they_are_on() -> Result {
    let mut site = Site::demo();
    site.answer_router_solicitations = Some(false);
    let cluster = Cluster::start(site)?;
    let silent = cluster.namespace.client("52:54:00:00:01:01")?;
    // Linux waits for seconds before it repeats: the answer to the first one had all that time.
    assert_eq!(asked(&silent, 2)?, 0, "nobody answers");
    assert_eq!(answered(&cluster)?, 0);

    let default = Site::demo();
    let text = default.to_toml(cluster.dir())?;
    assert!(
        !text.contains("router-solicitations"),
        "the site says nothing of it: {text}"
    );
    cluster.daemon.write_site(&default)?;
    cluster.daemon.cli(&["reload"])?;
    let host = cluster.namespace.client("52:54:00:00:01:02")?;
    wait_answered(&cluster, 1)?;
    let got = poll(PATIENCE, || {
        Ok((icmp6(&host, "Icmp6InRouterAdvertisements")? > 0).then_some(()))
    })?;
    assert!(got.is_some());
    cluster.daemon.stop()
}

#[test]
fn hosts_take_no_route_and_keep_that_of_a_real_router() -> Result {
    let cluster = Cluster::start(Site::demo())?;
    let host = cluster.namespace.client("52:54:00:00:01:01")?;
    wait_answered(&cluster, 1)?;
    assert_eq!(default_route(&host)?, "");
    assert_eq!(host.ip(&["-6", "address", "show", "scope", "global"])?, "");

    // A router of the network: the hosts keep the route through it, whatever other answers they get.
    let router = cluster.namespace.client("52:54:00:00:09:01")?;
    router.ip(&["address", "add", "2001:db8:5::1/64", "dev", "eth0", "nodad"])?;
    let _router = dnsmasq(
        &router,
        &[
            "--port=0",
            "--enable-ra",
            "--dhcp-range=2001:db8:5::,ra-only",
            "--leasefile-ro",
            "--interface=eth0",
        ],
    )?;
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
