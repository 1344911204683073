//! Tests of unknown machines and of sessions: which machine gets which position, and which gets none.

mod reports;
mod room;

use super::*;
use crate::{
    Registries,
    testing::{self, world},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::inventory::{Change, Inventory, NewNode};
use rackstrap_site::Site;
use rackstrap_wire::HwAddr;
use std::{thread, time::Duration};
use uuid::Uuid;

const SITE: &str = r#"
[cluster]
node-name = "r{rack:02}n{slot:02}"
node-address = "10.5.{rack}.{slot}"
reserved = ["10.5.0.0/24", "10.5.255.0/24", "10.5.3.6/32"]

[[subnet]]
network = "10.5.0.0/16"
interface = "eth1"
server = "10.5.0.1"

[profile.default]
[profile.compute]

[limits]
unknown-machines = 16
"#;

fn site() -> Site {
    testing::site(SITE)
}

fn place(switch: &str, port: &str) -> Place {
    Place {
        interface: "eth1".into(),
        relay: None,
        network: None,
        switch: switch.into(),
        port: port.into(),
    }
}

fn mac(n: u16) -> HwAddr {
    let [a, b] = n.to_be_bytes();
    HwAddr([0x52, 0x54, 0, 0, a, b])
}

fn seen(n: u16, at: u64) -> Observation {
    Observation {
        at: Timestamp(at),
        hwaddr: mac(n),
        uuid: Some(Uuid::from_u128(0xabc0_0000 + u128::from(n))),
        arch: Some(0),
        class: String::new(),
        booting: true,
        confirmed: true,
        offered: true,
        no_room: None,
        place: place("", ""),
    }
}

fn wanted(rack: &str) -> Wanted {
    Wanted {
        rack: rack.into(),
        secs: 3600,
        ..Wanted::default()
    }
}

fn begin(rack: &str, others: &Sessions) -> Result<Session, String> {
    Session::begin(&wanted(rack), &site(), others, "alice", Timestamp(1000))
}

struct Rig {
    dir: tempfile::TempDir,
    daemon: Registries,
    discovery: Discovery,
}

impl std::ops::Deref for Rig {
    type Target = Registries;

    fn deref(&self) -> &Registries {
        &self.daemon
    }
}

impl Rig {
    fn new() -> Rig {
        Rig::open(tempfile::tempdir().unwrap())
    }

    fn open(dir: tempfile::TempDir) -> Rig {
        let daemon = Registries::open(dir.path(), world(site()));
        Rig {
            dir,
            discovery: daemon.discovery(),
            daemon,
        }
    }

    /// As after kill -9: no thread is stopped, and only the content of the disk remains.
    fn restart(self) -> Rig {
        let Rig { dir, daemon, discovery } = self;
        daemon.store.flush().unwrap();
        drop(discovery);
        daemon.kill(dir.path());
        Rig::open(dir)
    }

    /// Waits until `look` has an answer.
    fn until<T>(&self, what: &str, look: impl Fn(&Rig) -> Option<T>) -> T {
        for _ in 0..600 {
            if let Some(found) = look(self) {
                return found;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{what} did not happen");
    }

    fn name_of(&self, n: u16) -> Option<String> {
        self.world
            .load()
            .inventory
            .by_hwaddr(mac(n))
            .map(|node| node.name.clone())
    }

    fn waits(&self, n: u16) -> Option<Waiting> {
        let view = self.discovery.view(Timestamp::now());
        view.machines
            .into_iter()
            .find(|waiting| waiting.machine.hwaddr == mac(n))
    }

    /// A packet with the present time.
    fn packet(&self, n: u16) {
        self.discovery.observe(seen(n, Timestamp::now().0));
    }

    fn start(&self, wanted: &Wanted) -> Session {
        self.discovery.begin(wanted, "alice", Timestamp::now()).unwrap()
    }
}

#[test]
fn machines_of_a_session_get_the_positions_in_the_order_of_their_first_packets() {
    let rig = Rig::new();
    rig.packet(1);
    rig.until("the first machine", |rig| rig.waits(1));
    thread::sleep(Duration::from_millis(5));
    rig.start(&Wanted {
        from: Some("n04".into()),
        skip: vec!["n05".into()],
        profiles: vec!["compute".into()],
        groups: ["new".to_owned()].into(),
        ..wanted("r03")
    });
    for n in [7, 5, 6] {
        rig.packet(n);
    }
    rig.until("all of them", |rig| {
        [7, 5, 6].iter().all(|n| rig.name_of(*n).is_some()).then_some(())
    });
    let names = [7, 5, 6].map(|n| rig.name_of(n).unwrap());
    // Position 5 is skipped by the request, and 6 is reserved by the site file.
    assert_eq!(names, ["r03n04", "r03n07", "r03n08"]);
    assert_eq!(rig.name_of(1), None, "it waited before");
    let node = rig.world.load().inventory.get("r03n04").cloned().unwrap();
    assert_eq!(
        (node.profiles.join(","), node.groups.contains("new")),
        ("compute".into(), true)
    );
    let view = rig.discovery.view(Timestamp::now());
    assert_eq!(view.sessions[0].next.as_deref(), Some("r03n09"));
    assert_eq!(view.machines.len(), 1);
    // The machine that waited is placed by hand, and the session continues after it.
    let accepted = rig
        .discovery
        .accept(mac(1), Some("r03n09"), false, "alice", Timestamp::now());
    assert_eq!(accepted.unwrap(), "r03n09");
    assert_eq!(
        rig.discovery.view(Timestamp::now()).sessions[0].next.as_deref(),
        Some("r03n10")
    );
}

#[test]
fn the_machine_that_was_seen_first_is_placed_first() {
    let inventory = Inventory::default();
    let mut state = RackingState::new(Vec::new(), Sessions::new(), 16);
    let session = begin("r03", &state.sessions).unwrap();
    state.sessions.insert("r03".into(), session);
    let unconfirmed = |n, at| Observation {
        confirmed: false,
        ..seen(n, at)
    };
    state.observe(&unconfirmed(1, 2000));
    state.observe(&unconfirmed(2, 2500));
    state.observe(&seen(2, 3000));
    assert_eq!(
        state.due(&inventory, Timestamp(3000)),
        [],
        "the first one may still answer"
    );
    state.observe(&seen(1, 4000));
    let both = [("r03".to_owned(), mac(1)), ("r03".to_owned(), mac(2))];
    assert_eq!(state.due(&inventory, Timestamp(4000)), both);
    // A machine that never answers delays the next ones only shortly.
    state.observe(&unconfirmed(3, 5000));
    state.observe(&seen(4, 5001));
    assert_eq!(state.due(&inventory, Timestamp(5001)), both);
    assert_eq!(state.due(&inventory, Timestamp(10_001))[2], ("r03".to_owned(), mac(4)));
    // An operating system that wants an address does not ask to be racked.
    state.observe(&Observation {
        booting: false,
        ..seen(5, 6000)
    });
    assert_eq!(state.due(&inventory, Timestamp(20_000)).len(), 3);
}

#[test]
fn a_placement_can_be_undone_and_the_machine_placed_elsewhere() {
    let rig = Rig::new();
    rig.start(&wanted("r03"));
    for n in [1, 2] {
        rig.packet(n);
        rig.until("a name", |rig| rig.name_of(n));
    }
    let undone = rig.discovery.undo("r03", "alice", Timestamp::now()).unwrap();
    assert_eq!((undone.node.as_str(), undone.machine.hwaddr), ("r03n02", mac(2)));
    assert_eq!(rig.name_of(2), None);
    assert!(rig.waits(2).unwrap().machine.held);
    // The machine continues to ask, and is left alone. The next machine gets the position.
    rig.packet(2);
    rig.packet(3);
    assert_eq!(rig.until("a name", |rig| rig.name_of(3)), "r03n02");
    assert_eq!(rig.name_of(2), None);
    let elsewhere = rig
        .discovery
        .accept(mac(2), Some("r07n01"), false, "alice", Timestamp::now());
    assert_eq!(elsewhere.unwrap(), "r07n01");
    assert_eq!(rig.name_of(2).as_deref(), Some("r07n01"));
    let again = rig
        .discovery
        .accept(mac(2), Some("r07n02"), false, "alice", Timestamp::now());
    assert!(again.unwrap_err().to_string().ends_with("is already r07n01"));
    // An operating system, which the rack that is being filled leaves alone.
    rig.discovery.observe(Observation {
        booting: false,
        ..seen(8, Timestamp::now().0)
    });
    rig.until("one more", |rig| rig.waits(8));
    let exists = rig
        .discovery
        .accept(mac(8), Some("r07n01"), false, "alice", Timestamp::now())
        .unwrap_err()
        .to_string();
    let (card, further) = (mac(8), mac(2));
    assert!(
        exists.contains(&format!("rackstrap discover accept {card} r07n01 --replace"))
            && exists.contains(&format!("rackstrap node set r07n01 --hwaddr {further} --hwaddr {card}")),
        "{exists}"
    );
    let taken = rig
        .discovery
        .undo("r09", "alice", Timestamp::now())
        .unwrap_err()
        .to_string();
    assert!(taken.contains("these are: r03"), "{taken}");
}

#[test]
fn sessions_and_waiting_machines_survive_a_restart() {
    let rig = Rig::new();
    rig.start(&wanted("r03"));
    rig.packet(1);
    rig.until("a name", |rig| rig.name_of(1));
    rig.discovery.observe(Observation {
        booting: false,
        ..seen(9, Timestamp::now().0)
    });
    rig.until("who waits", |rig| rig.waits(9));
    let rig = rig.restart();
    assert_eq!(rig.name_of(1).as_deref(), Some("r03n01"));
    assert!(rig.waits(9).is_some());
    rig.packet(2);
    assert_eq!(rig.until("a name", |rig| rig.name_of(2)), "r03n02");
    assert_eq!(
        rig.discovery.undo("r03", "alice", Timestamp::now()).unwrap().node,
        "r03n02"
    );
    assert_eq!(
        rig.discovery.undo("r03", "alice", Timestamp::now()).unwrap().node,
        "r03n01"
    );
    assert!(rig.discovery.undo("r03", "alice", Timestamp::now()).is_err());
    rig.discovery.end("r03").unwrap();
    let rig = rig.restart();
    assert!(rig.discovery.view(Timestamp::now()).sessions.is_empty());
}

#[test]
fn a_panic_of_the_thread_ends_it_with_a_reason_and_the_next_daemon_continues() {
    let rig = Rig::new();
    rig.start(&wanted("r01"));
    rig.packet(1);
    let first = rig.until("the first machine", |rig| rig.name_of(1));
    rig.discovery.panic();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reason = runtime.block_on(rig.discovery.ended()).unwrap_err().to_string();
    assert!(
        reason.starts_with("thread racking panicked: a test wants it; this is a defect of rackstrap"),
        "{reason}"
    );
    let rig = rig.restart();
    rig.packet(2);
    let second = rig.until("the second machine", |rig| rig.name_of(2));
    assert_eq!((first.as_str(), second.as_str()), ("r01n01", "r01n02"));
}

#[test]
fn with_confirm_each_placement_waits_for_a_yes() {
    let rig = Rig::new();
    rig.start(&Wanted {
        confirm: true,
        ..wanted("r03")
    });
    rig.packet(1);
    let waiting = rig.until("who waits", |rig| rig.waits(1));
    assert_eq!((waiting.rack.as_str(), rig.name_of(1)), ("r03", None));
    assert_eq!(
        rig.discovery
            .screen(
                mac(1),
                site().subnets[0].network,
                &LoaderReport::default(),
                Timestamp::now(),
            )
            .suggestion
            .as_deref(),
        Some("r03n01")
    );
    assert_eq!(
        rig.discovery
            .accept(mac(1), None, false, "bob", Timestamp::now())
            .unwrap(),
        "r03n01"
    );
}

#[test]
fn a_replaced_mainboard_keeps_its_nodes_name() {
    let rig = Rig::new();
    let add = Change::Add(NewNode {
        name: "r03n07".into(),
        hwaddrs: vec![mac(7)],
        groups: ["big".to_owned()].into(),
        ..NewNode::default()
    });
    rig.nodes.change(&[add], "alice", Timestamp(1)).unwrap();
    rig.packet(8);
    rig.until("who waits", |rig| rig.waits(8));
    let exists = rig
        .discovery
        .accept(mac(8), Some("r03n07"), false, "alice", Timestamp::now());
    assert!(exists.unwrap_err().to_string().contains("r03n07 already exists"));
    rig.discovery
        .accept(mac(8), Some("r03n07"), true, "alice", Timestamp::now())
        .unwrap();
    let node = rig.world.load().inventory.get("r03n07").cloned().unwrap();
    assert_eq!(
        (node.hwaddrs.as_slice(), node.groups.contains("big")),
        (&[mac(8)][..], true)
    );
    assert!(rig.waits(8).is_none());
}

#[test]
fn machines_of_two_racks_must_differ_by_place() {
    let mut others = Sessions::new();
    others.insert("r03".into(), begin("r03", &others).unwrap());
    let why = begin("r04", &others).unwrap_err();
    assert!(
        why.contains("its machines cannot be told from those of r04: both are on eth1"),
        "{why}"
    );
    assert!(
        begin("r03", &others)
            .unwrap_err()
            .starts_with("rack r03 is already being filled")
    );
    let at = |rack: &str, switch: &str| Wanted {
        only: Where {
            switch: Some(switch.into()),
            ..Where::default()
        },
        ..wanted(rack)
    };
    let mut others = Sessions::new();
    for (rack, switch) in [("r03", "sw3"), ("r04", "sw4")] {
        let session = Session::begin(&at(rack, switch), &site(), &others, "alice", Timestamp(0)).unwrap();
        others.insert(rack.into(), session);
    }
    let mut state = RackingState::new(Vec::new(), others, 16);
    for (n, switch) in [(1, "sw4"), (2, "sw3"), (3, "sw5")] {
        state.observe(&Observation {
            place: place(switch, ""),
            ..seen(n, 100)
        });
    }
    let due = state.due(&Inventory::default(), Timestamp(200));
    assert_eq!(due, [("r03".to_owned(), mac(2)), ("r04".to_owned(), mac(1))]);
}

#[test]
fn wrong_requests_are_refused_with_the_right_form() {
    let site = site();
    let said = |wanted: &Wanted| Session::begin(wanted, &site, &Sessions::new(), "a", Timestamp(0)).unwrap_err();
    assert!(
        said(&wanted("rack3")).contains("such as r01"),
        "{}",
        said(&wanted("rack3"))
    );
    assert!(said(&wanted("r3")).contains("such as r01"));
    let from = |from: &str| Wanted {
        from: Some(from.into()),
        ..wanted("r03")
    };
    assert!(
        said(&from("n300")).contains("goes from 1 to 254"),
        "{}",
        said(&from("n300"))
    );
    assert!(Session::begin(&from("r03n05"), &site, &Sessions::new(), "a", Timestamp(0)).is_ok());
    let profile = Wanted {
        profiles: vec!["gpu".into()],
        ..wanted("r03")
    };
    assert!(said(&profile).contains("profile 'gpu' is not in the site file"));
}

#[test]
fn a_full_rack_leaves_machines_waiting() {
    let rig = Rig::new();
    rig.start(&Wanted {
        from: Some("n253".into()),
        ..wanted("r03")
    });
    for n in 1..=3 {
        rig.packet(n);
    }
    rig.until("the last position", |rig| rig.name_of(2));
    assert_eq!(rig.name_of(2).as_deref(), Some("r03n254"));
    rig.until("who waits", |rig| rig.waits(3));
    assert_eq!(rig.discovery.view(Timestamp::now()).sessions[0].next, None);
    assert_eq!(rig.name_of(3), None);
    let full = rig.discovery.begin(
        &Wanted {
            from: Some("n253".into()),
            ..wanted("r03")
        },
        "bob",
        Timestamp::now(),
    );
    assert!(full.is_err());
}

#[test]
fn a_flood_replaces_its_own_machines_first() {
    let mut state = RackingState::new(Vec::new(), Sessions::new(), 16);
    for n in 0..8 {
        state.observe(&seen(n, u64::from(n)));
    }
    for n in 1000..6000 {
        let noted = state.observe(&Observation {
            confirmed: false,
            ..seen(n, 100)
        });
        assert!(
            !noted.write && noted.forgotten.is_empty(),
            "the disk hears nothing of it"
        );
    }
    assert_eq!(state.machines().len(), 16);
    assert!(
        (0..8).all(|n| state.machine(mac(n)).is_some()),
        "who has an address stays"
    );
    // When all have an address, the one that was seen first is forgotten.
    let noted = (20..40).map(|n| state.observe(&seen(n, 200)).forgotten);
    let gone: Vec<HwAddr> = noted.flatten().collect();
    assert_eq!(gone[0], mac(0), "{gone:?}");
}

#[test]
fn a_machine_in_two_places_is_not_placed_automatically() {
    let mut state = RackingState::new(Vec::new(), Sessions::new(), 16);
    let session = begin("r03", &state.sessions).unwrap();
    state.sessions.insert("r03".into(), session);
    let at = |port: &str, at: u64| Observation {
        place: place("sw1", port),
        ..seen(1, at)
    };
    let due = |state: &RackingState, now| state.due(&Inventory::default(), Timestamp(now)).len();
    state.observe(&at("1", 2000));
    state.observe(&at("2", 3000));
    let trouble = state
        .trouble(state.machine(mac(1)).unwrap(), &Inventory::default(), Timestamp(3000))
        .unwrap();
    assert_eq!(
        trouble,
        "seen at switch sw1 port 1 and then at switch sw1 port 2: two machines with this address, or a loop?"
    );
    assert_eq!(due(&state, 3000), 0);
    // It stays at the second port: it was moved.
    assert_eq!(due(&state, 3000 + 10 * 60_000), 1);
    // Two machines that send at the same time were not carried either.
    let twin = |port| Observation {
        place: place("sw1", port),
        ..seen(2, 700_000)
    };
    state.observe(&twin("3"));
    state.observe(&twin("4"));
    assert!(
        state
            .trouble(
                state.machine(mac(2)).unwrap(),
                &Inventory::default(),
                Timestamp(700_000)
            )
            .is_some()
    );
}

#[test]
fn the_end_of_a_racks_time_ends_no_filling_that_was_begun_meanwhile() {
    let rig = Rig::new();
    let now = Timestamp::now();
    let (over, later) = (now.plus_secs(3601), now.plus_secs(7201));
    rig.discovery.begin(&wanted("r03"), "alice", now).unwrap();
    // The thread found it over; before its turn came, somebody began again.
    rig.discovery.end("r03").unwrap();
    rig.discovery.begin(&wanted("r03"), "bob", over).unwrap();
    let error = rig.discovery.shared.end("r03", Some(over)).unwrap_err().to_string();
    assert!(error.contains("is not being filled"), "{error}");
    let by = |rig: &Rig| {
        rig.discovery
            .shared
            .state()
            .sessions
            .get("r03")
            .map(|session| session.by.clone())
    };
    assert_eq!(by(&rig).as_deref(), Some("bob"));
    let rig = rig.restart();
    assert_eq!(by(&rig).as_deref(), Some("bob"), "on disk");
    rig.discovery.shared.end("r03", Some(later)).unwrap();
    assert_eq!(by(&rig), None);
}
