//! Tests of rollouts: fixed sequences, and any sequence of events.

mod ordered;

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const MINUTE: u64 = 60_000;

fn image(text: &str) -> ImageRef {
    text.parse().unwrap()
}

fn wish(nodes: &[&str]) -> Wish {
    Wish {
        image: image("debian@4"),
        nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
        reboot: false,
        max_down: Share::Nodes(2),
        ready_within_secs: 600,
        max_failures: 0,
        soak_secs: 0,
        message: String::new(),
    }
}

const fn seen(on: bool) -> Observed {
    Observed {
        up: on,
        on,
        heard: Timestamp(0),
        problem: String::new(),
        stalled: String::new(),
        ordered: String::new(),
        image: None,
        opened: Timestamp(0),
        boot: String::new(),
        boot_opened: Timestamp(0),
        sequence: 0,
        healthy: false,
        begun: Vec::new(),
    }
}

const UP: Observed = seen(true);
const OFF: Observed = seen(false);
static ANY_UP: Observed = UP;
static ANY_OFF: Observed = OFF;

type All = BTreeMap<String, Observed>;

/// Nodes from `n01` on, all of them up.
fn audience(nodes: usize) -> All {
    (1..=nodes).map(|n| (format!("n{n:02}"), UP)).collect()
}

fn begin(wish: &Wish) -> Rollout {
    Rollout::begin(wish, 1, &image("debian@3"), |_| &ANY_UP, "tests", Timestamp(0))
}

fn tick(rollout: &mut Rollout, all: &All, now: Timestamp) -> Vec<String> {
    tick_restarting(rollout, all, &BTreeSet::new(), now)
}

fn tick_restarting(rollout: &mut Rollout, all: &All, restarting: &BTreeSet<String>, now: Timestamp) -> Vec<String> {
    let all: Audience<'_> = all.iter().map(|(node, observed)| (node.as_str(), observed)).collect();
    rollout.tick(&all, |node| restarting.contains(node), now)
}

fn at(minute: u64) -> Timestamp {
    Timestamp(minute * MINUTE)
}

fn comes_up(rollout: &mut Rollout, node: &str, minute: u64) {
    let boot = format!("{node}-{minute}");
    assert!(rollout.boots(node, &boot, at(minute)));
    assert!(rollout.ready(node, &boot, "", at(minute)));
}

fn given(rollout: &Rollout) -> String {
    let nodes = rollout.nodes.keys().filter(|node| rollout.gives(node));
    nodes.cloned().collect::<Vec<_>>().join(" ")
}

fn state<'a>(rollout: &'a Rollout, node: &str) -> &'a State {
    &rollout.nodes[node].state
}

#[test]
fn a_canary_then_batches_then_done() {
    let all = audience(10);
    let mut rollout = begin(&wish(&["n03", "n01"]));
    assert_eq!(given(&rollout), "n01 n03");
    tick(&mut rollout, &all, at(1));
    assert_eq!(rollout.waits_for(at(1)), "waits for n[01,03]");
    let pace = Pace {
        batch: Some(Share::Percent(40)),
        pause_secs: Some(300),
        max_failures: None,
    };
    rollout.promote(&pace, "tests", at(1)).unwrap();
    tick(&mut rollout, &all, at(2));
    comes_up(&mut rollout, "n01", 2);
    tick(&mut rollout, &all, at(2));
    assert_eq!(rollout.last_batch, 0, "the canary is not ready");
    comes_up(&mut rollout, "n03", 3);
    tick(&mut rollout, &all, at(3));
    assert_eq!(given(&rollout), "n01 n02 n03 n04 n05 n06");
    for node in ["n02", "n04", "n05", "n06"] {
        comes_up(&mut rollout, node, 4);
    }
    tick(&mut rollout, &all, at(4));
    tick(&mut rollout, &all, at(8));
    assert_eq!(
        (rollout.last_batch, rollout.waits_for(at(8)).as_str()),
        (1, "the next batch is due in 60 s")
    );
    tick(&mut rollout, &all, at(9));
    assert_eq!(rollout.last_batch, 2);
    for node in ["n07", "n08", "n09", "n10"] {
        comes_up(&mut rollout, node, 10);
    }
    tick(&mut rollout, &all, at(10));
    assert_eq!(rollout.stage, Stage::Promoting);
    tick(&mut rollout, &all, at(15));
    assert_eq!((rollout.stage, rollout.ended), (Stage::Done, Some(at(15))));
}

#[test]
fn too_many_failures_stop_it_and_no_further_node_gets_the_version() {
    let all = audience(4);
    let mut wish = wish(&["n01", "n02", "n03"]);
    wish.max_failures = 1;
    let mut rollout = begin(&wish);
    rollout.boots("n01", "a", at(1));
    tick(&mut rollout, &all, at(11));
    assert_eq!(
        *state(&rollout, "n01"),
        State::Booting,
        "it failed before ten minutes have passed"
    );
    tick(&mut rollout, &all, Timestamp(11 * MINUTE + 1));
    assert_eq!(state(&rollout, "n01").why(), "not ready within 600 s (1 boots)");
    assert!(!rollout.is_held(), "one failure holds the rollout");
    rollout.boots("n02", "b", at(12));
    rollout.rolls_back("n02", "debian@4 did not get ready in 3 boots", at(13));
    assert!(
        rollout.stopped.starts_with("2 failed, and one may: n[01-02]"),
        "{}",
        rollout.stopped
    );
    assert_eq!(
        given(&rollout),
        "n01 n02",
        "n03 boots the version though the rollout is held"
    );
    assert!(
        rollout
            .promote(&Pace::default(), "tests", at(14))
            .unwrap_err()
            .contains("resume debian")
    );
    assert!(
        rollout
            .resume(None, "tests", at(14))
            .unwrap_err()
            .contains("--max-failures 2")
    );
    rollout.resume(Some(2), "tests", at(14)).unwrap();
    assert_eq!(given(&rollout), "n01 n02 n03");
    assert!(rollout.retry("n01", &UP, at(15)) && !rollout.retry("n03", &UP, at(15)));
    assert_eq!(rollout.failures(), 1);
    rollout.end(Stage::Aborted, "tests", at(16)).unwrap();
    assert_eq!(given(&rollout), "");
    assert!(
        rollout
            .end(Stage::Aborted, "tests", at(17))
            .unwrap_err()
            .contains("is over: aborted")
    );
}

#[test]
fn failed_checks_are_a_failure_and_a_late_success_counts() {
    let mut rollout = begin(&wish(&["n01", "n02"]));
    rollout.boots("n01", "a", at(1));
    rollout.ready("n01", "a", "sshd is not active", at(2));
    assert_eq!(state(&rollout, "n01").why(), "up, but sshd is not active");
    rollout.boots("n02", "b", at(1));
    tick(&mut rollout, &audience(2), at(20));
    assert!(state(&rollout, "n02").is_failure());
    rollout.ready("n02", "b", "", at(21));
    assert_eq!(*state(&rollout, "n02"), State::Ready);
    assert!(rollout.is_held(), "it continues without an order");
}

#[test]
fn a_batch_does_not_wait_for_nodes_that_are_switched_off() {
    let mut all = audience(3);
    all.insert("n02".into(), OFF);
    let mut rollout = Rollout::begin(
        &wish(&["n01", "n02", "n03"]),
        1,
        &image("debian@3"),
        |node| &all[node],
        "tests",
        at(0),
    );
    rollout.promote(&Pace::default(), "tests", at(0)).unwrap();
    comes_up(&mut rollout, "n01", 1);
    tick(&mut rollout, &all, at(1));
    assert_eq!(
        rollout.waits_for(at(1)),
        "waits for n03",
        "it waits for n02, which was off"
    );
    let off = Observed { heard: at(2), ..OFF };
    all.insert("n03".into(), off);
    tick(&mut rollout, &all, at(12));
    assert_eq!(rollout.stage, Stage::Promoting, "a booting node is not waited for");
    tick(&mut rollout, &all, at(13));
    assert_eq!(rollout.stage, Stage::Done);
    assert_eq!(*state(&rollout, "n03"), State::Waiting);
}

#[test]
fn a_stalled_node_is_not_waited_for_and_one_that_stalls_with_the_version_has_failed() {
    let mut wish = wish(&["n01", "n02", "n03", "n04"]);
    wish.max_failures = 1;
    wish.reboot = true;
    let mut rollout = begin(&wish);
    rollout.promote(&Pace::default(), "tests", at(0)).unwrap();
    let mut all = audience(5);
    comes_up(&mut rollout, "n01", 1);
    assert!(rollout.boots("n04", "n04-1", at(1)));
    let (old, new) = (image("debian@3"), image("debian@4"));
    // It requests an address each minute, so it never falls silent.
    let stalled = |minute, image: Option<&ImageRef>| Observed {
        heard: at(minute),
        stalled: "tftp: took snponly.efi and was not heard of again".into(),
        image: image.cloned(),
        opened: at(1),
        ..OFF
    };
    for minute in 2..10 {
        all.insert("n02".into(), stalled(minute, Some(&old)));
        all.insert("n04".into(), stalled(minute, Some(&new)));
        tick(&mut rollout, &all, at(minute));
    }
    assert_eq!(
        rollout.waits_for(at(10)),
        "waits for n[03-04]; does not wait for n02: stalled"
    );
    assert_eq!(*state(&rollout, "n02"), State::Waiting);
    assert_eq!(
        *state(&rollout, "n04"),
        State::Booting,
        "it failed before --ready-within"
    );
    all.insert("n03".into(), stalled(10, Some(&new)));
    tick(&mut rollout, &all, at(10));
    assert!(
        state(&rollout, "n03")
            .why()
            .starts_with("stalled at tftp: took snponly.efi")
    );
    assert!(!rollout.is_held(), "one failure holds the rollout");
    tick(&mut rollout, &all, at(12));
    let why = state(&rollout, "n04").why();
    assert!(
        why.starts_with("not ready within 600 s (1 boots); stalled at tftp: "),
        "{why}"
    );
    assert!(rollout.stopped.starts_with("2 failed, and one may: n[03-04]"));
    // It should try again: its stalled boot is the old one.
    assert!(rollout.retry("n03", &all["n03"], at(12)));
    tick(&mut rollout, &all, at(13));
    assert_eq!(*state(&rollout, "n03"), State::Waiting);
    all.insert(
        "n03".into(),
        Observed {
            opened: at(13),
            ..stalled(13, Some(&new))
        },
    );
    tick(&mut rollout, &all, at(13));
    assert!(state(&rollout, "n03").is_failure());
    // A node that continues is waited for like a late one, and counts as ready.
    rollout.resume(Some(2), "tests", at(13)).unwrap();
    all.insert("n02".into(), UP);
    comes_up(&mut rollout, "n02", 13);
    tick(&mut rollout, &all, at(13));
    assert_eq!(rollout.nodes["n02"].stalled, "");
    assert_eq!(rollout.last_batch, 1, "n05 was not in the next batch");
    // A node that the rollout restarts and that then stalls has failed, in whatever boot.
    all.insert("n05".into(), stalled(20, Some(&old)));
    tick_restarting(&mut rollout, &all, &["n05".to_owned()].into(), at(20));
    assert!(state(&rollout, "n05").is_failure());
    assert!(rollout.is_held());
}

#[test]
fn without_a_node_that_is_up_nothing_is_promoted() {
    let all: All = audience(3).into_keys().map(|node| (node, OFF)).collect();
    let off = |_: &str| &ANY_OFF;
    let mut rollout = Rollout::begin(&wish(&["n01"]), 1, &image("debian@3"), off, "tests", at(0));
    rollout.promote(&Pace::default(), "tests", at(0)).unwrap();
    for minute in 1..100 {
        tick(&mut rollout, &all, at(minute));
    }
    assert_eq!((rollout.last_batch, rollout.nodes.len()), (0, 1));
    assert_eq!(rollout.waits_for(at(99)), "waits for a first node to be ready on it");
}

#[test]
fn a_node_has_to_stay_healthy_for_the_soak_time() {
    let mut wish = wish(&["n01", "n02", "n03", "n04"]);
    wish.soak_secs = 3600;
    wish.max_failures = 9;
    let worn = Observed {
        problem: "no disk".into(),
        ..UP
    };
    let before = |node: &str| if node == "n04" { &worn } else { &ANY_UP };
    let mut rollout = Rollout::begin(&wish, 1, &image("debian@3"), before, "tests", at(0));
    for node in ["n01", "n02", "n03", "n04"] {
        comes_up(&mut rollout, node, 1);
    }
    let mut all = audience(4);
    all.insert("n04".into(), worn.clone());
    tick(&mut rollout, &all, at(60));
    assert!(
        rollout
            .nodes
            .values()
            .all(|member| !member.proven && member.state == State::Ready)
    );
    all.insert("n02".into(), OFF);
    all.insert(
        "n03".into(),
        Observed {
            problem: "/tmp is gone".into(),
            ..UP
        },
    );
    tick(&mut rollout, &all, at(61));
    let good: Vec<bool> = rollout.nodes.values().map(|member| member.proven).collect();
    assert_eq!(
        good,
        [true, false, false, true],
        "n04 was degraded in the same way before"
    );
    assert_eq!(state(&rollout, "n02").why(), "fell silent 3600 s after it was ready");
    assert!(state(&rollout, "n03").why().ends_with("/tmp is gone"));
}

#[derive(Clone, Debug)]
enum Happens {
    Boots(usize),
    Ready(usize, bool),
    RollsBack(usize),
    Switched(usize, bool),
    Worn(usize, bool),
    Stalls(usize),
    Gone(usize),
    Comes(usize),
    Passes(u64),
    Promote(u32),
    Pause,
    Resume(u32),
    Retry(usize),
    Restart(usize),
    Abort,
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    let node = 0..12usize;
    prop_oneof![
        6 => node.clone().prop_map(Boots),
        6 => (node.clone(), prop::bool::weighted(0.9)).prop_map(|(n, well)| Ready(n, well)),
        1 => node.clone().prop_map(RollsBack),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, up)| Switched(n, up)),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, worn)| Worn(n, worn)),
        1 => node.clone().prop_map(Stalls),
        1 => node.clone().prop_map(Gone),
        1 => node.clone().prop_map(Comes),
        6 => (1..20u64).prop_map(Passes),
        2 => (1..5u32).prop_map(Promote),
        1 => Just(Pause),
        2 => (0..6u32).prop_map(Resume),
        1 => node.clone().prop_map(Retry),
        2 => node.prop_map(Restart),
        1 => Just(Abort),
    ]
}

/// The rollout after it was stored and read again.
fn stored(rollout: &Rollout) -> Rollout {
    let text = serde_json::to_string(rollout).unwrap();
    let mut again: Rollout = serde_json::from_str(&text).unwrap();
    let rows: BTreeMap<String, String> = (rollout.nodes.iter())
        .map(|(node, member)| (node.clone(), serde_json::to_string(member).unwrap()))
        .collect();
    again.nodes = (rows.into_iter())
        .map(|(node, row)| (node, serde_json::from_str(&row).unwrap()))
        .collect();
    again
}

struct Walk {
    rollout: Rollout,
    all: All,
    restarting: BTreeSet<String>,
    now: Timestamp,
    boots: u64,
}

impl Walk {
    fn step(&mut self, what: &Happens) {
        let name = |n: &usize| format!("n{:02}", n + 1);
        let (rollout, now) = (&mut self.rollout, self.now);
        match what {
            Happens::Boots(n) => {
                self.boots += 1;
                rollout.boots(&name(n), &format!("b{}", self.boots), now);
            }
            Happens::Ready(n, well) => {
                let boot = rollout.nodes.get(&name(n)).map(|m| m.boot.clone()).unwrap_or_default();
                rollout.ready(&name(n), &boot, if *well { "" } else { "no sshd" }, now);
            }
            Happens::RollsBack(n) => drop(rollout.rolls_back(&name(n), "no good", now)),
            Happens::Switched(n, on) => {
                if let Some(observed) = self.all.get_mut(&name(n)) {
                    *observed = Observed {
                        up: *on,
                        on: *on,
                        heard: now,
                        ..OFF
                    };
                }
            }
            Happens::Worn(n, worn) => {
                if let Some(observed) = self.all.get_mut(&name(n)) {
                    observed.problem = if *worn { "no disk" } else { "" }.to_owned();
                }
            }
            Happens::Stalls(n) => {
                if let Some(observed) = self.all.get_mut(&name(n)) {
                    *observed = Observed {
                        heard: now,
                        stalled: "tftp".into(),
                        ..OFF
                    };
                }
            }
            Happens::Gone(n) => drop(self.all.remove(&name(n))),
            Happens::Comes(n) => drop(self.all.insert(name(n), UP)),
            Happens::Passes(minutes) => self.now = Timestamp(now.0 + minutes * MINUTE),
            Happens::Promote(batch) => {
                let pace = Pace {
                    batch: Some(Share::Nodes(*batch)),
                    pause_secs: Some(60),
                    max_failures: None,
                };
                let _ = rollout.promote(&pace, "p", now);
            }
            Happens::Pause => drop(rollout.pause("p", now)),
            Happens::Resume(limit) => drop(rollout.resume(Some(*limit), "p", now)),
            Happens::Retry(n) => drop(rollout.retry(&name(n), &UP, now)),
            Happens::Restart(n) => drop(self.restarting.insert(name(n))),
            Happens::Abort => drop(rollout.end(Stage::Aborted, "p", now)),
        }
        let before = self.rollout.clone();
        tick_restarting(&mut self.rollout, &self.all, &self.restarting, self.now);
        self.check(&before);
    }

    /// Checks the invariants after an event.
    fn check(&self, before: &Rollout) {
        let (rollout, all) = (&self.rollout, self.all.len());
        let new: Vec<&String> = rollout
            .nodes
            .keys()
            .filter(|node| !before.nodes.contains_key(*node))
            .collect();
        assert!(new.len() <= rollout.batch.of(all), "{new:?} at once");
        if !new.is_empty() {
            assert_eq!(
                (rollout.last_batch, before.stage),
                (before.last_batch + 1, Stage::Promoting)
            );
            assert!(!rollout.is_held() && rollout.nodes.values().any(|member| member.proven));
            let earlier = rollout.nodes.iter().filter(|(node, _)| !new.contains(node));
            for (node, member) in earlier {
                assert!(
                    member.is_settled() || !member.counts,
                    "the batch did not wait for {node}: {member:?}"
                );
            }
        }
        if rollout.is_on() && rollout.failures() > rollout.max_failures as usize {
            assert!(!rollout.stopped.is_empty(), "{} failures", rollout.failures());
        }
        for (node, member) in &rollout.nodes {
            assert!(member.batch <= rollout.last_batch);
            if rollout.is_on() && member.state == State::Waiting && member.counts {
                assert_eq!(self.all[node].stalled, "", "the batch would wait for {node} for ever");
            }
            assert!(!member.proven || member.state == State::Ready, "{node}: {member:?}");
            if rollout.gives(node) {
                assert!(rollout.is_on() && (!rollout.is_held() || member.state != State::Waiting));
            }
        }
        if rollout.stage == Stage::Aborted {
            assert_eq!(given(rollout), "", "a node keeps the version");
        }
        if rollout.stage == Stage::Done && before.stage != Stage::Done {
            assert!(
                self.all.keys().all(|node| rollout.nodes.contains_key(node)),
                "a node was left out"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The invariants hold after any events, and after restarts of the daemon in between.
    #[test]
    fn a_rollout_keeps_its_promises(
        events in prop::collection::vec((happens(), prop::bool::weighted(0.2)), 1..120),
        canary in 1usize..5,
        soak in prop_oneof![Just(0u64), Just(300)],
        max_failures in 0u32..4,
    ) {
        let names: Vec<String> = (1..=canary).map(|n| format!("n{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let wish = Wish { soak_secs: soak, max_failures, reboot: true, ..wish(&names) };
        let start = || Walk { rollout: begin(&wish), all: audience(12), restarting: BTreeSet::new(), now: Timestamp(0), boots: 0 };
        let (mut straight, mut restarted) = (start(), start());
        for (event, restart) in &events {
            straight.step(event);
            if *restart {
                restarted.rollout = stored(&restarted.rollout);
            }
            restarted.step(event);
            prop_assert_eq!(&straight.rollout, &restarted.rollout);
        }
    }
}

#[test]
fn a_node_that_loses_power_while_it_soaks_soaks_again() {
    let mut wish = wish(&["n01", "n02"]);
    wish.soak_secs = 3600;
    let mut rollout = begin(&wish);
    let mut all = audience(2);
    comes_up(&mut rollout, "n01", 0);
    comes_up(&mut rollout, "n02", 0);
    // The break is so short that no heartbeat is missing: it is no failure, and the soak time starts again.
    comes_up(&mut rollout, "n02", 50);
    // The break is so long that heartbeats are missing.
    all.insert("n01".into(), OFF);
    tick(&mut rollout, &all, at(55));
    assert_eq!(state(&rollout, "n01").why(), "fell silent 3300 s after it was ready");
    assert!(rollout.is_held(), "{rollout:?}");
    all.insert("n01".into(), UP);
    comes_up(&mut rollout, "n01", 58);
    assert_eq!((state(&rollout, "n01"), rollout.failures()), (&State::Ready, 0));
    let good = |rollout: &Rollout| rollout.nodes.values().map(|m| m.proven).collect::<Vec<_>>();
    for (minute, expected) in [
        (60, [false, false]),
        (109, [false, false]),
        (110, [false, true]),
        (118, [true, true]),
    ] {
        tick(&mut rollout, &all, at(minute));
        assert_eq!(good(&rollout), expected, "minute {minute}");
    }
    assert!(rollout.is_held(), "it continues without an order");
    rollout.resume(None, "tests", at(119)).unwrap();
}
