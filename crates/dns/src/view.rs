//! The data that one query is answered from, and the traits by which the program provides it.

use super::Zones;
use ipnet::Ipv4Net;
use std::{borrow::Cow, fmt, net::Ipv4Addr, sync::Arc};

/// The site's nodes.
pub trait Nodes: fmt::Debug + Send + Sync {
    /// The address of the node with that name, which is in lower case; none if there is no such node.
    fn address_of(&self, name: &str) -> Option<Ipv4Addr>;

    /// The name of the node with that address; none if no node has it.
    fn name_of(&self, address: Ipv4Addr) -> Option<Cow<'_, str>>;

    /// A network that overlaps `within` and has addresses of nodes, besides the subnets of the zones; none if there is no such network. It does
    /// not overlap the subnets.
    fn network_in(&self, within: Ipv4Net) -> Option<Ipv4Net>;
}

/// The data that questions are answered from: immutable, made again when zones or nodes have changed.
#[derive(Debug)]
pub struct View {
    /// The names of the zones.
    pub zones: Zones,
    /// All nodes.
    pub nodes: Arc<dyn Nodes>,
    /// Serial number of all zones (RFC 1035 section 3.3.13), always larger than that of the view before.
    pub serial: u32,
}

/// Provides the view for each query.
pub trait Views: fmt::Debug + Send + Sync {
    /// The present view.
    fn view(&self) -> Arc<View>;
}
