//! A second DHCP server on the network: it is named in all places, and a node that boots from it is not shown as absent.

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::{net::SocketAddr, process::Stdio, time::Duration};
use testbed::{Cluster, Namespace, Result, Site, process::Running, timeline::poll};

const PATIENCE: Duration = Duration::from_secs(60);
const RIVAL: &str = "10.5.0.9";
const RIVAL_MAC: &str = "52:54:00:00:09:09";
const NODE_MAC: &str = "52:54:00:00:01:01";

/// dnsmasq as a forgotten server: it offers addresses of the same network to all machines.
fn start_rival(server: &Namespace) -> Result<Running> {
    server.ip(&["address", "add", &format!("{RIVAL}/16"), "dev", "eth0"])?;
    let mut dnsmasq = server.command("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--port=0",
        "--leasefile-ro",
        "--no-ping",
        "--interface=eth0",
        "--dhcp-range=10.5.254.1,10.5.254.99,255.255.0.0,1h",
    ]);
    let quiet = dnsmasq.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running::start("another DHCP server", quiet)
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
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[4..8].copy_from_slice(&[7, 7, 7, 7]);
    message[10] = 0x80;
    message[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 1, 1]);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, kind, 60, 9]);
    message.extend(b"PXEClient");
    message.extend([93, 2, 0, 0]);
    message.extend(options);
    message.push(255);
    host.inside(|| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.bind_device(Some(b"eth0"))?;
        socket.set_broadcast(true)?;
        socket.bind(&"0.0.0.0:68".parse::<SocketAddr>()?.into())?;
        socket.send_to(&message, &"255.255.255.255:67".parse::<SocketAddr>()?.into())?;
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
    assert_eq!(
        (&row["node"], &row["state"]),
        (&"r01n01".into(), &"loading".into()),
        "{row}"
    );

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
