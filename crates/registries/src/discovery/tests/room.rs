//! Pools without a free address, and machines that waited before a rack was filled.

use super::*;
use crate::discovery::machine::NoRoom;

/// A machine for which the pool has no address; `until` is when the next lease ends.
fn refused(n: u16, at: u64, until: Option<Timestamp>) -> Observation {
    Observation {
        confirmed: false,
        offered: false,
        no_room: Some(NoRoom {
            network: site().subnets[0].network,
            why: "the pool is full".to_owned(),
            since: Timestamp(at),
            until,
        }),
        ..seen(n, at)
    }
}

#[test]
fn a_full_pool_is_known_by_the_machines_that_it_refused() {
    let mut state = RackingState::new(Vec::new(), Sessions::new(), 16);
    let refused = |n, at| refused(n, at, None);
    assert_eq!(state.full_pools(Timestamp(0)), []);
    state.observe(&seen(1, 10));
    assert!(state.observe(&refused(2, 20)).news);
    assert!(state.observe(&refused(3, 30)).news);
    assert!(!state.observe(&refused(2, 40)).news);
    let full = state.full_pools(Timestamp(50));
    assert_eq!((full.len(), full[0].since, full[0].machines), (1, Timestamp(20), 2));
    assert_eq!(full[0].to_string(), "the pool is full; 2 machines get no address");
    // One machine gives up, and the other one gets an address in the end.
    let later = 10 * 60_000 + 35;
    state.observe(&refused(2, later));
    assert_eq!(state.full_pools(Timestamp(later))[0].machines, 1);
    let offered = Observation {
        confirmed: false,
        ..seen(2, later + 1)
    };
    assert!(state.observe(&offered).news);
    assert_eq!(state.full_pools(Timestamp(later + 1)), []);
}

#[test]
fn a_full_pool_is_reported_until_a_lease_ends() {
    let mut state = RackingState::new(Vec::new(), Sessions::new(), 16);
    let refused = |n, at, until| refused(n, at, Some(Timestamp(until)));
    state.observe(&refused(1, 10, 1_000));
    state.observe(&refused(2, 20, 1_000));
    assert_eq!(state.full_pools(Timestamp(999))[0].machines, 2);
    assert_eq!(state.full_pools(Timestamp(1_000)), [], "the first lease has ended");
    // Another lease took the address: the machines ask again, and the pool is reported again.
    assert!(state.observe(&refused(1, 1_010, 2_000)).news);
    assert!(state.observe(&refused(2, 1_020, 2_000)).news);
    assert!(!state.observe(&refused(2, 1_030, 3_000)).news);
    assert_eq!(state.full_pools(Timestamp(1_040))[0].machines, 2);
    let offered = Observation {
        confirmed: false,
        ..seen(1, 1_050)
    };
    state.observe(&offered);
    assert_eq!(
        state.full_pools(Timestamp(1_060))[0].machines,
        1,
        "there was room for one"
    );
}

#[test]
fn a_machine_that_waited_before_is_placed_by_hand() {
    let rig = Rig::new();
    rig.packet(1);
    rig.until("who waits", |rig| rig.waits(1));
    let accept = || rig.discovery.accept(mac(1), None, false, "alice", Timestamp::now());
    let alone = accept().unwrap_err().to_string();
    assert!(alone.contains("no rack that is being filled matches"), "{alone}");
    thread::sleep(Duration::from_millis(5));
    rig.start(&wanted("r03"));
    assert_eq!(rig.name_of(1), None, "it waited before, and is not taken by itself");
    assert_eq!(accept().unwrap(), "r03n01");
    rig.packet(2);
    assert_eq!(rig.until("a name", |rig| rig.name_of(2)), "r03n02");
}
