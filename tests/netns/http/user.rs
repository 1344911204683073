//! What a user without rights on a running node can do: the guarantees of docs/explanation/security.md, tested as uid 65534
//! from the node's address.

use super::{BASE, Lab, Node, PATIENCE, fetch};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{fs::File, io::Write};
use testbed::{
    Namespace, Result,
    played::{Message, no_disk, no_hardware},
    timeline::poll,
};

/// The daemon.
const OURS: [u8; 4] = [10, 5, 0, 1];

/// A DHCP message of kind `kind` (option 53) for the card 52:54:00:00:`rack`:`slot`, as firmware writes it.
fn pxe(kind: u8, rack: u8, slot: u8, address: [u8; 4], server: [u8; 4]) -> Vec<u8> {
    let message = Message::new(kind, [0x52, 0x54, 0, 0, rack, slot]).server(server.into());
    message.requested(address.into()).firmware(7).build()
}

/// Sends each as one datagram to the daemon, as uid 65534 of that namespace.
fn send(from: &Namespace, messages: &[Vec<u8>]) -> Result {
    for message in messages {
        let mut file = tempfile::tempfile()?;
        file.write_all(message)?;
        std::io::Seek::rewind(&mut file)?;
        let sent = as_user(from, "cat > /dev/udp/10.5.0.1/67", file)?;
        ensure!(sent, "a user cannot even send");
    }
    Ok(())
}

fn as_user(from: &Namespace, script: &str, stdin: File) -> Result<bool> {
    let mut command = from.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", script]);
    Ok(command.stdin(stdin).status().context("setpriv")?.success())
}

/// Waits until the daemon has ignored `times` datagrams because of their source port.
fn ignored(lab: &Lab, times: u64) -> Result {
    let count = || -> Result<Option<u64>> {
        let counters = lab.cluster.daemon.json(&["counters"])?;
        Ok(counters["dhcp ignored-source-port"]
            .as_u64()
            .filter(|count| *count >= times))
    };
    let counted = poll(PATIENCE, count)?;
    ensure!(
        counted == Some(times),
        "not {times} datagrams were ignored: {}",
        lab.cluster.daemon.json(&["counters"])?
    );
    Ok(())
}

/// Fetches the node's overlay and returns the node's secret.
pub(super) fn up(node: &Node) -> Result<String> {
    let (status, overlay) = node.post("overlay", &wants_overlay(&node.token))?;
    ensure!(status == 200, "{status}: {overlay}");
    let overlay: Value = serde_json::from_str(&overlay)?;
    Ok(overlay["secret"].as_str().context("no secret")?.to_owned())
}

/// The body of a request for an overlay.
pub(super) fn wants_overlay(token: &str) -> String {
    json!({"token": token, "disk": no_disk(), "hardware": no_hardware()}).to_string()
}

/// The body of anything else that an agent says.
pub(super) fn says(proof: &str) -> String {
    json!({"token": proof, "uptime_ms": 1, "detail": "", "trouble": "", "events": [], "checks": []}).to_string()
}

#[test]
fn a_user_opens_no_boot_window_and_reports_nothing_about_other_machines() -> Result {
    let lab = Lab::start()?;
    let (node, daemon) = (&lab.node, &lab.cluster.daemon);
    let secret = up(node)?;
    ensure!(node.post("ready", &says(&secret))?.0 == 204);
    let other = Node::boot(&lab.cluster, 2)?;
    let others = up(&other)?;
    ensure!(other.post("ready", &says(&others))?.0 == 204);
    let before = daemon.cli(&["lease", "list", "--json"])?;

    // The user's own machine: one datagram opened the window.
    send(&node.namespace, &[pxe(3, 1, 1, [10, 5, 1, 1], OURS)])?;
    ignored(&lab, 1)?;
    let (status, _, script) = fetch(&node.namespace, &format!("{BASE}/ipxe?mac={}", node.mac), &[])?;
    ensure!(status == 200 && !script.contains("token"), "{status}: {script}");
    // Another node, a second DHCP server, and machines that do not exist.
    let mut forged = vec![
        pxe(1, 1, 2, [10, 5, 1, 2], OURS),
        pxe(3, 1, 2, [10, 5, 1, 2], [10, 5, 0, 9]),
    ];
    for slot in 1..=5 {
        forged.extend([
            pxe(1, 0xee, slot, [10, 5, 255, 100 + slot], OURS),
            pxe(3, 0xee, slot, [10, 5, 255, 100 + slot], OURS),
        ]);
    }
    send(&node.namespace, &forged)?;
    ignored(&lab, 13)?;
    let url = format!("{BASE}/ipxe?mac={}&failed=kernel", other.mac);
    let (_, _, script) = fetch(&node.namespace, &url, &[])?;
    ensure!(!script.contains("token"), "{script}");
    let row = lab.cluster.status("r01n02")?;
    assert_eq!(
        (&row["state"], &row["last_error"]),
        (&json!("ready"), &json!("")),
        "{row}"
    );
    assert_eq!(daemon.cli(&["lease", "list", "--json"])?, before);
    let waiting = daemon.json(&["discover", "list"])?.to_string();
    ensure!(!waiting.contains("52:54:00:00:ee"), "{waiting}");

    // The timeline of the user's node keeps its boot, whatever the user requests.
    for n in 0..200 {
        let (_, _, said) = fetch(&node.namespace, &node.file_url("kernel"), &["-r", &format!("0-{n}")])?;
        drop(said);
        fetch(
            &node.namespace,
            &format!("{BASE}/ipxe?mac={}&failed={n}", node.mac),
            &[],
        )?;
    }
    let timeline = daemon.cli(&["timeline", "r01n01"])?;
    ensure!(timeline.contains("script") && timeline.contains("ready"), "{timeline}");
    daemon.stop()
}

#[test]
fn the_token_of_the_kernel_command_line_is_useless_once_the_node_is_up() -> Result {
    let lab = Lab::start()?;
    let (node, daemon) = (&lab.node, &lab.cluster.daemon);
    let secret = up(node)?;
    for what in ["ready", "report", "heartbeat", "waiting"] {
        let (status, said) = node.post(what, &says(&node.token))?;
        ensure!(
            status == 403 && said.contains("wrong secret"),
            "{what}: {status}: {said}"
        );
    }
    assert_ne!(lab.cluster.status("r01n01")?["state"], "ready");
    for what in ["ready", "report", "heartbeat"] {
        let (status, said) = node.post(what, &says(&secret))?;
        ensure!(status == 204, "{what}: {status}: {said}");
    }
    assert_eq!(lab.cluster.status("r01n01")?["state"], "ready");
    daemon.stop()
}

#[test]
fn a_heartbeat_ends_a_boot_that_firmware_did_not_request() -> Result {
    let mut lab = Lab::start()?;
    let secret = up(&lab.node)?;
    let (boot, token) = (lab.node.boot.clone(), lab.node.token.clone());
    // Root of the node, or a machine on its cable, imitates firmware while the system runs.
    lab.node.player.dhcp()?;
    lab.node.fetch_script()?;
    let forged = lab.node.boot.clone();
    ensure!(forged != boot);
    lab.node.boot = boot;
    ensure!(lab.node.post("heartbeat", &says(&secret))?.0 == 204);
    lab.node.boot = forged;
    let refused = up(&lab.node).unwrap_err().to_string();
    ensure!(
        refused.starts_with("409") && refused.contains("running system"),
        "{refused}"
    );
    ensure!(lab.node.token != token);
    ensure!(lab.node.fetch_script().is_err(), "the window is closed as well");
    lab.cluster.daemon.stop()
}

#[test]
fn leases_of_machines_that_are_gone_are_removed_from_a_full_pool() -> Result {
    let lab = Lab::start()?;
    let daemon = &lab.cluster.daemon;
    let leases = daemon.json(&["lease", "list"])?;
    let address = leases[0]["ipaddr"]
        .as_str()
        .context("the stranger has a lease")?
        .to_owned();
    let planned = daemon.cli(&["lease", "release", "--dry-run", "10.5.255.[1-254]"])?;
    ensure!(planned.contains("1 lease would be released"), "{planned}");
    let done = daemon.json(&["lease", "release", &address])?;
    assert_eq!(done["released"][0]["ipaddr"], address.as_str());
    assert_eq!(daemon.json(&["lease", "list"])?, json!([]));
    ensure!(daemon.cli(&["lease", "release", "52:54:00:00:09:09"]).is_err());
    daemon.stop()
}
