//! What NFS asks: whose root is this?

use super::Shared;
use crate::timeline::{Event, EventKind, Level, Subject};
use rackstrap_base::{clock::Timestamp, rare::Rare, sync::lock};
use rackstrap_catalog::Catalog;
use rackstrap_nfs::{ExportId, ExportRoot, Exports, NfsEvent, Refusal};
use rackstrap_wire::{FIRST_USER_PORT, ImageRef};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

/// The roots of sealed image versions, each for the nodes that were told to boot it.
pub struct ImageExports {
    shared: Shared,
    /// By name and number, with when the tree was sealed.
    open: Mutex<HashMap<ExportId, (Timestamp, Arc<ExportRoot>)>>,
    /// Mounts that addresses of no node asked for.
    mounts: Rare,
    /// Other trouble of theirs: connections refused or ended, handles.
    troubles: Rare,
}

impl ImageExports {
    pub fn new(shared: Shared) -> Self {
        ImageExports {
            shared,
            open: Mutex::default(),
            mounts: Rare::default(),
            troubles: Rare::default(),
        }
    }

    /// Closes the exports of versions that `images`, which the world has by now, does not have, or has as other trees. Their files
    /// could not be freed otherwise, and would leave less room for the files of living exports.
    pub fn retain(&self, images: &Catalog) {
        let is_there: HashSet<_> = (images.iter())
            .map(|version| (export_id(&version.manifest.image), version.manifest.created))
            .collect();
        let mut open = lock(&self.open);
        let dropped: Vec<_> = open
            .extract_if(|id, (made, _)| !is_there.contains(&(*id, *made)))
            .collect();
        // A MNT that looked at the world before cannot bring one back: the directory is out of sight before the images are looked
        // at again. close(2) of thousands of files is outside the lock.
        drop(open);
        drop(dropped);
    }

    fn node_of(&self, peer: SocketAddr) -> Option<String> {
        let address: Ipv4Addr = match peer.ip().to_canonical() {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => return None,
        };
        self.shared
            .world
            .load()
            .inventory
            .by_ipaddr(address)
            .map(|node| node.name.clone())
    }

    /// The export of `image`, if `peer` is a node that was told to boot it.
    fn export(&self, peer: SocketAddr, image: &ImageRef) -> Result<Arc<ExportRoot>, Refusal> {
        let node = self
            .node_of(peer)
            .ok_or_else(|| Refusal::NotYours(format!("{} is not a node", peer.ip())))?;
        if !self.shared.boots.may_mount(&node, image) {
            return Err(Refusal::NotYours(format!("{node} was not told to boot {image}")));
        }
        let version = self
            .shared
            .world
            .load()
            .images
            .get(image)
            .cloned()
            .ok_or(Refusal::NoSuchExport)?;
        let id = export_id(image);
        let mut open = lock(&self.open);
        // The name may be that of another tree by now: an image was renamed, and a new one has its name and number.
        if let Some((made, root)) = open.get(&id)
            && *made == version.manifest.created
        {
            return Ok(root.clone());
        }
        let root = ExportRoot::open(&version.dir.join("root"), id, image.to_string())
            .map_err(|error| Refusal::Unavailable(error.to_string()))?;
        let root = Arc::new(root);
        open.insert(id, (version.manifest.created, root.clone()));
        Ok(root)
    }
}

/// Names a version in file handles, at every start the same.
fn export_id(image: &ImageRef) -> ExportId {
    let digest = blake3::hash(image.to_string().as_bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&digest.as_bytes()[..8]);
    ExportId(id)
}

impl Exports for ImageExports {
    fn is_node(&self, peer: SocketAddr) -> bool {
        self.node_of(peer).is_some()
    }

    fn mount(&self, peer: SocketAddr, path: &[u8]) -> Result<Arc<ExportRoot>, Refusal> {
        let text = std::str::from_utf8(path).map_err(|_| Refusal::NoSuchExport)?;
        let image = text
            .trim_start_matches('/')
            .parse()
            .map_err(|_| Refusal::NoSuchExport)?;
        self.export(peer, &image)
    }

    fn by_id(&self, peer: SocketAddr, id: ExportId) -> Result<Arc<ExportRoot>, Refusal> {
        let world = self.shared.world.load();
        let image = world
            .images
            .iter()
            .map(|v| &v.manifest.image)
            .find(|image| export_id(image) == id);
        self.export(peer, image.ok_or(Refusal::NoSuchExport)?)
    }

    fn list(&self, peer: SocketAddr) -> Vec<Vec<u8>> {
        let Some(node) = self.node_of(peer) else {
            return Vec::new();
        };
        let world = self.shared.world.load();
        let images = world.images.iter().map(|v| &v.manifest.image);
        images
            .filter(|image| self.shared.boots.may_mount(&node, image))
            .map(|i| format!("/{i}").into_bytes())
            .collect()
    }

    fn observe(&self, event: NfsEvent) {
        let (peer, step, level, detail) = match event {
            NfsEvent::Mounted { peer, export } => (peer, EventKind::NfsMount, Level::Ok, export),
            NfsEvent::MountRefused { peer, path, why } => {
                (peer, EventKind::NfsMount, Level::Error, format!("{path}: {why}"))
            }
            NfsEvent::HandleRefused { peer, why, .. } => (peer, EventKind::Nfs, Level::Error, why),
            NfsEvent::Unmounted { peer, path } => (peer, EventKind::NfsUnmount, Level::Ok, path),
            NfsEvent::Trouble { peer, why } => (peer, EventKind::Nfs, Level::Retry, why),
        };
        tracing::debug!(%peer, %step, detail, "nfs");
        match self.node_of(peer) {
            // A node mounts its root from a port of root's: what comes from another port is a user, and says nothing of the node.
            Some(node) if peer.port() >= FIRST_USER_PORT => {
                let event = Event::new(
                    Timestamp::now(),
                    EventKind::NfsClient,
                    level,
                    format!("{step}: {detail}"),
                );
                self.shared.recorder.record(Subject::Node(node), event);
            }
            Some(node) => {
                let mut event = Event::new(Timestamp::now(), step, level, detail);
                // Not one that a user of the node may have begun by way of a relay.
                if let Some(boot) = self.shared.boots.current(&node) {
                    event = event.of_boot(&boot.plan.id);
                }
                self.shared.recorder.record(Subject::Node(node), event);
            }
            None if level != Level::Ok => {
                let rare = match step {
                    EventKind::NfsMount => &self.mounts,
                    _ => &self.troubles,
                };
                if let Some(times) = rare.tell() {
                    tracing::warn!(%peer, times, "{step}: {detail}; the address belongs to no node");
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
