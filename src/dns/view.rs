//! The world as one query sees it.

use super::Zones;
use crate::{config::Site, decide::SharedWorld, inventory::Inventory};
use arc_swap::ArcSwap;
use hickory_proto::ProtoError;
use rackstrap_base::sync::lock;
use std::sync::{Arc, Mutex};

/// The data that questions are answered from: immutable, made again when the site file or the inventory has changed.
#[derive(Debug)]
pub struct View {
    /// The names of the zones.
    pub zones: Zones,
    /// All nodes.
    pub inventory: Arc<Inventory>,
    /// Serial number of all zones (RFC 1035 section 3.3.13): the second in which this view was made, and always larger than
    /// the one before.
    pub serial: u32,
    site: Arc<Site>,
}

/// Makes a view for each world, when a query needs it.
#[derive(Debug)]
pub struct Views {
    world: SharedWorld,
    current: ArcSwap<View>,
    renewing: Mutex<()>,
}

impl Views {
    /// The views of `world`; none if its site has no `[dns]`. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// Those of [`Zones::new`].
    pub fn of(world: SharedWorld, now: u32) -> Result<Option<Self>, ProtoError> {
        let present = world.load_full();
        let Some(dns) = &present.site.dns else { return Ok(None) };
        let view = View {
            zones: Zones::new(&present.site, dns)?,
            inventory: present.inventory.clone(),
            serial: now,
            site: present.site.clone(),
        };
        Ok(Some(Views {
            world,
            current: ArcSwap::from_pointee(view),
            renewing: Mutex::new(()),
        }))
    }

    /// The present view. The next query sees a change of the world.
    pub fn load(&self, now: impl FnOnce() -> u32) -> Arc<View> {
        let world = self.world.load();
        // The view holds both, so their addresses are not used again while it lives.
        let is_present =
            |view: &View| Arc::ptr_eq(&view.site, &world.site) && Arc::ptr_eq(&view.inventory, &world.inventory);
        let view = self.current.load();
        if is_present(&view) {
            return view.clone();
        }
        let _renewing = lock(&self.renewing);
        let view = self.current.load_full();
        if is_present(&view) {
            return view;
        }
        let zones = match &world.site.dns {
            Some(dns) if !Arc::ptr_eq(&view.site, &world.site) => Zones::new(&world.site, dns),
            // Whether there is a section cannot change while the daemon runs.
            _ => Ok(view.zones.clone()),
        };
        let zones = zones.unwrap_or_else(|error| {
            tracing::error!("the zones stay as they were before the site file changed: {error}");
            view.zones.clone()
        });
        let next = Arc::new(View {
            zones,
            inventory: world.inventory.clone(),
            serial: now().max(view.serial.wrapping_add(1)),
            site: world.site.clone(),
        });
        self.current.store(next.clone());
        next
    }
}
