//! Tests of the planner: invariants under all events, and rollouts whose nodes are restarted.

mod ordered;

use super::*;
use crate::{
    Level, Share,
    restart::{End, Step},
    rollout::{Pace, Wish},
};
use proptest::prelude::*;

const BOTH: Programs = Programs {
    drain: true,
    resume: true,
    heartbeat_secs: 30,
};

fn at(secs: u64) -> Timestamp {
    Timestamp(1_000_000_000 + secs * 1000)
}

fn image(version: u32) -> ImageRef {
    format!("debian@{version}").parse().unwrap()
}

/// Nodes that follow debian and run its version 1, a rollout of version 2 with `--reboot`, and the daemon's state.
#[derive(Clone)]
struct Lab {
    nodes: BTreeMap<String, Node>,
    rollouts: BTreeMap<u64, Rollout>,
    requests: Vec<Request>,
    busy: HashSet<String>,
    programs: Programs,
    sequence: u64,
    now: u64,
    records: Vec<Record>,
}

impl Lab {
    fn new(count: usize, canary: usize, max_down: u32) -> Lab {
        let up = |index: usize| Observed {
            up: true,
            on: true,
            heard: at(0),
            image: Some(image(1)),
            boot: format!("old{index}"),
            boot_opened: at(0),
            sequence: index as u64,
            healthy: true,
            begun: vec![at(0)],
            ..Observed::default()
        };
        let node = |index: usize| Node {
            observed: up(index),
            follows: Some("debian".into()),
            leaves: None,
        };
        let nodes: BTreeMap<String, Node> = (1..=count).map(|n| (format!("n{n:02}"), node(n))).collect();
        let wish = Wish {
            image: image(2),
            nodes: nodes.keys().take(canary).cloned().collect(),
            reboot: true,
            max_down: Share::Nodes(max_down),
            ready_within_secs: 900,
            max_failures: 99,
            soak_secs: 0,
            message: String::new(),
        };
        let observe = |name: &str| &nodes[name].observed;
        let mut rollout = Rollout::begin(&wish, 1, &image(1), observe, "tests", at(0));
        rollout.all = count;
        Lab {
            rollouts: [(1, rollout)].into(),
            requests: Vec::new(),
            busy: HashSet::new(),
            programs: BOTH,
            sequence: 1000,
            now: 0,
            records: Vec::new(),
            nodes,
        }
    }

    fn rollout(&mut self) -> &mut Rollout {
        self.rollouts.get_mut(&1).unwrap()
    }

    /// A short form of the assignments: nodes of the rollout leave version 1, and version 2 after an abort.
    fn assign(&mut self) {
        let rollout = &self.rollouts[&1];
        for (name, node) in &mut self.nodes {
            let runs_it = node.observed.image == Some(image(2));
            let leaves = match rollout.stage.is_taken_back() {
                true => runs_it,
                false => rollout.gives(name) && !runs_it,
            };
            node.leaves = (leaves && !rollout.paused && node.observed.up).then(|| "debian".to_owned());
        }
    }

    fn ask(&self) -> Plan {
        let situation = Situation {
            now: at(self.now),
            programs: self.programs,
            nodes: &self.nodes,
            busy: &self.busy,
            sequence: self.sequence,
        };
        plan(&situation, &self.rollouts, &self.requests)
    }

    fn write(&mut self, plan: &Plan) {
        for changed in &plan.rollouts {
            self.rollouts.insert(changed.rollout.number, changed.rollout.clone());
        }
        for request in &plan.requests {
            match self.requests.iter_mut().find(|before| before.id == request.id) {
                Some(before) => *before = request.clone(),
                None => self.requests.push(request.clone()),
            }
        }
        for action in &plan.actions {
            match action {
                Action::Run(job) => self.busy.extend(job.nodes.iter().cloned()),
                Action::Record(record) => self.records.push(record.clone()),
                Action::Restart(_) | Action::MakeCurrent(_) => {}
            }
        }
    }

    /// Runs the planner and applies its result, like the executor.
    fn plan(&mut self) -> Plan {
        self.assign();
        let plan = self.ask();
        self.write(&plan);
        plan
    }

    fn member(&self, node: &str) -> Option<&Member> {
        let open = |member: &&Member| member.name == node && !member.step.is_over();
        self.requests.iter().flat_map(|request| &request.nodes).find(open)
    }

    fn step(&self, node: &str) -> &'static str {
        let all = self.requests.iter().flat_map(|request| &request.nodes);
        all.rev()
            .find(|member| member.name == node)
            .map_or("none", |member| member.step.as_str())
    }

    /// Ends all running programs.
    fn programs_end(&mut self, outcome: &Result<(), String>) {
        for name in std::mem::take(&mut self.busy) {
            for request in &mut self.requests {
                for program in [Program::Drain, Program::Resume] {
                    request.ran(program, &name, outcome, at(self.now + 10), at(self.now));
                }
            }
        }
    }

    /// The node's heartbeat gets its order.
    fn gets_order(&mut self, node: &str) -> bool {
        let (observed, now) = (self.nodes[node].observed.clone(), at(self.now));
        self.requests
            .iter_mut()
            .any(|request| request.give_order(node, &observed, now))
    }

    /// The node comes up in a new boot.
    fn boots(&mut self, node: &str, version: u32, healthy: bool) {
        self.sequence += 1;
        let (now, id) = (at(self.now), format!("{node}-{}", self.sequence));
        self.falls(node);
        let observed = &mut self.nodes.get_mut(node).unwrap().observed;
        observed.begun.push(now);
        observed.image = Some(image(version));
        (observed.up, observed.on, observed.healthy) = (true, true, healthy);
        (observed.boot, observed.boot_opened, observed.sequence) = (id.clone(), now, self.sequence);
        if version == 2 && self.rollouts[&1].is_on() {
            let rollout = self.rollout();
            rollout.boots(node, &id, now);
            rollout.ready(node, &id, if healthy { "" } else { "no sshd" }, now);
        }
    }

    /// The node sends no more messages.
    fn falls(&mut self, node: &str) {
        let observed = &mut self.nodes.get_mut(node).unwrap().observed;
        (observed.up, observed.on) = (false, false);
    }

    /// Number of nodes that the rollout has out of service, without late ones.
    fn down(&self) -> usize {
        let down = |member: &&Member| member.step.is_down() && !matches!(member.step, Step::Late { .. });
        self.requests
            .iter()
            .flat_map(|request| &request.nodes)
            .filter(down)
            .count()
    }
}

#[test]
fn a_rollout_owns_one_request_with_its_limit_and_its_deadline() {
    let mut lab = Lab::new(10, 4, 2);
    lab.plan();
    assert_eq!((lab.requests.len(), lab.requests[0].nodes.len()), (1, 4));
    assert_eq!((lab.requests[0].max_down, lab.requests[0].within_secs), (2, 900));
    assert_eq!(lab.down(), 2);
    lab.programs_end(&Ok(()));
    let plan = lab.plan();
    let orders: Vec<&Order> = (plan.actions.iter())
        .filter_map(|action| {
            if let Action::Restart(order) = action {
                Some(order)
            } else {
                None
            }
        })
        .collect();
    assert_eq!((orders.len(), orders[0].boot.as_str()), (2, "old1"));
    assert!(lab.gets_order("n01") && lab.gets_order("n02") && !lab.gets_order("n03"));
    lab.now = 100;
    lab.boots("n01", 2, true);
    lab.plan();
    assert_eq!(
        (lab.step("n01"), lab.step("n03")),
        ("resuming", "waiting"),
        "it is in service before its resume program ended"
    );
    lab.programs_end(&Ok(()));
    lab.plan();
    assert_eq!((lab.step("n01"), lab.step("n03")), ("restarted", "draining"));
    // The next batch is added to the same request.
    let pace = Pace {
        batch: Some(Share::Nodes(6)),
        ..Pace::default()
    };
    for node in ["n02", "n03", "n04"] {
        lab.boots(node, 2, true);
    }
    lab.rollout().promote(&pace, "tests", at(100)).unwrap();
    lab.plan();
    lab.plan();
    assert_eq!((lab.requests.len(), lab.requests[0].nodes.len()), (1, 10));
}

#[test]
fn the_deadline_is_ready_within_and_not_a_constant() {
    for within in [60, 900, 3600, 90_000] {
        let mut lab = Lab::new(2, 1, 1);
        lab.programs = Programs { drain: false, ..BOTH };
        lab.rollout().ready_within_secs = within;
        lab.plan();
        assert!(lab.gets_order("n01"));
        lab.falls("n01");
        // The firmware takes ten minutes; its kernel starts at the end of them.
        lab.now = within / 2;
        lab.rollout().boots("n01", "new", at(within / 2));
        for late in [lab.now + within, lab.now + within + 1] {
            lab.now = late;
            lab.plan();
            let errors: Vec<&str> = (lab.records.iter())
                .filter(|record| record.level == Level::Error)
                .map(|record| record.text.as_str())
                .collect();
            let is_late = late > within / 2 + within;
            let span = crate::span(within);
            let said =
                format!("not ready within {span} of its restart: the rollout of debian@2 gives it another version");
            let expected: &[&str] = if is_late { &[&said] } else { &[] };
            assert_eq!(errors, expected, "{within} s, at {late} s");
            let failed = lab.rollouts[&1].nodes["n01"].state.is_failure();
            assert_eq!(
                (failed, lab.step("n01") == "late"),
                (is_late, is_late),
                "rollout and request have different deadlines"
            );
        }
    }
}

#[test]
fn no_more_nodes_than_max_down_are_restarted_at_once() {
    let mut lab = Lab::new(4, 4, 2);
    lab.programs.drain = false;
    lab.plan();
    assert_eq!(
        ["n01", "n02", "n03"].map(|node| lab.step(node)),
        ["drained", "drained", "waiting"]
    );
    assert!(lab.gets_order("n01") && lab.gets_order("n02"));
    lab.now = 901;
    lab.plan();
    assert_eq!(
        ["n01", "n03"].map(|node| lab.step(node)),
        ["late", "drained"],
        "a late node is waited for"
    );

    let mut lab = Lab::new(4, 4, 2);
    lab.programs.drain = false;
    lab.plan();
    assert!(lab.gets_order("n01") && lab.gets_order("n02"));
    lab.programs.resume = false;
    lab.boots("n01", 2, true);
    lab.plan();
    assert_eq!(
        ["n01", "n03", "n04"].map(|node| lab.step(node)),
        ["restarted", "drained", "waiting"]
    );
    lab.rollout().pause("tests", at(2)).unwrap();
    lab.boots("n02", 2, true);
    lab.plan();
    assert_eq!(
        ["n02", "n03", "n04"].map(|node| lab.step(node)),
        ["restarted", "not restarted", "not restarted"]
    );
    let said = lab.records.last().unwrap();
    assert_eq!(
        (said.node.as_str(), said.text.as_str()),
        ("n03", "is not restarted: the rollout of debian@2 is paused, by tests")
    );
}

#[test]
fn a_node_that_boots_by_itself_or_for_an_administrator_is_down_too() {
    let mut lab = Lab::new(4, 4, 1);
    lab.rollout().nodes.remove("n03");
    lab.falls("n04");
    lab.rollout().boots("n04", "b", at(0));
    lab.plan();
    assert_eq!(lab.down(), 0, "n04, which boots the version, is restarted");
    lab.boots("n04", 2, true);
    let mut restart = begin(&lab.rollouts[&1].clone(), lab.sequence, at(0));
    (restart.id, restart.rollout, restart.number) = ("q".into(), String::new(), 0);
    restart.nodes = vec![Member::waiting("n03", at(0))];
    lab.requests.insert(0, restart);
    lab.plan();
    assert_eq!(["n01", "n03"].map(|node| lab.step(node)), ["waiting", "draining"]);
}

#[test]
fn a_node_that_waits_for_its_drain_program_is_down_for_as_long_as_it_waits() {
    let mut lab = Lab::new(3, 3, 1);
    for minute in 0..120 {
        lab.now = minute * 60;
        lab.plan();
        assert_eq!(
            ["n01", "n02"].map(|node| lab.step(node)),
            ["draining", "waiting"],
            "minute {minute}"
        );
        lab.programs_end(&Err("jobs run".into()));
    }
    lab.now = 7300;
    lab.plan();
    lab.programs_end(&Ok(()));
    // It gets the order, and has 15 minutes from then on.
    assert!(lab.gets_order("n01"));
    lab.now = 8200;
    lab.plan();
    assert_eq!(lab.step("n02"), "waiting");
    lab.now = 8201;
    lab.plan();
    assert_eq!(["n01", "n02"].map(|node| lab.step(node)), ["late", "draining"]);
}

#[test]
fn a_node_that_comes_back_unhealthy_and_has_to_leave_that_version_too_stays_drained() {
    let mut lab = Lab::new(2, 1, 1);
    lab.plan();
    lab.programs_end(&Ok(()));
    lab.plan();
    assert!(lab.gets_order("n01"));
    lab.now = 60;
    lab.boots("n01", 2, false);
    lab.rollout().end(Stage::Aborted, "tests", at(60)).unwrap();
    lab.plan();
    assert_eq!((lab.step("n01"), lab.busy.len()), ("drained", 0));
    assert!(
        lab.gets_order("n01"),
        "it gets no order in the boot in which it is unhealthy"
    );
    lab.now = 120;
    lab.boots("n01", 1, true);
    lab.plan();
    assert_eq!(lab.step("n01"), "resuming");
    assert_eq!(lab.requests.len(), 1);
}

#[test]
fn a_second_rollout_finishes_restarts_of_the_first_one() {
    let mut lab = Lab::new(2, 2, 1);
    lab.programs.drain = false;
    lab.plan();
    assert!(lab.gets_order("n01"));
    lab.rollout().end(Stage::Aborted, "tests", at(1)).unwrap();
    let mut second = lab.rollouts[&1].clone();
    (second.number, second.stage) = (2, Stage::Canary);
    lab.rollouts.insert(2, second);
    lab.assign();
    lab.nodes.get_mut("n02").unwrap().leaves = Some("debian".into());
    let plan = lab.ask();
    lab.write(&plan);
    assert_eq!((lab.requests.len(), lab.requests[0].number), (1, 2));
    assert_eq!(
        ["n01", "n02"].map(|node| lab.step(node)),
        ["restarting", "waiting"],
        "more than one restarts at a time"
    );
}

#[derive(Clone, Debug)]
enum Happens {
    Passes(u64),
    ProgramsEnd(bool),
    Heartbeat(usize),
    Boots(usize, bool),
    Falls(usize),
    Promote,
    Pause,
    Resume,
    Abort,
    Cancel(usize),
    Programs(bool, bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    let node = 0..8usize;
    prop_oneof![
        4 => (1..600u64).prop_map(Passes),
        6 => prop::bool::weighted(0.8).prop_map(ProgramsEnd),
        8 => node.clone().prop_map(Heartbeat),
        6 => (node.clone(), prop::bool::weighted(0.9)).prop_map(|(n, well)| Boots(n, well)),
        1 => node.clone().prop_map(Falls),
        2 => Just(Promote),
        1 => Just(Pause),
        2 => Just(Resume),
        1 => Just(Abort),
        1 => node.prop_map(Cancel),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(drain, resume)| Programs(drain, resume)),
    ]
}

impl Lab {
    fn happen(&mut self, what: &Happens) {
        let name = |n: &usize| format!("n{:02}", n + 1);
        let now = at(self.now);
        match what {
            Happens::Passes(secs) => self.now += secs,
            Happens::ProgramsEnd(well) => {
                let outcome = if *well { Ok(()) } else { Err("no".to_owned()) };
                self.programs_end(&outcome);
            }
            Happens::Heartbeat(n) => {
                if self.nodes[&name(n)].observed.up {
                    self.gets_order(&name(n));
                }
            }
            Happens::Boots(n, well) => {
                let given = self.rollouts[&1].gives(&name(n));
                self.boots(&name(n), if given { 2 } else { 1 }, *well);
            }
            Happens::Falls(n) => self.falls(&name(n)),
            Happens::Promote => drop(self.rollout().promote(&Pace::default(), "p", now)),
            Happens::Pause => drop(self.rollout().pause("p", now)),
            Happens::Resume => drop(self.rollout().resume(Some(99), "p", now)),
            Happens::Abort => drop(self.rollout().end(Stage::Aborted, "p", now)),
            Happens::Cancel(n) => {
                let programs = self.programs;
                for request in &mut self.requests {
                    request.give_up(|node| node == name(n), "p", now, programs, &mut Vec::new());
                }
            }
            Happens::Programs(drain, resume) => {
                (self.programs.drain, self.programs.resume) = (*drain, *resume);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// After any events: the limit holds, a repeated plan asks for nothing new, and no node is lost.
    #[test]
    fn a_plan_keeps_its_promises(
        events in prop::collection::vec(happens(), 1..80),
        max_down in 1u32..4,
    ) {
        let mut lab = Lab::new(8, 3, max_down);
        for event in &events {
            lab.happen(event);
            let before = lab.clone();
            let first = lab.plan();
            let turns = lab.requests.iter().flat_map(|request| &request.nodes).filter(|member| {
                let was_down = before.member(&member.name).is_some_and(|member| member.step.is_down());
                member.step.is_down() && !was_down
            });
            if turns.count() > 0 {
                prop_assert!(lab.down() <= max_down as usize, "{} down", lab.down());
            }
            // The same input gives the same plan, and its own output gives nothing new, unless it was another batch.
            prop_assert_eq!(before.ask(), before.ask());
            let mut given = !first.rollouts.is_empty();
            for _ in 0..3 {
                given = given && !lab.plan().rollouts.is_empty();
            }
            prop_assert!(!given, "it gives one batch after the other");
            let mut again = lab.clone();
            again.assign();
            let second = again.ask();
            prop_assert_eq!(&second.requests, &Vec::<Request>::new());
            prop_assert!(!second.actions.iter().any(|action| matches!(action, Action::Record(_) | Action::Run(_))));
            for node in lab.nodes.keys() {
                let open = lab.requests.iter().flat_map(|request| &request.nodes);
                let open = open.filter(|member| member.name == *node && !member.step.is_over());
                prop_assert!(open.count() <= 1, "{} is in two requests", node);
            }
        }
        // Without further events, each restart that began ends or is late.
        for _ in 0..80 {
            lab.now += 1000;
            for node in lab.nodes.keys().cloned().collect::<Vec<_>>() {
                if lab.nodes[&node].observed.up {
                    lab.gets_order(&node);
                }
            }
            lab.plan();
            lab.programs_end(&Ok(()));
        }
        for member in lab.requests.iter().flat_map(|request| &request.nodes) {
            prop_assert!(
                matches!(member.step, Step::Ended { .. } | Step::Late { .. } | Step::Waiting),
                "{} is {}", member.name, member.step.as_str()
            );
        }
    }

    /// With both programs, a drained node is resumed or late in the end.
    #[test]
    fn drained_nodes_are_resumed(events in prop::collection::vec(happens(), 1..80)) {
        let mut lab = Lab::new(8, 8, 3);
        let mut drained: BTreeSet<String> = BTreeSet::new();
        for event in events.iter().filter(|event| !matches!(event, Happens::Programs(..))) {
            let resuming: Vec<(usize, String)> = (lab.requests.iter().enumerate())
                .flat_map(|(index, request)| request.nodes.iter().map(move |member| (index, member)))
                .filter(|(_, member)| matches!(member.step, Step::Resuming { .. }) && lab.busy.contains(&member.name))
                .map(|(index, member)| (index, member.name.clone()))
                .collect();
            lab.happen(event);
            if matches!(event, Happens::ProgramsEnd(true)) {
                for (_, name) in &resuming {
                    drained.remove(name);
                }
            }
            lab.plan();
            for member in lab.requests.iter().flat_map(|request| &request.nodes) {
                match &member.step {
                    Step::Draining => drop(drained.insert(member.name.clone())),
                    Step::Ended { how } if *how != End::Unwell => {
                        prop_assert!(!drained.contains(&member.name), "{} stays drained", member.name);
                    }
                    _ => {}
                }
            }
        }
    }
}
