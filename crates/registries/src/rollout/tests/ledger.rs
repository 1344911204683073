//! Tests of the registry: nodes that roll back, orders, and the state after a restart.

use super::{catalog, image};
use crate::{
    Registries,
    boots::Boot,
    restart::Restarts,
    rollout::{Pace, Rollouts, Share, Stage, Wish},
    testing::{cluster, node, world},
    timeline::{Event, EventKind, Level, Subject},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::{
    decide::{Decision, Requester, decide},
    inventory::Node,
};
use std::sync::Arc;

pub(super) const PROFILES: &str = r#"
[profile.default]
image = "debian"

[profile.old]
image = "debian@2"

[profile.other]
image = "rocky"
"#;

pub(super) struct Rig {
    dir: tempfile::TempDir,
    daemon: Registries,
    pub rollouts: Rollouts,
    pub restarts: Restarts,
    pub runtime: tokio::runtime::Runtime,
}

impl std::ops::Deref for Rig {
    type Target = Registries;

    fn deref(&self) -> &Registries {
        &self.daemon
    }
}

fn of_profile(name: &str, profile: &str) -> Node {
    Node {
        profiles: vec![profile.to_owned()],
        ..node(name)
    }
}

impl Rig {
    /// Ten nodes, the last two with other profiles; debian@3 is current, debian@4 is newer.
    pub fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::open(dir);
        rig.rollouts
            .see(&catalog(&["debian@2", "debian@3", "rocky@1"]), Timestamp(0))
            .unwrap();
        rig
    }

    pub fn open(dir: tempfile::TempDir) -> Rig {
        let nodes = (1..=8).map(|slot| node(&format!("r01n{slot:02}")));
        let nodes = nodes.chain([of_profile("r01n09", "old"), of_profile("r01n10", "other")]);
        let images = catalog(&["debian@2", "debian@3", "debian@4", "debian@5", "rocky@1", "rocky@2"]);
        let daemon = Registries::open(dir.path(), world(cluster(PROFILES)).nodes(nodes).images(images));
        let restarts = daemon.restarts();
        Rig {
            dir,
            rollouts: daemon.rollouts(&restarts),
            restarts,
            daemon,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    /// The daemon is killed and started again.
    pub fn restart(self) -> Rig {
        let Rig {
            dir,
            rollouts,
            restarts,
            daemon,
            ..
        } = self;
        drop((rollouts, restarts));
        daemon.kill(dir.path());
        Rig::open(dir)
    }

    pub fn told(&self, name: &str) -> Box<rackstrap_model::decide::NodeDecision> {
        let hwaddr = self.world.load().inventory.get(name).unwrap().hwaddrs[0];
        let requester = Requester {
            hwaddr: Some(hwaddr),
            ..Requester::default()
        };
        match decide(&self.world.load(), &requester) {
            Decision::Node(decision) => decision,
            Decision::Unknown { why, .. } => panic!("{why:?}"),
        }
    }

    pub fn gets(&self, name: &str) -> String {
        self.told(name).image.unwrap().manifest.image.to_string()
    }

    /// The script is fetched.
    pub fn open_boot(&self, name: &str) -> Arc<Boot> {
        let decision = self.told(name);
        let plan = decision
            .plan(&self.world.load().site, decision.node.hwaddrs[0], "")
            .unwrap();
        let boot = self
            .runtime
            .block_on(self.boots.open(Timestamp::now(), |_| plan))
            .unwrap();
        self.rollouts.opened(&boot, Timestamp::now());
        self.settled();
        boot
    }

    /// The script and the kernel are fetched.
    pub fn boot(&self, name: &str) -> Arc<Boot> {
        let boot = self.open_boot(name);
        self.rollouts.took(&boot, Timestamp::now());
        self.settled();
        boot
    }

    /// The script and the kernel are fetched, and the system comes up.
    pub fn come_up(&self, name: &str) {
        let boot = self.boot(name);
        let token = boot.token.clone();
        let ready = self.boots.mark_ready(&boot.plan.id, &token, Timestamp::now());
        let boot = self.runtime.block_on(ready).unwrap();
        let event = Event::new(Timestamp::now(), EventKind::Ready, Level::Ok, "").of_boot(&*boot.plan.id);
        self.recorder.record(Subject::Node(name.to_owned()), event);
        self.rollouts.ready(&boot, Timestamp::now());
        self.settled();
    }

    /// Waits until the thread has handled all messages, which it handles in order.
    pub fn settled(&self) {
        self.runtime.block_on(self.rollouts.heard_all());
    }

    pub fn begin(&self, nodes: &[&str]) -> Result<(), String> {
        self.begin_with(nodes, false)
    }

    pub fn begin_with(&self, nodes: &[&str], reboot: bool) -> Result<(), String> {
        self.begin_of("debian@4", nodes, reboot)
    }

    pub fn begin_of(&self, version: &str, nodes: &[&str], reboot: bool) -> Result<(), String> {
        let wish = Wish {
            image: image(version),
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            reboot,
            max_down: Share::Percent(10),
            ready_within_secs: 600,
            max_failures: 0,
            soak_secs: 0,
            message: String::new(),
        };
        let begun = self.rollouts.begin(&wish, "tests", Timestamp::now());
        begun.map(drop).map_err(|error| error.to_string())
    }

    pub fn states(&self) -> String {
        let all = self.rollouts.all();
        let nodes = all.last().unwrap().nodes.iter();
        let states = nodes.map(|(name, member)| format!("{} {}", &name[3..], member.state));
        states.collect::<Vec<_>>().join(", ")
    }
}

#[test]
fn what_comes_later_is_given_to_nobody_and_promotions_survive_restarts() {
    let rig = Rig::new();
    assert_eq!(
        (rig.gets("r01n01"), rig.gets("r01n09")),
        ("debian@3".into(), "debian@2".into())
    );
    let now = Timestamp(1);
    rig.rollouts.promote_image(&image("debian@5"), "tests", now).unwrap();
    let rig = rig.restart();
    assert_eq!(rig.gets("r01n01"), "debian@5");
    let again = rig
        .rollouts
        .promote_image(&image("debian@5"), "tests", now)
        .unwrap_err();
    assert_eq!(again.to_string(), "debian@5 is already the current version");
    let missing = rig
        .rollouts
        .promote_image(&image("debian@9"), "tests", now)
        .unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("debian@9 does not exist; available: debian@2, debian@3"),
        "{missing}"
    );
    assert_eq!(
        rig.rollouts.roll_back("debian", "tests", now).unwrap().0.image,
        image("debian@3")
    );
    assert_eq!(rig.gets("r01n01"), "debian@3");
    assert!(
        rig.rollouts.roll_back("debian", "tests", now).is_err(),
        "there was none before"
    );
    assert!(rig.rollouts.roll_back("arch", "tests", now).is_err());
}

#[test]
fn a_node_that_does_not_get_ready_goes_back_and_stays_there() {
    let rig = Rig::new();
    rig.come_up("r01n01");
    rig.rollouts
        .promote_image(&image("debian@4"), "tests", Timestamp(1))
        .unwrap();
    for _ in 0..9 {
        rig.open_boot("r01n01");
    }
    rig.boot("r01n01");
    rig.boot("r01n01");
    assert_eq!(
        rig.gets("r01n01"),
        "debian@4",
        "scripts that were only fetched do not count"
    );
    let rig = rig.restart();
    rig.boot("r01n01");
    assert_eq!(
        (rig.gets("r01n01"), rig.gets("r01n02")),
        ("debian@3".into(), "debian@4".into())
    );
    let why = rig.told("r01n01").why.join("\n");
    assert!(
        why.contains("image debian@3: rolled back because debian@4 did not get ready in 3 boots (wanted: "),
        "{why}"
    );
    rig.come_up("r01n01");
    let rig = rig.restart();
    assert_eq!(rig.gets("r01n01"), "debian@3", "also after it was ready there");
    let line = rig.recorder.of(&Subject::Node("r01n01".into()));
    let told = line
        .iter()
        .filter(|event| event.step == EventKind::Rollout)
        .map(|event| event.detail.as_str());
    assert_eq!(
        told.collect::<Vec<_>>(),
        ["debian@4 did not get ready in 3 boots: rolls back to debian@3"]
    );
    let nodes = ["r01n01".to_owned(), "r01n02".to_owned()];
    assert_eq!(rig.rollouts.retry(&nodes, "tests", Timestamp(2)).unwrap(), ["r01n01"]);
    assert_eq!(rig.gets("r01n01"), "debian@4");
    rig.come_up("r01n01");
    for _ in 0..5 {
        rig.boot("r01n01");
    }
    assert_eq!(
        rig.gets("r01n01"),
        "debian@4",
        "it was ready on it: whatever is wrong, it is not the version"
    );
}

#[test]
fn a_rollout_from_canary_to_done() {
    let rig = Rig::new();
    for slot in 1..=8 {
        rig.come_up(&format!("r01n{slot:02}"));
    }
    let error = rig.begin(&["r01n01", "r01n09", "r01n10"]).unwrap_err();
    assert!(
        error.contains("r01n09: pinned to debian@2") && error.contains("r01n10: of image rocky"),
        "{error}"
    );
    rig.begin(&["r01n01", "r01n02"]).unwrap();
    assert_eq!(
        (rig.gets("r01n01"), rig.gets("r01n03")),
        ("debian@4".into(), "debian@3".into())
    );
    let why = rig.told("r01n01").why.join("\n");
    assert!(
        why.contains("image debian@4, by the rollout of debian@4 (canary)"),
        "{why}"
    );
    let second = rig.begin(&["r01n03"]).unwrap_err();
    assert!(
        second.contains("debian@4 is being rolled out (canary: 0 of 2 ready)"),
        "{second}"
    );
    assert!(
        rig.rollouts
            .promote_image(&image("debian@5"), "t", Timestamp(1))
            .is_err()
    );
    rig.open_boot("r01n01");
    assert_eq!(rig.states(), "n01 waiting, n02 waiting");
    rig.boot("r01n01");
    assert_eq!(rig.states(), "n01 booting, n02 waiting");
    rig.come_up("r01n01");
    let rig = rig.restart();
    assert_eq!(rig.states(), "n01 ready, n02 waiting");
    rig.come_up("r01n02");
    let pace = Pace {
        batch: Some(Share::Nodes(4)),
        ..Pace::default()
    };
    rig.rollouts.promote(None, &pace, "tests", Timestamp::now()).unwrap();
    assert_eq!(
        (rig.gets("r01n06"), rig.gets("r01n07")),
        ("debian@4".into(), "debian@3".into())
    );
    for slot in 3..=6 {
        rig.come_up(&format!("r01n{slot:02}"));
    }
    rig.rollouts.look(Timestamp::now());
    assert_eq!(rig.gets("r01n07"), "debian@4");
    rig.come_up("r01n07");
    rig.come_up("r01n08");
    rig.rollouts.look(Timestamp::now());
    let rig = rig.restart();
    assert_eq!(rig.rollouts.all().last().unwrap().stage, Stage::Done);
    assert_eq!(rig.rollouts.current()[0].image, image("debian@4"));
    assert_eq!(
        (rig.gets("r01n07"), rig.gets("r01n09")),
        ("debian@4".into(), "debian@2".into())
    );
    rig.rollouts.roll_back("debian", "tests", Timestamp::now()).unwrap();
    assert_eq!(rig.gets("r01n07"), "debian@3");
    assert_eq!(rig.rollouts.all().last().unwrap().stage, Stage::RolledBack);
}

#[test]
fn a_failing_node_stops_the_rollout_and_abort_leads_all_back() {
    let rig = Rig::new();
    for slot in 1..=3 {
        rig.come_up(&format!("r01n{slot:02}"));
    }
    rig.begin(&["r01n01", "r01n02", "r01n03"]).unwrap();
    rig.come_up("r01n01");
    for _ in 0..4 {
        rig.boot("r01n02");
    }
    assert_eq!(rig.states(), "n01 ready, n02 rolled back, n03 waiting");
    let stopped = rig.rollouts.all().pop().unwrap().stopped;
    assert!(
        stopped.contains("1 failed, and none may: r01n02 (debian@4 did not get ready in 3 boots)"),
        "{stopped}"
    );
    let gets = |rig: &Rig| [1, 2, 3].map(|slot| rig.gets(&format!("r01n{slot:02}"))).join(" ");
    assert_eq!(gets(&rig), "debian@4 debian@3 debian@3", "n03 has not begun");
    let rig = rig.restart();
    assert_eq!(gets(&rig), "debian@4 debian@3 debian@3");
    rig.rollouts.abort(Some("debian"), "tests", Timestamp::now()).unwrap();
    assert_eq!(gets(&rig), "debian@3 debian@3 debian@3");
    rig.begin(&["r01n02"]).unwrap();
    assert_eq!(rig.gets("r01n02"), "debian@4", "another rollout, another try");
    rig.rollouts.roll_back("debian", "tests", Timestamp::now()).unwrap();
    assert_eq!(gets(&rig), "debian@3 debian@3 debian@3");
    assert_eq!(rig.rollouts.all().last().unwrap().stage, Stage::RolledBack);
}

#[test]
fn boots_that_were_missed_are_found_among_the_boots() {
    let rig = Rig::new();
    rig.come_up("r01n01");
    rig.begin(&["r01n01"]).unwrap();
    // The thread gets no message about this boot.
    let decision = rig.told("r01n01");
    let plan = decision
        .plan(&rig.world.load().site, decision.node.hwaddrs[0], "")
        .unwrap();
    let boot = rig
        .runtime
        .block_on(rig.boots.open(Timestamp::now(), |_| plan))
        .unwrap();
    let ready = rig.boots.mark_ready(&boot.plan.id, &boot.token, Timestamp::now());
    rig.runtime.block_on(ready).unwrap();
    rig.rollouts.look(Timestamp::now());
    assert_eq!(rig.states(), "n01 ready");
}

#[test]
fn a_restored_rollout_waits_for_a_person() {
    let rig = Rig::new();
    rig.come_up("r01n01");
    rig.begin(&["r01n01"]).unwrap();
    crate::rollout::pause_all(&rig.store, Timestamp::now()).unwrap();
    let rig = rig.restart();
    assert_eq!(rig.gets("r01n01"), "debian@3");
    rig.rollouts.resume(None, None, "tests", Timestamp::now()).unwrap();
    assert_eq!(rig.gets("r01n01"), "debian@4");
}
