//! The temporary pool: addresses for machines that are not nodes yet.
//!
//! A machine is its hardware address; option 61 is not looked at, since firmware, loader and
//! system of one machine send three different ones and would take three addresses. A UUID
//! (option 97) ties the cards of one machine together: the lease moves with the machine from card to
//! card. UUIDs are not always unique, so a claim by UUID takes effect only when it is *requested*,
//! and a UUID that turns out to be shared by machines that are up together is not believed again.
//!
//! Offers are soft: an address that was offered and never requested goes to the machine that requests
//! it first, and the oldest offer is forgotten when the pool is exhausted, so a flood of random hardware
//! addresses cannot keep a machine that completes its exchange from getting an address.

pub use super::lease::{Lease, LeaseState};

use super::request::trustworthy;
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::HwAddr;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    net::Ipv4Addr,
};
use uuid::Uuid;

/// How long an offer is kept for its machine, seconds. iPXE requests after 1 to 3 s, OVMF after 4 (captures); slow ROMs
/// that collect offers take up to 30.
pub const OFFER_SECS: u64 = 60;
/// How long a declined address rests, seconds.
pub const QUARANTINE_SECS: u64 = 3600;
/// Most addresses of one pool that are ever in the table, whatever the site file says.
pub const MAX_ENTRIES: usize = 65_536;
/// Most UUIDs that are remembered as shared by several machines.
const MAX_SHARED: usize = 4096;
/// Moves of one lease between cards after which its UUID counts as shared.
const MAX_MOVES: u8 = 4;

/// Why a pool did not give what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Every address is bound or in quarantine.
    Full {
        /// The pool, `10.5.255.1-10.5.255.254`.
        pool: String,
        /// How many addresses it has, all of them leased or in quarantine.
        size: usize,
        /// When the first of them is free, if nobody extends its lease.
        until: Timestamp,
    },
    /// The machine has no lease here.
    NoRecord,
    /// The address is another machine's, in quarantine, or none of the pool's.
    Taken(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Full { pool, size, .. } => write!(
                f,
                "the temporary pool {pool} is full: all {size} addresses are leased or in quarantine"
            ),
            Refused::NoRecord => f.write_str("no lease on record"),
            Refused::Taken(why) => f.write_str(why),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Offered,
    Bound,
    Released,
    Declined,
}

#[derive(Clone, Debug)]
struct Entry {
    hwaddr: HwAddr,
    uuid: Option<Uuid>,
    state: State,
    since: Timestamp,
    /// When it was last offered, bound, declined or released: the beginning of the time that ends with `until`.
    granted: Timestamp,
    until: Timestamp,
    /// Another card of the same UUID that was offered this address.
    claim: Option<HwAddr>,
    /// The card that had this lease before.
    previous: Option<HwAddr>,
    moves: u8,
}

impl Entry {
    /// True while the address must not go to anybody else.
    fn holds(&self, now: Timestamp) -> bool {
        matches!(self.state, State::Bound | State::Declined) && now < self.until
    }
}

/// What follows from a sign of life of a machine at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The machine has a lease of the address, which is long enough: nothing has to be stored.
    Own,
    /// Its lease was extended, and must be stored.
    Extended(Lease),
    /// No machine has a lease of the address, so that the address does not show which machine asks.
    Free,
    /// Another machine has the address now.
    Taken,
}

/// What a request changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The lease, to be stored before it is answered.
    pub lease: Lease,
    /// Address of another lease of the same machine that is void now.
    pub instead_of: Option<Ipv4Addr>,
    /// True if the machine came with another card than before.
    pub moved: bool,
}

/// One range of addresses and who has them.
#[derive(Clone, Debug)]
pub struct Pool {
    first: u32,
    last: u32,
    excluded: Vec<Ipv4Addr>,
    /// Never handed out from here on.
    fresh: u64,
    entries: HashMap<u32, Entry>,
    by_hwaddr: HashMap<HwAddr, u32>,
    by_uuid: HashMap<Uuid, u32>,
    /// Every entry by its end: what ended first is used again first.
    by_end: BTreeSet<(Timestamp, u32)>,
    /// Offered entries by their end.
    offers: BTreeSet<(Timestamp, u32)>,
    shared: HashSet<Uuid>,
}

impl Pool {
    /// A pool from `first` to `last`, both included, without `excluded` (the server's and the router's address).
    pub fn new(first: Ipv4Addr, last: Ipv4Addr, excluded: Vec<Ipv4Addr>) -> Self {
        let (first, last) = (u32::from(first), u32::from(last));
        Pool {
            first,
            last,
            excluded,
            fresh: u64::from(first),
            entries: HashMap::new(),
            by_hwaddr: HashMap::new(),
            by_uuid: HashMap::new(),
            by_end: BTreeSet::new(),
            offers: BTreeSet::new(),
            shared: HashSet::new(),
        }
    }

    /// True if `address` can be this pool's.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&u32::from(address)) && !self.excluded.contains(&address)
    }

    /// Takes over a stored lease, if its address is still this pool's. A machine that has two keeps the later one.
    pub fn restore(&mut self, lease: &Lease) -> bool {
        let key = u32::from(lease.ipaddr);
        if !self.contains(lease.ipaddr) || self.entries.contains_key(&key) || self.entries.len() >= MAX_ENTRIES {
            return false;
        }
        if lease.state != LeaseState::Declined
            && let Some(&other) = self.by_hwaddr.get(&lease.hwaddr)
        {
            if self.entries[&other].since >= lease.since {
                return false;
            }
            self.vacate(other, lease.since);
        }
        let state = match lease.state {
            LeaseState::Bound => State::Bound,
            LeaseState::Released => State::Released,
            LeaseState::Declined => State::Declined,
        };
        let uuid = lease.uuid.filter(|u| trustworthy(u) && !self.by_uuid.contains_key(u));
        let granted = lease.granted.max(lease.since);
        self.put(key, lease.hwaddr, uuid, state, lease.since, granted, lease.expires);
        true
    }

    /// Takes in that the clock was set back: what was granted at a time that is ahead of `now` was granted now, and lasts as
    /// long as it was to. Otherwise two minutes would last until the old time returns.
    pub fn settle(&mut self, now: Timestamp) {
        let ahead = self.entries.iter().filter(|(_, entry)| entry.granted > now);
        let ahead: Vec<u32> = ahead.map(|(key, _)| *key).collect();
        for key in ahead {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let before = (entry.until, key);
            let lasts = entry.until.since(entry.granted);
            entry.since = entry.since.min(now);
            entry.granted = now;
            entry.until = Timestamp(now.0.saturating_add(lasts));
            let after = (entry.until, key);
            self.by_end.remove(&before);
            self.by_end.insert(after);
            if self.offers.remove(&before) {
                self.offers.insert(after);
            }
        }
    }

    /// All that is worth storing, for a pool whose limits have changed.
    pub fn leases(&self) -> Vec<Lease> {
        let stored = |(key, e): (&u32, &Entry)| Some(e.lease(Ipv4Addr::from(*key), e.stored_state()?));
        self.entries.iter().filter_map(stored).collect()
    }

    /// The machine that has `address` now.
    pub fn holder(&self, address: Ipv4Addr, now: Timestamp) -> Option<Lease> {
        let entry = self.entries.get(&u32::from(address))?;
        (entry.state == State::Bound && entry.holds(now)).then(|| entry.lease(address, LeaseState::Bound))
    }

    /// An address for a DISCOVER. `taken` says that an address is a node's all the same.
    pub fn offer(
        &mut self,
        hwaddr: HwAddr,
        uuid: Option<Uuid>,
        wanted: Option<Ipv4Addr>,
        now: Timestamp,
        taken: impl Fn(Ipv4Addr) -> bool,
    ) -> Result<Ipv4Addr, Refused> {
        let uuid = self.believed(uuid);
        if let Some(&key) = self.by_hwaddr.get(&hwaddr) {
            if self.entries[&key].holds(now) {
                return Ok(Ipv4Addr::from(key));
            }
            if !taken(Ipv4Addr::from(key)) {
                self.put_offer(key, hwaddr, uuid, now);
                return Ok(Ipv4Addr::from(key));
            }
            self.vacate(key, now);
        }
        if let Some(&key) = uuid.as_ref().and_then(|u| self.by_uuid.get(u))
            && let Some(entry) = self.entries.get_mut(&key)
        {
            if entry.holds(now) {
                entry.claim = Some(hwaddr);
            } else {
                self.put_offer(key, hwaddr, uuid, now);
            }
            return Ok(Ipv4Addr::from(key));
        }
        let key = self.free(wanted, now, taken).ok_or_else(|| self.full())?;
        self.put_offer(key, hwaddr, uuid, now);
        Ok(Ipv4Addr::from(key))
    }

    /// Binds `address` for a REQUEST. `offered` is true in SELECTING, where the client answers an
    /// OFFER of ours: then an address that nobody holds is given even if the offer is forgotten here (daemon
    /// restarted, flood). Otherwise a machine without a record is refused with [`Refused::NoRecord`].
    pub fn bind(
        &mut self,
        hwaddr: HwAddr,
        uuid: Option<Uuid>,
        address: Ipv4Addr,
        lease_secs: u32,
        offered: bool,
        now: Timestamp,
    ) -> Result<Granted, Refused> {
        let key = u32::from(address);
        let uuid = self.believed(uuid);
        let known = self.by_hwaddr.contains_key(&hwaddr);
        let refuse = |why| {
            Err(if known || offered {
                Refused::Taken(why)
            } else {
                Refused::NoRecord
            })
        };
        if !self.contains(address) {
            return refuse("the address is not in the pool");
        }
        let mut moved = false;
        match self.entries.get(&key) {
            None if offered && self.entries.len() < MAX_ENTRIES => {}
            None => return refuse("the address is not this machine's"),
            Some(entry) if entry.state == State::Declined && now < entry.until => {
                return refuse("the address is in quarantine: another machine was seen using it");
            }
            Some(entry) if entry.state != State::Declined && entry.hwaddr == hwaddr => {}
            Some(entry) if entry.holds(now) => {
                let same_uuid = uuid.is_some() && entry.uuid == uuid;
                moved = same_uuid && offered && entry.claim == Some(hwaddr);
                if !moved {
                    // Two cards that use or ask for the address at the same time are two machines.
                    if let Some(shared) = entry.uuid
                        && (entry.previous == Some(hwaddr) || same_uuid)
                    {
                        self.distrust(shared);
                        return Err(Refused::Taken("another machine with the same UUID has the address"));
                    }
                    return refuse("the address is another machine's");
                }
            }
            Some(_) if offered => {}
            Some(_) => return refuse("the address is not this machine's"),
        }
        let instead_of = self.by_hwaddr.get(&hwaddr).copied().filter(|other| *other != key);
        let forgotten = instead_of.filter(|other| self.entries[other].stored_state().is_some());
        if let Some(other) = instead_of {
            self.vacate(other, now);
        }
        let before = self.entries.get(&key).cloned();
        let until = now.plus_secs(u64::from(lease_secs));
        let since = before
            .as_ref()
            .filter(|e| e.state == State::Bound && e.hwaddr == hwaddr)
            .map_or(now, |e| e.since);
        // A renewing system no longer says the UUID that its firmware said.
        let uuid = uuid.or(before.as_ref().filter(|e| e.hwaddr == hwaddr).and_then(|e| e.uuid));
        self.put(key, hwaddr, uuid, State::Bound, since, now, until);
        if let Some(before) = before
            && let Some(entry) = self.entries.get_mut(&key)
        {
            entry.moves = before.moves.saturating_add(u8::from(moved));
            entry.previous = if moved { Some(before.hwaddr) } else { before.previous };
            if entry.moves > MAX_MOVES
                && let Some(uuid) = entry.uuid
            {
                self.distrust(uuid);
            }
        }
        Ok(Granted {
            lease: self.entries[&key].lease(address, LeaseState::Bound),
            instead_of: forgotten.map(Ipv4Addr::from),
            moved,
        })
    }

    /// A waiting machine sent a request from `address`: its lease begins again if more than half of it is over. Boot loaders
    /// wait for hours, and never ask DHCP to extend a lease.
    pub fn heard(&mut self, hwaddr: HwAddr, address: Ipv4Addr, lease_secs: u32, now: Timestamp) -> Heard {
        let key = u32::from(address);
        let Some(entry) = self.entries.get_mut(&key) else {
            return Heard::Free;
        };
        if entry.hwaddr != hwaddr {
            let (taken, moved) = (entry.holds(now), entry.previous == Some(hwaddr));
            if let Some(shared) = entry.uuid.filter(|_| taken && moved) {
                // The lease went to its other card, as that had the same UUID; but here they both are.
                self.distrust(shared);
            }
            return if taken { Heard::Taken } else { Heard::Free };
        }
        if entry.state != State::Bound {
            // An address that was declined is in use by another machine, one that was given back by none.
            return Heard::Free;
        }
        if now.plus_secs(u64::from(lease_secs / 2)) < entry.until {
            return Heard::Own;
        }
        self.by_end.remove(&(entry.until, key));
        entry.granted = now;
        entry.until = now.plus_secs(u64::from(lease_secs));
        self.by_end.insert((entry.until, key));
        Heard::Extended(entry.lease(address, LeaseState::Bound))
    }

    /// Puts `address` into quarantine if `hwaddr` was given it.
    pub fn decline(&mut self, hwaddr: HwAddr, address: Ipv4Addr, now: Timestamp) -> Option<Lease> {
        let key = u32::from(address);
        let entry = self.entries.get(&key)?;
        if entry.hwaddr != hwaddr
            && entry.claim == Some(hwaddr)
            && let Some(shared) = entry.uuid
        {
            // Offered because of its UUID, and found in use: by the other machine of that UUID.
            self.distrust(shared);
            return None;
        }
        if entry.state == State::Declined || entry.hwaddr != hwaddr {
            return None;
        }
        self.put(
            key,
            hwaddr,
            None,
            State::Declined,
            now,
            now,
            now.plus_secs(QUARANTINE_SECS),
        );
        Some(self.entries[&key].lease(address, LeaseState::Declined))
    }

    /// Ends the lease of `hwaddr` on `address`.
    pub fn release(&mut self, hwaddr: HwAddr, address: Ipv4Addr, now: Timestamp) -> Option<Lease> {
        let key = u32::from(address);
        let entry = self.entries.get(&key)?;
        if entry.hwaddr != hwaddr || entry.state != State::Bound {
            return None;
        }
        let (uuid, since) = (entry.uuid, entry.since);
        self.put(key, hwaddr, uuid, State::Released, since, now, now);
        Some(self.entries[&key].lease(address, LeaseState::Released))
    }

    /// Takes `address` from the machine that has it, or out of quarantine. False if it is free.
    pub fn take_back(&mut self, address: Ipv4Addr, now: Timestamp) -> bool {
        let key = u32::from(address);
        let known = self.entries.get(&key).is_some_and(|entry| entry.hwaddr.0 != [0; 6]);
        if known {
            self.vacate(key, now);
        }
        known
    }

    /// Forgets an offer that the client did not take; ends a lease of a machine that has become a node.
    /// Returns the address if there was a lease to take out of the store.
    pub fn forget(&mut self, hwaddr: HwAddr, now: Timestamp) -> Option<Ipv4Addr> {
        let key = *self.by_hwaddr.get(&hwaddr)?;
        let stored = self.entries[&key].stored_state().is_some();
        self.vacate(key, now);
        stored.then_some(Ipv4Addr::from(key))
    }

    /// Forgets the offer to `hwaddr`, if it is no more than an offer.
    pub fn forget_offer(&mut self, hwaddr: HwAddr, now: Timestamp) {
        if let Some(&key) = self.by_hwaddr.get(&hwaddr)
            && self.entries[&key].state == State::Offered
        {
            self.vacate(key, now);
        }
    }

    /// Entries in the table, at most the size of the pool and 65,536.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True before the first offer.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn believed(&self, uuid: Option<Uuid>) -> Option<Uuid> {
        uuid.filter(|u| trustworthy(u) && !self.shared.contains(u))
    }

    fn distrust(&mut self, uuid: Uuid) {
        if self.shared.len() >= MAX_SHARED {
            self.shared.clear();
        }
        self.shared.insert(uuid);
        if let Some(key) = self.by_uuid.remove(&uuid)
            && let Some(entry) = self.entries.get_mut(&key)
        {
            (entry.uuid, entry.claim) = (None, None);
        }
    }

    /// An address that is free: the wanted one, else one never used, else the one that ended first, else the oldest offer.
    fn free(&mut self, wanted: Option<Ipv4Addr>, now: Timestamp, taken: impl Fn(Ipv4Addr) -> bool) -> Option<u32> {
        let room = self.entries.len() < MAX_ENTRIES;
        if let Some(wanted) = wanted.filter(|w| self.contains(*w) && !taken(*w)) {
            let key = u32::from(wanted);
            match self.entries.get(&key) {
                None if room => return Some(key),
                Some(entry) if entry.until <= now => return Some(key),
                _ => {}
            }
        }
        while room && self.fresh <= u64::from(self.last) {
            let key = self.fresh as u32;
            let address = Ipv4Addr::from(key);
            self.fresh += 1;
            if self.contains(address) && !self.entries.contains_key(&key) && !taken(address) {
                return Some(key);
            }
        }
        let usable = |(_, key): &&(Timestamp, u32)| !taken(Ipv4Addr::from(*key));
        let ended = self.by_end.iter().take_while(|(until, _)| *until <= now).find(usable);
        ended.or_else(|| self.offers.iter().find(usable)).map(|(_, key)| *key)
    }

    fn full(&self) -> Refused {
        Refused::Full {
            pool: format!("{}-{}", Ipv4Addr::from(self.first), Ipv4Addr::from(self.last)),
            size: self.entries.len(),
            until: self.by_end.first().map_or(Timestamp(0), |(end, _)| *end),
        }
    }

    fn put_offer(&mut self, key: u32, hwaddr: HwAddr, uuid: Option<Uuid>, now: Timestamp) {
        self.put(key, hwaddr, uuid, State::Offered, now, now, now.plus_secs(OFFER_SECS));
    }

    /// The one place where entries and their indexes change together.
    #[expect(clippy::too_many_arguments, reason = "an entry's own fields")]
    fn put(
        &mut self,
        key: u32,
        hwaddr: HwAddr,
        uuid: Option<Uuid>,
        state: State,
        since: Timestamp,
        granted: Timestamp,
        until: Timestamp,
    ) {
        self.unindex(key);
        if state != State::Declined {
            self.by_hwaddr.insert(hwaddr, key);
        }
        // A UUID points to one address; a card that has one of its own keeps it.
        let uuid = uuid.filter(|u| *self.by_uuid.entry(*u).or_insert(key) == key);
        self.by_end.insert((until, key));
        if state == State::Offered {
            self.offers.insert((until, key));
        }
        let entry = Entry {
            hwaddr,
            uuid,
            state,
            since,
            granted,
            until,
            claim: None,
            previous: None,
            moves: 0,
        };
        self.entries.insert(key, entry);
    }

    /// Takes an address from its machine; it is free at once.
    fn vacate(&mut self, key: u32, now: Timestamp) {
        self.unindex(key);
        if let Some(entry) = self.entries.get_mut(&key) {
            (entry.state, entry.granted, entry.until) = (State::Released, now, now);
            (entry.uuid, entry.claim) = (None, None);
            // A hardware address that no card has, so that no machine gets the address back as its old one.
            entry.hwaddr = HwAddr([0; 6]);
            self.by_end.insert((now, key));
        }
    }

    fn unindex(&mut self, key: u32) {
        if let Some(entry) = self.entries.get(&key) {
            if self.by_hwaddr.get(&entry.hwaddr) == Some(&key) {
                self.by_hwaddr.remove(&entry.hwaddr);
            }
            if let Some(uuid) = entry.uuid
                && self.by_uuid.get(&uuid) == Some(&key)
            {
                self.by_uuid.remove(&uuid);
            }
            self.by_end.remove(&(entry.until, key));
            self.offers.remove(&(entry.until, key));
        }
    }
}

impl Entry {
    fn stored_state(&self) -> Option<LeaseState> {
        match self.state {
            State::Bound => Some(LeaseState::Bound),
            State::Declined => Some(LeaseState::Declined),
            State::Released if self.hwaddr.0 != [0; 6] => Some(LeaseState::Released),
            State::Offered | State::Released => None,
        }
    }

    fn lease(&self, ipaddr: Ipv4Addr, state: LeaseState) -> Lease {
        Lease {
            ipaddr,
            hwaddr: self.hwaddr,
            uuid: self.uuid,
            state,
            since: self.since,
            expires: self.until,
            granted: self.granted,
        }
    }
}
