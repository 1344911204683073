//! Connection limits: of HTTP, NFS and DNS, and of TFTP's transfers.
//!
//! A limit has one share for each address, and one for all addresses that do not belong to nodes, so that a crowd of strangers keeps
//! no node out. When a new connection finds all permits in use, an idle connection ends for it: the new one is more likely to ask
//! something.

use crate::sync::lock;
use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio_util::sync::CancellationToken;

/// What is known of the client that opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientClass {
    /// Root of a node of the inventory: it asks from a port below 1024. No user of a node can keep it out.
    Root,
    /// An address of a node of the inventory.
    Node,
    /// Any other address.
    Stranger,
}

impl ClientClass {
    /// The class of an address: [`ClientClass::Node`] if it belongs to a node.
    pub fn of(is_node: bool) -> Self {
        if is_node {
            ClientClass::Node
        } else {
            ClientClass::Stranger
        }
    }
}

/// How many permits there are.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Permits in all.
    pub all: usize,
    /// How many of them strangers may hold together. The rest is kept for nodes.
    pub strangers: usize,
    /// How many one address may hold, in each class.
    pub each: usize,
}

/// The permits that all addresses share. Addresses that hold none have no entry.
#[derive(Debug)]
pub struct ConnectionLimit {
    bounds: Bounds,
    /// Counts the permits that became idle: the lower a permit's number, the longer it has been idle. Never 0.
    ticks: AtomicU64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next_id: u64,
    nodes: HashMap<u64, Arc<Place>>,
    strangers: HashMap<u64, Arc<Place>>,
    /// Root and the users of a node have one address, and are counted apart.
    by_owner: HashMap<(IpAddr, ClientClass), usize>,
}

#[derive(Debug)]
struct Place {
    id: u64,
    address: IpAddr,
    class: ClientClass,
    /// When it became idle, in ticks; 0 while it is in use.
    idle_since: AtomicU64,
    /// Cancelled when the permit is revoked.
    revoked: CancellationToken,
}

/// The right to one connection until it is dropped. It counts as busy until [`Permit::idle`] is called.
#[derive(Debug)]
pub struct Permit {
    limit: Arc<ConnectionLimit>,
    place: Arc<Place>,
}

/// A reference to a permit that does not keep it.
#[derive(Clone, Debug)]
pub struct PermitRef(Arc<Place>);

/// Why a connection gets no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All permits that this class may have are in use: this many.
    All(usize),
    /// This address uses as many as it may.
    Share(usize),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Full::All(count) => write!(f, "{count} are in use, and no more are allowed"),
            Full::Share(count) => write!(f, "{count} of this address are in use, and no more are allowed"),
        }
    }
}

impl ConnectionLimit {
    /// A limit of which nothing is in use. `bounds.strangers` above `bounds.all` means all.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(ConnectionLimit {
            bounds,
            ticks: AtomicU64::new(1),
            held: Mutex::default(),
        })
    }

    /// A permit for `address`. If none is left, an idle one is revoked: one of the address itself if that has its share, else one of
    /// a stranger, else, for nodes, one of an address that holds more than this one. A stranger that finds all permits busy gets
    /// one from the address that holds most, as long as it holds fewer itself.
    ///
    /// # Errors
    /// All permits are busy, or this address has its share.
    pub fn take(self: &Arc<Self>, address: IpAddr, class: ClientClass) -> Result<Permit, Full> {
        let mut held = self.lock();
        let own = held.count(address, class);
        if own >= self.bounds.each {
            let idle = held.longest_idle(class, |place| place.address == address && place.class == class);
            let idle = idle.ok_or(Full::Share(own))?;
            held.remove(&idle);
        }
        let all = held.nodes.len() + held.strangers.len();
        let strangers_are_full = class == ClientClass::Stranger && held.strangers.len() >= self.bounds.strangers;
        if all >= self.bounds.all || strangers_are_full {
            let victim = held
                .longest_idle(ClientClass::Stranger, |_| true)
                .or_else(|| held.of_the_largest(ClientClass::Stranger, own, class))
                .or_else(|| match class {
                    ClientClass::Root | ClientClass::Node => held.longest_idle(ClientClass::Node, |place| {
                        held.count(place.address, place.class) > own + 1
                    }),
                    ClientClass::Stranger => None,
                })
                .or_else(|| match class {
                    ClientClass::Root => held.of_the_largest(ClientClass::Node, own, class),
                    ClientClass::Node | ClientClass::Stranger => None,
                });
            let full = Full::All(match class {
                ClientClass::Root | ClientClass::Node => all,
                ClientClass::Stranger => held.strangers.len(),
            });
            let victim = victim.ok_or(full)?;
            held.remove(&victim);
        }
        Ok(Permit {
            place: held.add(address, class),
            limit: self.clone(),
        })
    }

    /// Revokes a permit. [`Permit::revoked`] tells its holder.
    pub fn end(&self, place: &PermitRef) {
        self.lock().remove(&place.0);
    }

    /// Number of permits in use.
    #[cfg(test)]
    fn len(&self) -> usize {
        let held = self.lock();
        held.nodes.len() + held.strangers.len()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

impl Held {
    fn of(&self, class: ClientClass) -> &HashMap<u64, Arc<Place>> {
        match class {
            ClientClass::Root | ClientClass::Node => &self.nodes,
            ClientClass::Stranger => &self.strangers,
        }
    }

    fn of_mut(&mut self, class: ClientClass) -> &mut HashMap<u64, Arc<Place>> {
        match class {
            ClientClass::Root | ClientClass::Node => &mut self.nodes,
            ClientClass::Stranger => &mut self.strangers,
        }
    }

    fn count(&self, address: IpAddr, class: ClientClass) -> usize {
        self.by_owner.get(&(address, class)).copied().unwrap_or(0)
    }

    fn add(&mut self, address: IpAddr, class: ClientClass) -> Arc<Place> {
        let place = Arc::new(Place {
            id: self.next_id,
            address,
            class,
            idle_since: AtomicU64::new(0),
            revoked: CancellationToken::new(),
        });
        self.next_id += 1;
        self.of_mut(class).insert(place.id, place.clone());
        *self.by_owner.entry((address, class)).or_default() += 1;
        place
    }

    /// Removes a permit. One that was removed before is not counted twice.
    fn remove(&mut self, place: &Place) {
        if self.of_mut(place.class).remove(&place.id).is_none() {
            return;
        }
        place.revoked.cancel();
        let owner = (place.address, place.class);
        if let Some(count) = self.by_owner.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.by_owner.remove(&owner);
            }
        }
    }

    fn longest_idle(&self, class: ClientClass, fits: impl Fn(&Place) -> bool) -> Option<Arc<Place>> {
        let places = self.of(class).values().filter(|place| fits(place));
        let idle = places.filter_map(|place| match place.idle_since.load(Relaxed) {
            0 => None,
            since => Some((since, place)),
        });
        idle.min_by_key(|(since, _)| *since).map(|(_, place)| place.clone())
    }

    /// The oldest permit of the address that holds most as `class`, for a newcomer that holds `own`. A node does not wait for
    /// strangers, however few permits each of them holds.
    fn of_the_largest(&self, class: ClientClass, own: usize, newcomer: ClientClass) -> Option<Arc<Place>> {
        let owners = self.by_owner.iter().filter(|((_, of), _)| *of == class);
        let ((address, _), most) = owners.max_by_key(|(_, count)| **count)?;
        if newcomer == class && *most <= own + 1 {
            return None;
        }
        let places = self.of(class).values();
        let places = places.filter(|place| place.address == *address && place.class == class);
        places.min_by_key(|place| place.id).cloned()
    }
}

impl Permit {
    /// No request is under way: the permit may be revoked for another connection. A permit that is idle already keeps its time.
    pub fn idle(&self) {
        if self.place.idle_since.load(Relaxed) == 0 {
            let tick = self.limit.ticks.fetch_add(1, Relaxed);
            self.place.idle_since.store(tick, Relaxed);
        }
    }

    /// A request is under way.
    pub fn busy(&self) {
        self.place.idle_since.store(0, Relaxed);
    }

    /// Returns when the permit is revoked. Its holder then ends at once.
    pub async fn revoked(&self) {
        self.place.revoked.cancelled().await;
    }

    /// The class of the client that holds it.
    pub fn class(&self) -> ClientClass {
        self.place.class
    }

    /// A reference to it.
    pub fn reference(&self) -> PermitRef {
        PermitRef(self.place.clone())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.lock().remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 5, 1, last])
    }

    fn is_revoked(permit: &Permit) -> bool {
        permit.place.revoked.is_cancelled()
    }

    fn idle(limit: &Arc<ConnectionLimit>, last: u8, class: ClientClass) -> Result<Permit, Full> {
        let permit = limit.take(address(last), class)?;
        permit.idle();
        Ok(permit)
    }

    fn bounds(all: usize, strangers: usize, each: usize) -> Arc<ConnectionLimit> {
        ConnectionLimit::new(Bounds { all, strangers, each })
    }

    #[test]
    fn each_address_has_a_share_and_none_has_all() {
        let limit = bounds(3, 3, 2);
        let first = limit.take(address(1), ClientClass::Node).unwrap();
        let second = limit.take(address(1), ClientClass::Node).unwrap();
        assert_eq!(limit.take(address(1), ClientClass::Node).unwrap_err(), Full::Share(2));
        let third = limit.take(address(2), ClientClass::Node).unwrap();
        assert_eq!(limit.take(address(3), ClientClass::Node).unwrap_err(), Full::All(3));
        drop(first);
        let fourth = limit.take(address(3), ClientClass::Node).unwrap();
        drop((second, third, fourth));
        let held = limit.lock();
        assert!(held.nodes.is_empty() && held.by_owner.is_empty(), "{held:?}");
    }

    #[test]
    fn strangers_take_no_place_that_is_kept_for_nodes() {
        let limit = bounds(4, 2, 2);
        let busy: Vec<Permit> = (1..=2)
            .map(|last| limit.take(address(last), ClientClass::Stranger).unwrap())
            .collect();
        assert_eq!(limit.take(address(3), ClientClass::Stranger).unwrap_err(), Full::All(2));
        let nodes: Vec<Permit> = (11..=12)
            .map(|last| limit.take(address(last), ClientClass::Node).unwrap())
            .collect();
        // More nodes than places are kept for them: a stranger goes, though it is busy.
        let third = limit.take(address(13), ClientClass::Node).unwrap();
        let gone = busy.iter().filter(|permit| is_revoked(permit)).count();
        assert_eq!((gone, limit.len()), (1, 4));
        drop(busy);
        assert_eq!(limit.len(), 3, "a place that was taken away is not given back twice");
        drop((nodes, third));
        assert_eq!(limit.len(), 0);
    }

    #[test]
    fn a_newcomer_gets_the_place_that_is_idle_for_longest() {
        let limit = bounds(10, 3, 2);
        let [first, second, third] = [1, 2, 3].map(|last| idle(&limit, last, ClientClass::Stranger).unwrap());
        first.busy();
        let fourth = idle(&limit, 4, ClientClass::Stranger).unwrap();
        assert_eq!([&first, &second, &third].map(is_revoked), [false, true, false]);
        // Idle again, and so for less long than the third.
        first.idle();
        let fifth = idle(&limit, 5, ClientClass::Stranger).unwrap();
        assert_eq!([&first, &third, &fourth].map(is_revoked), [false, true, false]);
        drop((second, third, fifth));
        assert_eq!(limit.len(), 2);
    }

    #[test]
    fn an_address_with_its_share_loses_its_own_idle_place_first() {
        let limit = bounds(10, 10, 2);
        let other = idle(&limit, 9, ClientClass::Node).unwrap();
        let [first, second] = [1, 1].map(|last| idle(&limit, last, ClientClass::Node).unwrap());
        let third = limit.take(address(1), ClientClass::Node).unwrap();
        assert_eq!([&other, &first, &second].map(is_revoked), [false, true, false]);
        second.busy();
        assert_eq!(limit.take(address(1), ClientClass::Node).unwrap_err(), Full::Share(2));
        // Users of the node are other guests, and have a share of their own.
        assert!(limit.take(address(1), ClientClass::Stranger).is_ok());
        drop(third);
    }

    #[test]
    fn of_strangers_that_are_all_busy_the_greediest_gives_way_to_who_has_less() {
        let limit = bounds(100, 8, 6);
        let greedy: Vec<Permit> = (0..6)
            .map(|_| limit.take(address(1), ClientClass::Stranger).unwrap())
            .collect();
        let modest: Vec<Permit> = (0..2)
            .map(|_| limit.take(address(2), ClientClass::Stranger).unwrap())
            .collect();
        let newcomer = limit.take(address(3), ClientClass::Stranger).unwrap();
        assert!(is_revoked(&greedy[0]) && !modest.iter().any(is_revoked));
        assert_eq!(limit.len(), 8);
        // Asking for more than a fair share gains nothing.
        let mut more = Vec::new();
        while let Ok(permit) = limit.take(address(3), ClientClass::Stranger) {
            more.push(permit);
            assert!(more.len() < 8);
        }
        assert_eq!(greedy.iter().filter(|permit| !is_revoked(permit)).count(), 3);
        drop(newcomer);
    }

    #[test]
    fn nodes_that_hold_many_idle_places_give_way_to_a_node_that_has_none() {
        let limit = bounds(6, 0, 6);
        let greedy: Vec<Permit> = (0..6).map(|_| idle(&limit, 1, ClientClass::Node).unwrap()).collect();
        let newcomer = limit.take(address(2), ClientClass::Node).unwrap();
        assert!(is_revoked(&greedy[0]));
        assert_eq!(limit.take(address(9), ClientClass::Stranger).unwrap_err(), Full::All(0));
        drop(newcomer);
    }

    #[test]
    fn users_of_nodes_keep_no_root_out() {
        let limit = bounds(6, 2, 3);
        // All are busy: one user has the share of its address, and others all the rest.
        let users = [1, 1, 1, 2, 2, 3].map(|last| limit.take(address(last), ClientClass::Node).unwrap());
        assert_eq!(limit.take(address(1), ClientClass::Node).unwrap_err(), Full::Share(3));
        assert_eq!(limit.take(address(4), ClientClass::Node).unwrap_err(), Full::All(6));
        let roots = [1, 2, 3].map(|last| limit.take(address(last), ClientClass::Root).unwrap());
        assert_eq!(limit.len(), 6);
        assert!(is_revoked(&users[0]), "the one that holds most gives one up");
        assert!(!roots.iter().any(is_revoked));
        // Each root has a share, too. An idle place of its own gives way.
        let more = [1, 1].map(|_| limit.take(address(1), ClientClass::Root).unwrap());
        assert_eq!(limit.take(address(1), ClientClass::Root).unwrap_err(), Full::Share(3));
        more[0].idle();
        assert!(limit.take(address(1), ClientClass::Root).is_ok());
    }
}
