//! Tests of requests: observations as input, steps and programs as output.

use super::*;
use std::collections::BTreeMap;

const BOTH: Programs = Programs {
    drain: true,
    resume: true,
    heartbeat_secs: 30,
};
const NONE: Programs = Programs {
    drain: false,
    resume: false,
    heartbeat_secs: 30,
};

fn at(secs: u64) -> Timestamp {
    Timestamp(1_000_000 + secs * 1000)
}

fn request(names: &[&str], max_down: u32) -> Request {
    Request {
        id: "q".into(),
        wanted: at(0),
        after: Some(0),
        by: "test".into(),
        rollout: String::new(),
        number: 0,
        reason: "why".into(),
        max_down,
        drain: true,
        within_secs: 600,
        stopped: String::new(),
        nodes: names.iter().map(|name| Member::waiting(name, at(0))).collect(),
    }
}

/// Nodes that are up in an earlier boot.
fn cluster(names: &[&str]) -> BTreeMap<String, Observed> {
    let one = |name: &&str| {
        let seen = Observed {
            up: true,
            on: true,
            boot: format!("old-{name}"),
            boot_opened: Timestamp(1),
            sequence: 0,
            healthy: true,
            begun: vec![Timestamp(1)],
            ..Observed::default()
        };
        ((*name).to_owned(), seen)
    };
    names.iter().map(one).collect()
}

fn advance(request: &mut Request, seen: &BTreeMap<String, Observed>, secs: u64, programs: Programs) -> Vec<String> {
    let frame = Frame {
        now: at(secs),
        programs,
        down: 0,
        first_boot: &|_| None,
    };
    let records = request.advance(frame, |name| seen.get(name));
    records
        .into_iter()
        .map(|record| format!("{}: {}", record.node, record.text))
        .collect()
}

fn steps(request: &Request) -> Vec<&'static str> {
    request.nodes.iter().map(|node| node.step.as_str()).collect()
}

fn booted(seen: &mut BTreeMap<String, Observed>, name: &str, secs: u64) {
    let seen = seen.get_mut(name).unwrap();
    (seen.boot, seen.boot_opened) = (format!("new-{name}"), at(secs));
    seen.sequence += 1;
}

#[test]
fn a_clock_that_is_set_back_hides_no_boot() {
    const HOUR: u64 = 3600;
    // The request is made at one o'clock; then the clock is set back to twelve.
    let mut seen = cluster(&["a", "b"]);
    let mut q = request(&["a", "b"], 1);
    (q.wanted, q.drain) = (at(HOUR), false);
    advance(&mut q, &seen, HOUR + 1, NONE);
    assert!(q.give_order("a", &seen["a"], at(HOUR + 2)));
    booted(&mut seen, "a", 60);
    advance(&mut q, &seen, 90, NONE);
    assert_eq!(steps(&q), ["restarted", "drained"]);
    // A node that booted by itself meanwhile gets no order.
    booted(&mut seen, "b", 100);
    assert!(!q.give_order("b", &seen["b"], at(101)));
    advance(&mut q, &seen, 102, NONE);
    assert_eq!(steps(&q), ["restarted", "booted by itself"]);
    assert_eq!(q.stopped, "");
}

#[test]
fn a_request_of_an_older_release_compares_times() {
    let mut seen = cluster(&["a"]);
    let mut q = request(&["a"], 1);
    (q.after, q.drain) = (None, false);
    advance(&mut q, &seen, 1, NONE);
    assert!(q.give_order("a", &seen["a"], at(2)));
    booted(&mut seen, "a", 60);
    advance(&mut q, &seen, 90, NONE);
    assert_eq!(steps(&q), ["restarted"]);
}

#[test]
fn a_node_is_drained_ordered_once_and_resumed() {
    let mut seen = cluster(&["a", "b"]);
    let mut q = request(&["a", "b"], 1);
    assert_eq!(advance(&mut q, &seen, 1, BOTH), ["a: is drained first: why"]);
    assert_eq!(q.due(at(1), |_| false), [(Program::Drain, vec!["a".to_owned()])]);
    assert!(q.due(at(1), |name| name == "a").is_empty(), "its program is running");
    assert!(!q.give_order("a", &seen["a"], at(2)), "it is not drained yet");
    assert!(q.ran(Program::Drain, "a", &Ok(()), at(0), at(3)).is_some());
    assert!(q.give_order("a", &seen["a"], at(4)));
    assert!(!q.give_order("a", &seen["a"], at(5)), "it got the order a second ago");
    assert!(
        q.give_order("a", &seen["a"], at(70)),
        "it did not acknowledge, so the answer was lost"
    );
    assert!(q.acknowledge("a", "old-a") && !q.acknowledge("a", "old-a"));
    assert!(!q.give_order("a", &seen["a"], at(300)), "it has acknowledged the order");
    advance(&mut q, &seen, 300, BOTH);
    assert_eq!(steps(&q), ["restarting", "waiting"], "one at a time");
    booted(&mut seen, "a", 310);
    seen.get_mut("a").unwrap().healthy = false;
    assert!(
        !q.give_order("a", &seen["a"], at(320)),
        "it gets the order in another boot"
    );
    advance(&mut q, &seen, 320, BOTH);
    assert_eq!(
        steps(&q),
        ["restarting", "waiting"],
        "it ended though its checks do not hold"
    );
    seen.get_mut("a").unwrap().healthy = true;
    advance(&mut q, &seen, 330, BOTH);
    assert_eq!(steps(&q), ["resuming", "waiting"]);
    assert_eq!(q.due(at(330), |_| false), [(Program::Resume, vec!["a".to_owned()])]);
    q.ran(Program::Resume, "a", &Ok(()), at(0), at(331));
    advance(&mut q, &seen, 332, BOTH);
    assert_eq!(steps(&q), ["restarted", "draining"]);
    q.ran(Program::Drain, "b", &Ok(()), at(0), at(333));
    assert!(q.give_order("b", &seen["b"], at(334)));
    booted(&mut seen, "b", 340);
    advance(&mut q, &seen, 350, NONE);
    assert!(q.is_over(), "the site has no resume program any longer: {q:?}");
}

#[test]
fn without_programs_a_node_gets_its_order_at_once() {
    let mut seen = cluster(&["a", "b", "c"]);
    let mut q = request(&["a", "b", "c"], 2);
    advance(&mut q, &seen, 1, NONE);
    assert_eq!(steps(&q), ["drained", "drained", "waiting"]);
    assert!(q.due(at(1), |_| false).is_empty());
    assert!(
        q.give_order("a", &seen["a"], at(2))
            && q.give_order("b", &seen["b"], at(2))
            && !q.give_order("c", &seen["c"], at(2))
    );
    booted(&mut seen, "b", 9);
    advance(&mut q, &seen, 10, NONE);
    assert_eq!(steps(&q), ["restarting", "restarted", "drained"]);
    let mut q = Request {
        drain: false,
        ..request(&["a"], 1)
    };
    advance(&mut q, &cluster(&["a"]), 1, BOTH);
    assert_eq!(steps(&q), ["drained"], "--no-drain");
}

#[test]
fn a_failed_drain_is_repeated_and_keeps_its_turn() {
    let seen = cluster(&["a", "b", "c"]);
    let mut q = request(&["a", "b", "c"], 2);
    advance(&mut q, &seen, 1, BOTH);
    let both = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(
        q.due(at(1), |_| false),
        [(Program::Drain, both)],
        "nodes with a common turn have separate runs"
    );
    for name in ["a", "b"] {
        let record = q
            .ran(Program::Drain, name, &Err("jobs run".into()), at(11), at(1))
            .unwrap();
        assert_eq!(
            (record.level, record.text.as_str()),
            (Level::Retry, "drain: jobs run; again in 10 s")
        );
    }
    assert!(q.due(at(5), |_| false).is_empty(), "it runs again too early");
    assert_eq!(
        q.due(at(11), |_| false),
        [
            (Program::Drain, vec!["a".to_owned()]),
            (Program::Drain, vec!["b".to_owned()])
        ],
        "failed nodes share a run"
    );
    assert!(!q.give_order("a", &seen["a"], at(12)));
    advance(&mut q, &seen, 12, BOTH);
    assert_eq!(steps(&q), ["draining", "draining", "waiting"]);
    assert_eq!(q.nodes[0].said, "drain: jobs run");
}

#[test]
fn the_deadline_of_a_rollout_counts_from_the_first_boot() {
    let mut seen = cluster(&["a"]);
    let mut q = request(&["a"], 1);
    (q.rollout, q.within_secs) = ("debian".into(), 900);
    advance(&mut q, &seen, 1, NONE);
    assert!(q.give_order("a", &seen["a"], at(3)));
    let node = seen.get_mut("a").unwrap();
    node.begun.push(at(300));
    node.begun.push(at(800));
    assert!(advance(&mut q, &seen, 1200, NONE).is_empty());
    assert_eq!(
        steps(&q),
        ["restarting"],
        "it is late before 900 s from its first boot at 300 s"
    );
    assert_eq!(
        advance(&mut q, &seen, 1201, NONE),
        ["a: not ready within 15m of its restart: why"]
    );
    // A node that never boots is late after the same time.
    let seen = cluster(&["b"]);
    let mut q = request(&["b"], 1);
    (q.rollout, q.within_secs) = ("debian".into(), 900);
    advance(&mut q, &seen, 1, NONE);
    assert!(q.give_order("b", &seen["b"], at(3)));
    assert!(advance(&mut q, &seen, 903, NONE).is_empty());
    assert_eq!(advance(&mut q, &seen, 904, NONE).len(), 1);
}

#[test]
fn a_node_that_does_not_come_back_stops_the_request() {
    let mut seen = cluster(&["a", "b", "c"]);
    let mut q = request(&["a", "b", "c"], 2);
    advance(&mut q, &seen, 1, BOTH);
    q.ran(Program::Drain, "a", &Ok(()), at(0), at(2));
    assert!(q.give_order("a", &seen["a"], at(3)));
    advance(&mut q, &seen, 603, BOTH);
    assert_eq!(steps(&q)[0], "restarting");
    let records = advance(&mut q, &seen, 604, BOTH);
    assert_eq!(
        records,
        [
            "a: not ready in time; no more nodes are restarted: why",
            "b: is not restarted: other nodes are not ready in time",
        ]
    );
    assert_eq!(steps(&q), ["late", "resuming", "not restarted"]);
    assert_eq!(q.stopped, "a not ready within 10m of the order to restart");
    assert!(
        q.ran(Program::Drain, "b", &Ok(()), at(0), at(605)).is_none(),
        "its drain program has just ended"
    );
    q.ran(Program::Resume, "b", &Ok(()), at(0), at(606));
    assert!(advance(&mut q, &seen, 700, BOTH).is_empty(), "it is recorded twice");
    assert!(!q.is_over());
    booted(&mut seen, "a", 800);
    advance(&mut q, &seen, 900, BOTH);
    assert_eq!(steps(&q), ["resuming", "not restarted", "not restarted"]);
    q.ran(Program::Resume, "a", &Ok(()), at(0), at(901));
    assert_eq!(steps(&q)[0], "restarted, late");
    assert!(q.is_over());
}

#[test]
fn a_node_that_falls_silent_before_its_order_is_late() {
    let mut seen = cluster(&["a", "b"]);
    let mut q = request(&["a", "b"], 1);
    advance(&mut q, &seen, 1, BOTH);
    q.ran(Program::Drain, "a", &Ok(()), at(0), at(2));
    seen.get_mut("a").unwrap().up = false;
    advance(&mut q, &seen, 690, BOTH);
    assert_eq!(steps(&q), ["drained", "waiting"]);
    advance(&mut q, &seen, 693, BOTH);
    assert_eq!(steps(&q), ["late", "not restarted"]);
    assert!(q.nodes[0].said.contains("sends no heartbeats"), "{q:?}");
    seen.get_mut("a").unwrap().up = true;
    assert!(!q.give_order("a", &seen["a"], at(700)), "the request was stopped");
    advance(&mut q, &seen, 701, BOTH);
    assert_eq!(steps(&q)[0], "resuming");
    q.ran(Program::Resume, "a", &Ok(()), at(0), at(702));
    assert_eq!(steps(&q), ["not restarted", "not restarted"]);
}

#[test]
fn a_node_that_boots_by_itself_is_not_restarted() {
    let mut seen = cluster(&["a", "b"]);
    seen.get_mut("a").unwrap().up = false;
    let mut q = request(&["a", "b", "gone"], 1);
    advance(&mut q, &seen, 1, BOTH);
    assert_eq!(
        steps(&q),
        ["waiting", "draining", "not restarted"],
        "a node that is not up has a turn"
    );
    booted(&mut seen, "a", 5);
    booted(&mut seen, "b", 5);
    assert!(!q.give_order("b", &seen["b"], at(6)));
    advance(&mut q, &seen, 7, BOTH);
    assert_eq!(steps(&q), ["booted by itself", "resuming", "not restarted"]);
}

#[test]
fn restarts_without_an_order_can_be_cancelled() {
    let seen = cluster(&["a", "b", "c"]);
    let mut q = request(&["a", "b", "c"], 2);
    advance(&mut q, &seen, 1, BOTH);
    q.ran(Program::Drain, "a", &Ok(()), at(0), at(2));
    q.give_order("a", &seen["a"], at(3));
    let mut records = Vec::new();
    assert!(
        !q.give_up(|name| name == "a", "why", at(4), BOTH, &mut records),
        "an order was taken back"
    );
    assert!(q.give_up(|name| name != "a", "why", at(4), BOTH, &mut records));
    assert_eq!((records.len(), records[0].text.as_str()), (1, "is not restarted: why"));
    assert_eq!(steps(&q), ["restarting", "resuming", "not restarted"]);
}

#[test]
fn a_node_that_came_back_late_and_unwell_can_be_restarted_once_more_told_or_not() {
    let mut seen = cluster(&["r01n01"]);
    booted(&mut seen, "r01n01", 700);
    for (told, healthy, is_unwell) in [(true, false, true), (false, false, true), (false, true, false)] {
        let mut request = request(&["r01n01"], 1);
        request.nodes[0].step = Step::Late { ordered: told };
        let observed = Observed {
            healthy,
            ..seen["r01n01"].clone()
        };
        let unwell = request.is_back_unwell(&request.nodes[0], &observed);
        assert_eq!(unwell, is_unwell, "told: {told}, healthy: {healthy}");
        let before = Observed {
            sequence: 0,
            ..observed
        };
        assert!(!request.is_back_unwell(&request.nodes[0], &before), "it has not booted");
    }
}
