//! The parts that unit tests share, each built in one place.

use crate::serve::{self, Shared};
use rackstrap_base::warnings::SiteWarnings;
use rackstrap_model::testing::cluster;
use std::path::Path;

/// A whole daemon with its state in `dir`, as [`serve::open`] has it before it binds a port:
/// [`CLUSTER`](rackstrap_model::testing::CLUSTER), and `more` of a site file.
pub fn daemon(dir: &Path, more: &str) -> Shared {
    serve::open(
        cluster(&format!("[server]\nstate-dir = {dir:?}\n{more}")),
        SiteWarnings::default(),
    )
    .unwrap()
}
