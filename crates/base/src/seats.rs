//! Places that all addresses share: connections of HTTP, NFS and DNS, and transfers of TFTP.
//!
//! No address may hold all places, and addresses that are not nodes' may hold a part of them only, so that a crowd of
//! strangers keeps no node out. When a newcomer finds no place, an idle one ends for it: the newcomer is more likely to be
//! somebody who is about to ask.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio_util::sync::CancellationToken;

/// Who wants a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guest {
    /// Root of a node of the inventory: it asks from a port below 1024. No users of nodes keep it out.
    Root,
    /// An address of a node of the inventory.
    Node,
    /// Any other address.
    Stranger,
}

impl Guest {
    /// A node's address, or any other.
    pub fn of(is_node: bool) -> Self {
        if is_node { Guest::Node } else { Guest::Stranger }
    }
}

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Places in all.
    pub all: usize,
    /// Places among them that strangers may hold together; the rest is kept for nodes.
    pub strangers: usize,
    /// Places of one address.
    pub each: usize,
}

/// Places that are shared. Addresses that hold none have no entry.
#[derive(Debug)]
pub struct Seats {
    bounds: Bounds,
    /// Counts up with each place that becomes idle: the lower, the longer it has been so. Never 0.
    ticks: AtomicU64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next_id: u64,
    nodes: HashMap<u64, Arc<Place>>,
    strangers: HashMap<u64, Arc<Place>>,
    /// A node's root and its users can be different guests of one address.
    by_owner: HashMap<(IpAddr, Guest), usize>,
}

#[derive(Debug)]
struct Place {
    id: u64,
    address: IpAddr,
    guest: Guest,
    /// When it became idle, in ticks; 0 while it is in use.
    idle_since: AtomicU64,
    /// Cancelled when the place is taken away.
    taken_away: CancellationToken,
}

/// One place, as long as it is held. It is in use until [`Seat::idle`] is called.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    place: Arc<Place>,
}

/// A reference to a place that does not hold it.
#[derive(Clone, Debug)]
pub struct SeatRef(Arc<Place>);

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All places that this guest may have are in use: so many.
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

impl Seats {
    /// Empty places. `bounds.strangers` above `bounds.all` means all.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Seats {
            bounds,
            ticks: AtomicU64::new(1),
            held: Mutex::default(),
        })
    }

    /// A place for `address`. Where there is none left, one that is idle is taken away for it: of the address itself if that
    /// has its share, else of a stranger, else, for nodes, of an address that holds more than this one. A stranger that finds
    /// all places in use gets one of the address that holds most, as long as it holds less itself.
    ///
    /// # Errors
    /// There is none, or none for this address.
    pub fn take(self: &Arc<Self>, address: IpAddr, guest: Guest) -> Result<Seat, Full> {
        let mut held = self.lock();
        let own = held.count(address, guest);
        if own >= self.bounds.each {
            let idle = held.longest_idle(guest, |place| place.address == address && place.guest == guest);
            let idle = idle.ok_or(Full::Share(own))?;
            held.remove(&idle);
        }
        let all = held.nodes.len() + held.strangers.len();
        let strangers_are_full = guest == Guest::Stranger && held.strangers.len() >= self.bounds.strangers;
        if all >= self.bounds.all || strangers_are_full {
            let victim = held
                .longest_idle(Guest::Stranger, |_| true)
                .or_else(|| held.of_the_largest(Guest::Stranger, own, guest))
                .or_else(|| match guest {
                    Guest::Root | Guest::Node => {
                        held.longest_idle(Guest::Node, |place| held.count(place.address, place.guest) > own + 1)
                    }
                    Guest::Stranger => None,
                })
                .or_else(|| match guest {
                    Guest::Root => held.of_the_largest(Guest::Node, own, guest),
                    Guest::Node | Guest::Stranger => None,
                });
            let full = Full::All(match guest {
                Guest::Root | Guest::Node => all,
                Guest::Stranger => held.strangers.len(),
            });
            let victim = victim.ok_or(full)?;
            held.remove(&victim);
        }
        Ok(Seat {
            place: held.add(address, guest),
            seats: self.clone(),
        })
    }

    /// Gives a place back before its holder does, who is told by [`Seat::taken_away`].
    pub fn end(&self, place: &SeatRef) {
        self.lock().remove(&place.0);
    }

    /// Places that are held.
    #[cfg(test)]
    fn len(&self) -> usize {
        let held = self.lock();
        held.nodes.len() + held.strangers.len()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn of(&self, guest: Guest) -> &HashMap<u64, Arc<Place>> {
        match guest {
            Guest::Root | Guest::Node => &self.nodes,
            Guest::Stranger => &self.strangers,
        }
    }

    fn of_mut(&mut self, guest: Guest) -> &mut HashMap<u64, Arc<Place>> {
        match guest {
            Guest::Root | Guest::Node => &mut self.nodes,
            Guest::Stranger => &mut self.strangers,
        }
    }

    fn count(&self, address: IpAddr, guest: Guest) -> usize {
        self.by_owner.get(&(address, guest)).copied().unwrap_or(0)
    }

    fn add(&mut self, address: IpAddr, guest: Guest) -> Arc<Place> {
        let place = Arc::new(Place {
            id: self.next_id,
            address,
            guest,
            idle_since: AtomicU64::new(0),
            taken_away: CancellationToken::new(),
        });
        self.next_id += 1;
        self.of_mut(guest).insert(place.id, place.clone());
        *self.by_owner.entry((address, guest)).or_default() += 1;
        place
    }

    /// Takes a place out of the books, once.
    fn remove(&mut self, place: &Place) {
        if self.of_mut(place.guest).remove(&place.id).is_none() {
            return;
        }
        place.taken_away.cancel();
        let owner = (place.address, place.guest);
        if let Some(count) = self.by_owner.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.by_owner.remove(&owner);
            }
        }
    }

    fn longest_idle(&self, guest: Guest, fits: impl Fn(&Place) -> bool) -> Option<Arc<Place>> {
        let places = self.of(guest).values().filter(|place| fits(place));
        let idle = places.filter_map(|place| match place.idle_since.load(Relaxed) {
            0 => None,
            since => Some((since, place)),
        });
        idle.min_by_key(|(since, _)| *since).map(|(_, place)| place.clone())
    }

    /// The oldest place of the address that holds most places as `guest`, for a newcomer that has `own`. A node does not wait
    /// for strangers, however few places each of them has.
    fn of_the_largest(&self, guest: Guest, own: usize, newcomer: Guest) -> Option<Arc<Place>> {
        let owners = self.by_owner.iter().filter(|((_, of), _)| *of == guest);
        let ((address, _), most) = owners.max_by_key(|(_, count)| **count)?;
        if newcomer == guest && *most <= own + 1 {
            return None;
        }
        let places = self.of(guest).values();
        let places = places.filter(|place| place.address == *address && place.guest == guest);
        places.min_by_key(|place| place.id).cloned()
    }
}

impl Seat {
    /// Nothing is under way: the place may be given to somebody else. One that is idle already stays so since it was.
    pub fn idle(&self) {
        if self.place.idle_since.load(Relaxed) == 0 {
            let tick = self.seats.ticks.fetch_add(1, Relaxed);
            self.place.idle_since.store(tick, Relaxed);
        }
    }

    /// Something is under way.
    pub fn busy(&self) {
        self.place.idle_since.store(0, Relaxed);
    }

    /// Returns when the place was taken away: its holder ends at once.
    pub async fn taken_away(&self) {
        self.place.taken_away.cancelled().await;
    }

    /// Whose place it is.
    pub fn guest(&self) -> Guest {
        self.place.guest
    }

    /// A reference to it.
    pub fn reference(&self) -> SeatRef {
        SeatRef(self.place.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 5, 1, last])
    }

    fn is_taken_away(seat: &Seat) -> bool {
        seat.place.taken_away.is_cancelled()
    }

    fn idle(seats: &Arc<Seats>, last: u8, guest: Guest) -> Result<Seat, Full> {
        let seat = seats.take(address(last), guest)?;
        seat.idle();
        Ok(seat)
    }

    fn bounds(all: usize, strangers: usize, each: usize) -> Arc<Seats> {
        Seats::new(Bounds { all, strangers, each })
    }

    #[test]
    fn each_address_has_a_share_and_none_has_all() {
        let seats = bounds(3, 3, 2);
        let first = seats.take(address(1), Guest::Node).unwrap();
        let second = seats.take(address(1), Guest::Node).unwrap();
        assert_eq!(seats.take(address(1), Guest::Node).unwrap_err(), Full::Share(2));
        let third = seats.take(address(2), Guest::Node).unwrap();
        assert_eq!(seats.take(address(3), Guest::Node).unwrap_err(), Full::All(3));
        drop(first);
        let fourth = seats.take(address(3), Guest::Node).unwrap();
        drop((second, third, fourth));
        let held = seats.lock();
        assert!(held.nodes.is_empty() && held.by_owner.is_empty(), "{held:?}");
    }

    #[test]
    fn strangers_take_no_place_that_is_kept_for_nodes() {
        let seats = bounds(4, 2, 2);
        let busy: Vec<Seat> = (1..=2)
            .map(|last| seats.take(address(last), Guest::Stranger).unwrap())
            .collect();
        assert_eq!(seats.take(address(3), Guest::Stranger).unwrap_err(), Full::All(2));
        let nodes: Vec<Seat> = (11..=12)
            .map(|last| seats.take(address(last), Guest::Node).unwrap())
            .collect();
        // More nodes than places are kept for them: a stranger goes, though it is busy.
        let third = seats.take(address(13), Guest::Node).unwrap();
        let gone = busy.iter().filter(|seat| is_taken_away(seat)).count();
        assert_eq!((gone, seats.len()), (1, 4));
        drop(busy);
        assert_eq!(seats.len(), 3, "a place that was taken away is not given back twice");
        drop((nodes, third));
        assert_eq!(seats.len(), 0);
    }

    #[test]
    fn a_newcomer_gets_the_place_that_is_idle_for_longest() {
        let seats = bounds(10, 3, 2);
        let [first, second, third] = [1, 2, 3].map(|last| idle(&seats, last, Guest::Stranger).unwrap());
        first.busy();
        let fourth = idle(&seats, 4, Guest::Stranger).unwrap();
        assert_eq!([&first, &second, &third].map(is_taken_away), [false, true, false]);
        // Idle again, and so for less long than the third.
        first.idle();
        let fifth = idle(&seats, 5, Guest::Stranger).unwrap();
        assert_eq!([&first, &third, &fourth].map(is_taken_away), [false, true, false]);
        drop((second, third, fifth));
        assert_eq!(seats.len(), 2);
    }

    #[test]
    fn an_address_with_its_share_loses_its_own_idle_place_first() {
        let seats = bounds(10, 10, 2);
        let other = idle(&seats, 9, Guest::Node).unwrap();
        let [first, second] = [1, 1].map(|last| idle(&seats, last, Guest::Node).unwrap());
        let third = seats.take(address(1), Guest::Node).unwrap();
        assert_eq!([&other, &first, &second].map(is_taken_away), [false, true, false]);
        second.busy();
        assert_eq!(seats.take(address(1), Guest::Node).unwrap_err(), Full::Share(2));
        // Users of the node are other guests, and have a share of their own.
        assert!(seats.take(address(1), Guest::Stranger).is_ok());
        drop(third);
    }

    #[test]
    fn of_strangers_that_are_all_busy_the_greediest_gives_way_to_who_has_less() {
        let seats = bounds(100, 8, 6);
        let greedy: Vec<Seat> = (0..6)
            .map(|_| seats.take(address(1), Guest::Stranger).unwrap())
            .collect();
        let modest: Vec<Seat> = (0..2)
            .map(|_| seats.take(address(2), Guest::Stranger).unwrap())
            .collect();
        let newcomer = seats.take(address(3), Guest::Stranger).unwrap();
        assert!(is_taken_away(&greedy[0]) && !modest.iter().any(is_taken_away));
        assert_eq!(seats.len(), 8);
        // Nobody gains by asking for more than a fair part.
        let mut more = Vec::new();
        while let Ok(seat) = seats.take(address(3), Guest::Stranger) {
            more.push(seat);
            assert!(more.len() < 8);
        }
        assert_eq!(greedy.iter().filter(|seat| !is_taken_away(seat)).count(), 3);
        drop(newcomer);
    }

    #[test]
    fn nodes_that_hold_many_idle_places_give_way_to_a_node_that_has_none() {
        let seats = bounds(6, 0, 6);
        let greedy: Vec<Seat> = (0..6).map(|_| idle(&seats, 1, Guest::Node).unwrap()).collect();
        let newcomer = seats.take(address(2), Guest::Node).unwrap();
        assert!(is_taken_away(&greedy[0]));
        assert_eq!(seats.take(address(9), Guest::Stranger).unwrap_err(), Full::All(0));
        drop(newcomer);
    }

    #[test]
    fn users_of_nodes_keep_no_root_out() {
        let seats = bounds(6, 2, 3);
        // All are busy: one user has the share of its address, and others all the rest.
        let users = [1, 1, 1, 2, 2, 3].map(|last| seats.take(address(last), Guest::Node).unwrap());
        assert_eq!(seats.take(address(1), Guest::Node).unwrap_err(), Full::Share(3));
        assert_eq!(seats.take(address(4), Guest::Node).unwrap_err(), Full::All(6));
        let roots = [1, 2, 3].map(|last| seats.take(address(last), Guest::Root).unwrap());
        assert_eq!(seats.len(), 6);
        assert!(is_taken_away(&users[0]), "the one that holds most gives one up");
        assert!(!roots.iter().any(is_taken_away));
        // Each root has a share, too. An idle place of its own gives way.
        let more = [1, 1].map(|_| seats.take(address(1), Guest::Root).unwrap());
        assert_eq!(seats.take(address(1), Guest::Root).unwrap_err(), Full::Share(3));
        more[0].idle();
        assert!(seats.take(address(1), Guest::Root).is_ok());
    }
}
