//! What one query is answered from, and what is asked of the program for it.

use super::Zones;
use std::{fmt, net::Ipv4Addr, sync::Arc};

/// The site's nodes.
pub trait Nodes: fmt::Debug + Send + Sync {
    /// The address of the node of that name, which is in lower case; none if no node has it.
    fn address_of(&self, name: &str) -> Option<Ipv4Addr>;

    /// The name of the node that has that address; none if it is no node's.
    fn name_of(&self, address: Ipv4Addr) -> Option<&str>;
}

/// What questions are answered from: immutable, made again when zones or nodes changed.
#[derive(Debug)]
pub struct View {
    /// Which names are ours.
    pub zones: Zones,
    /// All nodes.
    pub nodes: Arc<dyn Nodes>,
    /// Serial number of all zones (RFC 1035 section 3.3.13). It is larger in each view than in the one before.
    pub serial: u32,
}

/// Gives the view of each query.
pub trait Views: fmt::Debug + Send + Sync {
    /// The present one.
    fn view(&self) -> Arc<View>;
}
