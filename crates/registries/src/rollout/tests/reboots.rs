//! Rollouts with `--reboot`: which nodes restart, how many at a time, and what happens when the rollout is paused.

use super::{
    image,
    ledger::{PROFILES, Rig},
};
use crate::{
    boots::Boot,
    restart::{Request, Step, Withdrawn},
    rollout::ledger::Ledger,
    testing::cluster,
};
use rackstrap_base::clock::Timestamp;
use rackstrap_lifecycle::Observed;
use rackstrap_model::decide::{Trial, World};
use rackstrap_store::{Batch, Table};
use std::sync::Arc;

impl Rig {
    /// Runs the planner, and sends the node's heartbeat; true if the answer is the order to restart.
    fn beats(&self, name: &str) -> bool {
        self.beats_in(name, &self.boots.current(name).unwrap())
    }

    fn beats_in(&self, name: &str, boot: &Arc<Boot>) -> bool {
        self.rollouts.look(Timestamp::now());
        assert_eq!(boot.plan.node, name);
        self.runtime
            .block_on(self.restarts.order(boot, Timestamp::now()))
            .is_some()
    }

    /// The last step of each node.
    fn steps(&self, names: &[&str]) -> Vec<&'static str> {
        let all: Vec<Request> = self.restarts.list();
        let of = |name: &&str| {
            let mut members = all.iter().flat_map(|request| &request.nodes);
            members
                .rfind(|member| member.name == *name)
                .map_or("none", |member| member.step.as_str())
        };
        names.iter().map(of).collect()
    }

    /// Ends the programs that run. Returns their number.
    fn programs_end(&self) -> usize {
        self.rollouts.look(Timestamp::now());
        let jobs: Vec<_> = std::iter::from_fn(|| self.restarts.next_job()).collect();
        for job in &jobs {
            let ran = self.restarts.ran(job, &Ok(()), Timestamp::now(), |_| Timestamp::now());
            ran.unwrap();
        }
        jobs.len()
    }
}

#[test]
fn with_reboot_nodes_leave_what_they_run_one_after_the_other() {
    let rig = Rig::new();
    for slot in 1..=3 {
        rig.come_up(&format!("r01n{slot:02}"));
    }
    assert!(!rig.beats("r01n01"));
    rig.begin_with(&["r01n01", "r01n02"], true).unwrap();
    let another = rig.boots.current("r01n01").unwrap();
    let other = rig.boots.current("r01n02").unwrap();
    assert!(rig.beats("r01n01") && !rig.beats("r01n02"), "a tenth of eight is one");
    assert!(!rig.beats("r01n03"), "it is no node of the rollout");
    let list = rig.restarts.list();
    assert_eq!(
        (list.len(), list[0].rollout.as_str(), list[0].within_secs),
        (1, "debian", 600)
    );
    rig.come_up("r01n01");
    assert!(!rig.beats_in("r01n01", &another), "a boot that is over");
    assert!(!rig.beats("r01n01") && rig.beats_in("r01n02", &other));
    rig.rollouts.abort(None, "tests", Timestamp::now()).unwrap();
    assert!(!rig.beats("r01n01"), "r01n02 was told to restart, and is not back");
    rig.come_up("r01n02");
    assert!(rig.beats("r01n01"));
    rig.come_up("r01n01");
    assert!(!rig.beats("r01n01"));
    assert_eq!(rig.restarts.list().len(), 1, "one request, from its begin to its end");
}

#[test]
fn a_paused_rollout_wants_nobody_restarted_and_what_was_wanted_is_not_down() {
    let rig = Rig::new();
    for slot in 1..=2 {
        rig.come_up(&format!("r01n{slot:02}"));
    }
    rig.begin_with(&["r01n01", "r01n02"], true).unwrap();
    assert_eq!(
        rig.steps(&["r01n01", "r01n02"]),
        ["drained", "waiting"],
        "one at a time"
    );
    let (_, withdrawn) = rig.rollouts.pause(None, "tests", Timestamp::now()).unwrap();
    assert_eq!(withdrawn.cancelled, ["r01n01", "r01n02"]);
    assert!(!rig.beats("r01n01"));
    assert_eq!(rig.steps(&["r01n01", "r01n02"]), ["not restarted", "not restarted"]);
    rig.rollouts.resume(None, None, "tests", Timestamp::now()).unwrap();
    assert!(rig.beats("r01n01"), "wanted again");
    rig.come_up("r01n01");
    assert!(rig.beats("r01n02"), "r01n01 is up");
    rig.come_up("r01n02");
    rig.rollouts.pause(None, "tests", Timestamp::now()).unwrap();
    rig.rollouts.abort(None, "tests", Timestamp::now()).unwrap();
    assert!(
        rig.beats("r01n01") && !rig.beats("r01n02"),
        "it goes back, pause or not"
    );
}

#[test]
fn what_a_rollout_wanted_is_withdrawn_with_it_and_nothing_else_is() {
    let rig = Rig::new();
    let world = rig.world.load_full();
    let site = format!("{PROFILES}\n[hooks]\ndrain = [\"/bin/true\"]\nresume = [\"/bin/true\"]\n");
    let site = Arc::new(cluster(&site));
    rig.world.store(Arc::new(World {
        site,
        ..World::clone(&world)
    }));
    for slot in [1, 2, 3, 4, 5, 10] {
        rig.come_up(&format!("r01n{slot:02}"));
    }
    let want = crate::restart::Want {
        nodes: vec!["r01n05".into()],
        reason: "a person".into(),
        max_down: 1,
        drain: true,
        within_secs: 600,
        by: "tests".into(),
    };
    rig.restarts.want(&want, Timestamp::now(), false).unwrap();
    rig.begin_with(&["r01n01", "r01n02", "r01n03"], true).unwrap();
    let wish_down = |rig: &Rig| rig.steps(&["r01n01", "r01n02", "r01n03", "r01n05"]);
    assert_eq!(
        wish_down(&rig),
        ["waiting", "waiting", "waiting", "draining"],
        "a tenth of eight is one, and r01n05 is that"
    );
    rig.restarts
        .cancel(&["r01n05".into()], "tests", Timestamp::now())
        .unwrap();
    assert_eq!(rig.programs_end(), 1, "its drain program ends");
    assert_eq!(rig.programs_end(), 1, "it is resumed");
    assert_eq!(rig.programs_end(), 1, "r01n01 is drained");
    assert_eq!(wish_down(&rig), ["drained", "waiting", "waiting", "not restarted"]);
    // A rollout of another image, at the same time.
    rig.begin_of("rocky@2", &["r01n10"], true).unwrap();
    assert_eq!(rig.steps(&["r01n10"]), ["draining"]);
    assert!(rig.beats("r01n01"));
    let abort = |rig: &Rig, image: &str| rig.rollouts.abort(Some(image), "tests", Timestamp::now()).unwrap().1;
    let withdrawn = abort(&rig, "debian");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        withdrawn,
        Withdrawn {
            cancelled: names(&["r01n02", "r01n03"]),
            told: names(&["r01n01"]),
        }
    );
    assert_eq!(rig.steps(&["r01n10"]), ["draining"], "its rollout goes on");
    let rig = rig.restart();
    assert_eq!(
        wish_down(&rig),
        ["restarting", "not restarted", "not restarted", "not restarted"],
        "on disk"
    );
    assert_eq!(rig.programs_end(), 1, "r01n10 is drained, by the next daemon");
    assert_eq!(rig.steps(&["r01n10"]), ["drained"]);
    assert_eq!(
        abort(&rig, "rocky"),
        Withdrawn {
            cancelled: names(&["r01n10"]),
            told: Vec::new(),
        },
        "what was withdrawn before is not withdrawn by this"
    );
}

#[test]
fn a_rollout_that_has_ended_looks_at_its_nodes_until_none_of_them_can_be_concerned() {
    let rig = Rig::new();
    for slot in 1..=2 {
        rig.come_up(&format!("r01n{slot:02}"));
    }
    let is_planned = |rig: &Rig| !rig.rollouts.shared.ledger().planned().is_empty();
    // A node that began to boot the version has come up by then, or does not.
    let much_later = || Timestamp::now().plus_secs(700);
    rig.begin_with(&["r01n01"], true).unwrap();
    assert!(rig.beats("r01n01"));
    rig.come_up("r01n01");
    rig.rollouts.abort(None, "tests", Timestamp::now()).unwrap();
    rig.rollouts.look(much_later());
    assert!(is_planned(&rig), "r01n01 has to go back");
    assert!(rig.beats("r01n01"));
    rig.come_up("r01n01");
    rig.rollouts.look(Timestamp::now());
    assert_eq!(rig.steps(&["r01n01"]), ["restarted"]);
    assert!(is_planned(&rig), "a node may still come up on the version");
    rig.rollouts.look(much_later());
    assert!(!is_planned(&rig));
    let rig = rig.restart();
    assert!(!is_planned(&rig), "its row says that it is finished");

    // One that is taken back after it was done concerns its nodes once more.
    rig.begin_with(&["r01n01"], true).unwrap();
    assert!(rig.beats("r01n01"));
    rig.come_up("r01n01");
    let pace = crate::rollout::Pace {
        batch: Some(crate::rollout::Share::Percent(100)),
        ..Default::default()
    };
    rig.rollouts.promote(None, &pace, "tests", Timestamp::now()).unwrap();
    for slot in 2..=8 {
        rig.come_up(&format!("r01n{slot:02}"));
    }
    rig.rollouts.look(Timestamp::now());
    assert_eq!(rig.rollouts.all().last().unwrap().stage, crate::rollout::Stage::Done);
    rig.rollouts.look(much_later());
    assert!(!is_planned(&rig));
    let mut ledger = Ledger::clone(&rig.rollouts.shared.ledger());
    assert!(
        ledger.assignments().restarting.is_empty(),
        "nodes restart for a finished rollout"
    );
    // A node that tries its version again restarts for it once more.
    let (to, from) = (ledger.rollouts.values().last())
        .map(|rollout| (rollout.image.clone(), rollout.from.clone()))
        .unwrap();
    let trial = Trial::begin(&to, &from, Timestamp(0));
    ledger.trials.insert("r01n01".to_owned(), trial);
    assert!(ledger.forgive("r01n01", &Observed::default(), Timestamp(0)));
    assert!(!ledger.planned().is_empty() && !ledger.assignments().restarting.is_empty());

    rig.rollouts.roll_back("debian", "tests", Timestamp::now()).unwrap();
    assert!(is_planned(&rig) && rig.beats("r01n01"));
}

/// Older releases recorded in the row of a rollout's node the boot in which it was ordered to restart.
#[test]
fn a_restart_that_an_older_release_ordered_is_taken_over_once() {
    let rig = Rig::new();
    for slot in 1..=2 {
        rig.come_up(&format!("r01n{slot:02}"));
    }
    rig.begin_with(&["r01n01", "r01n02"], true).unwrap();
    let boot = rig.boots.current("r01n02").unwrap().plan.id.clone();
    let store = &rig.store;
    let rows = store.scan::<serde_json::Value>(Table::RolloutNodes, b"").unwrap();
    let (key, mut row) = rows.into_iter().find(|(key, _)| key.ends_with(b"r01n02")).unwrap();
    (row["restart"], row["asked"]) = (boot.clone().into(), Timestamp::now().0.into());
    let mut batch = Batch::new().put(Table::RolloutNodes, key, &row);
    for (key, _) in store.scan::<serde_json::Value>(Table::Restarts, b"").unwrap() {
        batch = batch.delete(Table::Restarts, key);
    }
    store.commit_blocking(batch).unwrap();
    let rig = rig.restart();
    assert_eq!(rig.steps(&["r01n02"]), ["restarting"]);
    let list = rig.restarts.list();
    assert!(matches!(&list[0].nodes[0].step, Step::Ordered { boot: told, .. } if *told == boot));
    assert!(!rig.beats("r01n01"), "r01n02 is down");
    rig.come_up("r01n02");
    assert!(rig.beats("r01n01"));
    let rig = rig.restart();
    rig.rollouts.look(Timestamp::now());
    assert_eq!(
        rig.steps(&["r01n01", "r01n02"]),
        ["restarting", "restarted"],
        "not once more"
    );
    assert_eq!(rig.rollouts.all().pop().unwrap().image, image("debian@4"));
}
