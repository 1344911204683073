//! The name server's view of the world: the site's zones and nodes, as they are at each query.

use anyhow::Result;
use arc_swap::ArcSwap;
use ipnet::Ipv4Net;
use rackstrap_base::{clock::Timestamp, sync::lock};
use rackstrap_dns::{View, Zones};
use rackstrap_model::{
    decide::{SharedWorld, host_address, host_at},
    inventory::Inventory,
};
use rackstrap_site::{Dns, Site};
use std::{
    borrow::Cow,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

/// The nodes of one inventory, also in the networks of the site file.
#[derive(Debug)]
struct Nodes {
    inventory: Arc<Inventory>,
    site: Arc<Site>,
}

impl rackstrap_dns::Nodes for Nodes {
    fn address_of(&self, name: &str) -> Option<Ipv4Addr> {
        let node = self.inventory.get(name).map(|node| node.ipaddr);
        node.or_else(|| host_address(&self.site, &self.inventory, name))
    }

    fn name_of(&self, address: Ipv4Addr) -> Option<Cow<'_, str>> {
        let node = self.inventory.by_ipaddr(address);
        let name = node.map(|node| Cow::Borrowed(node.name.as_str()));
        name.or_else(|| host_at(&self.site, &self.inventory, address).map(Cow::Owned))
    }

    fn network_in(&self, within: Ipv4Net) -> Option<Ipv4Net> {
        self.site.networks.iter().find_map(|network| network.network_in(within))
    }
}

/// A view with the site file and the inventory that it was made from.
#[derive(Debug)]
struct Made {
    site: Arc<Site>,
    inventory: Arc<Inventory>,
    view: Arc<View>,
}

/// Makes a view for each world, when a query needs it.
#[derive(Debug)]
pub struct Views {
    world: SharedWorld,
    current: ArcSwap<Made>,
    renewing: Mutex<()>,
}

impl rackstrap_dns::Views for Views {
    fn view(&self) -> Arc<View> {
        self.load(now)
    }
}

impl Views {
    /// The views of `world`; none if its site has no `[dns]`.
    ///
    /// # Errors
    /// A name is too long for DNS, which the checks of the site file rule out.
    pub fn of(world: SharedWorld) -> Result<Option<Self>> {
        Self::since(world, now())
    }

    /// The same; `now` is in seconds since 1970.
    fn since(world: SharedWorld, now: u32) -> Result<Option<Self>> {
        let present = world.load_full();
        let Some(dns) = &present.site.dns else { return Ok(None) };
        let zones = zones(&present.site, dns)?;
        let made = Made::new(present.site.clone(), present.inventory.clone(), zones, now);
        Ok(Some(Views {
            world,
            current: ArcSwap::from_pointee(made),
            renewing: Mutex::new(()),
        }))
    }

    /// The present view. The next query sees a change of the world. The serial number of a view is the second in which the view
    /// was made, and always larger than the one before.
    fn load(&self, now: impl FnOnce() -> u32) -> Arc<View> {
        let world = self.world.load();
        // The view is kept with both, so their addresses are not used again while it lives.
        let is_present =
            |made: &Made| Arc::ptr_eq(&made.site, &world.site) && Arc::ptr_eq(&made.inventory, &world.inventory);
        let made = self.current.load();
        if is_present(&made) {
            return made.view.clone();
        }
        let _renewing = lock(&self.renewing);
        let made = self.current.load_full();
        if is_present(&made) {
            return made.view.clone();
        }
        let zones = match &world.site.dns {
            Some(dns) if !Arc::ptr_eq(&made.site, &world.site) => zones(&world.site, dns),
            // Whether there is a section cannot change while the daemon runs.
            _ => Ok(made.view.zones.clone()),
        };
        let zones = zones.unwrap_or_else(|error| {
            tracing::error!("the zones stay as they were before the site file changed: {error}");
            made.view.zones.clone()
        });
        let serial = now().max(made.view.serial.wrapping_add(1));
        let next = Made::new(world.site.clone(), world.inventory.clone(), zones, serial);
        let view = next.view.clone();
        self.current.store(Arc::new(next));
        view
    }
}

impl Made {
    fn new(site: Arc<Site>, inventory: Arc<Inventory>, zones: Zones, serial: u32) -> Self {
        let view = View {
            zones,
            nodes: Arc::new(Nodes {
                inventory: inventory.clone(),
                site: site.clone(),
            }),
            serial,
        };
        Made {
            site,
            inventory,
            view: Arc::new(view),
        }
    }
}

fn zones(site: &Site, dns: &Dns) -> Result<Zones> {
    let subnets = site.subnets.iter().map(|subnet| (subnet.network, subnet.server));
    Ok(Zones::new(&site.cluster.domain, &dns.name, subnets, &dns.forward)?)
}

fn now() -> u32 {
    (Timestamp::now().0 / 1000) as u32
}

#[cfg(test)]
mod tests;
