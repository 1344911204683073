//! Tests of silent nodes: lost, stalled, and over restarts of the daemon.

use super::{tests::LIMITS, *};
use rackstrap_base::clock::Timestamp;
use rackstrap_store::Store;
use std::path::Path;

fn node() -> Subject {
    Subject::Node("r01n01".to_owned())
}

fn at(secs: u64) -> Timestamp {
    Timestamp(secs * 1000)
}

fn open(dir: &Path, now: Timestamp) -> (Store, Recorder) {
    let store = crate::testing::store(dir);
    let recorder = Recorder::load(store.clone(), LIMITS, now).unwrap();
    (store, recorder)
}

fn say(recorder: &Recorder, secs: u64, step: &str, boot: &str, detail: &str) {
    let mut event = Event::new(at(secs), step.parse().unwrap(), Level::Ok, detail).of_boot(boot);
    // The detail says who sent a packet.
    event.complete_sender();
    recorder.record(node(), event);
}

fn state(recorder: &Recorder) -> (NodeState, u64) {
    let standing = recorder.standing(&node()).unwrap();
    (standing.state, standing.since.0 / 1000)
}

#[test]
fn a_lost_node_stays_lost_over_a_restart_with_the_right_age_until_it_is_heard_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recorder) = open(dir.path(), at(1));
    say(&recorder, 10, "ready", "a", "");
    recorder.record_overdue(at(100), |_| 30);
    assert_eq!(state(&recorder), (NodeState::Ready, 10));
    recorder.record_overdue(at(101), |_| 30);
    assert_eq!(state(&recorder), (NodeState::Lost, 10));
    recorder.record_alive(at(1_800));
    store.flush().unwrap();
    drop((store, recorder));
    let (store, recorder) = open(dir.path(), at(1_810));
    recorder.record_overdue(at(1_811), |_| 30);
    assert_eq!(state(&recorder), (NodeState::Lost, 10), "not ready for another 90 s");
    recorder.heartbeat(node(), at(1_900), "a", "");
    assert_eq!(state(&recorder), (NodeState::Ready, 1_900));
    let last = recorder.last(&node()).unwrap();
    assert_eq!(last.detail, "heartbeats again after 31 min 30 s");
    drop((store, recorder));
}

#[test]
fn a_node_that_fell_silent_with_the_server_is_lost_since_the_server_was_there_last() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recorder) = open(dir.path(), at(1));
    say(&recorder, 10, "ready", "a", "");
    for secs in (40..1_000).step_by(30) {
        recorder.heartbeat(node(), at(secs), "a", "");
    }
    recorder.record_alive(at(1_000));
    store.flush().unwrap();
    drop((store, recorder));
    let (_store, recorder) = open(dir.path(), at(5_000));
    recorder.record_absence(recorder.last_alive().unwrap().unwrap(), at(5_000));
    let said = recorder.last(&node()).unwrap();
    assert_eq!(said.step, EventKind::Server);
    assert!(said.detail.contains("down for 1 h 6 min"), "{}", said.detail);
    recorder.record_overdue(at(5_090), |_| 30);
    assert_eq!(state(&recorder), (NodeState::Ready, 10), "it may be heard again");
    recorder.record_overdue(at(5_091), |_| 30);
    assert_eq!(state(&recorder), (NodeState::Lost, 1_000));
}

#[test]
fn a_short_restart_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, recorder) = open(dir.path(), at(1));
    say(&recorder, 10, "ready", "a", "");
    recorder.record_absence(at(100), at(110));
    assert_eq!(recorder.of(&node()).len(), 1);
}

#[test]
fn firmware_that_refuses_the_loader_is_stalled_and_stays_so_while_it_repeats_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recorder) = open(dir.path(), at(1));
    for round in 0..8 {
        let secs = 10 + round * 60;
        say(&recorder, secs, "dhcp discover", "", "offer 10.5.1.1 (x64 UEFI)");
        say(&recorder, secs + 5, "tftp", "", "snponly.efi: complete");
        recorder.record_overdue(at(secs + 6), |_| 30);
    }
    let (found, since) = state(&recorder);
    assert_eq!((found, since), (NodeState::Stalled, 15));
    let standing = recorder.standing(&node()).unwrap();
    let text = "tftp: fetched snponly.efi, then nothing more; does its firmware enforce Secure Boot?";
    assert!(standing.last_error.starts_with(text), "{}", standing.last_error);
    store.flush().unwrap();
    drop((store, recorder));
    // A restart of the daemon changes nothing; progress of the machine does.
    let (_store, recorder) = open(dir.path(), at(600));
    assert_eq!(state(&recorder), (NodeState::Stalled, 15));
    say(&recorder, 610, "dhcp discover", "", "offer 10.5.1.1 (x64 UEFI, iPXE)");
    assert_eq!(state(&recorder), (NodeState::Loading, 610));
    say(&recorder, 620, "ready", "a", "");
    assert_eq!(state(&recorder).0, NodeState::Ready);
}

#[test]
fn a_machine_that_was_switched_off_half_way_is_stalled_and_begins_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, recorder) = open(dir.path(), at(1));
    say(&recorder, 10, "dhcp discover", "", "offer");
    say(&recorder, 20, "kernel", "a", "");
    recorder.record_overdue(at(620), |_| 30);
    assert_eq!(state(&recorder).0, NodeState::Loading);
    recorder.record_overdue(at(621), |_| 30);
    assert_eq!(state(&recorder), (NodeState::Stalled, 20));
    say(&recorder, 9_000, "dhcp discover", "", "offer");
    assert_eq!(state(&recorder), (NodeState::Loading, 9_000));
}

#[test]
fn what_is_due_follows_from_what_boots_take_here() {
    let mut pace = BootPace::default();
    let disk = BootStage::Agent(rackstrap_wire::Phase::Disk as u8);
    assert_eq!(pace.due(disk), Some(3_600_000), "nothing is known yet");
    for _ in 0..20 {
        pace.record(disk, 4_000_000);
    }
    assert_eq!(pace.due(disk), Some(16_000_000), "disks that take long here");
    for _ in 0..64 {
        pace.record(disk, 2_000);
    }
    assert_eq!(pace.due(disk), Some(600_000), "never less than a floor");
    assert_eq!(pace.due(BootStage::Up), None);
}

#[test]
fn a_stalled_node_is_told_with_its_last_step_and_without_an_age_that_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, recorder) = open(dir.path(), at(1));
    say(&recorder, 10, "dhcp discover", "", "offer 10.5.1.1 (x64 UEFI)");
    say(&recorder, 14, "dhcp request", "", "ack 10.5.1.1 (x64 UEFI)");
    recorder.record_overdue(at(700), |_| 30);
    assert_eq!(state(&recorder), (NodeState::Stalled, 10));
    assert_eq!(
        recorder.standing(&node()).unwrap().last_error,
        "dhcp request: has an address but fetched no loader; is TFTP blocked, or was it switched off?"
    );
}

#[test]
fn a_node_that_starts_a_system_of_its_own_disk_before_it_is_lost_is_lost_with_that_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recorder) = open(dir.path(), at(1));
    say(&recorder, 10, "ready", "a", "");
    // A running system may ask again, and goes on with its heartbeats.
    say(&recorder, 20, "dhcp-client request", "", "ack 10.5.1.1");
    recorder.heartbeat(node(), at(30), "a", "");
    // It extends its lease, as any system does.
    say(&recorder, 40, "dhcp-client request (renewing)", "", "ack 10.5.1.1");
    recorder.record_overdue(at(121), |_| 30);
    assert_eq!(recorder.standing(&node()).unwrap().last_error, "");
    assert_eq!(recorder.last(&node()).unwrap().detail, "no heartbeat for 1 min 31 s");

    recorder.heartbeat(node(), at(200), "a", "");
    say(&recorder, 220, "dhcp-client request", "", "ack 10.5.1.1");
    // The daemon restarts in between.
    store.flush().unwrap();
    drop((store, recorder));
    let (_store, recorder) = open(dir.path(), at(230));
    recorder.record_overdue(at(400), |_| 30);
    assert_eq!(state(&recorder).0, NodeState::Lost);
    let error = recorder.standing(&node()).unwrap().last_error;
    assert!(
        error.contains("then a system that sends none asked for its address"),
        "{error}"
    );
}

#[test]
fn a_node_that_was_switched_off_is_off_and_not_lost_until_it_boots() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recorder) = open(dir.path(), at(1));
    say(&recorder, 10, "ready", "a", "");
    // The BMC refused, which is no fault of the node.
    let failed = Event::new(at(15), EventKind::Power, Level::Error, "off by root: no answer");
    recorder.record(node(), failed);
    assert_eq!(state(&recorder), (NodeState::Ready, 10));
    assert_eq!(recorder.standing(&node()).unwrap().last_error, "");
    say(&recorder, 20, "power-off", "", "off by root: on -> off");
    assert_eq!(state(&recorder), (NodeState::Off, 20));
    recorder.record_overdue(at(1_000), |_| 30);
    assert_eq!(state(&recorder), (NodeState::Off, 20));
    // The daemon restarts in between.
    store.flush().unwrap();
    drop((store, recorder));
    let (store, recorder) = open(dir.path(), at(1_100));
    recorder.record_overdue(at(2_000), |_| 30);
    assert_eq!(state(&recorder), (NodeState::Off, 20));
    say(&recorder, 2_050, "power-on", "", "on by root: off -> on");
    assert_eq!(state(&recorder), (NodeState::Loading, 2_050));
    say(&recorder, 2_100, "dhcp discover", "", "offer 10.5.1.1 (x64 UEFI)");
    assert_eq!(state(&recorder), (NodeState::Loading, 2_050));
    say(&recorder, 2_200, "ready", "b", "");
    assert_eq!(state(&recorder), (NodeState::Ready, 2_200));
    // A node that was lost may be off, too, and is no fault then.
    recorder.record_overdue(at(3_000), |_| 30);
    assert_eq!(state(&recorder).0, NodeState::Lost);
    say(&recorder, 3_100, "power-off", "", "off by root: already off");
    assert_eq!(state(&recorder), (NodeState::Off, 3_100));
    // Switched on by its button.
    say(&recorder, 3_200, "dhcp discover", "", "offer 10.5.1.1 (x64 UEFI)");
    assert_eq!(state(&recorder), (NodeState::Loading, 3_200));
    // A node that is up is not set back by a reset: its firmware asks soon.
    say(&recorder, 3_300, "ready", "c", "");
    say(&recorder, 3_400, "power-on", "", "reset by root: done");
    assert_eq!(state(&recorder), (NodeState::Ready, 3_300));
    drop(store);
}
