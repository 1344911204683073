//! Names <-> addresses by the two patterns of the site file.

/// `node-name` and `node-address`, proven to convert both ways.
#[derive(Clone, Debug)]
pub struct Naming;
