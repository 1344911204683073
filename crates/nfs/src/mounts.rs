//! The table of mounts that the MOUNT protocol lists.

use std::{collections::BTreeSet, net::IpAddr};

/// Who said to have mounted what. Advisory (nodes that are switched off never unmount), kept for
/// DUMP, and forgotten with the daemon.
#[derive(Debug, Default)]
pub struct MountTable {
    entries: BTreeSet<(IpAddr, Vec<u8>)>,
}

impl MountTable {
    /// Entries in all; what is more is not listed.
    const MAX: usize = 16_384;
    /// Entries of one peer.
    const MAX_PER_PEER: usize = 16;

    /// Notes a mount, as far as there is room.
    pub fn add(&mut self, peer: IpAddr, path: &[u8]) {
        if self.entries.len() < Self::MAX && self.of(peer).count() < Self::MAX_PER_PEER {
            self.entries.insert((peer, path.to_vec()));
        }
    }

    /// What a peer has mounted.
    pub fn of(&self, peer: IpAddr) -> impl Iterator<Item = &Vec<u8>> {
        self.entries
            .range((peer, Vec::new())..)
            .take_while(move |(ip, _)| *ip == peer)
            .map(|(_, path)| path)
    }

    /// Forgets one; true if it was there.
    pub fn remove(&mut self, peer: IpAddr, path: &[u8]) -> bool {
        self.entries.remove(&(peer, path.to_vec()))
    }

    /// Forgets all of a peer, and says which they were.
    pub fn remove_all(&mut self, peer: IpAddr) -> Vec<Vec<u8>> {
        let paths: Vec<_> = self.of(peer).cloned().collect();
        for path in &paths {
            self.remove(peer, path);
        }
        paths
    }
}
