//! A daemon and simulated nodes, all in one namespace behind one address.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use testbed::{
    Binaries, Cluster, Daemon, Namespace, Result, Site,
    image::fake,
    played::{Boot, Node, Wire, no_disk, no_hardware},
};

/// The number of nodes that boot at the same time.
const AT_ONCE: usize = 24;
/// One node of so many fetches its overlay: a build without optimisation takes a tenth of a second to create a node's host
/// keys.
const OVERLAYS: u8 = 25;

/// What a node does when it boots the new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boots {
    /// It becomes ready.
    Well,
    /// It restarts again and again.
    Never,
    /// It fetches its kernel and sends nothing more.
    Hangs,
}

/// All nodes and their daemon.
pub struct Fleet {
    pub cluster: Cluster,
    pub nodes: Vec<Node>,
    /// A link without an address, as for firmware.
    _firmware: Namespace,
}

impl Fleet {
    /// A daemon with debian@1, and `racks` racks of `slots` nodes each in its inventory.
    pub fn start(racks: u8, slots: u8) -> Result<Fleet> {
        let mut site = Site::demo();
        // Few of these tests send heartbeats.
        site.heartbeat_secs = 3600;
        Fleet::of_site(&site, racks, slots)
    }

    /// [`Fleet::start`] with another site file.
    pub fn of_site(site: &Site, racks: u8, slots: u8) -> Result<Fleet> {
        let cluster = Cluster::with_images(&Binaries::get()?, site, Vec::new())?;
        version(&cluster.daemon, 1)?;
        cluster.start_daemon()?;
        let namespace = cluster.namespace.client("52:54:00:00:ff:02")?;
        // One neighbour for all nodes: the kernel's table holds little more than a thousand.
        namespace.ip(&["address", "add", "10.5.0.2/16", "dev", "eth0"])?;
        let namespace = Arc::new(namespace);
        let firmware = cluster.namespace.client("52:54:00:00:ff:03")?;
        let wire = firmware.inside(|| Wire::local("eth0"))??;
        let mut nodes = Vec::new();
        for rack in 1..=racks {
            let network = format!("10.5.{rack}.0/24");
            namespace.ip(&["route", "add", "local", &network, "dev", "lo"])?;
            cluster.namespace.ip(&["route", "add", &network, "via", "10.5.0.2"])?;
            nodes.extend((1..=slots).map(|slot| {
                let (name, hwaddr) = (format!("r{rack:02}n{slot:02}"), [0x52, 0x54, 0, 0xb0, rack, slot]);
                Node::among_others(&name, hwaddr, Ipv4Addr::new(10, 5, rack, slot), &wire, &namespace)
            }));
        }
        let rows = nodes
            .iter()
            .map(|node| format!("{},{}\n", node.name, node.machine.mac()));
        let file = cluster.dir().join("nodes.csv");
        fs::write(&file, "name,hwaddr\n".to_owned() + &rows.collect::<String>())?;
        cluster.daemon.cli(&["node", "import", &file.to_string_lossy()])?;
        Ok(Fleet {
            cluster,
            nodes,
            _firmware: firmware,
        })
    }

    /// Adds another version of the image, known to the daemon.
    pub fn add_version(&self, number: u32) -> Result<String> {
        version(&self.cluster.daemon, number)?;
        self.cluster.daemon.cli(&["reload"])?;
        let rollouts = self.cluster.daemon.json(&["rollout", "list"])?;
        Ok(rollouts
            .as_array()
            .map(|all| all.iter().map(Value::to_string).collect())
            .unwrap_or_default())
    }

    /// The node with that name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("no node {name}"))
    }

    /// Restarts these nodes; all must get `version` and become ready.
    pub fn boot(&self, nodes: &[&Node], version: &str) -> Result {
        let others = self.boot_into(nodes, version, |_| Boots::Well)?;
        ensure!(others.is_empty(), "given another version than {version}: {others:?}");
        Ok(())
    }

    /// Restarts these nodes, with the behaviour on `version` that `lot` returns. Returns the nodes that got another version,
    /// on which they become ready.
    pub fn boot_into(
        &self,
        nodes: &[&Node],
        version: &str,
        lot: impl Fn(&Node) -> Boots + Sync,
    ) -> Result<Vec<String>> {
        let (next, others) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || -> Result {
            while let Some(node) = nodes.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut boot = node.boot_into_kernel()?;
                if boot.version != version {
                    others.lock().unwrap().push(node.name.clone());
                } else if lot(node) == Boots::Hangs {
                    continue;
                } else if lot(node) == Boots::Never {
                    for _ in 0..2 {
                        boot = node.boot_into_kernel()?;
                        ensure!(boot.version == version, "{} was given {}", node.name, boot.version);
                    }
                    boot = node.boot_into_kernel()?;
                    ensure!(boot.version != version, "{} does not go back", node.name);
                }
                come_up(&boot)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE.min(nodes.len())).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        Ok(others.into_inner().unwrap())
    }
}

/// Boots from the kernel to the end.
pub fn come_up(boot: &Boot) -> Result {
    let plan = boot.plan()?;
    ensure!(
        plan["image"] == boot.version.as_str() && plan["node"] == boot.node.name.as_str(),
        "kernel of {}: {plan}",
        boot.version
    );
    if boot.node.machine.hwaddr[5] % OVERLAYS == 1 {
        let overlay = boot.overlay(&no_disk(), &no_hardware())?;
        ensure!(overlay.contains("PRIVATE KEY"), "overlay: {overlay}");
    }
    boot.ready(&json!([]))
}

/// Creates a version of the image whose kernel names the version.
fn version(daemon: &Daemon, number: u32) -> Result {
    fake(&daemon.state_dir().join("images"), &format!("debian@{number}"), 0)
}
