//! A second DHCP server on the network: it is named in all places, and a node that boots from it is not shown as absent.

use super::dnsmasq;
use serde_json::Value;
use std::time::Duration;
use testbed::{
    Cluster, Namespace, Result, Site,
    played::{Message, TO_ALL, client_socket},
    process::{Running, output},
    timeline::poll,
};

const PATIENCE: Duration = Duration::from_secs(60);
const RIVAL: &str = "10.5.0.9";
const RIVAL_MAC: &str = "52:54:00:00:09:09";
const NODE_MAC: &str = "52:54:00:00:01:01";

/// dnsmasq as a forgotten server: it offers addresses of the same network to all machines.
fn start_rival(server: &Namespace) -> Result<Running> {
    start_server(server, RIVAL)
}

fn start_server(server: &Namespace, address: &str) -> Result<Running> {
    server.ip(&["address", "add", &format!("{address}/16"), "dev", "eth0"])?;
    dnsmasq(
        server,
        &[
            "--port=0",
            "--leasefile-ro",
            "--no-ping",
            "--interface=eth0",
            "--dhcp-range=10.5.254.1,10.5.254.99,255.255.0.0,1h",
        ],
    )
}

fn rival_warnings(cluster: &Cluster) -> Result<Vec<Value>> {
    let status = cluster.daemon.json(&["status"])?;
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    let is_of_a_server = |w: &Value| {
        w["topic"]
            .as_str()
            .is_some_and(|topic| topic.starts_with("dhcp-server"))
    };
    Ok(warnings.into_iter().filter(is_of_a_server).collect())
}

/// Sends a packet of the node's firmware, as a broadcast without a source address.
fn send(host: &Namespace, kind: u8, options: &[u8]) -> Result {
    let message = Message::new(kind, [0x52, 0x54, 0, 0, 1, 1]).xid(0x0707_0707);
    let message = message.broadcast().firmware(0).options(options).build();
    host.inside(|| {
        client_socket("eth0")?.send_to(&message, TO_ALL)?;
        Ok(())
    })?
}

#[test]
fn another_dhcp_server_is_reported_and_the_nodes_it_answers_are_not_absent() -> Result {
    let cluster = Cluster::start(Site::demo())?;
    cluster.daemon.cli(&["node", "add", "r01n01", "--hwaddr", NODE_MAC])?;
    let server = cluster.namespace.client(RIVAL_MAC)?;
    let host = cluster.namespace.client(NODE_MAC)?;
    assert_eq!(rival_warnings(&cluster)?, Vec::<Value>::new(), "alone so far");
    // By its offer: the node's firmware asks, and both servers answer. The daemon's own probe ran before the other server
    // started.
    let rival = start_rival(&server)?;
    let heard = poll(PATIENCE, || {
        send(&host, 1, &[])?;
        let warnings = rival_warnings(&cluster)?;
        Ok((!warnings.is_empty()).then_some(warnings))
    })?;
    expect_named(&cluster, heard)?;

    // The node takes the other server's offer.
    send(&host, 3, &[54, 4, 10, 5, 0, 9, 50, 4, 10, 5, 254, 7])?;
    let row = poll(PATIENCE, || {
        let row = cluster.daemon.json(&["status"])?["nodes"][0].clone();
        let told = row["last_error"].as_str().is_some_and(|text| text.contains(RIVAL));
        Ok(told.then_some(row))
    })?;
    let row = row.unwrap_or_default();
    let told = row["last_error"].as_str().unwrap_or_default();
    assert!(told.contains(&format!("{RIVAL} at {RIVAL_MAC}")), "{told}");
    assert_eq!(
        (&row["node"], &row["state"]),
        (&"r01n01".into(), &"loading".into()),
        "{row}"
    );

    // Its screen shows which server gave the address.
    host.ip(&["address", "add", "10.5.254.7/16", "dev", "eth0"])?;
    let url = "http://10.5.0.1/ipxe?mac=52-54-00-00-01-01";
    let script = output(host.command("curl").args(["-sS", "--max-time", "60", url]))?;
    let told = format!(
        "r01n01 took the address 10.5.254.7 from another DHCP server, {RIVAL} at {RIVAL_MAC}; its own is 10.5.1.1"
    );
    assert!(script.contains(&told) && !script.contains("initramfs"), "{script}");
    host.ip(&["address", "flush", "dev", "eth0"])?;

    // By a probe: there is no other traffic, and a restarted daemon finds the other server.
    cluster.daemon.stop()?;
    cluster.daemon.start(&cluster.namespace)?;
    let found = poll(PATIENCE, || {
        let warnings = rival_warnings(&cluster)?;
        Ok((!warnings.is_empty()).then_some(warnings))
    })?;
    expect_named(&cluster, found)?;
    let waiting = cluster.daemon.json(&["discover", "list"])?;
    assert_eq!(
        waiting["machines"],
        serde_json::json!([]),
        "the probe itself is listed as a machine"
    );
    drop(rival);
    cluster.daemon.stop()
}

/// Beside the site's own DHCP server: that one is expected, and a second one is named together with it.
#[test]
fn a_second_server_beside_the_sites_own_is_named() -> Result {
    const OWN: &str = "10.5.0.8";
    const OWN_MAC: &str = "52:54:00:00:09:08";
    let mut site = Site::demo();
    site.subnets[0].pool = None;
    site.subnets[0].dhcp = Some("proxy".to_owned());
    let cluster = Cluster::start(site)?;
    let own = cluster.namespace.client(OWN_MAC)?;
    let other = cluster.namespace.client(RIVAL_MAC)?;
    let host = cluster.namespace.client(NODE_MAC)?;
    let own_server = start_server(&own, OWN)?;
    // The own server answers until the second one is there: no warning before.
    let counted = || -> Result<Vec<Value>> {
        send(&host, 1, &[])?;
        rival_warnings(&cluster)
    };
    for _ in 0..5 {
        assert_eq!(counted()?, Vec::<Value>::new(), "the site's own server");
    }
    let rival = start_server(&other, RIVAL)?;
    let heard = poll(PATIENCE, || {
        let warnings = counted()?;
        Ok((warnings.len() == 2).then_some(warnings))
    })?;
    let heard = heard.unwrap_or_default();
    for (server, hwaddr) in [(OWN, OWN_MAC), (RIVAL, RIVAL_MAC)] {
        let named = format!("another DHCP server answers on br0: {server} at {hwaddr}; 2 servers answer there");
        let is_it = |w: &Value| w["message"].as_str().is_some_and(|text| text.starts_with(&named));
        assert!(heard.iter().any(is_it), "{server}: {heard:?}");
    }
    drop((own_server, rival));
    cluster.daemon.stop()
}

fn expect_named(cluster: &Cluster, warnings: Option<Vec<Value>>) -> Result {
    let warnings = warnings.unwrap_or_default();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let named = format!("another DHCP server answers on br0: {RIVAL} at {RIVAL_MAC}");
    let texts = [
        warnings[0]["message"].as_str().unwrap_or_default().to_owned(),
        cluster.daemon.log(),
        cluster.daemon.cli(&["explain", "r01n01"])?,
    ];
    for text in texts {
        assert!(text.contains(&named), "{text}");
    }
    Ok(())
}
