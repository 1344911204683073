//! Which machine has which temporary address, so that what a stranger does over TFTP and HTTP
//! lands on its own timeline.

use rackstrap_wire::HwAddr;
use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
};

/// Most addresses remembered; beyond it all are forgotten and learned again, which costs a few
/// events their owner and nothing else.
const MOST: usize = 65_536;

/// Addresses of strangers.
#[derive(Debug, Default)]
pub struct Sightings(Mutex<HashMap<Ipv4Addr, HwAddr>>);

impl Sightings {
    /// `hwaddr` was given `address`.
    pub fn note(&self, address: Ipv4Addr, hwaddr: HwAddr) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MOST {
            map.clear();
        }
        map.insert(address, hwaddr);
    }

    /// Who was last given `address`.
    pub fn who_has(&self, address: Ipv4Addr) -> Option<HwAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address).copied()
    }
}
