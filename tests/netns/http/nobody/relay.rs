//! An honest relay passes on what a user of a node sends, from whatever port that came: dnsmasq 2.90 does.

use super::{Running, dhcp, says, wants_overlay};
use crate::netns::serve::argument;
use anyhow::{Context, ensure};
use serde_json::json;
use std::net::UdpSocket;
use testbed::{Namespace, Result};

const RELAY: [u8; 4] = [10, 5, 0, 9];

/// Hands a request to boot of that card's to the server as a relay does, and waits for the answer.
fn relays(relay: &Namespace, card: u8, address: u8) -> Result<Vec<u8>> {
    let card = [0x52, 0x54, 0, 0, 1, card];
    let wanted = [50, 4, 10, 5, 1, address];
    let message = dhcp(1, 3, card, RELAY, &[&wanted[..], &[77, 4], b"iPXE"].concat());
    relay.inside(|| {
        let socket = UdpSocket::bind("10.5.0.9:67")?;
        socket.set_read_timeout(Some(super::PATIENCE))?;
        socket.send_to(&message, "10.5.0.1:67")?;
        let mut answer = vec![0; 1500];
        let length = socket.recv(&mut answer).context("no answer to the relay")?;
        answer.truncate(length);
        Ok(answer)
    })?
}

#[test]
fn what_a_relay_passes_on_from_a_user_opens_nothing_while_the_nodes_system_runs() -> Result {
    let up = Running::start()?;
    let relay = up.lab.cluster.namespace.client("52:54:00:00:0f:01")?;
    relay.ip(&["address", "add", "10.5.0.9/16", "dev", "eth0"])?;
    let before = up.lab.cluster.status("r01n02")?;

    relays(&relay, 1, 1)?;
    // And in the name of a node that is not behind the relay.
    relays(&relay, 2, 2)?;
    let row = up.lab.cluster.status("r01n02")?;
    for key in ["state", "last_error"] {
        assert_eq!(row[key], before[key], "{row}");
    }
    assert_eq!(up.lab.cluster.status("r01n01")?["state"], json!("ready"));

    // The relay is believed: the script comes. What it is for does not.
    let (status, script) = up.gets("/ipxe?mac=52:54:00:00:01:01", "")?;
    assert_eq!(status, 200, "{script}");
    let (boot, token) = (argument(&script, "plan"), argument(&script, "token"));
    ensure!(!token.is_empty(), "{script}");
    let overlay = format!("/v1/overlay/{boot}");
    let node = &up.lab.node.namespace;
    let (status, said) = up.posts(node, &overlay, &wants_overlay(token))?;
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("only a relay says that the node boots"), "{said}");
    assert!(!said.contains("PRIVATE KEY"), "{said}");
    // Nor is the token one of a node.
    for kind in ["ready", "heartbeat", "report"] {
        let (status, said) = up.posts(node, &format!("/v1/{kind}/{boot}"), &says(token))?;
        assert!(!said.contains("restart"), "{kind}: {status} {said}");
    }
    // The system sends its heartbeat, and that boot is nothing any more.
    for (node, secret) in [(&up.lab.node, &up.secrets[0]), (&up.other, &up.secrets[1])] {
        let (status, said) = node.post("heartbeat", &says(secret))?;
        ensure!(matches!(status, 200 | 204), "{status}: {said}");
    }
    let (status, said) = up.posts(node, &overlay, &wants_overlay(token))?;
    assert_eq!(status, 409, "{said}");
    assert!(said.contains("running system was heard of"), "{said}");
    Ok(())
}
