//! The site file: `rackstrap.toml`, checked as a whole. Services see only the checked [`Site`].

mod site;

pub use site::{Cluster, LayoutPolicy, Limits, Profile, Server, Site, Subnet};
