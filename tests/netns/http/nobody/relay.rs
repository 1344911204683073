//! A DHCP relay that passes on the messages of a node's user from any port, as dnsmasq 2.90 does.

use super::{PATIENCE, Running, as_nobody, dhcp, fetch, says, up as boots_up, wants_overlay};
use anyhow::{Context, ensure};
use serde_json::json;
use std::{fs, net::UdpSocket};
use testbed::{Namespace, Result, played::argument, timeline::poll};

const RELAY: [u8; 4] = [10, 5, 0, 9];

/// Sends the boot request of a card to the server as a relay does, and waits for the answer.
fn relays(relay: &Namespace, card: u8, address: u8) -> Result<Vec<u8>> {
    let card = [0x52, 0x54, 0, 0, 1, card];
    let wanted = [50, 4, 10, 5, 1, address];
    let message = dhcp(3, card, RELAY, &[&wanted[..], &[77, 4], b"iPXE"].concat()).build();
    relay.inside(|| {
        let socket = UdpSocket::bind("10.5.0.9:67")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(&message, "10.5.0.1:67")?;
        let mut answer = vec![0; 1500];
        let length = socket.recv(&mut answer).context("no answer to the relay")?;
        answer.truncate(length);
        Ok(answer)
    })?
}

#[test]
fn relayed_messages_of_a_user_get_no_secret_and_change_no_state() -> Result {
    let up = Running::start()?;
    let relay = up.lab.cluster.namespace.client("52:54:00:00:0f:01")?;
    relay.ip(&["address", "add", "10.5.0.9/16", "dev", "eth0"])?;
    let timeline = |name: &str| up.lab.cluster.daemon.cli(&["timeline", name]);

    // The user's own node, and one that is not behind the relay.
    relays(&relay, 1, 1)?;
    relays(&relay, 2, 2)?;
    // Relayed messages are accepted: the script is served, and so is its kernel. Neither counts as a sign that the node is
    // down.
    let (status, script) = up.gets("/ipxe?mac=52:54:00:00:01:01", "")?;
    assert_eq!(status, 200, "{script}");
    let (boot, token) = (argument(&script, "plan"), argument(&script, "token"));
    ensure!(!token.is_empty(), "{script}");
    for path in [
        format!("/boot/{boot}/kernel"),
        format!("/boot/{boot}/initramfs"),
        "/ipxe?mac=52:54:00:00:01:01&failed=kernel".to_owned(),
    ] {
        assert_eq!(up.gets(&path, "")?.0, 200, "{path}");
    }
    // A file that exists, and one that does not.
    as_nobody(&up.lab.node.namespace, || {
        for file in ["undionly.kpxe", "no-such-file"] {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send_to(format!("\0\x01{file}\0octet\0").as_bytes(), "10.5.0.1:69")?;
            socket.recv(&mut [0; 1500])?;
        }
        Ok(())
    })?;
    let errors = poll(PATIENCE, || {
        Ok(timeline("r01n01")?.contains("tftp-client").then_some(()))
    })?;
    ensure!(errors.is_some(), "{}", timeline("r01n01")?);
    for name in ["r01n01", "r01n02"] {
        let row = up.lab.cluster.status(name)?;
        assert_eq!(
            (&row["state"], &row["last_error"]),
            (&json!("ready"), &json!("")),
            "{row}\n{}",
            timeline(name)?
        );
    }

    // Plan, overlay and reports of the boot need a port that a user cannot have, however old the agent is that he imitates.
    let node = &up.lab.node.namespace;
    let overlay = format!("/v1/overlay/{boot}");
    let mut refused = 0;
    for (path, body) in [
        (&overlay, wants_overlay(token)),
        (
            &format!("/v1/report/{boot}"),
            json!({"token": token, "events": []}).to_string(),
        ),
        (&format!("/v1/waiting/{boot}"), says(token)),
        (&format!("/v1/ready/{boot}"), says(token)),
        (&format!("/v1/heartbeat/{boot}"), says(token)),
    ] {
        let (status, said) = up.posts(node, path, &body)?;
        assert!(status == 403 && said.contains("below 1024"), "{path}: {status}: {said}");
        let (_, said) = up.asks(node, &older(path, &body))?;
        assert!(said.contains("below 1024"), "{path}: {said}");
        refused += 2;
    }
    for path in ["plan", "disk-loader"] {
        let (status, said) = up.gets(&format!("/v1/{path}/{boot}"), token)?;
        assert!(status == 403 && said.contains("below 1024"), "{path}: {status}: {said}");
        refused += 1;
    }
    assert_eq!(up.counter("http refused-unprivileged-port")?, refused);
    up.expect_unharmed()?;

    // The heartbeats have ended that boot: root of the node gets nothing with it either.
    let (status, said) = up.lab.node.post_to(&overlay, &wants_overlay(token), &[])?;
    assert!(
        status == 409 && said.contains("running system has sent a heartbeat"),
        "{status}: {said}"
    );
    Ok(())
}

/// The same request from an agent of the first release, which did not send its version.
fn older(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_node_that_reboots_behind_a_relay_at_once_boots_without_delay() -> Result {
    let mut up = Running::start()?;
    let relay = up.lab.cluster.namespace.client("52:54:00:00:0f:01")?;
    relay.ip(&["address", "add", "10.5.0.9/16", "dev", "eth0"])?;
    // Its last heartbeat is recent.
    up.expect_unharmed()?;
    relays(&relay, 1, 1)?;
    up.lab.node.fetch_script()?;
    let node = &up.lab.node;
    let (status, _, plan) = fetch(&node.namespace, &node.plan_url(), &["-H", &node.bearer()])?;
    assert_eq!(status, 200, "{plan}");
    assert_eq!(up.lab.cluster.status("r01n01")?["state"], json!("agent"));
    let secret = boots_up(node)?;
    ensure!(node.post("ready", &says(&secret))?.0 == 204);
    assert_eq!(up.lab.cluster.status("r01n01")?["state"], json!("ready"));
    Ok(())
}

#[test]
fn a_restarted_daemon_trusts_relayed_messages_no_more_than_before() -> Result {
    let up = Running::start()?;
    let relay = up.lab.cluster.namespace.client("52:54:00:00:0f:01")?;
    relay.ip(&["address", "add", "10.5.0.9/16", "dev", "eth0"])?;
    up.lab.cluster.daemon.stop()?;
    up.lab.cluster.start_daemon()?;
    // Before the first heartbeat.
    relays(&relay, 1, 1)?;
    let (status, script) = up.gets("/ipxe?mac=52:54:00:00:01:01", "")?;
    let boot = argument(&script, "plan");
    assert_eq!((status, boot.len()), (200, 12), "{script}");
    assert_eq!(up.gets(&format!("/boot/{boot}/kernel"), "")?.0, 200);
    let row = up.lab.cluster.status("r01n01")?;
    assert_eq!(
        (&row["state"], &row["boot"]),
        (&json!("ready"), &json!(up.lab.node.boot)),
        "{row}"
    );
    up.expect_unharmed()
}

#[test]
fn relayed_boot_requests_do_not_end_the_current_boot() -> Result {
    let mut up = Running::start()?;
    let relay = up.lab.cluster.namespace.client("52:54:00:00:0f:01")?;
    relay.ip(&["address", "add", "10.5.0.9/16", "dev", "eth0"])?;
    // It boots again. From here on users are on it, and it is not ready yet.
    let node = &mut up.lab.node;
    node.player.dhcp()?;
    node.fetch_script()?;
    let secret = boots_up(node)?;
    let waiting = json!({"token": secret, "uptime_ms": 1, "checks": []}).to_string();
    ensure!(node.post("waiting", &waiting)?.0 == 204);
    let before = up.lab.cluster.status("r01n01")?;
    for _ in 0..6 {
        relays(&relay, 1, 1)?;
        let (status, script) = up.gets("/ipxe?mac=52:54:00:00:01:01", "")?;
        assert!(status == 200 && !argument(&script, "token").is_empty(), "{script}");
    }
    let row = up.lab.cluster.status("r01n01")?;
    assert_eq!(
        (&row["state"], &row["boot"]),
        (&before["state"], &json!(up.lab.node.boot)),
        "{row}"
    );
    ensure!(up.lab.node.post("ready", &says(&secret))?.0 == 204);
    up.secrets[0] = secret;
    up.expect_unharmed()
}

/// An image whose agent uses any port, as releases before wire version 4 sealed them.
fn of_an_older_release(up: &Running) -> Result {
    let versions = up.lab.cluster.daemon.state_dir().join("images/debian");
    let sealed = fs::read_link(versions.join("1"))?;
    fs::remove_file(versions.join("1"))?;
    fs::create_dir(versions.join("1"))?;
    for entry in fs::read_dir(&sealed)? {
        let entry = entry?;
        let place = versions.join("1").join(entry.file_name());
        match entry.file_type()?.is_dir() {
            // These tests do not mount it.
            true => fs::create_dir(place)?,
            false => drop(fs::copy(entry.path(), place)?),
        }
    }
    let manifest = fs::read_to_string(sealed.join("manifest.toml"))?;
    let older = manifest.lines().filter(|line| !line.starts_with("wire = "));
    let older = older.map(|line| format!("{line}\n")).collect::<String>();
    ensure!(older != manifest, "{manifest}");
    fs::write(versions.join("1/manifest.toml"), older)?;
    up.lab.cluster.daemon.cli(&["reload"])?;
    Ok(())
}

#[test]
fn a_boot_in_doubt_of_an_older_image_gets_its_files_once_the_node_is_silent() -> Result {
    // With a heartbeat each 5 s it is silent after 15 s.
    let mut up = Running::start()?;
    let relay = up.lab.cluster.namespace.client("52:54:00:00:0f:01")?;
    relay.ip(&["address", "add", "10.5.0.9/16", "dev", "eth0"])?;
    of_an_older_release(&up)?;
    up.expect_unharmed()?;
    relays(&relay, 1, 1)?;
    let (_, script) = up.gets("/ipxe?mac=52:54:00:00:01:01", "")?;
    let (boot, token) = (argument(&script, "plan"), argument(&script, "token"));
    ensure!(!token.is_empty(), "{script}");
    let overlay = format!("/v1/overlay/{boot}");
    let node = &up.lab.node.namespace;
    let (status, said) = up.posts(node, &overlay, &wants_overlay(token))?;
    assert!(
        status == 503 && said.contains("waits until the system before was silent") && !said.contains("secret"),
        "{status}: {said}"
    );
    let says = says(token);
    for (path, body) in [
        ("waiting", &says),
        ("report", &says),
        ("ready", &says),
        ("heartbeat", &says),
    ] {
        let (status, said) = up.posts(node, &format!("/v1/{path}/{boot}"), body)?;
        assert_eq!(status, 503, "{path}: {said}");
    }
    for path in ["plan", "disk-loader"] {
        let (status, said) = up.gets(&format!("/v1/{path}/{boot}"), token)?;
        assert_eq!(status, 503, "{path}: {said}");
    }
    // Its system runs: that boot never gets its files.
    up.expect_unharmed()?;
    let (status, said) = up.posts(node, &format!("/v1/ready/{boot}"), &says)?;
    assert_eq!(status, 409, "{said}");
    let (status, said) = up.posts(node, &overlay, &wants_overlay(token))?;
    assert!(
        status == 409 && said.contains("running system has sent a heartbeat"),
        "{status}: {said}"
    );

    // It boots, and only the relayed messages show it.
    relays(&relay, 1, 1)?;
    up.lab.node.fetch_script()?;
    let node = &up.lab.node;
    let got = poll(PATIENCE, || {
        let (status, said) = node.post("overlay", &wants_overlay(&node.token))?;
        ensure!(matches!(status, 200 | 503), "{status}: {said}");
        Ok((status == 200).then_some(said))
    })?;
    ensure!(got.is_some_and(|overlay| overlay.contains("secret")));
    Ok(())
}
