//! The registries over one store. The daemon and the tests open them here, in the one order in which each finds what it needs.

use crate::{
    boots::Boots,
    discovery::Discovery,
    nodes::{self, Nodes},
    restart::Restarts,
    rollout::Rollouts,
    timeline::{Follow, Recorder},
};
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use rackstrap_base::clock::Timestamp;
use rackstrap_model::{
    decide::{SharedWorld, World},
    disks::describe_effects,
    inventory::Inventory,
};
use rackstrap_store::Store;
use std::sync::Arc;

/// At most this many lines about nodes' disks are in one message of the log.
pub const LOGGED_EFFECTS: usize = 20;

/// The registries that are loaded before anything runs.
pub struct Registries {
    /// The store of all rows.
    pub store: Store,
    /// The data that decisions read.
    pub world: SharedWorld,
    /// The registry of timelines.
    pub recorder: Recorder,
    /// Pinned boots.
    pub boots: Boots,
    /// The registry of nodes, which alone changes the inventory.
    pub nodes: Nodes,
}

impl Registries {
    /// Loads all from `store`. The nodes become those of the store; if it has none, those of `world` stay, in memory only.
    /// Heartbeats are expected from `now` on.
    ///
    /// # Errors
    /// An error of the store.
    pub fn load(store: Store, mut world: World, now: Timestamp) -> Result<Registries> {
        let stored = nodes::load(&store)?;
        if !stored.is_empty() {
            world.inventory = Arc::new(Inventory::new(stored));
        }
        let boots = Boots::load(store.clone())?;
        boots.retain_nodes(|name| world.inventory.get(name).is_some());
        take_over_layouts(&mut world, &boots)?;
        let recorder = Recorder::load(store.clone(), world.site.limits, now)?;
        let world: SharedWorld = Arc::new(ArcSwap::from_pointee(world));
        let nodes = Nodes::new(store.clone(), world.clone()).followed_by(Follow::new(recorder.clone(), boots.clone()));
        Ok(Registries {
            store,
            world,
            recorder,
            boots,
            nodes,
        })
    }

    /// Starts to rack machines.
    ///
    /// # Errors
    /// An error of the store, or no thread.
    pub fn start_discovery(&self) -> Result<Discovery> {
        let (store, boots) = (self.store.clone(), self.boots.clone());
        Ok(Discovery::start(self.world.clone(), store, self.nodes.clone(), boots)?)
    }

    /// Loads the requests for restarts.
    ///
    /// # Errors
    /// An error of the store.
    pub fn load_restarts(&self) -> Result<Restarts> {
        let (store, boots) = (self.store.clone(), self.boots.clone());
        Ok(Restarts::load(store, self.world.clone(), boots, self.recorder.clone())?)
    }

    /// Starts the registry of rollouts. `restarts` restarts nodes for it.
    ///
    /// # Errors
    /// An error of the store, or no thread.
    pub fn start_rollouts(&self, restarts: &Restarts) -> Result<Rollouts> {
        Ok(Rollouts::start(
            self.world.clone(),
            self.store.clone(),
            self.recorder.clone(),
            self.boots.clone(),
            restarts.clone(),
        )?)
    }
}

/// A restart cannot ask, so it does not accept a layout that loses data of nodes and was not confirmed. The effects of the
/// site file on disks are logged at once.
fn take_over_layouts(world: &mut World, boots: &Boots) -> Result<()> {
    let nodes: Vec<_> = world.inventory.iter().cloned().collect();
    world.confirmed = boots
        .hold_back(&world.site, &nodes)
        .context("recording which disk layouts are confirmed")?;
    let effects = (boots.disks()).next_effects(world.disk_rules(), nodes.iter().map(|node| &**node));
    for line in describe_effects(&effects, LOGGED_EFFECTS) {
        tracing::warn!("{line}");
    }
    Ok(())
}
