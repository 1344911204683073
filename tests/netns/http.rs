//! The HTTP server, with curl and hostile clients: as part of a whole daemon in network namespaces, and, for tests of time
//! limits, alone on loopback with short limits.

#[path = "http/files.rs"]
mod files;
#[path = "http/grub.rs"]
mod grub;
#[path = "http/hostile.rs"]
mod hostile;
#[path = "http/identity.rs"]
mod identity;
#[path = "http/nobody.rs"]
mod nobody;
#[path = "http/overlays.rs"]
mod overlays;
#[path = "http/patience.rs"]
mod patience;
#[path = "http/reports.rs"]
mod reports;
#[path = "http/user.rs"]
mod user;

use super::serve::{AS_AGENT, udhcpc, variable};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use testbed::{
    Cluster, Namespace, Result, Site,
    netns::{SERVER, connect_as_root},
    played,
    process::output,
    timeline::poll,
};

/// The limit of every wait. No server here takes that long, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

const BASE: &str = "http://10.5.0.1";

/// A daemon, the node r01n01 during its boot, and an unknown machine.
struct Lab {
    node: Node,
    stranger: Namespace,
    cluster: Cluster,
}

/// A machine in its boot.
struct Node {
    player: played::Node,
    namespace: Arc<Namespace>,
    mac: String,
    boot: String,
    token: String,
}

impl Lab {
    fn start() -> Result<Self> {
        Lab::with(Site::demo())
    }

    fn with(site: Site) -> Result<Self> {
        let cluster = Cluster::start(site)?;
        let node = Node::boot(&cluster, 1)?;
        let stranger = cluster.namespace.client("52:54:00:00:09:09")?;
        let got = address_of(&stranger, &cluster, &[])?;
        ensure!(variable(&got, "ip").starts_with("10.5.255."), "{got}");
        Ok(Lab {
            node,
            stranger,
            cluster,
        })
    }

    fn counted(&self, name: &str) -> Result<u64> {
        let counters = self.cluster.daemon.json(&["counters"])?;
        let count = counters[format!("http {name}")].as_u64();
        count.with_context(|| format!("no counter http {name} in {counters}"))
    }

    /// Waits until the counter `name` is `times`.
    fn expect_counted(&self, name: &str, times: u64) -> Result {
        let reached = poll(PATIENCE, || Ok((self.counted(name)? >= times).then_some(())))?;
        let counted = self.counted(name)?;
        ensure!(
            reached.is_some() && counted == times,
            "http {name} is {counted}, not {times}:\n{}",
            self.cluster.daemon.log_tail(10)
        );
        Ok(())
    }

    /// A file of the image that the node boots.
    fn image_file(&self, name: &str) -> PathBuf {
        self.cluster.daemon.state_dir().join("images/debian/1").join(name)
    }

    /// Checks that the daemon still serves `who`.
    fn expect_served(&self, who: &Node) -> Result {
        let (status, _, plan) = fetch(&who.namespace, &who.plan_url(), &["-H", &who.bearer()])?;
        ensure!(status == 200 && plan.contains(&who.boot), "{status}: {plan}");
        self.cluster.daemon.check_alive()
    }
}

impl Node {
    /// Adds the node `r01n<slot>`, and has it ask DHCP for its address and fetch its boot script.
    fn boot(cluster: &Cluster, slot: u8) -> Result<Node> {
        let player = cluster.played(&format!("r01n{slot:02}"))?;
        let has = player.dhcp()?;
        ensure!(has.address.octets() == [10, 5, 1, slot], "{has:?}");
        let mut node = Node {
            namespace: player.namespace.clone(),
            mac: player.machine.mac(),
            player,
            boot: String::new(),
            token: String::new(),
        };
        node.fetch_script()?;
        Ok(node)
    }

    /// Starts a new boot.
    fn fetch_script(&mut self) -> Result {
        let boot = self.player.fetch_script()?;
        (self.boot, self.token) = (boot.id, boot.token);
        Ok(())
    }

    fn plan_url(&self) -> String {
        format!("{BASE}/v1/plan/{}", self.boot)
    }

    fn file_url(&self, name: &str) -> String {
        format!("{BASE}/boot/{}/{name}", self.boot)
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// Sends `events` as the boot's report.
    fn report(&self, events: &[Value]) -> Result<(u16, String)> {
        self.post("report", &json!({"token": self.token, "events": events}).to_string())
    }

    /// Posts `body` to one of the boot's paths, as an agent of this release does.
    fn post(&self, what: &str, body: &str) -> Result<(u16, String)> {
        let wire = format!(
            "{}: {}",
            rackstrap_wire::paths::WIRE_HEADER,
            rackstrap_wire::WIRE_VERSION
        );
        self.post_with(what, body, &["-H", &wire])
    }

    fn post_with(&self, what: &str, body: &str, more: &[&str]) -> Result<(u16, String)> {
        self.post_to(&format!("/v1/{what}/{}", self.boot), body, more)
    }

    fn post_to(&self, path: &str, body: &str, more: &[&str]) -> Result<(u16, String)> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(&file, body)?;
        let data = format!("@{}", file.path().display());
        let url = format!("{BASE}{path}");
        let body = ["-H", "Content-Type: application/json", "--data-binary", &data];
        let (status, _, text) = fetch(&self.namespace, &url, &[&body[..], more].concat())?;
        Ok((status, text))
    }
}

/// The address that udhcpc got; without one, the error has the daemon's record of the machine.
fn address_of(client: &Namespace, cluster: &Cluster, more: &[&str]) -> Result<String> {
    udhcpc(client, cluster, more).with_context(|| {
        let counters = cluster.daemon.cli(&["counters", "dhcp"]).unwrap_or_default();
        format!(
            "DHCP; the daemon's counters:\n{counters}\nand log:\n{}",
            cluster.daemon.log_tail(20)
        )
    })
}

/// Status, head and body of curl's answer, whatever the status is.
fn fetch(from: &Namespace, url: &str, more: &[&str]) -> Result<(u16, String, String)> {
    let mut command = from.command("curl");
    // --path-as-is: `..` reaches the server unchanged.
    command.args(["-sS", "-i", "-m", "60", "--path-as-is", "--globoff"]);
    if url.contains("/v1/") {
        command.args(AS_AGENT);
    }
    let text = output(command.args(more).arg(url))?;
    let mut rest = text.as_str();
    // 100 Continue precedes the answer.
    loop {
        let (head, body) = rest
            .split_once("\r\n\r\n")
            .with_context(|| format!("no head in {rest:?}"))?;
        let status: u16 = head.split(' ').nth(1).unwrap_or_default().parse()?;
        if status != 100 {
            return Ok((status, head.to_ascii_lowercase(), body.to_owned()));
        }
        rest = body;
    }
}

/// A connection to the daemon out of that namespace.
fn connect(from: &Namespace) -> Result<TcpStream> {
    let server: SocketAddr = format!("{SERVER}:80").parse()?;
    let stream = from.inside(|| TcpStream::connect_timeout(&server, PATIENCE))??;
    patient(stream)
}

/// The same, from the port of an agent.
fn connect_as_agent(from: &Namespace) -> Result<TcpStream> {
    let server: SocketAddr = format!("{SERVER}:80").parse()?;
    patient(from.inside(|| connect_as_root(Ipv4Addr::UNSPECIFIED, server, PATIENCE))??)
}

fn patient(stream: TcpStream) -> Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends `bytes` and returns all that the server sends until it closes. A server that refuses a request may reset the
/// connection after its answer, as there are bytes that it has not read.
fn talk(mut stream: TcpStream, bytes: &[u8]) -> Result<String> {
    // An error while sending does not count: the server may have answered before.
    let sent = stream.write_all(bytes);
    until_closed(stream).with_context(|| format!("after sending: {sent:?}"))
}

/// Reads until the server closes the connection. This side keeps it open.
fn until_closed(mut stream: TcpStream) -> Result<String> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
            Err(error).context("the server did not close the connection")
        }
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// The status that an answer begins with.
fn status_of(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}
