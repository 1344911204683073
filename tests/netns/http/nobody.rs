//! The guarantees of docs/explanation/security.md against a user of a node. Each test acts as uid 65534, without
//! capabilities, in a namespace with the node's address, and has all that such a user can know: the boot's id and its token
//! from the kernel command line.

#[path = "nobody/nfs.rs"]
mod nfs;
#[path = "nobody/relay.rs"]
mod relay;
#[path = "nobody/waiting.rs"]
mod waiting;

use super::{
    Lab, Node, PATIENCE, address_of, fetch, status_of, talk,
    user::{says, up, wants_overlay},
};
use anyhow::{Context, ensure};
use rustix::{
    io::Errno,
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
};
use testbed::{Namespace, Result, netns::SERVER, played::Message, timeline::poll};

const NOBODY: u32 = 65534;

/// Runs `f` as a user without rights in that namespace.
fn as_nobody<T: Send>(from: &Namespace, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    from.inside(|| {
        // For this thread only, which ends with `f`. When no user id of the thread is root's, its capabilities are gone.
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
        f()
    })?
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A lab whose nodes r01n01 and r01n02 are up, with their secrets.
struct Running {
    lab: Lab,
    other: Node,
    secrets: [String; 2],
}

impl Running {
    fn start() -> Result<Self> {
        let lab = Lab::start()?;
        let other = Node::boot(&lab.cluster, 2)?;
        let secrets = [up(&lab.node)?, up(&other)?];
        for (node, secret) in [(&lab.node, &secrets[0]), (&other, &secrets[1])] {
            ensure!(node.post("ready", &says(secret))?.0 == 204);
        }
        let running = Running { lab, other, secrets };
        running.expect_unharmed()?;
        Ok(running)
    }

    /// Both nodes are ready as before, and their agents' reports are accepted.
    fn expect_unharmed(&self) -> Result {
        for (node, secret) in [(&self.lab.node, &self.secrets[0]), (&self.other, &self.secrets[1])] {
            let (status, said) = node.post("heartbeat", &says(secret))?;
            ensure!(matches!(status, 200 | 204), "{status}: {said}");
        }
        for name in ["r01n01", "r01n02"] {
            let row = self.lab.cluster.status(name)?;
            assert_eq!(
                (&row["state"], &row["last_error"]),
                (&json!("ready"), &json!("")),
                "{row}"
            );
        }
        Ok(())
    }

    /// Sends a request as the user of a node; returns the status and the whole answer.
    fn asks(&self, from: &Namespace, request: &str) -> Result<(u16, String)> {
        let answer = as_nobody(from, || {
            let stream = TcpStream::connect_timeout(&address(&format!("{SERVER}:80")), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            ensure!(stream.local_addr()?.port() >= 1024);
            talk(stream, request.as_bytes())
        })?;
        let status = status_of(&answer).with_context(|| format!("no status: {answer}"))?;
        Ok((status, answer))
    }

    fn gets(&self, path: &str, bearer: &str) -> Result<(u16, String)> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        let head = match bearer {
            "" => head,
            token => format!("{head}Authorization: Bearer {token}\r\n"),
        };
        self.asks(&self.lab.node.namespace, &format!("{head}\r\n"))
    }

    fn posts(&self, from: &Namespace, path: &str, body: &str) -> Result<(u16, String)> {
        let (wire, version) = (rackstrap_wire::paths::WIRE_HEADER, rackstrap_wire::WIRE_VERSION);
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{wire}: {version}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.asks(from, &request)
    }

    fn counter(&self, name: &str) -> Result<u64> {
        let counters = self.lab.cluster.daemon.json(&["counters"])?;
        counters[name]
            .as_u64()
            .with_context(|| format!("no {name}: {counters}"))
    }
}

#[test]
fn a_user_gets_no_secret() -> Result {
    let up = Running::start()?;
    let node = &up.lab.node;
    // The user has no port below 1024 and no raw socket.
    as_nobody(&node.namespace, || {
        for port in ["0.0.0.0:67", "0.0.0.0:68", "0.0.0.0:700"] {
            let refused = UdpSocket::bind(port).map_err(|error| error.kind());
            assert_eq!(refused.err(), Some(ErrorKind::PermissionDenied), "{port}");
        }
        let raw = Socket::new(Domain::PACKET, Type::RAW, None).map_err(|error| error.raw_os_error());
        assert_eq!(raw.err(), Some(Some(Errno::PERM.raw_os_error())));
        Ok(())
    })?;

    // The script would contain a new token.
    for more in [
        "",
        "&failed=kernel",
        "&uuid=00112233-4455-6677-8899-aabbccddeeff&serial=x",
    ] {
        let (status, said) = up.gets(&format!("/ipxe?mac={}{more}", node.mac), "")?;
        assert!(status == 200 && !said.contains("token"), "{said}");
    }
    // Files, host keys and hashes.
    let overlay = format!("/v1/overlay/{}", node.boot);
    let (status, said) = up.posts(&node.namespace, &overlay, &wants_overlay(&node.token))?;
    assert!(
        status == 409 && said.contains("have been sent already"),
        "{status}: {said}"
    );
    let (status, said) = up.posts(&node.namespace, &overlay, &wants_overlay(&up.secrets[0]))?;
    assert!(
        status == 403 && said.contains("wrong token"),
        "the secret opens no overlay: {status}: {said}"
    );
    for proof in [node.token.as_str(), "", "0"] {
        let (status, said) = up.gets(&format!("/v1/users/{}", node.boot), proof)?;
        assert!(
            matches!(status, 403 | 404) && !said.contains('$'),
            "{proof:?}: {status}: {said}"
        );
    }
    // What the token still opens contains no secret.
    for what in ["plan", "disk-loader"] {
        let (_, said) = up.gets(&format!("/v1/{what}/{}", node.boot), &node.token)?;
        for secret in [up.secrets[0].as_str(), "PRIVATE KEY"] {
            assert!(!said.contains(secret), "{what}: {said}");
        }
    }
    // Nothing else is served: neither the control socket's data nor files.
    for path in [
        "/",
        "/metrics",
        "/v1/status",
        "/v1/nodes",
        "/v1/counters",
        "/v1/backup",
        "/v1/leases",
        "/v1/store",
        "/v1/images",
        "/v1/overlays/r01n01",
        "/v1/timeline/r01n01",
        "/v1/explain/r01n01",
        "/v1/users",
        "/boot",
        "/store.redb",
    ] {
        let (status, said) = up.gets(path, &node.token)?;
        assert!(matches!(status, 404 | 405), "{path}: {status}: {said}");
    }
    for path in [
        "/v1/changes",
        "/v1/reload",
        "/v1/restarts",
        "/v1/users/sync",
        "/v1/leases/release",
    ] {
        let (status, said) = up.posts(&node.namespace, path, "{}")?;
        assert!(matches!(status, 404 | 405), "{path}: {status}: {said}");
    }
    up.expect_unharmed()?;
    up.lab.cluster.daemon.stop()
}

#[test]
fn a_user_sends_no_report_for_a_node_and_takes_no_restart_order() -> Result {
    let up = Running::start()?;
    let (node, daemon) = (&up.lab.node, &up.lab.cluster.daemon);
    daemon.cli(&["node", "restart", "r01n01", "--reason", "new kernel", "--yes"])?;
    // Nothing drains here, so the order is soon ready for the node's next heartbeat.
    let waits = || -> Result<Option<()>> {
        let listed = daemon.cli(&["node", "restart", "--list"])?;
        Ok(listed.contains("drained: 1 (r01n01)").then_some(()))
    };
    ensure!(
        poll(PATIENCE, waits)?.is_some(),
        "{}",
        daemon.cli(&["node", "restart", "--list"])?
    );
    let forged = json!({"token": node.token, "uptime_ms": 1, "detail": "", "trouble": "the disk is gone", "events": [
        {"seq": 99, "phase": "disk", "outcome": "failed", "uptime_ms": 1, "took_ms": 1, "attempt": 1, "detail": "forged"}],
        "checks": [{"check": "unit forged", "ok": false, "detail": "forged"}],
        "restart": {"id": "1", "detail": "restarts by nothing"}});
    for what in ["ready", "report", "heartbeat", "waiting"] {
        for body in [forged.to_string(), says(&node.token), says("")] {
            let (status, said) = up.posts(&node.namespace, &format!("/v1/{what}/{}", node.boot), &body)?;
            assert!(
                status == 403 && !said.contains("new kernel"),
                "{what}: {status}: {said}"
            );
        }
        // The user of another node, with the same knowledge.
        let (status, said) = up.posts(
            &up.other.namespace,
            &format!("/v1/{what}/{}", node.boot),
            &forged.to_string(),
        )?;
        assert!(status == 403 && said.contains("r01n01's"), "{what}: {status}: {said}");
    }
    ensure!(
        waits()?.is_some(),
        "the order is gone: {}",
        daemon.cli(&["node", "restart", "--list"])?
    );
    // A request for another node's boot is on the timeline of the sender's node.
    let timeline = daemon.cli(&["timeline", "r01n02"])?;
    assert!(
        timeline.contains("refused") && timeline.contains("r01n01's"),
        "{timeline}"
    );
    let timeline = daemon.cli(&["timeline", "r01n01"])?;
    assert!(!timeline.contains("refused"), "{timeline}");
    assert!(
        !timeline.contains("forged") && !timeline.contains("disk is gone"),
        "{timeline}"
    );
    for name in ["r01n01", "r01n02"] {
        let row = up.lab.cluster.status(name)?;
        assert_eq!(
            (&row["state"], &row["last_error"]),
            (&json!("ready"), &json!("")),
            "{row}"
        );
    }
    // Root of the node gets the order.
    let told = poll(PATIENCE, || {
        let (status, said) = node.post("heartbeat", &says(&up.secrets[0]))?;
        Ok((status == 200).then_some(said))
    })?;
    let told: Value = serde_json::from_str(&told.context("no order")?)?;
    assert!(
        told["restart"]["id"].is_number() || told["restart"]["id"].is_string(),
        "{told}"
    );
    daemon.stop()
}

/// A DHCP message for that card, from a program that may set any field.
fn dhcp(kind: u8, card: [u8; 6], giaddr: [u8; 4], options: &[u8]) -> Message {
    let message = Message::new(kind, card).broadcast().giaddr(giaddr.into());
    message.options(options).firmware(7)
}

/// More machines than the pool has addresses.
const PHANTOMS: u16 = 260;

fn phantom(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x52, 0x54, 0, 0xee, high, low]
}

#[test]
fn a_user_adds_no_waiting_machines_and_fills_no_rack_and_no_pool() -> Result {
    let up = Running::start()?;
    let (node, daemon) = (&up.lab.node, &up.lab.cluster.daemon);
    let leases = daemon.json(&["lease", "list"])?;
    daemon.cli(&["discover", "start", "r07"])?;
    let server = [54, 4, 10, 5, 0, 1];
    let mut sent = 0;
    for first in (1..=PHANTOMS).step_by(20) {
        let mut messages = Vec::new();
        for number in first..(first + 20).min(PHANTOMS + 1) {
            let [high, low] = number.to_be_bytes();
            let wanted = [50, 4, 10, 5, 255 - high, low];
            let card = phantom(number);
            messages.push(dhcp(1, card, [0; 4], &[]).build());
            messages.push(dhcp(3, card, [0; 4], &[&server[..], &wanted].concat()).build());
            // As a relay, with the node's own address, and with another one.
            messages.push(dhcp(1, card, [10, 5, 1, 1], &[]).build());
            messages.push(dhcp(3, card, [10, 6, 0, 254], &[&server[..], &wanted].concat()).build());
        }
        sent += messages.len() as u64;
        as_nobody(&node.namespace, || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_broadcast(true)?;
            for (message, to) in messages.iter().zip(["10.5.0.1:67", "10.5.255.255:67"].iter().cycle()) {
                socket.send_to(message, to)?;
            }
            Ok(())
        })?;
        // In small batches, as a full receive buffer would drop the messages.
        let seen = poll(PATIENCE, || {
            Ok((up.counter("dhcp ignored-source-port")? >= sent).then_some(()))
        })?;
        ensure!(seen.is_some(), "{sent}: {}", daemon.json(&["counters"])?);
    }
    for number in 1..20 {
        let mac = phantom(number).map(|byte| format!("{byte:02x}")).join(":");
        for more in [
            "",
            "&uuid=00112233-4455-6677-8899-aabbccddeeff&serial=x&vendor=y&product=z",
        ] {
            let (_, said) = up.gets(&format!("/ipxe?mac={mac}{more}"), "")?;
            assert!(!said.contains("token") && !said.contains("r07"), "{said}");
        }
    }
    assert_eq!(daemon.json(&["lease", "list"])?, leases);
    let waiting = daemon.json(&["discover", "list"])?.to_string();
    assert!(!waiting.contains("52:54:00:ee"), "{waiting}");

    // The rack is still empty for the machine that is put into it.
    let real = up.lab.cluster.namespace.client("52:54:00:00:07:01")?;
    let racked = poll(PATIENCE, || {
        address_of(&real, &up.lab.cluster, &["-x", "77:69505845"])?;
        let nodes = daemon.cli(&["node", "list"])?;
        Ok(nodes.contains("r07n").then_some(nodes))
    })?;
    let nodes = racked.context("the machine was not racked")?;
    assert!(
        nodes.contains("r07n01") && nodes.contains("52:54:00:00:07:01"),
        "{nodes}"
    );
    assert_eq!(nodes.lines().count(), 4, "{nodes}");
    up.expect_unharmed()?;
    daemon.stop()
}

fn rivals(up: &Running) -> Result<String> {
    let status = up.lab.cluster.daemon.json(&["status"])?;
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    let of_servers = warnings
        .iter()
        .filter(|w| w["topic"].to_string().contains("dhcp-server"));
    Ok(of_servers.map(Value::to_string).collect())
}

#[test]
fn a_user_raises_no_alarm_and_touches_no_other_node() -> Result {
    let up = Running::start()?;
    let (node, other) = (&up.lab.node, &up.other);
    let card = [0x52, 0x54, 0, 0, 1, 2];
    let reply = |kind: u8, server: u8| {
        let options = [54, 4, 10, 5, 0, server, 51, 4, 0, 0, 14, 16];
        dhcp(kind, card, [0; 4], &options).reply().build()
    };
    let ask = |kind: u8, options: &[u8]| dhcp(kind, card, [0; 4], options);
    as_nobody(&node.namespace, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_broadcast(true)?;
        for to in ["10.5.255.255:68", "10.5.0.1:68", "10.5.1.2:68", "10.5.0.1:67"] {
            for kind in [2, 5, 6] {
                socket.send_to(&reply(kind, 8), to)?;
            }
        }
        // In the other node's name: a discover, a request to another DHCP server, a release and a decline.
        let rival = [54, 4, 10, 5, 0, 8, 50, 4, 10, 5, 1, 2];
        let ours = [54, 4, 10, 5, 0, 1, 50, 4, 10, 5, 1, 2];
        let with_address = |kind: u8| ask(kind, &ours).ciaddr([10, 5, 1, 2].into());
        for message in [
            ask(1, &[]),
            ask(3, &rival),
            ask(3, &ours),
            with_address(7),
            ask(4, &ours),
            with_address(8),
        ] {
            socket.send_to(&message.build(), "10.5.0.1:67")?;
        }
        Ok(())
    })?;
    let seen = poll(PATIENCE, || {
        Ok((up.counter("dhcp ignored-source-port")? >= 6).then_some(()))
    })?;
    ensure!(seen.is_some(), "{}", up.lab.cluster.daemon.json(&["counters"])?);
    for more in ["", "&failed=kernel", "&failed=initramfs"] {
        let (_, said) = up.gets(&format!("/ipxe?mac={}{more}", other.mac), "")?;
        assert!(!said.contains("token"), "{said}");
    }
    for what in ["plan", "disk-loader"] {
        let (status, _) = up.gets(&format!("/v1/{what}/{}", other.boot), &other.token)?;
        assert_eq!(status, 403, "{what}");
    }
    let overlay = format!("/v1/overlay/{}", other.boot);
    assert_eq!(
        up.posts(&node.namespace, &overlay, &wants_overlay(&other.token))?.0,
        403
    );
    up.expect_unharmed()?;

    // A message from port 67 arrives on the same socket, after all of the above.
    let alarm = poll(PATIENCE, || {
        up.lab.stranger.inside(|| -> Result {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket.bind_device(Some(b"eth0"))?;
            socket.set_broadcast(true)?;
            socket.bind(&address("0.0.0.0:67").into())?;
            socket.send_to(&reply(2, 9), &address("255.255.255.255:68").into())?;
            Ok(())
        })??;
        let alarm = rivals(&up)?;
        Ok((!alarm.is_empty()).then_some(alarm))
    })?;
    let alarm = alarm.context("the root of a machine is not heard either, so this shows nothing")?;
    assert!(alarm.contains("10.5.0.9") && !alarm.contains("10.5.0.8"), "{alarm}");
    up.lab.cluster.daemon.stop()
}

/// Sends a TFTP read request (RFC 1350) for this boot loader and returns the first packet.
fn tftp(name: &str) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let request = [&[0, 1], name.as_bytes(), b"\0octet\0"].concat();
    socket.send_to(&request, "10.5.0.1:69")?;
    let mut answer = [0; 600];
    let (length, from) = socket.recv_from(&mut answer)?;
    if answer[1] == 3 {
        // One packet is enough: an error ends the transfer.
        socket.send_to(b"\0\x05\0\0thanks\0", from)?;
    }
    Ok(answer[..length].to_vec())
}

#[test]
fn a_user_displaces_no_boot_from_a_timeline() -> Result {
    let up = Running::start()?;
    let (node, daemon) = (&up.lab.node, &up.lab.cluster.daemon);
    as_nobody(&node.namespace, || {
        for number in 0..400 {
            let answer = tftp(&format!("name-{number}"))?;
            ensure!(answer[1] == 5, "an error: {answer:?}");
        }
        Ok(())
    })?;
    for number in 0..60 {
        up.gets(&format!("/ipxe?mac={}&failed=step-{number}", node.mac), "")?;
        up.gets(&format!("/boot/{}/kernel-{number}", node.boot), "")?;
        up.posts(
            &node.namespace,
            &format!("/v1/report/{}", node.boot),
            &says(&node.token),
        )?;
    }
    let timeline = daemon.json(&["timeline", "r01n01"])?;
    let events = timeline["events"].as_array().context("events")?;
    let of_boot = |step: &str| {
        let mut found = events.iter().filter(|event| event["boot"] == node.boot.as_str());
        found.any(|event| event["step"] == step)
    };
    for step in ["script", "overlay", "ready"] {
        assert!(of_boot(step), "{step} is gone: {timeline}");
    }
    up.expect_unharmed()?;
    daemon.stop()
}

#[test]
fn a_user_of_the_server_opens_neither_the_control_socket_nor_the_store() -> Result {
    let lab = Lab::start()?;
    let state = lab.cluster.daemon.state_dir();
    let (socket, store) = (state.join("rackstrap.sock"), state.join("store.redb"));
    // The directories are open, as /run and /var/lib are; the file's own mode refuses the user.
    for directory in state
        .ancestors()
        .take_while(|directory| *directory != Path::new("/tmp"))
    {
        let mode = fs::metadata(directory)?.permissions().mode();
        if directory.starts_with("/tmp") && mode & 0o001 == 0 {
            fs::set_permissions(directory, fs::Permissions::from_mode(mode | 0o011))?;
        }
    }
    as_nobody(&lab.cluster.namespace, || {
        for file in [&socket, &store] {
            ensure!(
                fs::metadata(file)?.permissions().mode() & 0o077 == 0,
                "{}",
                file.display()
            );
        }
        let connected = UnixStream::connect(&socket).map_err(|error| error.kind());
        assert_eq!(connected.err(), Some(ErrorKind::PermissionDenied));
        let opened = fs::File::open(&store).map_err(|error| error.kind());
        assert_eq!(opened.err(), Some(ErrorKind::PermissionDenied));
        Ok(())
    })?;
    lab.cluster.daemon.stop()
}
