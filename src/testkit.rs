//! What unit tests stand on, each built in one place: a site file, nodes, a world, and the registries of a daemon over one store.
//! A boot's plan is [`rackstrap_wire::testing::plan`].

pub use crate::serve::Registries;
use crate::{
    boots::Boot,
    discovery::Discovery,
    restart::Restarts,
    rollout::Rollouts,
    serve::{self, Shared},
    timeline::Subject,
};

use arc_swap::ArcSwap;
use rackstrap_base::{clock::Timestamp, warnings::SiteWarnings};
use rackstrap_catalog::Catalog;
use rackstrap_model::{
    decide::{SharedWorld, World},
    inventory::{Change, Inventory, Node},
};
use rackstrap_site::Site;
use rackstrap_store::Store;
use rackstrap_wire::testing::plan;
use std::{path::Path, sync::Arc, thread::sleep, time::Duration};

pub use rackstrap_model::testing::{CLUSTER, add, cluster, example, node, node_with_card, site};

/// The world of `site`, without nodes and images.
pub fn world(site: Site) -> WorldOf {
    WorldOf(World {
        site: Arc::new(site),
        inventory: Arc::default(),
        images: Arc::default(),
        assignments: Arc::default(),
        confirmed: None,
    })
}

/// A world under construction.
pub struct WorldOf(World);

impl WorldOf {
    /// Has these nodes.
    #[must_use]
    pub fn nodes(mut self, nodes: impl IntoIterator<Item = Node>) -> Self {
        self.0.inventory = Arc::new(Inventory::new(nodes));
        self
    }

    /// Has these image versions.
    #[must_use]
    pub fn images(mut self, images: Catalog) -> Self {
        self.0.images = Arc::new(images);
        self
    }

    /// The world, as the daemon's parts share it.
    pub fn shared(self) -> SharedWorld {
        Arc::new(ArcSwap::from_pointee(self.0))
    }

    /// The world itself.
    pub fn build(self) -> World {
        self.0
    }
}

/// A whole daemon with its state in `dir`, as [`serve::open`] has it before it binds a port: [`CLUSTER`], and `more` of a site file.
pub fn daemon(dir: &Path, more: &str) -> Shared {
    serve::open(
        cluster(&format!("[server]\nstate-dir = {dir:?}\n{more}")),
        SiteWarnings::default(),
    )
    .unwrap()
}

/// A store in `dir`.
pub fn store(dir: &Path) -> Store {
    Store::open(&dir.join("store.redb")).unwrap_or_else(|error| panic!("{error}"))
}

impl Registries {
    /// Opens the store in `dir`, as the daemon does. Its nodes become those of `world`, unless it has none: then the world's stay, in memory only.
    pub fn open(dir: &Path, world: WorldOf) -> Registries {
        // Whoever was up in the time before is expected to be heard of from the beginning of time on.
        Registries::load(store(dir), world.build(), Timestamp(0)).unwrap()
    }

    /// Starts to rack machines.
    pub fn discovery(&self) -> Discovery {
        self.start_discovery().unwrap()
    }

    /// Starts to roll images out; `restarts` restarts nodes for that.
    pub fn rollouts(&self, restarts: &Restarts) -> Rollouts {
        self.start_rollouts(restarts).unwrap()
    }

    /// Loads the requests for restarts.
    pub fn restarts(&self) -> Restarts {
        self.load_restarts().unwrap()
    }

    /// Adds these nodes.
    pub fn add(&self, names: &[&str]) {
        let changes: Vec<Change> = names.iter().map(|name| add(name)).collect();
        self.nodes.change(&changes, "test", Timestamp(0)).unwrap();
    }

    /// `node` boots debian@1, is ready at `now`, and sends a heartbeat.
    pub async fn ready(&self, node: &str, now: Timestamp) -> Arc<Boot> {
        let boot = self.boots.open(now, plan(node).pinned()).await.unwrap();
        let boot = self.boots.mark_ready(&boot.plan.id, &boot.token, now).await.unwrap();
        let subject = Subject::Node(node.to_owned());
        self.recorder.heartbeat(subject, now, &boot.plan.id, "");
        boot
    }

    /// Ends as kill -9 does, and waits until the threads of rollouts and discovery, which the caller has dropped, let go of the store
    /// in `dir`.
    pub fn kill(self, dir: &Path) {
        drop(self);
        for _ in 0..600 {
            if Store::open(&dir.join("store.redb")).is_ok() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        panic!("the store in {} is still in use", dir.display());
    }
}
