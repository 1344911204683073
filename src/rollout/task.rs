//! The keeper: what is assigned is on disk before decisions see it.

use super::{
    assignments::{Assignments, Current},
    error::{RolloutError, refuse},
};
use crate::{
    boots::Boots,
    clock::Timestamp,
    decide::{SharedWorld, World},
    image::Catalog,
    store::{Store, StoreError, Table},
    timeline::Recorder,
};
use rackstrap_wire::ImageRef;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The keeper; clones share it.
#[derive(Clone)]
pub struct Rollouts {
    shared: Arc<Shared>,
}

struct Shared {
    world: SharedWorld,
    store: Store,
    recorder: Recorder,
    boots: Boots,
    state: Mutex<State>,
}

/// What there is. The lock is held while it is written to disk: orders come one at a time.
struct State {
    current: BTreeMap<String, Current>,
}

impl Rollouts {
    /// Loads what is known, and lets the world know.
    ///
    /// # Errors
    /// The store's.
    pub fn start(world: SharedWorld, store: Store, recorder: Recorder, boots: Boots) -> Result<Rollouts, StoreError> {
        let current = store.scan::<Current>(Table::Current, b"")?;
        let state = State {
            current: current.into_iter().map(|(_, c)| (c.image.name.clone(), c)).collect(),
        };
        let rollouts = Rollouts {
            shared: Arc::new(Shared {
                world,
                store,
                recorder,
                boots,
                state: Mutex::new(state),
            }),
        };
        rollouts.publish(&rollouts.state());
        Ok(rollouts)
    }

    /// Images that are seen for the first time get their newest version as the current one. Blocks for a disk flush if there
    /// are any.
    ///
    /// # Errors
    /// The store's.
    pub fn see(&self, images: &Catalog, now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.state();
        let mut first: Vec<Current> = Vec::new();
        for version in images.iter() {
            let name = &version.manifest.image.name;
            if !state.current.contains_key(name)
                && first.last().is_none_or(|last| last.image.name != *name)
                && let Some(newest) = images.newest(name)
            {
                first.push(Current::first(newest.manifest.image.clone(), "the first one", now));
            }
        }
        if first.is_empty() {
            return Ok(());
        }
        self.shared.store.write(|tx| {
            first
                .iter()
                .try_for_each(|current| tx.put(Table::Current, current.image.name.as_bytes(), current))
        })?;
        let named = first.into_iter().map(|current| (current.image.name.clone(), current));
        state.current.extend(named);
        self.publish(&state);
        Ok(())
    }

    /// What is current, by image name.
    pub fn current(&self) -> Vec<Current> {
        self.state().current.values().cloned().collect()
    }

    /// Gives a version to all nodes of its image at their next boots.
    ///
    /// # Errors
    /// There is no such version, or it is current.
    pub fn promote_image(&self, image: &ImageRef, by: &str, now: Timestamp) -> Result<Current, RolloutError> {
        let mut state = self.state();
        let images = self.shared.world.load().images.clone();
        if images.get(image).is_none() {
            return refuse(no_version(&images, image));
        }
        let next = match state.current.get(&image.name) {
            Some(current) if current.image == *image => {
                return refuse(format!("{image} is the current version already"));
            }
            Some(current) => current.promoted(image.version, by, now),
            None => Current::first(image.clone(), by, now),
        };
        self.make_current(&mut state, next.clone())?;
        Ok(next)
    }

    /// Makes the version before the current one current again.
    ///
    /// # Errors
    /// There is none.
    pub fn roll_back(&self, name: &str, by: &str, now: Timestamp) -> Result<Current, RolloutError> {
        let mut state = self.state();
        let images = self.shared.world.load().images.clone();
        let Some(current) = state.current.get(name) else {
            let known: Vec<&str> = state.current.keys().map(String::as_str).collect();
            return refuse(match known.is_empty() {
                true => format!("there is no image {name}; no image was imported yet"),
                false => format!("there is no image {name}; there are {}", known.join(", ")),
            });
        };
        let Some(next) = current.rolled_back(|image| images.get(image).is_some(), by, now) else {
            return refuse(format!(
                "{}: no version was current before it, or none of those exists any more; choose one of rackstrap image list: \
                 rackstrap image promote {name}@VERSION",
                current.image
            ));
        };
        self.make_current(&mut state, next.clone())?;
        Ok(next)
    }

    fn make_current(&self, state: &mut State, next: Current) -> Result<(), StoreError> {
        let name = next.image.name.clone();
        self.shared
            .store
            .write(|tx| tx.put(Table::Current, name.as_bytes(), &next))?;
        tracing::info!("image {}: {} is current, by {}", name, next.image, next.by);
        state.current.insert(name, next);
        self.publish(state);
        Ok(())
    }

    /// Others swap the rest of the world at any time: only the assignments are replaced.
    fn publish(&self, state: &State) {
        let assignments = Arc::new(Assignments {
            current: Arc::new(state.current.clone()),
            ..Assignments::default()
        });
        self.shared.world.rcu(|world| World {
            assignments: assignments.clone(),
            ..World::clone(world)
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to say of a version that is not there.
fn no_version(images: &Catalog, image: &ImageRef) -> String {
    let there: Vec<String> = images
        .iter()
        .map(|version| &version.manifest.image)
        .filter(|other| other.name == image.name)
        .map(ToString::to_string)
        .collect();
    match there.is_empty() {
        true => format!(
            "there is no {image}, nor any version of {}; see: rackstrap image list",
            image.name
        ),
        false => format!("there is no {image}; there are {}", there.join(", ")),
    }
}
