//! A world, a store, and the registries of a daemon over one store, for the tests of this package, and of packages that depend on
//! it. The program does not use them. A boot's plan is [`rackstrap_wire::testing::plan`].

pub use rackstrap_model::testing::{CLUSTER, add, cluster, example, node, node_with_card, site};

use crate::{Registries, boots::Boot, discovery::Discovery, restart::Restarts, rollout::Rollouts, timeline::Subject};
use arc_swap::ArcSwap;
use rackstrap_base::clock::Timestamp;
use rackstrap_catalog::Catalog;
use rackstrap_model::{
    decide::{SharedWorld, World},
    inventory::{Change, Inventory, Node},
};
use rackstrap_site::Site;
use rackstrap_store::Store;
use rackstrap_wire::testing::plan;
use std::{path::Path, sync::Arc, thread::sleep, time::Duration};

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
    /// Adds these nodes.
    #[must_use]
    pub fn nodes(mut self, nodes: impl IntoIterator<Item = Node>) -> Self {
        self.0.inventory = Arc::new(Inventory::new(nodes));
        self
    }

    /// Adds these image versions.
    #[must_use]
    pub fn images(mut self, images: Catalog) -> Self {
        self.0.images = Arc::new(images);
        self
    }

    /// The world in the form that the daemon's parts share.
    pub fn shared(self) -> SharedWorld {
        Arc::new(ArcSwap::from_pointee(self.0))
    }

    /// The world itself.
    pub fn build(self) -> World {
        self.0
    }
}

/// A store in `dir`.
pub fn store(dir: &Path) -> Store {
    Store::open(&dir.join("store.redb")).unwrap_or_else(|error| panic!("{error}"))
}

impl Registries {
    /// Opens the store in `dir`, as the daemon does. Its nodes replace those of `world`; if it has none, the nodes of the world
    /// stay, in memory only.
    pub fn open(dir: &Path, world: WorldOf) -> Registries {
        // Each node that was up before is expected to be heard of from the time 0 on.
        Registries::load(store(dir), world.build(), Timestamp(0)).unwrap()
    }

    /// Starts the registry of unknown machines.
    pub fn discovery(&self) -> Discovery {
        self.start_discovery().unwrap()
    }

    /// Starts the registry of rollouts, which uses `restarts` to restart nodes.
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

    /// Ends like kill -9, and waits until the threads of rollouts and discovery, which the caller has dropped, have released
    /// the store in `dir`.
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
