//! Messages of nodes' kernels by UDP.

use serde_json::Value;
use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};
use testbed::{Binaries, Cluster, Namespace, Result, Site, image::fake, netns::SERVER, timeline::poll};

const PORT: u16 = 6666;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_panic_is_on_the_timeline_of_its_node_and_no_user_and_no_other_machine_can_write_there() -> Result {
    let cluster = Cluster::with_images(&Binaries::get()?, &Site::demo(), Vec::new())?;
    fake(&cluster.daemon.state_dir().join("images"), "debian@1", 0)?;
    cluster.start_daemon()?;
    let machines = [("r01n01", "52:54:00:00:01:01", 1), ("r01n02", "52:54:00:00:01:02", 2)];
    let mut namespaces: Vec<Namespace> = Vec::new();
    for (name, hwaddr, last) in machines {
        cluster.daemon.cli(&["node", "add", name, "--hwaddr", hwaddr])?;
        let namespace = cluster.namespace.client(hwaddr)?;
        namespace.ip(&["address", "add", &format!("10.5.1.{last}/16"), "dev", "eth0"])?;
        namespaces.push(namespace);
    }
    let stranger = cluster.namespace.client("52:54:00:00:09:09")?;
    stranger.ip(&["address", "add", "10.5.9.9/16", "dev", "eth0"])?;

    send(&stranger, 666, "Kernel panic - not syncing: of a stranger\n")?;
    send(&namespaces[1], 40_000, "Kernel panic - not syncing: of a user\n")?;
    send(&namespaces[1], 666, "a line\x1b[2J that nobody needs\n")?;
    send(&namespaces[0], 666, "[    1.5] a line before\n")?;
    send(
        &namespaces[0],
        666,
        "[    2.5] Kernel panic - not syncing: VFS: Unable to mount root fs\n",
    )?;
    send(&namespaces[0], 666, "[    2.6] Call Trace:\x1b[2J\n")?;

    let lines = |node: &str| -> Result<Vec<String>> {
        let timeline = cluster.daemon.json(&["timeline", node])?;
        let events = timeline["events"].as_array().cloned().unwrap_or_default();
        let text = |event: &Value| Some(format!("{}: {}", event["step"].as_str()?, event["detail"].as_str()?));
        Ok(events.iter().filter_map(text).collect())
    };
    let heard = poll(PATIENCE, || {
        let lines = lines("r01n01")?;
        Ok((lines.len() == 3).then_some(lines))
    })?;
    assert_eq!(
        heard.unwrap_or(lines("r01n01")?),
        [
            "console: a line before",
            "panic: Kernel panic - not syncing: VFS: Unable to mount root fs",
            "console: Call Trace: [2J",
        ]
    );
    assert_eq!(lines("r01n02")?, Vec::<String>::new());
    let row = cluster.status("r01n01")?;
    assert_eq!(
        row["last_error"],
        "panic: Kernel panic - not syncing: VFS: Unable to mount root fs"
    );
    let counters = cluster.daemon.json(&["counters", "netconsole"])?.to_string();
    for count in ["refused-stranger\":1", "refused-unprivileged-port\":1", "datagrams\":4"] {
        assert!(counters.contains(count), "{count}: {counters}");
    }
    Ok(())
}

/// Sends `text` from that port of the machine.
fn send(machine: &Namespace, port: u16, text: &str) -> Result {
    machine.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.send_to(text.as_bytes(), (SERVER, PORT))?;
        Ok(())
    })?
}
