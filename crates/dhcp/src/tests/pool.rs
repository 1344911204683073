//! The temporary pool: never two holders, never two leases a machine, always bounded.

use crate::{
    testing::{NOW, ip},
    *,
};
use proptest::{collection::vec, prelude::*};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::HwAddr;
use std::{collections::HashMap, net::Ipv4Addr};
use uuid::Uuid;

fn mac(n: u8) -> HwAddr {
    HwAddr([0x52, 0x54, 0, 0, 0, n])
}

fn uuid(n: u8) -> Option<Uuid> {
    Some(Uuid::from_bytes([n.max(1); 16]))
}

fn pool(size: u8) -> Pool {
    let last = Ipv4Addr::new(10, 5, 255, size);
    Pool::new(ip("10.5.255.1"), last, vec![])
}

fn nobody(_: Ipv4Addr) -> bool {
    false
}

fn offer(pool: &mut Pool, n: u8, now: Timestamp) -> Result<Ipv4Addr, Refused> {
    pool.offer(mac(n), None, None, now, nobody)
}

fn take(pool: &mut Pool, n: u8, now: Timestamp) -> Ipv4Addr {
    let address = offer(pool, n, now).unwrap();
    pool.bind(mac(n), None, address, 600, true, now).unwrap().lease.ipaddr
}

#[test]
fn full_means_full_and_time_heals() {
    let mut pool = pool(2);
    take(&mut pool, 1, NOW);
    take(&mut pool, 2, NOW);
    let refused = offer(&mut pool, 3, NOW).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the temporary pool 10.5.255.1-10.5.255.2 is full: all 2 addresses are leased or in quarantine"
    );
    assert_eq!(
        offer(&mut pool, 1, NOW),
        Ok(ip("10.5.255.1")),
        "a holder is not turned away"
    );
    let later = NOW.plus_secs(600);
    assert_eq!(offer(&mut pool, 3, later), Ok(ip("10.5.255.1")));
}

/// A server without a battery clock that is set right: by a year here.
#[test]
fn a_clock_that_is_set_back_keeps_no_lease_longer() {
    const YEAR: u64 = 365 * 86_400 * 1000;
    let before = Timestamp(NOW.0 + YEAR);
    let mut pool = pool(2);
    let bound = take(&mut pool, 1, before);
    let declined = take(&mut pool, 2, before);
    pool.decline(mac(2), declined, before).unwrap();
    pool.settle(NOW);
    assert_eq!(pool.holder(bound, NOW.plus_secs(599)).unwrap().hwaddr, mac(1));
    assert!(
        offer(&mut pool, 3, NOW.plus_secs(599)).is_err(),
        "what was promised is kept"
    );
    assert_eq!(take(&mut pool, 3, NOW.plus_secs(600)), bound);
    assert!(offer(&mut pool, 4, NOW.plus_secs(3599)).is_ok_and(|address| address == bound));
    assert_eq!(offer(&mut pool, 5, NOW.plus_secs(3600)), Ok(declined));
    // Less than a lease's time back: no harm, and no second beginning of what began before.
    pool.settle(NOW.plus_secs(3599));
}

/// The same while the daemon does not run.
#[test]
fn stored_leases_that_lie_ahead_last_as_long_as_they_were_promised() {
    let world = crate::testing::World::default();
    let ahead = Timestamp(NOW.0 + 86_400_000);
    let lease = |granted| Lease {
        ipaddr: ip("10.5.255.1"),
        hwaddr: mac(1),
        uuid: None,
        state: LeaseState::Bound,
        since: ahead,
        expires: ahead.plus_secs(120),
        granted,
    };
    // Also one that was stored before `granted` was.
    for granted in [ahead, Timestamp(0)] {
        let (mut engine, unused) = Engine::new(world.network.clone(), &[lease(granted)]);
        assert!(unused.is_empty());
        engine.at(NOW);
        let holder = |engine: &Engine, secs| engine.holder(ip("10.5.255.1"), NOW.plus_secs(secs));
        assert!(holder(&engine, 119).is_some() && holder(&engine, 120).is_none());
        // Set back once more, while it runs.
        engine.at(Timestamp(NOW.0 - 3_600_000));
        assert!(holder(&engine, 0).is_none());
    }
}

#[test]
fn a_machine_that_waits_keeps_its_address() {
    let mut pool = pool(1);
    let address = take(&mut pool, 1, NOW);
    let after = |secs| NOW.plus_secs(secs);
    let heard = |pool: &mut Pool, n, secs| pool.heard(mac(n), address, 600, after(secs));
    assert_eq!(heard(&mut pool, 1, 299), Heard::Own, "more than half is left");
    assert_eq!(heard(&mut pool, 2, 400), Heard::Taken, "another machine's");
    let Heard::Extended(lease) = heard(&mut pool, 1, 400) else {
        panic!("it goes on")
    };
    assert_eq!((lease.expires, lease.since, lease.hwaddr), (after(1000), NOW, mac(1)));
    assert!(offer(&mut pool, 2, after(999)).is_err());
    assert_eq!(pool.holder(address, after(999)).unwrap().hwaddr, mac(1));
    assert_eq!(take(&mut pool, 2, after(1000)), address);
    assert_eq!(heard(&mut pool, 1, 1001), Heard::Taken, "it was silent for too long");
}

#[test]
fn an_address_without_a_lease_proves_nothing_of_the_machine() {
    let mut pool = pool(3);
    let address = take(&mut pool, 1, NOW);
    let other = Ipv4Addr::from(u32::from(address) + 1);
    for card in [1, 2] {
        assert_eq!(
            pool.heard(mac(card), other, 600, NOW),
            Heard::Free,
            "a free address of the pool"
        );
    }
    // Offered, but not taken.
    let offered = offer(&mut pool, 2, NOW).unwrap();
    assert_eq!(pool.heard(mac(2), offered, 600, NOW), Heard::Free);
    // Given back; then another card says so, too.
    pool.release(mac(1), address, NOW).unwrap();
    for card in [1, 2] {
        assert_eq!(pool.heard(mac(card), address, 600, NOW), Heard::Free);
    }
    // In use by a machine that has it without a lease.
    let taken = take(&mut pool, 3, NOW);
    pool.decline(mac(3), taken, NOW).unwrap();
    assert_eq!(pool.heard(mac(3), taken, 600, NOW), Heard::Free);
    assert_eq!(pool.heard(mac(1), taken, 600, NOW), Heard::Taken, "in quarantine");
}

#[test]
fn a_lease_that_moved_to_a_machine_of_the_same_uuid_is_not_shared_for_long() {
    let mut pool = pool(2);
    let bind = |pool: &mut Pool, n, at| {
        let address = pool.offer(mac(n), uuid(7), None, at, nobody).unwrap();
        pool.bind(mac(n), uuid(7), address, 600, true, at).unwrap().lease.ipaddr
    };
    let address = bind(&mut pool, 1, NOW);
    assert_eq!(
        bind(&mut pool, 2, NOW),
        address,
        "its other card, for all that anybody knows"
    );
    assert_eq!(pool.heard(mac(2), address, 600, NOW), Heard::Own);
    assert_eq!(pool.heard(mac(1), address, 600, NOW), Heard::Taken, "two machines");
    assert_ne!(bind(&mut pool, 1, NOW), address);
    assert_eq!(bind(&mut pool, 2, NOW), address);
}

#[test]
fn a_flood_of_offers_stops_nobody_who_requests() {
    let mut pool = pool(4);
    let honest = take(&mut pool, 200, NOW);
    let slow = offer(&mut pool, 201, NOW).unwrap();
    for n in 1..=100 {
        offer(&mut pool, n, Timestamp(NOW.0 + u64::from(n))).unwrap();
        assert!(pool.len() <= 4);
    }
    let later = NOW.plus_secs(3);
    assert_eq!(pool.holder(honest, later).unwrap().hwaddr, mac(200));
    let granted = pool.bind(mac(201), None, slow, 600, true, later).unwrap();
    assert_eq!(
        granted.lease.ipaddr, slow,
        "its offer went to others, none of whom took it"
    );
}

#[test]
fn the_oldest_offer_is_forgotten_first() {
    let mut pool = pool(2);
    offer(&mut pool, 1, NOW).unwrap();
    offer(&mut pool, 2, Timestamp(NOW.0 + 1)).unwrap();
    assert_eq!(offer(&mut pool, 3, Timestamp(NOW.0 + 2)), Ok(ip("10.5.255.1")));
    assert_eq!(offer(&mut pool, 2, Timestamp(NOW.0 + 3)), Ok(ip("10.5.255.2")));
}

#[test]
fn quarantine() {
    let mut pool = pool(2);
    let bad = take(&mut pool, 1, NOW);
    assert_eq!(pool.decline(mac(2), bad, NOW), None, "only its holder can decline it");
    let lease = pool.decline(mac(1), bad, NOW).unwrap();
    assert_eq!(lease.state, LeaseState::Declined);
    assert_eq!(take(&mut pool, 1, NOW), ip("10.5.255.2"));
    assert!(offer(&mut pool, 2, NOW).is_err());
    let mut again = self::pool(2);
    assert!(again.restore(&lease));
    assert_eq!(offer(&mut again, 1, NOW), Ok(ip("10.5.255.2")), "kept over a restart");
    let healed = NOW.plus_secs(crate::pool::QUARANTINE_SECS);
    pool.bind(mac(1), None, ip("10.5.255.2"), 7200, false, NOW).unwrap();
    assert_eq!(take(&mut pool, 2, healed), bad);
}

#[test]
fn excluded_and_node_addresses_are_not_handed_out() {
    let mut pool = Pool::new(ip("10.5.255.1"), ip("10.5.255.4"), vec![ip("10.5.255.1")]);
    let node = |a| a == ip("10.5.255.3");
    let wanted = |a| Some(ip(a));
    assert_eq!(
        pool.offer(mac(1), None, wanted("10.5.255.1"), NOW, node),
        Ok(ip("10.5.255.2"))
    );
    assert_eq!(
        pool.offer(mac(2), None, wanted("10.5.255.3"), NOW, node),
        Ok(ip("10.5.255.4"))
    );
    assert!(pool.bind(mac(3), None, ip("10.5.255.1"), 600, true, NOW).is_err());
}

#[test]
fn two_cards_of_one_machine_have_one_address() {
    let mut pool = pool(9);
    let address = pool.offer(mac(1), uuid(7), None, NOW, nobody).unwrap();
    pool.bind(mac(1), uuid(7), address, 600, true, NOW).unwrap();
    let later = NOW.plus_secs(30);
    assert_eq!(pool.offer(mac(2), uuid(7), None, later, nobody), Ok(address));
    assert_eq!(
        pool.holder(address, later).unwrap().hwaddr,
        mac(1),
        "an offer takes nothing away"
    );
    let granted = pool.bind(mac(2), uuid(7), address, 600, true, later).unwrap();
    assert!(granted.moved && granted.lease.hwaddr == mac(2));
    // Its system asks with the same card and without a UUID.
    assert_eq!(offer(&mut pool, 2, later), Ok(address));
    assert_eq!(pool.len(), 1);
}

#[test]
fn machines_that_share_a_uuid_get_an_address_each() {
    let mut pool = pool(9);
    let first = pool.offer(mac(1), uuid(7), None, NOW, nobody).unwrap();
    pool.bind(mac(1), uuid(7), first, 600, true, NOW).unwrap();
    pool.offer(mac(2), uuid(7), None, NOW, nobody).unwrap();
    pool.bind(mac(2), uuid(7), first, 600, true, NOW).unwrap();
    // The first is still up and renews: two machines.
    assert!(pool.bind(mac(1), None, first, 600, false, NOW).is_err());
    let second = pool.offer(mac(1), uuid(7), None, NOW, nobody).unwrap();
    assert_ne!(second, first);
    let third = pool.offer(mac(3), uuid(7), None, NOW, nobody).unwrap();
    assert!(third != first && third != second);
}

#[test]
fn a_claim_by_uuid_that_finds_the_address_in_use_is_another_machine() {
    let mut pool = pool(9);
    let first = pool.offer(mac(1), uuid(7), None, NOW, nobody).unwrap();
    pool.bind(mac(1), uuid(7), first, 600, true, NOW).unwrap();
    pool.offer(mac(2), uuid(7), None, NOW, nobody).unwrap();
    assert_eq!(pool.decline(mac(2), first, NOW), None);
    assert_eq!(
        pool.holder(first, NOW).unwrap().hwaddr,
        mac(1),
        "not put into quarantine"
    );
    assert_ne!(pool.offer(mac(2), uuid(7), None, NOW, nobody).unwrap(), first);
}

#[test]
fn uuids_of_nobody_tie_nothing() {
    let mut pool = pool(9);
    for (n, text) in [
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "03000200-0400-0500-0006-000700080009",
    ]
    .iter()
    .enumerate()
    {
        let id: Uuid = text.parse().unwrap();
        let a = pool.offer(mac(2 * n as u8), Some(id), None, NOW, nobody).unwrap();
        let b = pool.offer(mac(2 * n as u8 + 1), Some(id), None, NOW, nobody).unwrap();
        assert_ne!(a, b, "{text}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offer(u8, u8, Option<u8>),
    Bind(u8, u8, u8, bool),
    Renew(u8),
    Decline(u8, u8),
    Release(u8),
    Forget(u8),
    Wait(u16),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let machine = 0u8..12;
    let address = 0u8..10;
    prop_oneof![
        6 => (machine.clone(), 0u8..4, proptest::option::of(address.clone())).prop_map(|(m, u, a)| Step::Offer(m, u, a)),
        6 => (machine.clone(), 0u8..4, address.clone(), any::<bool>()).prop_map(|(m, u, a, s)| Step::Bind(m, u, a, s)),
        3 => machine.clone().prop_map(Step::Renew),
        1 => (machine.clone(), address).prop_map(|(m, a)| Step::Decline(m, a)),
        1 => machine.clone().prop_map(Step::Release),
        1 => machine.prop_map(Step::Forget),
        2 => (0u16..900).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// What clients and the store believe, kept beside the pool.
struct Model {
    pool: Pool,
    now: Timestamp,
    store: HashMap<Ipv4Addr, Lease>,
    /// Last address that each card was offered or given.
    last: HashMap<u8, Ipv4Addr>,
}

impl Model {
    fn apply(&mut self, step: &Step) {
        let at = |n: u8| Ipv4Addr::new(10, 5, 255, n);
        let id = |u: u8| (u > 0).then(|| Uuid::from_bytes([u; 16]));
        match *step {
            Step::Offer(m, u, wanted) => {
                if let Ok(a) = self.pool.offer(mac(m), id(u), wanted.map(at), self.now, nobody) {
                    self.last.insert(m, a);
                }
            }
            Step::Bind(m, u, a, offered) => {
                // Mostly what it was offered, sometimes anything.
                let address = self.last.get(&m).copied().filter(|_| a > 2).unwrap_or(at(a));
                self.bind(m, id(u), address, offered);
            }
            Step::Renew(m) => {
                if let Some(address) = self.last.get(&m).copied() {
                    self.bind(m, None, address, false);
                }
            }
            Step::Decline(m, a) => {
                if let Some(lease) = self.pool.decline(mac(m), at(a), self.now) {
                    self.store.insert(lease.ipaddr, lease);
                }
            }
            Step::Release(m) => {
                if let Some(a) = self.last.get(&m)
                    && let Some(lease) = self.pool.release(mac(m), *a, self.now)
                {
                    self.store.insert(lease.ipaddr, lease);
                }
            }
            Step::Forget(m) => {
                if let Some(a) = self.pool.forget(mac(m), self.now) {
                    self.store.remove(&a);
                }
            }
            Step::Wait(secs) => self.now = self.now.plus_secs(u64::from(secs)),
            Step::Restart => {
                self.pool = pool(8);
                for lease in self.store.values() {
                    self.pool.restore(lease);
                }
            }
        }
    }

    fn bind(&mut self, m: u8, uuid: Option<Uuid>, address: Ipv4Addr, offered: bool) {
        let held = self.pool.holder(address, self.now);
        let Ok(granted) = self.pool.bind(mac(m), uuid, address, 600, offered, self.now) else {
            return;
        };
        if let Some(held) = held
            && held.hwaddr != mac(m)
        {
            assert!(
                granted.moved && uuid.is_some() && held.uuid == uuid,
                "{held:?} lost its lease to {m}"
            );
        }
        self.last.insert(m, address);
        self.store.insert(address, granted.lease);
        if let Some(other) = granted.instead_of {
            self.store.remove(&other);
        }
    }

    fn check(&self) {
        assert!(self.pool.len() <= 8);
        let valid = |l: &&Lease| l.state == LeaseState::Bound && self.now < l.expires;
        let live: Vec<Lease> = self.pool.leases().iter().filter(valid).cloned().collect();
        let mut holders = HashMap::new();
        for lease in &live {
            assert_eq!(
                holders.insert(lease.hwaddr, lease.ipaddr),
                None,
                "two leases of {}",
                lease.hwaddr
            );
            let on_disk = self.store.get(&lease.ipaddr).map(|l| (l.hwaddr, l.state, l.expires));
            assert_eq!(on_disk, Some((lease.hwaddr, lease.state, lease.expires)), "not on disk");
        }
        let mut machines = HashMap::new();
        for (id, address) in live.iter().filter_map(|l| Some((l.uuid?, l.ipaddr))) {
            assert_eq!(machines.insert(id, address), None, "two leases of machine {id}");
        }
        for lease in self.store.values().filter(valid) {
            let held = self.pool.holder(lease.ipaddr, self.now);
            assert_eq!(held.map(|h| h.hwaddr), Some(lease.hwaddr), "promised and forgotten");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_address_has_two_holders_and_no_machine_two_leases(steps in vec(step(), 1..80)) {
        let mut model = Model { pool: pool(8), now: NOW, store: HashMap::new(), last: HashMap::new() };
        for step in &steps {
            model.apply(step);
            model.check();
        }
    }
}
