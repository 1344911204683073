use super::*;
use crate::{
    testing::{self, node_with_card as node},
    timeline::{Event, EventKind, Level, tests::LIMITS},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_store::Store;
use std::path::Path;

fn renamed(from: &str, to: &str, card: u8) -> Changed {
    Changed {
        before: Some(node(from, card)),
        after: Some(node(to, card)),
    }
}

fn deleted(name: &str, card: u8) -> Changed {
    Changed {
        before: Some(node(name, card)),
        after: None,
    }
}

struct Rig {
    store: Store,
    recorder: Recorder,
    boots: Boots,
}

impl Rig {
    fn open(dir: &Path) -> Rig {
        let store = testing::store(dir);
        Rig {
            recorder: Recorder::load(store.clone(), LIMITS, Timestamp(1)).unwrap(),
            boots: Boots::load(store.clone()).unwrap(),
            store,
        }
    }

    fn restart(self, dir: &Path) -> Rig {
        self.store.flush().unwrap();
        drop(self);
        Rig::open(dir)
    }

    /// `count` events that contain the name of their node.
    fn lives(&self, name: &str, count: u64) {
        for number in 0..count {
            let event = Event::new(
                Timestamp(1000 + number),
                EventKind::Agent(rackstrap_wire::Phase::Disk),
                Level::Ok,
                format!("{name} {number}"),
            );
            self.recorder.record(Subject::Node(name.to_owned()), event);
        }
    }

    fn follow(&self, changed: &[Changed]) {
        let follow = Follow::new(self.recorder.clone(), self.boots.clone());
        self.store.commit_blocking(follow.rows(changed)).unwrap();
        follow.publish(changed);
    }

    /// The timeline of each of these names, as `first detail x count`.
    fn lines(&self, names: &[&str]) -> Vec<String> {
        let line = |name: &&str| {
            let events = self.recorder.of(&Subject::Node((*name).to_owned()));
            let whose = |event: &Event| event.detail.split(' ').next().unwrap_or_default().to_owned();
            let mut owners: Vec<String> = events.iter().map(whose).collect();
            let count = owners.len();
            owners.dedup();
            format!("{name}: {} x {count}", owners.join("+"))
        };
        names.iter().map(line).collect()
    }
}

const NAMES: [&str; 3] = ["r01n01", "r01n02", "r01n03"];

#[test]
fn nodes_that_change_places_keep_their_timelines_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    rig.lives("r01n01", 20);
    rig.lives("r01n02", 5);
    // If a timeline is longer than the part that is read at the start, its beginning is on disk only.
    let rig = rig.restart(dir.path());
    rig.follow(&[renamed("r01n01", "r01n02", 1), renamed("r01n02", "r01n01", 2)]);
    let swapped = ["r01n01: r01n02 x 5", "r01n02: r01n01 x 20", "r01n03:  x 0"];
    assert_eq!(rig.lines(&NAMES), swapped);
    let rig = rig.restart(dir.path());
    assert_eq!(rig.lines(&NAMES), swapped);
    // All three exchange their names in a circle, including the empty one.
    rig.follow(&[
        renamed("r01n01", "r01n02", 2),
        renamed("r01n02", "r01n03", 1),
        renamed("r01n03", "r01n01", 3),
    ]);
    let turned = ["r01n01:  x 0", "r01n02: r01n02 x 5", "r01n03: r01n01 x 20"];
    assert_eq!(rig.lines(&NAMES), turned);
    assert_eq!(rig.restart(dir.path()).lines(&NAMES), turned);
}

#[test]
fn a_node_that_takes_the_name_of_a_deleted_one_keeps_its_own_timeline_only() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    rig.lives("r01n01", 20);
    rig.lives("r01n02", 5);
    rig.follow(&[renamed("r01n01", "r01n02", 1), deleted("r01n02", 2)]);
    let moved = ["r01n01:  x 0", "r01n02: r01n01 x 20", "r01n03:  x 0"];
    assert_eq!(rig.lines(&NAMES), moved);
    let rig = rig.restart(dir.path());
    assert_eq!(rig.lines(&NAMES), moved);
    // The same two changes in the other order.
    rig.lives("r01n03", 3);
    rig.follow(&[deleted("r01n02", 1), renamed("r01n03", "r01n02", 3)]);
    let moved = ["r01n01:  x 0", "r01n02: r01n03 x 3", "r01n03:  x 0"];
    assert_eq!(rig.lines(&NAMES), moved);
    assert_eq!(rig.restart(dir.path()).lines(&NAMES), moved);
}
