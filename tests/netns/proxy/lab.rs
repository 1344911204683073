//! A daemon with one node, a machine with another DHCP server, and the node's card.

use super::PATIENCE;
use crate::netns::dnsmasq;
use anyhow::Context;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use testbed::{
    Binaries, Daemon, Namespace, Result, Site,
    image::fake,
    paths::RunDir,
    played::{self, Message, TO_ALL, Wire, client_socket, next_xid, option},
    process::{self, Running},
    timeline::poll,
};

pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 1);
pub const OTHER: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 9);
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 5, 1, 1);
pub const NODE_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 1, 1];

/// A message of the node's UEFI, with the parameters that EDK2 asks for.
pub fn uefi(kind: u8) -> Message {
    Message::new(kind, NODE_MAC)
        .broadcast()
        .option(55, &[1, 3, 43, 60, 66, 67])
        .firmware(7)
}

/// Fields are dropped in this order: the daemon ends before its namespace is removed.
pub struct Lab {
    pub daemon: Daemon,
    other: Namespace,
    host: Arc<Namespace>,
    pub namespace: Namespace,
    dir: RunDir,
}

/// A server's answer.
#[derive(Debug)]
pub struct Offer {
    pub bytes: Vec<u8>,
    pub yiaddr: Ipv4Addr,
    pub siaddr: Ipv4Addr,
    /// Option 54.
    pub server: Ipv4Addr,
    /// Option 67, or else the field `file`; empty: neither.
    pub file: String,
    /// Option 60; empty: none.
    pub class: String,
}

impl Offer {
    fn of(bytes: Vec<u8>) -> Offer {
        let address = |bytes: &[u8]| Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let option = |code| option(&bytes, code).unwrap_or_default();
        let file = match text(&option(67)) {
            none if none.is_empty() => text(&bytes[108..236]),
            some => some,
        };
        Offer {
            yiaddr: address(&bytes[16..20]),
            siaddr: address(&bytes[20..24]),
            server: address(&option(54)),
            file,
            class: text(&option(60)),
            bytes,
        }
    }
}

fn site(dhcp: &str) -> Site {
    let mut site = Site::demo();
    site.default_profile().templates = None;
    site.subnets[0].pool = None;
    site.subnets[0].dhcp = Some(dhcp.to_owned());
    site
}

impl Lab {
    /// Starts the daemon with `dhcp` in its subnet.
    pub fn start(dhcp: &str) -> Result<Lab> {
        let dir = RunDir::new()?;
        let namespace = Namespace::with_bridge()?;
        let other = namespace.client("52:54:00:00:09:09")?;
        other.ip(&["address", "add", &format!("{OTHER}/16"), "dev", "eth0"])?;
        let host = Arc::new(namespace.client("52:54:00:00:01:01")?);
        let binaries = Binaries::without_agent(env!("CARGO_BIN_EXE_rackstrap"));
        let daemon = Daemon::new(&binaries, dir.path().join("daemon"), &site(dhcp), &[])?;
        fake(&daemon.state_dir().join("images"), "debian@1", 0)?;
        daemon.start(&namespace)?;
        daemon.cli(&["node", "add", "r01n01", "--hwaddr", "52:54:00:00:01:01"])?;
        Ok(Lab {
            daemon,
            other,
            host,
            namespace,
            dir,
        })
    }

    pub fn reload(&self, dhcp: &str) -> Result {
        self.daemon.reload(&site(dhcp))
    }

    /// The file of an export.
    pub fn export(&self, format: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(format!("export.{format}"));
        let name = path.to_str().context("a path that is not UTF-8")?;
        self.daemon.cli(&["export", format, "--output", name])?;
        Ok(path)
    }

    /// Runs dnsmasq as the other server.
    pub fn dnsmasq(&self, range: &str, file: Option<&Path>) -> Result<Running> {
        let range = format!("--dhcp-range={range}");
        let mut more = vec!["--port=0", "--leasefile-ro", "--no-ping", "--interface=eth0", &range];
        let hosts = file.map(|path| format!("--conf-file={}", path.display()));
        more.extend(hosts.as_deref());
        self.started(dnsmasq(&self.other, &more)?)
    }

    /// Runs dhcpd as the other server, with the export in its configuration.
    pub fn dhcpd(&self, export: &Path) -> Result<Running> {
        let (config, leases) = (self.dir.path().join("dhcpd.conf"), self.dir.path().join("dhcpd.leases"));
        fs::write(
            &config,
            format!(
                "authoritative;\nsubnet 10.5.0.0 netmask 255.255.0.0 {{ range 10.5.254.1 10.5.254.99; }}\ninclude \"{}\";\n",
                export.display()
            ),
        )?;
        fs::write(&leases, "")?;
        process::output(Command::new("dhcpd").arg("-t").arg("-cf").arg(&config))?;
        let mut dhcpd = self.other.command("dhcpd");
        dhcpd.args(["-f", "-4", "-q", "--no-pid", "-cf"]).arg(&config);
        dhcpd.arg("-lf").arg(&leases).arg("eth0");
        self.started(Running::start("dhcpd", quiet(&mut dhcpd))?)
    }

    /// Runs Kea as the other server, with the export in its configuration.
    pub fn kea(&self, export: &Path) -> Result<Running> {
        let (config, dir) = (self.dir.path().join("kea.conf"), self.dir.path());
        fs::write(
            &config,
            format!(
                r#"{{ "Dhcp4": {{
  "interfaces-config": {{ "interfaces": ["eth0"] }},
  "lease-database": {{ "type": "memfile", "persist": false }},
  "subnet4": [{{ "subnet": "10.5.0.0/16", "pools": [{{ "pool": "10.5.254.1-10.5.254.99" }}] }}],
  <?include "{}"?>
}} }}
"#,
                export.display()
            ),
        )?;
        let place = |command: &mut Command| {
            command.env("KEA_PIDFILE_DIR", dir).env("KEA_LOCKFILE_DIR", dir);
        };
        let mut test = Command::new("kea-dhcp4");
        place(&mut test);
        process::output(test.arg("-t").arg(&config))?;
        let mut kea = self.other.command("kea-dhcp4");
        place(&mut kea);
        kea.arg("-c").arg(&config);
        self.started(Running::start("kea-dhcp4", quiet(&mut kea))?)
    }

    /// Waits until the other server answers.
    fn started(&self, mut running: Running) -> Result<Running> {
        let probe = Message::new(1, [0x52, 0x54, 0, 0, 6, 6]).broadcast();
        let offered = poll(PATIENCE, || {
            if let Some(status) = running.ended()? {
                anyhow::bail!("{} ended: {status}", running.what());
            }
            // A server without free addresses does not answer a stranger.
            let known = self.exchange(&probe, Duration::from_millis(300), 1)?;
            let node = self.exchange(&uefi(1), Duration::from_millis(300), 2)?;
            let other = known.iter().chain(&node).any(|offer| offer.server == OTHER);
            Ok(other.then_some(()))
        })?;
        offered.with_context(|| format!("{} answers nothing", running.what()))?;
        Ok(running)
    }

    /// Sends as a broadcast from port 68 without an address, and collects up to `most` answers within `time`.
    pub fn exchange(&self, message: &Message, time: Duration, most: usize) -> Result<Vec<Offer>> {
        let xid = next_xid();
        let packet = message.clone().xid(xid).build();
        self.host.inside(|| {
            let socket = client_socket("eth0")?;
            socket.send_to(&packet, TO_ALL)?;
            let (mut offers, end) = (Vec::new(), Instant::now() + time);
            let mut buffer = [0; 2048];
            while offers.len() < most && Instant::now() < end {
                socket.set_read_timeout(Some(Duration::from_millis(50)))?;
                if let Ok(length) = socket.recv(&mut buffer)
                    && length >= 240
                    && buffer[4..8] == xid.to_be_bytes()
                {
                    offers.push(Offer::of(buffer[..length].to_vec()));
                }
            }
            Ok(offers)
        })?
    }

    /// The offers of both servers: the address, and the boot part.
    pub fn discover(&self, message: &Message) -> Result<(Offer, Offer)> {
        let both = poll(PATIENCE, || {
            let mut offers = self.exchange(message, Duration::from_secs(3), 2)?;
            offers.sort_by_key(|offer| offer.yiaddr.is_unspecified());
            let pair: Option<[Offer; 2]> = offers.try_into().ok();
            Ok(pair.map(|[address, boot]| (address, boot)))
        })?;
        both.context("both servers must answer")
    }

    /// The offer of the only server.
    pub fn offer(&self, message: &Message) -> Result<Offer> {
        let offer = poll(PATIENCE, || {
            Ok(self.exchange(message, Duration::from_secs(3), 1)?.pop())
        })?;
        offer.context("no server answers")
    }

    /// Takes an offered address; nobody but its server answers.
    pub fn request(&self, offer: &Offer) -> Result<Ipv4Addr> {
        let request = uefi(3).server(offer.server).requested(offer.yiaddr);
        let acks = self.exchange(&request, Duration::from_millis(1500), 3)?;
        let [ack] = &acks[..] else {
            anyhow::bail!("{acks:?}");
        };
        assert_eq!((ack.server, option(&ack.bytes, 53)), (OTHER, Some(vec![5])));
        Ok(ack.yiaddr)
    }

    /// Gives the node's card that address alone.
    fn has(&self, address: Ipv4Addr) -> Result {
        self.host.ip(&["address", "flush", "dev", "eth0"])?;
        self.host
            .ip(&["address", "add", &format!("{address}/16"), "dev", "eth0"])
            .map(drop)
    }

    /// Sends a packet to port 4011 from that port of `from`.
    pub fn send_to_boot_server(
        &self,
        host: &Namespace,
        from: SocketAddr,
        port: u16,
        packet: &[u8],
    ) -> Result<UdpSocket> {
        host.inside(|| {
            let socket = UdpSocket::bind((from.ip(), port))?;
            socket.send_to(packet, (SERVER, 4011))?;
            Ok(socket)
        })?
    }

    /// Asks at port 4011 as the node, from that port, and returns the answer, which comes from there.
    pub fn boot_server(&self, message: &Message, port: u16) -> Result<Offer> {
        self.has(NODE)?;
        let from = SocketAddr::from((NODE, 0));
        let socket = self.send_to_boot_server(&self.host, from, port, &message.clone().build())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut buffer = [0; 2048];
        let (length, sender) = socket.recv_from(&mut buffer)?;
        assert_eq!(sender, SocketAddr::from((SERVER, 4011)));
        self.host.ip(&["address", "flush", "dev", "eth0"])?;
        Ok(Offer::of(buffer[..length].to_vec()))
    }

    /// iPXE's request for the node's script, from that address.
    pub fn script_from(&self, address: Ipv4Addr) -> Result<String> {
        self.script_of("52-54-00-00-01-01", "", address)
    }

    /// iPXE's request for the script of the card `mac`, with `more` of what it knows, from that address.
    pub fn script_of(&self, mac: &str, more: &str, address: Ipv4Addr) -> Result<String> {
        self.has(address)?;
        let url = format!("http://10.5.0.1:80/ipxe?mac={mac}&arch=x86_64{more}");
        let script = process::output(self.host.command("curl").args(["-sS", "--max-time", "60", &url]));
        self.host.ip(&["address", "flush", "dev", "eth0"])?;
        script
    }

    /// The node boots until it has its files. Its agent reports that serial number and these cards.
    pub fn boots_with(&self, serial: &str, cards: &[&str]) -> Result {
        // With "proxy", that opens the window of its boot.
        self.exchange(&uefi(1).ipxe(), Duration::from_millis(500), 1)?;
        let wire = self.host.inside(|| Wire::local("eth0"))??;
        self.has(NODE)?;
        let node = played::Node::among_others("r01n01", NODE_MAC, NODE, &wire, &self.host);
        let mut hardware = played::no_hardware();
        hardware["serial"] = serial.into();
        hardware["product"] = "R740".into();
        hardware["hwaddrs"] = cards.into();
        node.fetch_script()?.overlay(&played::no_disk(), &hardware)?;
        self.host.ip(&["address", "flush", "dev", "eth0"]).map(drop)
    }

    pub fn counter(&self, name: &str) -> Result<u64> {
        Ok(self.daemon.json(&["counters"])?[name].as_u64().unwrap_or(0))
    }

    pub fn timeline(&self, node: &str) -> Result<String> {
        self.daemon.cli(&["timeline", node])
    }

    /// Waits until the node's row in `status` has that error.
    pub fn wait_status(&self, text: &str) -> Result {
        let seen = poll(PATIENCE, || {
            let row = self.daemon.json(&["status"])?["nodes"][0].clone();
            let told = row["last_error"].as_str().is_some_and(|error| error.contains(text));
            Ok(told.then_some(()))
        })?;
        seen.with_context(|| {
            format!(
                "no '{text}' in status: {}",
                self.daemon.cli(&["status"]).unwrap_or_default()
            )
        })
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}
