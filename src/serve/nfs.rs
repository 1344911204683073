//! The answer to the question of NFS: whose root is this?

use super::Shared;
use rackstrap_base::{clock::Timestamp, rare::Rare, sync::lock};
use rackstrap_catalog::{Catalog, ImageVersion, export_name};
use rackstrap_nfs::{ExportId, ExportRoot, Exports, NfsEvent, Refusal};
use rackstrap_registries::timeline::{Event, EventKind, Level, Subject};
use rackstrap_wire::{FIRST_USER_PORT, ImageRef};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

/// The roots of sealed image versions, for the nodes that were told to boot them.
pub struct ImageExports {
    shared: Shared,
    /// Open exports by name and number, with the time at which the tree was sealed.
    open: Mutex<HashMap<ExportId, (Timestamp, Arc<ExportRoot>)>>,
    /// Mount requests from addresses that are not nodes'.
    mounts: Rare,
    /// Other failures of such addresses: connections that were refused or ended, and wrong handles.
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

    /// Closes the exports of versions that are no longer in `images`, or have another tree there. Otherwise their files could
    /// not be freed, and would take the place of files of current exports.
    pub fn retain(&self, images: &Catalog) {
        let is_there: HashSet<_> = all_variants(images)
            .map(|variant| (export_id(&variant.export_name()), variant.manifest.created))
            .collect();
        let mut open = lock(&self.open);
        let dropped: Vec<_> = open
            .extract_if(|id, (made, _)| !is_there.contains(&(*id, *made)))
            .collect();
        // A MNT that read the world before cannot open it again: the directory is moved out of sight before the images are
        // read again. close(2) of thousands of files happens outside of the lock.
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

    /// The export of that variant of `image`, if `peer` is a node that was told to boot it.
    fn export(&self, peer: SocketAddr, image: &ImageRef, variant: &str) -> Result<Arc<ExportRoot>, Refusal> {
        let name = export_name(image, variant);
        let node = self
            .node_of(peer)
            .ok_or_else(|| Refusal::NotYours(format!("{} is not a node", peer.ip())))?;
        if !self.shared.boots.may_mount(&node, image, variant) {
            return Err(Refusal::NotYours(format!("{node} was not told to boot {name}")));
        }
        let version = self
            .shared
            .world
            .load()
            .images
            .get(image)
            .and_then(|version| version.variant_named(variant))
            .cloned()
            .ok_or(Refusal::NoSuchExport)?;
        let id = export_id(&name);
        let mut open = lock(&self.open);
        // The name may belong to another tree now: an image was renamed, and a new image got its name and number.
        if let Some((made, root)) = open.get(&id)
            && *made == version.manifest.created
        {
            return Ok(root.clone());
        }
        let root = ExportRoot::open(&version.dir.join("root"), id, name)
            .map_err(|error| Refusal::Unavailable(error.to_string()))?;
        let root = Arc::new(root);
        open.insert(id, (version.manifest.created, root.clone()));
        Ok(root)
    }
}

fn all_variants(images: &Catalog) -> impl Iterator<Item = &ImageVersion> {
    images.iter().flat_map(|version| version.variants())
}

/// The identifier of a variant's export in file handles; the same after each start.
fn export_id(name: &str) -> ExportId {
    let digest = blake3::hash(name.as_bytes());
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
        let name = text.trim_start_matches('/');
        let (image, variant) = match name.split_once('/') {
            None => (name, ""),
            // A path that ends with a slash names no variant.
            Some((_, "")) => return Err(Refusal::NoSuchExport),
            Some(both) => both,
        };
        let image = image.parse().map_err(|_| Refusal::NoSuchExport)?;
        self.export(peer, &image, variant)
    }

    fn by_id(&self, peer: SocketAddr, id: ExportId) -> Result<Arc<ExportRoot>, Refusal> {
        let world = self.shared.world.load();
        let variant = all_variants(&world.images).find(|variant| export_id(&variant.export_name()) == id);
        let variant = variant.ok_or(Refusal::NoSuchExport)?;
        self.export(peer, &variant.manifest.image, &variant.variant)
    }

    fn list(&self, peer: SocketAddr) -> Vec<Vec<u8>> {
        let Some(node) = self.node_of(peer) else {
            return Vec::new();
        };
        let world = self.shared.world.load();
        let boots = &self.shared.boots;
        all_variants(&world.images)
            .filter(|variant| boots.may_mount(&node, &variant.manifest.image, &variant.variant))
            .map(|variant| format!("/{}", variant.export_name()).into_bytes())
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
            Some(node)
                if step == EventKind::NfsMount
                    && level == Level::Ok
                    && self.shared.freebsd().mounts(&node, peer, &detail) => {}
            // A node mounts its root from a privileged port. A request from another port comes from a user, and says nothing
            // about the node.
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
                // Not a boot that a user of the node may have begun through a relay.
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
