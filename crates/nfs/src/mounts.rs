//! The list of mounts for the MOUNT protocol.

use std::{collections::BTreeSet, net::IpAddr};

/// The mounts that clients have reported, for DUMP. They are advisory, because nodes that are switched off do not unmount, and are not
/// kept over restarts.
#[derive(Debug, Default)]
pub struct MountTable {
    entries: BTreeSet<(IpAddr, Vec<u8>)>,
}

impl MountTable {
    /// Most entries; further ones are not listed.
    const MAX: usize = 16_384;
    /// Most entries of one peer.
    const MAX_PER_PEER: usize = 16;

    /// Records a mount, if there is room.
    pub fn add(&mut self, peer: IpAddr, path: &[u8]) {
        if self.entries.len() < Self::MAX && self.of(peer).count() < Self::MAX_PER_PEER {
            self.entries.insert((peer, path.to_vec()));
        }
    }

    /// The mounts of a peer.
    pub fn of(&self, peer: IpAddr) -> impl Iterator<Item = &Vec<u8>> {
        self.entries
            .range((peer, Vec::new())..)
            .take_while(move |(ip, _)| *ip == peer)
            .map(|(_, path)| path)
    }

    /// Removes an entry; true if it existed.
    pub fn remove(&mut self, peer: IpAddr, path: &[u8]) -> bool {
        self.entries.remove(&(peer, path.to_vec()))
    }

    /// Removes all entries of a peer, and returns them.
    pub fn remove_all(&mut self, peer: IpAddr) -> Vec<Vec<u8>> {
        let paths: Vec<_> = self.of(peer).cloned().collect();
        for path in &paths {
            self.remove(peer, path);
        }
        paths
    }
}
