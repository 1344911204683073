//! A namespace, a daemon, and nodes.

use crate::{
    Binaries, Daemon, Namespace, Node, Result, Site,
    hardware::hwaddr_of,
    image::{Image, Kernel},
    paths::RunDir,
    played,
};
use anyhow::Context;
use serde_json::Value;
use std::path::Path;

fn say(line: &str) {
    eprintln!("testbed: {line}");
}

/// A virtual cluster. Fields are dropped in this order, so the daemon ends before its namespace is removed.
#[derive(Debug)]
pub struct Cluster {
    /// The daemon.
    pub daemon: Daemon,
    /// Its network.
    pub namespace: Namespace,
    dir: RunDir,
    _images: Vec<Image>,
}

impl Cluster {
    /// A cluster with the image `debian`, whose daemon runs on `site`.
    pub fn start(site: Site) -> Result<Self> {
        let cluster = Cluster::prepare(site)?;
        cluster.start_daemon()?;
        Ok(cluster)
    }

    /// Like [`Cluster::start`], but the daemon is not started yet.
    pub fn prepare(site: Site) -> Result<Self> {
        let binaries = Binaries::get()?;
        let debian = Image::debian(&binaries, Kernel::Cloud, &mut say)?;
        Cluster::with_images(&binaries, &site, vec![debian])
    }

    /// A cluster with the image `debian` from `images/debian.toml`, for tests of that image, or with hardware for which the kernel for virtual
    /// machines has no driver.
    pub fn start_whole(site: Site) -> Result<Self> {
        let binaries = Binaries::get()?;
        let debian = Image::debian(&binaries, Kernel::Whole, &mut say)?;
        Cluster::started(&binaries, &site, debian)
    }

    /// A cluster with a root that is up in seconds instead of Debian: see [`Site::small`].
    pub fn start_small(site: Site) -> Result<Self> {
        let binaries = Binaries::get()?;
        let small = Image::small(&binaries, Kernel::Cloud, &mut say)?;
        Cluster::started(&binaries, &site, small)
    }

    /// Like [`Cluster::start_small`], with the kernel for all hardware.
    pub fn start_small_whole(site: Site) -> Result<Self> {
        let binaries = Binaries::get()?;
        let small = Image::small(&binaries, Kernel::Whole, &mut say)?;
        Cluster::started(&binaries, &site, small)
    }

    fn started(binaries: &Binaries, site: &Site, image: Image) -> Result<Self> {
        let cluster = Cluster::with_images(binaries, site, vec![image])?;
        cluster.start_daemon()?;
        Ok(cluster)
    }

    /// A cluster with these images; the daemon is not started yet.
    pub fn with_images(binaries: &Binaries, site: &Site, images: Vec<Image>) -> Result<Self> {
        let dir = RunDir::new()?;
        let namespace = Namespace::with_bridge()?;
        let linked: Vec<&Image> = images.iter().collect();
        let daemon = Daemon::new(binaries, dir.path().join("daemon"), site, &linked)?;
        Ok(Cluster {
            daemon,
            namespace,
            dir,
            _images: images,
        })
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start_daemon(&self) -> Result {
        self.daemon.start(&self.namespace)
    }

    /// A node with the name `r##n##`, not yet in the inventory, without a disk, switched off.
    pub fn node(&self, name: &str) -> Node<'_> {
        Node::new(self, name)
    }

    /// A node that consists of its packets, on a machine of its own. It is in the inventory, and not yet booted. It has the card of
    /// [`Cluster::node`].
    pub fn played(&self, name: &str) -> Result<played::Node> {
        let hwaddr = hwaddr_of(name);
        self.daemon.cli(&["node", "add", name, "--hwaddr", &hwaddr])?;
        played::Node::alone(name, &hwaddr, self.namespace.client(&hwaddr)?)
    }

    /// Keeps the run's files after the cluster is removed.
    pub fn keep_files(&mut self) {
        self.dir.keep();
    }

    /// The directory with sockets, logs and disks of this run.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A node's row of `rackstrap status`.
    pub fn status(&self, node: &str) -> Result<Value> {
        let status = self.daemon.json(&["status"])?;
        let rows = status["nodes"]
            .as_array()
            .context("rackstrap status --json has no nodes")?;
        let row = rows.iter().find(|row| row["node"] == node);
        row.cloned()
            .with_context(|| format!("rackstrap status has no row for {node}: {status}"))
    }
}
