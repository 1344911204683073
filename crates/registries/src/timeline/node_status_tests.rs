//! Tests of how a node is.

use super::{node_status::heartbeats, tests::LIMITS, *};
use crate::{
    boots::{Boot, Boots},
    testing,
};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::decide::{Assignments, Trial, World};
use rackstrap_store::{Batch, Store, Table};
use rackstrap_wire::CheckResult;
use serde_json::json;
use std::{path::Path, sync::Arc};

const NODE: &str = "r01n01";

fn at(secs: u64) -> Timestamp {
    Timestamp(secs * 1000)
}

fn world(heartbeat_secs: u32) -> World {
    let mut site = testing::cluster("");
    site.limits.heartbeat_secs = heartbeat_secs;
    testing::world(site).build()
}

/// Boots as an older release left them in the store: `(id, version, ready at, heartbeat period)`, the oldest first.
fn rig(dir: &Path, boots: &[(&str, u32, Option<u64>, u32)]) -> (Store, Recorder, Boots) {
    let store = testing::store(dir);
    let mut batch = Batch::new();
    for (number, (id, version, ready, heartbeat_secs)) in (1_u64..).zip(boots) {
        let row = json!({
            "plan": {
                "wire": 4, "id": id, "node": NODE,
                "net": {"hwaddr": "52:54:00:01:01:01", "ipaddr": "10.5.1.1", "prefix": 16, "router": null, "dns": [], "domain": ""},
                "image": format!("debian@{version}"),
                "root": {"server": "10.5.0.1", "port": 2049, "export": format!("/debian@{version}"), "options": ""},
                "init": "/sbin/init", "disk": null, "ram_size": "50%", "heartbeat_secs": heartbeat_secs,
                "health": {"checks": ["mount /x"], "within_secs": 120, "command_secs": 30},
            },
            "token": "t", "opened": number * 1000, "sequence": number, "redeemed": true, "ready": ready.map(at),
        });
        // The row is made by the type that the store uses.
        let boot: Boot = serde_json::from_value(row).unwrap();
        batch = batch.put(Table::Boots, id.as_bytes(), &boot);
    }
    store.commit_blocking(batch).unwrap();
    let recorder = Recorder::load(store.clone(), LIMITS, Timestamp(0)).unwrap();
    let boots = Boots::load(store.clone()).unwrap();
    (store, recorder, boots)
}

fn say(recorder: &Recorder, secs: u64, kind: EventKind, boot: &str, level: Level, detail: &str) {
    let event = Event::new(at(secs), kind, level, detail).of_boot(boot);
    recorder.record(Subject::Node(NODE.to_owned()), event);
}

#[test]
fn a_node_is_lost_by_the_heartbeat_period_of_its_boot_and_not_by_the_sites_of_now() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, recorder, boots) = rig(dir.path(), &[("a", 1, Some(10), 60)]);
    // The site's period was lowered after the node booted; the node keeps the one of its plan.
    let world = world(5);
    let state = |secs| NodeStatus::of(&world, &recorder, &boots, NODE, at(secs)).state;
    say(&recorder, 10, EventKind::Ready, "a", Level::Ok, "");
    for secs in [60, 120, 180] {
        recorder.record_overdue(at(10 + secs - 1), heartbeats(&world, &boots));
        assert_eq!(state(10 + secs - 1), NodeState::Ready);
        recorder.heartbeat(Subject::Node(NODE.to_owned()), at(10 + secs), "a", "");
    }
    let events = recorder.of(&Subject::Node(NODE.to_owned()));
    assert_eq!(events.len(), 1, "it never flapped: {events:?}");
    // After three of its own heartbeat periods, and not a second earlier; the events agree.
    assert_eq!(
        (state(190 + 180), state(190 + 181)),
        (NodeState::Ready, NodeState::Lost)
    );
    recorder.record_overdue(at(190 + 180), heartbeats(&world, &boots));
    assert_eq!(
        NodeStatus::recorded(&world, &recorder, &boots, NODE).state,
        NodeState::Ready
    );
    recorder.record_overdue(at(190 + 181), heartbeats(&world, &boots));
    let lost = NodeStatus::recorded(&world, &recorder, &boots, NODE);
    assert_eq!((lost.state, lost.since), (NodeState::Lost, Some(at(190))));
}

#[test]
fn without_a_known_boot_or_period_the_sites_heartbeat_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, _recorder, boots) = rig(dir.path(), &[("a", 1, Some(10), 0), ("b", 1, None, 60)]);
    let world = world(7);
    let of = |boot: &str| heartbeats(&world, &boots)(boot);
    assert_eq!((of("a"), of("b"), of("")), (7, 60, 7));
}

#[test]
fn a_node_that_was_never_heard_of_is_absent_and_nothing_is_known_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, recorder, boots) = rig(dir.path(), &[]);
    let status = NodeStatus::of(&world(30), &recorder, &boots, NODE, at(10));
    assert_eq!(status, NodeStatus::default());
    assert!(!status.is_on(at(10)) && status.last_boot().is_none());
}

#[test]
fn what_a_node_runs_is_told_apart_from_the_boot_that_it_is_in() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, recorder, boots) = rig(dir.path(), &[("a", 1, Some(10), 30), ("b", 2, None, 30)]);
    let world = world(30);
    let status = |secs| NodeStatus::of(&world, &recorder, &boots, NODE, at(secs));
    say(&recorder, 10, EventKind::Ready, "a", Level::Ok, "");
    let up = status(11);
    assert_eq!((up.state, up.is_on(at(11)), up.healthy), (NodeState::Ready, true, true));
    assert_eq!(up.version, Some("debian@1".parse().unwrap()));
    say(&recorder, 20, EventKind::Script, "b", Level::Ok, "boots debian@2");
    let booting = status(21);
    let id = |boot: &Option<Arc<Boot>>| boot.as_ref().map(|boot| boot.plan.id.clone()).unwrap_or_default();
    assert_eq!(
        (id(&booting.boot), id(&booting.running)),
        ("b".to_owned(), "a".to_owned())
    );
    assert_eq!(booting.version, Some("debian@2".parse().unwrap()));
    assert_eq!(booting.begun().collect::<Vec<_>>(), [at(2), at(1)]);
    // While it boots, it counts as on as long as it is heard of. Then it stalls, and the reason names the step.
    assert!(booting.is_on(at(20 + 299)) && !booting.is_on(at(20 + 300)));
    let stalled = status(2_000);
    assert_eq!((stalled.state, stalled.since), (NodeState::Stalled, Some(at(20))));
    assert!(
        stalled
            .stalled()
            .starts_with("script: has its script but fetched no kernel"),
        "{}",
        stalled.reason
    );
    assert_eq!((stalled.lacks(), booting.stalled()), ("", ""));
}

#[test]
fn a_node_whose_checks_failed_is_up_and_not_healthy() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, recorder, boots) = rig(dir.path(), &[("a", 1, Some(10), 30)]);
    let world = world(30);
    let status = || NodeStatus::of(&world, &recorder, &boots, NODE, at(11));
    say(
        &recorder,
        10,
        EventKind::Ready,
        "a",
        Level::Degraded,
        "check failed: /x is not mounted",
    );
    boots.record_health("a", "t", false).unwrap();
    let found = status();
    assert_eq!((found.state, found.healthy), (NodeState::Degraded, false));
    assert_eq!(found.lacks(), "check failed: /x is not mounted");
    assert_eq!(
        found.checks, "its checks failed",
        "an older agent does not report which"
    );
    let result = CheckResult {
        check: "mount /x".to_owned(),
        ok: false,
        detail: "/x is not mounted".to_owned(),
    };
    boots.record_checks("a", "t", vec![result]).unwrap();
    assert_eq!(status().checks, "check failed: /x is not mounted");
}

#[test]
fn a_node_that_is_back_on_another_version_says_why_while_nothing_else_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, recorder, boots) = rig(dir.path(), &[("a", 1, Some(10), 30)]);
    let (wanted, good) = ("debian@2".parse().unwrap(), "debian@1".parse().unwrap());
    let trial = Trial {
        boots: 3,
        rolled_back: Some(at(5)),
        ..Trial::begin(&wanted, &good, at(1))
    };
    let world = World {
        assignments: Arc::new(Assignments {
            trials: Arc::new([(NODE.to_owned(), trial)].into()),
            ..Assignments::default()
        }),
        ..world(30)
    };
    let reason = || NodeStatus::of(&world, &recorder, &boots, NODE, at(41)).reason;
    say(&recorder, 10, EventKind::Ready, "a", Level::Ok, "");
    assert!(reason().ends_with("back on debian@1"), "{}", reason());
    say(
        &recorder,
        40,
        EventKind::Heartbeat,
        "a",
        Level::Degraded,
        "/tmp is not mounted",
    );
    assert_eq!(reason(), "/tmp is not mounted");
}
