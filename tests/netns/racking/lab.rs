//! A daemon, a bridge, and one namespace for all racks of the site: it has the addresses of the relays and of all machines
//! behind them.

use anyhow::Context;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};
use testbed::{
    Binaries, Daemon, Namespace, Result, Site, Subnet,
    image::fake,
    paths::RunDir,
    played::{PATIENCE, Wire},
    timeline::poll,
};

/// The subnets behind a relay, each a /22: two racks, then the pool, then the relays.
pub const RELAYED: [u8; 4] = [20, 24, 28, 32];
/// The subnet whose pool has four addresses.
pub const NARROW: u8 = 40;

/// Fields are dropped in this order: the daemon ends before its namespace is removed.
pub struct Lab {
    pub daemon: Daemon,
    /// The namespace of the relays and the machines.
    racks: Namespace,
    server: Namespace,
    _dir: RunDir,
}

/// 10.5.0.0/20 on the bridge with the racks 1 to 14, and the subnets behind relays.
fn site(unknown_machines: u32) -> Site {
    let mut site = Site::demo();
    site.default_profile().templates = None;
    let local = Subnet {
        network: "10.5.0.0/20".to_owned(),
        pool: Some("10.5.15.1-10.5.15.254".to_owned()),
        ..Subnet::of_the_bridge()
    };
    let relayed = RELAYED.iter().chain([&NARROW]).map(|&rack| {
        let last = if rack == NARROW { 4 } else { 254 };
        let (pool, relays) = (rack + 2, rack + 3);
        Subnet::behind_a_relay(
            &format!("10.5.{rack}.0/22"),
            &format!("10.5.{relays}.254"),
            &format!("10.5.{pool}.1-10.5.{pool}.{last}"),
        )
    });
    site.subnets = [local].into_iter().chain(relayed).collect();
    site.reserved = vec!["10.5.0.0/24".to_owned(), "10.5.15.0/24".to_owned()];
    let upper = RELAYED.iter().chain([&NARROW]);
    site.reserved
        .extend(upper.map(|rack| format!("10.5.{}.0/23", rack + 2)));
    site.unknown_machines = Some(unknown_machines);
    site
}

impl Lab {
    pub fn start(unknown_machines: u32) -> Result<Lab> {
        let dir = RunDir::new()?;
        let server = Namespace::with_bridge()?;
        let racks = server.client("52:54:00:fe:00:02")?;
        racks.ip(&["address", "add", "10.5.0.2/20", "dev", "eth0"])?;
        for network in ["10.5.16.0/20", "10.5.32.0/20"] {
            server.ip(&["route", "add", network, "via", "10.5.0.2"])?;
            // All its addresses are local: a socket can be bound to any of them.
            racks.ip(&["route", "add", "local", network, "dev", "lo"])?;
        }
        let binaries = Binaries::without_agent(env!("CARGO_BIN_EXE_rackstrap"));
        let daemon = Daemon::new(&binaries, dir.path().join("daemon"), &site(unknown_machines), &[])?;
        fake(&daemon.state_dir().join("images"), "debian@1", 0)?;
        let lab = Lab {
            daemon,
            racks,
            server,
            _dir: dir,
        };
        lab.start_daemon()?;
        Ok(lab)
    }

    pub fn start_daemon(&self) -> Result {
        self.daemon.start(&self.server)
    }

    /// The connection to a relay with that address.
    pub fn relay(&self, rack: u8, last: u8) -> Result<Arc<Wire>> {
        let address = Ipv4Addr::new(10, 5, rack / 4 * 4 + 3, last);
        self.racks.inside(|| Wire::of_relay(address))?
    }

    /// The connection to the daemon's own network.
    pub fn local(&self) -> Result<Arc<Wire>> {
        self.racks.inside(|| Wire::local("eth0"))?
    }

    /// Runs `f`, and the threads that it starts, in the machines' namespace.
    pub fn among_racks<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.racks.inside(f)?
    }

    /// `discover list --json`
    pub fn waiting(&self) -> Result<Vec<Value>> {
        let list = self.daemon.json(&["discover", "list"])?;
        Ok(list["machines"].as_array().cloned().unwrap_or_default())
    }

    /// The machine's row of `discover list --json`.
    pub fn waits(&self, hwaddr: &str) -> Result<Option<Value>> {
        let found = self
            .waiting()?
            .into_iter()
            .find(|row| row["machine"]["hwaddr"] == hwaddr);
        Ok(found)
    }

    /// The nodes' names by hardware address; checks that names, addresses and hardware addresses are unique.
    pub fn nodes(&self) -> Result<BTreeMap<String, String>> {
        let nodes = self.daemon.json(&["node", "list"])?;
        let nodes = nodes.as_array().context("node list is no list")?;
        let (mut named, mut addresses, mut names) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for node in nodes {
            let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
            assert!(names.insert(text("name")), "{node}: duplicate name");
            assert!(addresses.insert(text("ipaddr")), "{node}: duplicate address");
            for hwaddr in node["hwaddrs"].as_array().into_iter().flatten() {
                let hwaddr = hwaddr.as_str().unwrap_or_default().to_owned();
                let twice = named.insert(hwaddr, text("name"));
                assert_eq!(twice, None, "{node}: its hardware address stands twice");
            }
        }
        Ok(named)
    }

    /// Waits until `look` returns a value.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let found = poll(PATIENCE, &mut look)?;
        found.with_context(|| {
            let list = self.daemon.cli(&["discover", "list"]).unwrap_or_default();
            format!("no {what}; discover list:\n{list}\nlog:\n{}", self.daemon.log_tail(20))
        })
    }
}
