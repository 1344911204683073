//! The parts that unit tests share, each built in one place: a site file, nodes, a world, and the registries of a daemon over
//! one store.
//! A boot's plan is [`rackstrap_wire::testing::plan`].

use crate::{
    boots::{Boot, Boots},
    config::{Site, parse},
    decide::{SharedWorld, World},
    discovery::Discovery,
    inventory::{Change, Inventory, NewNode, Node},
    nodes::{self, Nodes},
    restart::Restarts,
    rollout::Rollouts,
    timeline::{Follow, Recorder, Subject},
};
use arc_swap::ArcSwap;
use rackstrap_base::clock::Timestamp;
use rackstrap_image::Catalog;
use rackstrap_store::Store;
use rackstrap_wire::{HwAddr, testing::plan};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::sleep,
    time::Duration,
};

/// A cluster whose racks are 10.5.RACK.SLOT, with one subnet behind a relay. All other settings have their defaults.
pub const CLUSTER: &str = r#"
[cluster]
name = "lab"
node-name = "r{rack:02}n{slot:02}"
node-address = "10.5.{rack}.{slot}"
reserved = ["10.5.0.0/24"]

[[subnet]]
network = "10.5.0.0/16"
relayed = true
server = "10.5.0.1"
"#;

/// The site that `text` describes.
pub fn site(text: &str) -> Site {
    let (site, _) = parse(text, Path::new("/site.toml")).unwrap_or_else(|problems| panic!("{problems}"));
    site
}

/// [`CLUSTER`] with the further lines `more`.
pub fn cluster(more: &str) -> Site {
    site(&[CLUSTER, more].concat())
}

/// The example's site file, after `change`.
pub fn example(change: impl Fn(String) -> String) -> Site {
    site(&change(include_str!("../rackstrap.example.toml").to_owned()))
}

/// The numbers in `r01n03`: rack and slot.
fn position(name: &str) -> (u8, u8) {
    let numbers = name.strip_prefix('r').and_then(|rest| rest.split_once('n'));
    let parsed = numbers.and_then(|(rack, slot)| Some((rack.parse().ok()?, slot.parse().ok()?)));
    parsed.unwrap_or_else(|| panic!("{name} is not named as r01n03 is"))
}

/// The address of the network card of the node with that name.
pub fn card(name: &str) -> HwAddr {
    let (rack, slot) = position(name);
    HwAddr([0x52, 0x54, 0, 0, rack, slot])
}

/// A node at the position in its name: r01n03 has 10.5.1.3 and 52:54:00:00:01:03. It has no profiles and no groups.
pub fn node(name: &str) -> Node {
    let (rack, slot) = position(name);
    Node {
        name: name.to_owned(),
        hwaddrs: vec![card(name)],
        ipaddr: [10, 5, rack, slot].into(),
        profiles: Vec::new(),
        groups: Default::default(),
        attributes: Default::default(),
    }
}

/// The same with another network card; `number` is the last byte of its address.
pub fn node_with_card(name: &str, number: u8) -> Node {
    Node {
        hwaddrs: vec![HwAddr([0x52, 0x54, 0, 1, 1, number])],
        ..node(name)
    }
}

/// The change that adds that node to an inventory.
pub fn add(name: &str) -> Change {
    Change::Add(NewNode {
        name: name.to_owned(),
        hwaddrs: vec![card(name)],
        ..NewNode::default()
    })
}

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
}

/// A store in `dir`.
pub fn store(dir: &Path) -> Store {
    Store::open(&dir.join("store.redb")).unwrap_or_else(|error| panic!("{error}"))
}

/// The registries of a daemon over the store in one directory. Only the store outlives them.
pub struct Registries {
    pub dir: PathBuf,
    pub store: Store,
    pub world: SharedWorld,
    pub recorder: Recorder,
    pub boots: Boots,
    pub nodes: Nodes,
}

impl Registries {
    /// Opens the store in `dir`. Its nodes replace those of `world`; if it has none, the nodes of the world stay, in memory
    /// only.
    pub fn open(dir: &Path, world: WorldOf) -> Registries {
        let store = store(dir);
        let stored = nodes::load(&store).unwrap();
        let world = match stored.is_empty() {
            true => world.shared(),
            false => world.nodes(stored).shared(),
        };
        // Each node that was up before is expected to be heard of from the time 0 on.
        let recorder = Recorder::load(store.clone(), world.load().site.limits, Timestamp(0)).unwrap();
        let boots = Boots::load(store.clone()).unwrap();
        let nodes = Nodes::new(store.clone(), world.clone()).followed_by(Follow::new(recorder.clone(), boots.clone()));
        Registries {
            dir: dir.to_owned(),
            store,
            world,
            recorder,
            boots,
            nodes,
        }
    }

    /// Starts the registry of unknown machines.
    pub fn discovery(&self) -> Discovery {
        Discovery::start(
            self.world.clone(),
            self.store.clone(),
            self.nodes.clone(),
            self.boots.clone(),
        )
        .unwrap()
    }

    /// Starts the registry of rollouts, which uses `restarts` to restart nodes.
    pub fn rollouts(&self, restarts: &Restarts) -> Rollouts {
        Rollouts::start(
            self.world.clone(),
            self.store.clone(),
            self.recorder.clone(),
            self.boots.clone(),
            restarts.clone(),
        )
        .unwrap()
    }

    /// Loads the requests for restarts.
    pub fn restarts(&self) -> Restarts {
        Restarts::load(
            self.store.clone(),
            self.world.clone(),
            self.boots.clone(),
            self.recorder.clone(),
        )
        .unwrap()
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
    /// the store.
    pub fn kill(self) {
        let dir = self.dir.clone();
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
