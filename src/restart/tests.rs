//! Tests of requests: what is seen of nodes in, steps and programs out; and of their keeper over a restart of the daemon.

use super::{
    request::{Kind, Programs, Seen},
    *,
};
use crate::{
    boots::{Boot, Boots},
    clock::Timestamp,
    config::parse,
    decide::{SharedWorld, World},
    image::Catalog,
    inventory::{Change, Inventory, NewNode, Nodes},
    store::{Store, Table},
    timeline::{Level, Recorder, Subject},
};
use arc_swap::ArcSwap;
use rackstrap_wire::{HwAddr, NetPlan, NfsRoot, Plan, RestartNote, WIRE_VERSION};
use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, sync::Arc};

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
        by: "test".into(),
        rollout: String::new(),
        reason: "why".into(),
        max_down,
        drain: true,
        within_secs: 600,
        stopped: String::new(),
        nodes: names.iter().map(|name| Member::waiting(name, at(0))).collect(),
    }
}

/// Nodes that are up in a boot from before.
fn cluster(names: &[&str]) -> BTreeMap<String, Seen> {
    let one = |name: &&str| {
        let seen = Seen {
            up: true,
            boot: format!("old-{name}"),
            opened: Timestamp(1),
            healthy: true,
        };
        ((*name).to_owned(), seen)
    };
    names.iter().map(one).collect()
}

fn advance(request: &mut Request, seen: &BTreeMap<String, Seen>, secs: u64, programs: Programs) -> Vec<String> {
    let notes = request.advance(at(secs), programs, |name| seen.get(name).cloned());
    notes
        .into_iter()
        .map(|note| format!("{}: {}", note.node, note.text))
        .collect()
}

fn steps(request: &Request) -> Vec<&'static str> {
    request.nodes.iter().map(|node| node.step.as_str()).collect()
}

fn booted(seen: &mut BTreeMap<String, Seen>, name: &str, secs: u64) {
    let seen = seen.get_mut(name).unwrap();
    (seen.boot, seen.opened) = (format!("new-{name}"), at(secs));
}

#[test]
fn a_node_is_drained_told_once_and_resumed() {
    let mut seen = cluster(&["a", "b"]);
    let mut q = request(&["a", "b"], 1);
    assert_eq!(advance(&mut q, &seen, 1, BOTH), ["a: is drained first: why"]);
    assert_eq!(q.due(at(1), |_| false), [(Kind::Drain, vec!["a".to_owned()])]);
    assert!(q.due(at(1), |name| name == "a").is_empty(), "its program runs");
    assert!(!q.tell("a", &seen["a"], at(2)), "not drained yet");
    assert!(q.ran(Kind::Drain, "a", &Ok(()), at(0), at(3)).is_some());
    assert!(q.tell("a", &seen["a"], at(4)));
    assert!(!q.tell("a", &seen["a"], at(5)), "it was told a second ago");
    assert!(
        q.tell("a", &seen["a"], at(70)),
        "it says nothing and goes on: the answer was lost"
    );
    assert!(q.noted("a", "old-a") && !q.noted("a", "old-a"));
    assert!(!q.tell("a", &seen["a"], at(300)), "it said that it does");
    advance(&mut q, &seen, 300, BOTH);
    assert_eq!(steps(&q), ["restarting", "waiting"], "one at a time");
    booted(&mut seen, "a", 310);
    seen.get_mut("a").unwrap().healthy = false;
    assert!(!q.tell("a", &seen["a"], at(320)), "never in another boot");
    advance(&mut q, &seen, 320, BOTH);
    assert_eq!(
        steps(&q),
        ["restarting", "waiting"],
        "ready, but its checks do not hold"
    );
    seen.get_mut("a").unwrap().healthy = true;
    advance(&mut q, &seen, 330, BOTH);
    assert_eq!(steps(&q), ["resuming", "waiting"]);
    assert_eq!(q.due(at(330), |_| false), [(Kind::Resume, vec!["a".to_owned()])]);
    q.ran(Kind::Resume, "a", &Ok(()), at(0), at(331));
    advance(&mut q, &seen, 332, BOTH);
    assert_eq!(steps(&q), ["restarted", "draining"]);
    q.ran(Kind::Drain, "b", &Ok(()), at(0), at(333));
    assert!(q.tell("b", &seen["b"], at(334)));
    booted(&mut seen, "b", 340);
    advance(&mut q, &seen, 350, NONE);
    assert!(q.is_over(), "the site has no resume program any more: {q:?}");
}

#[test]
fn without_programs_a_node_is_told_at_once() {
    let mut seen = cluster(&["a", "b", "c"]);
    let mut q = request(&["a", "b", "c"], 2);
    advance(&mut q, &seen, 1, NONE);
    assert_eq!(steps(&q), ["drained", "drained", "waiting"]);
    assert!(q.due(at(1), |_| false).is_empty());
    assert!(q.tell("a", &seen["a"], at(2)) && q.tell("b", &seen["b"], at(2)) && !q.tell("c", &seen["c"], at(2)));
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
fn a_drain_that_fails_is_tried_again_and_holds_its_place() {
    let seen = cluster(&["a", "b", "c"]);
    let mut q = request(&["a", "b", "c"], 2);
    advance(&mut q, &seen, 1, BOTH);
    let both = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(
        q.due(at(1), |_| false),
        [(Kind::Drain, both)],
        "one run for those that come together"
    );
    for name in ["a", "b"] {
        let note = q
            .ran(Kind::Drain, name, &Err("jobs run".into()), at(11), at(1))
            .unwrap();
        assert_eq!(
            (note.level, note.text.as_str()),
            (Level::Retry, "drain: jobs run; again in 10 s")
        );
    }
    assert!(q.due(at(5), |_| false).is_empty(), "not yet");
    assert_eq!(
        q.due(at(11), |_| false),
        [(Kind::Drain, vec!["a".to_owned()]), (Kind::Drain, vec!["b".to_owned()])],
        "each by itself, so that one does not hold up the other"
    );
    assert!(!q.tell("a", &seen["a"], at(12)));
    advance(&mut q, &seen, 12, BOTH);
    assert_eq!(steps(&q), ["draining", "draining", "waiting"]);
    assert_eq!(q.nodes[0].said, "drain: jobs run");
}

#[test]
fn one_that_does_not_come_back_stops_the_others() {
    let mut seen = cluster(&["a", "b", "c"]);
    let mut q = request(&["a", "b", "c"], 2);
    advance(&mut q, &seen, 1, BOTH);
    q.ran(Kind::Drain, "a", &Ok(()), at(0), at(2));
    assert!(q.tell("a", &seen["a"], at(3)));
    advance(&mut q, &seen, 603, BOTH);
    assert_eq!(steps(&q)[0], "restarting");
    let notes = advance(&mut q, &seen, 604, BOTH);
    assert_eq!(
        notes,
        [
            "a: not ready in time; no more nodes are restarted: why",
            "b: is not restarted: others are not ready in time",
        ]
    );
    assert_eq!(steps(&q), ["late", "resuming", "not restarted"]);
    assert_eq!(q.stopped, "a not ready within 10m of being told to restart");
    assert!(
        q.ran(Kind::Drain, "b", &Ok(()), at(0), at(605)).is_none(),
        "its drain program ends only now"
    );
    q.ran(Kind::Resume, "b", &Ok(()), at(0), at(606));
    assert!(advance(&mut q, &seen, 700, BOTH).is_empty(), "said once");
    assert!(!q.is_over());
    booted(&mut seen, "a", 800);
    advance(&mut q, &seen, 900, BOTH);
    assert_eq!(steps(&q), ["resuming", "not restarted", "not restarted"]);
    q.ran(Kind::Resume, "a", &Ok(()), at(0), at(901));
    assert_eq!(steps(&q)[0], "restarted, late");
    assert!(q.is_over());
}

#[test]
fn one_that_falls_silent_before_it_is_told_is_late_too() {
    let mut seen = cluster(&["a", "b"]);
    let mut q = request(&["a", "b"], 1);
    advance(&mut q, &seen, 1, BOTH);
    q.ran(Kind::Drain, "a", &Ok(()), at(0), at(2));
    seen.get_mut("a").unwrap().up = false;
    advance(&mut q, &seen, 690, BOTH);
    assert_eq!(steps(&q), ["drained", "waiting"]);
    advance(&mut q, &seen, 693, BOTH);
    assert_eq!(steps(&q), ["late", "not restarted"]);
    assert!(q.nodes[0].said.contains("sends no heartbeats"), "{q:?}");
    seen.get_mut("a").unwrap().up = true;
    assert!(!q.tell("a", &seen["a"], at(700)), "the request was stopped");
    advance(&mut q, &seen, 701, BOTH);
    assert_eq!(steps(&q)[0], "resuming");
    q.ran(Kind::Resume, "a", &Ok(()), at(0), at(702));
    assert_eq!(steps(&q), ["not restarted", "not restarted"]);
}

#[test]
fn who_boots_by_itself_is_not_restarted() {
    let mut seen = cluster(&["a", "b"]);
    seen.get_mut("a").unwrap().up = false;
    let mut q = request(&["a", "b", "gone"], 1);
    advance(&mut q, &seen, 1, BOTH);
    assert_eq!(
        steps(&q),
        ["waiting", "draining", "not restarted"],
        "who is not up has no turn"
    );
    booted(&mut seen, "a", 5);
    booted(&mut seen, "b", 5);
    assert!(!q.tell("b", &seen["b"], at(6)));
    advance(&mut q, &seen, 7, BOTH);
    assert_eq!(steps(&q), ["booted by itself", "resuming", "not restarted"]);
}

#[test]
fn what_was_not_told_can_be_cancelled() {
    let seen = cluster(&["a", "b", "c"]);
    let mut q = request(&["a", "b", "c"], 2);
    advance(&mut q, &seen, 1, BOTH);
    q.ran(Kind::Drain, "a", &Ok(()), at(0), at(2));
    q.tell("a", &seen["a"], at(3));
    let mut notes = Vec::new();
    assert!(
        !q.give_up(|name| name == "a", "why", at(4), BOTH, &mut notes),
        "nobody can take that back"
    );
    assert!(q.give_up(|name| name != "a", "why", at(4), BOTH, &mut notes));
    assert_eq!((notes.len(), notes[0].text.as_str()), (1, "is not restarted: why"));
    assert_eq!(steps(&q), ["restarting", "resuming", "not restarted"]);
}

fn plan(node: &str) -> impl FnOnce(&str) -> Plan {
    let node = node.to_owned();
    move |id| Plan {
        wire: WIRE_VERSION,
        id: id.to_owned(),
        node,
        net: NetPlan {
            hwaddr: HwAddr([0x52, 0x54, 0, 1, 1, 1]),
            ipaddr: Ipv4Addr::new(10, 5, 1, 1),
            prefix: 16,
            router: None,
            dns: vec![],
            domain: String::new(),
        },
        image: "debian@1".parse().unwrap(),
        root: NfsRoot {
            server: Ipv4Addr::new(10, 5, 0, 1),
            port: 2049,
            export: "/debian@1".into(),
            options: String::new(),
        },
        init: "/sbin/init".into(),
        disk: None,
        ram_size: "50%".into(),
        heartbeat_secs: 30,
        health: Default::default(),
    }
}

struct Lab {
    boots: Boots,
    recorder: Recorder,
    restarts: Restarts,
    store: Store,
    nodes: Nodes,
}

fn lab(dir: &Path) -> Lab {
    let site = "[cluster]\nnode-name = \"r{rack:02}n{slot:02}\"\nnode-address = \"10.5.{rack}.{slot}\"\n\
                [[subnet]]\nnetwork = \"10.5.0.0/16\"\nrelayed = true\nserver = \"10.5.0.1\"\n\
                [hooks]\ndrain = [\"/bin/true\"]\n";
    let (site, _) = parse(site, &dir.join("site.toml")).unwrap_or_else(|e| panic!("{e}"));
    let store = Store::open(&dir.join("store.redb")).unwrap();
    let recorder = Recorder::load(store.clone(), site.limits, at(0)).unwrap();
    let world: SharedWorld = Arc::new(ArcSwap::from_pointee(World {
        site: Arc::new(site),
        inventory: Arc::new(Inventory::new(crate::inventory::load(&store).unwrap())),
        images: Arc::new(Catalog::default()),
        assignments: Arc::default(),
    }));
    let boots = Boots::load(store.clone()).unwrap();
    let nodes = Nodes::new(store.clone(), world.clone());
    Lab {
        restarts: Restarts::load(store.clone(), world, boots.clone(), recorder.clone()).unwrap(),
        boots,
        recorder,
        store,
        nodes,
    }
}

async fn ready(lab: &Lab, node: &str, now: Timestamp) -> Arc<Boot> {
    let boot = lab.boots.open(now, plan(node)).await.unwrap();
    let boot = lab.boots.mark_ready(&boot.plan.id, &boot.token, now).await.unwrap();
    lab.recorder
        .heartbeat(Subject::Node(node.into()), now, &boot.plan.id, "");
    boot
}

fn wish(nodes: &[&str], max_down: u32) -> Want {
    Want {
        nodes: nodes.iter().map(|&name| name.to_owned()).collect(),
        reason: "new kernel".into(),
        max_down,
        drain: true,
        within_secs: 600,
        by: "test".into(),
        rollout: String::new(),
    }
}

#[tokio::test]
async fn nothing_is_lost_with_the_daemon_and_nothing_happens_twice() {
    let dir = tempfile::tempdir().unwrap();
    let first = lab(dir.path());
    let add = |slot: u8| {
        Change::Add(NewNode {
            name: format!("r01n{slot:02}"),
            hwaddrs: vec![HwAddr([0x52, 0x54, 0, 1, 1, slot])],
            ..NewNode::default()
        })
    };
    first.nodes.change(&[add(1), add(2), add(3)], "test", at(0)).unwrap();
    let old = ready(&first, "r01n01", at(1)).await;
    let boot = ready(&first, "r01n01", at(2)).await;
    let other = ready(&first, "r01n02", at(2)).await;
    let refused = first.restarts.want(&wish(&["r01n09"], 1), at(3), false).unwrap_err();
    assert!(refused.to_string().contains("no node r01n09"), "{refused}");
    assert!(first.restarts.want(&wish(&["r01n01"], 0), at(3), false).is_err());
    let dry = first
        .restarts
        .want(&wish(&["r01n01", "r01n03"], 1), at(3), true)
        .unwrap();
    assert_eq!((dry.not_up, dry.drained), (vec!["r01n03".to_owned()], true));
    assert!(first.restarts.list().is_empty(), "--dry-run");
    let wanted = first
        .restarts
        .want(&wish(&["r01n01", "r01n02", "r01n01"], 1), at(3), false)
        .unwrap();
    assert_eq!(wanted.nodes, ["r01n01", "r01n02"]);
    let again = first.restarts.want(&wish(&["r01n02"], 1), at(3), false).unwrap();
    assert!(again.nodes.is_empty() && again.already == ["r01n02"]);
    let (batch, jobs) = first.restarts.advance(at(4));
    first.store.commit(batch).await.unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(
        (jobs[0].kind, jobs[0].nodes.as_slice()),
        (Kind::Drain, &["r01n01".to_owned()][..])
    );
    assert!(first.restarts.advance(at(4)).1.is_empty(), "it runs already");
    assert!(first.restarts.order(&boot, at(4)).await.is_none(), "not drained yet");
    drop(first);

    // The drain program was killed with the daemon: it is run again.
    let second = lab(dir.path());
    let (_, jobs) = second.restarts.advance(at(5));
    assert_eq!(jobs[0].nodes, ["r01n01"]);
    let batch = second.restarts.ran(&jobs[0], &Ok(()), at(6), |_| at(0));
    second.store.commit(batch).await.unwrap();
    assert!(
        second.restarts.order(&old, at(7)).await.is_none(),
        "a boot that is over"
    );
    assert!(second.restarts.order(&other, at(7)).await.is_none(), "another's turn");
    let order = second.restarts.order(&boot, at(7)).await.unwrap();
    assert_eq!(
        (order.id.as_str(), order.reason.as_str()),
        (wanted.id.as_str(), "new kernel")
    );
    drop(second);

    let third = lab(dir.path());
    assert!(
        third.restarts.order(&boot, at(9)).await.is_none(),
        "told before the daemon was killed"
    );
    let note = RestartNote {
        id: wanted.id.clone(),
        detail: "restarts by systemctl reboot".into(),
    };
    third.restarts.noted(&boot, &note, at(10));
    assert!(third.restarts.order(&boot, at(200)).await.is_none());
    third
        .recorder
        .heartbeat(Subject::Node("r01n02".into()), at(200), &other.plan.id, "");
    let new = ready(&third, "r01n01", at(201)).await;
    third.store.commit(third.restarts.advance(at(202)).0).await.unwrap();
    assert!(third.restarts.order(&new, at(203)).await.is_none());
    let cancelled = third
        .restarts
        .cancel(&["r01n01".into(), "r01n02".into()], "test", at(204))
        .unwrap();
    assert_eq!(
        (cancelled.none.len(), cancelled.cancelled.as_slice()),
        (1, &["r01n02".to_owned()][..])
    );
    let said: Vec<String> = (third.recorder.of(&Subject::Node("r01n01".into())).iter())
        .filter(|event| event.step == "restart")
        .map(|event| event.detail.clone())
        .collect();
    assert!(said.contains(&"told to restart: new kernel".to_owned()), "{said:?}");
    assert!(said.contains(&"restarts by systemctl reboot".to_owned()), "{said:?}");
    drop(third);
    let fourth = lab(dir.path());
    assert!(fourth.restarts.list()[0].is_over());
    assert_eq!(
        fourth.restarts.list()[0].nodes[0].step,
        Step::Ended { how: End::Restarted }
    );
}

#[tokio::test]
async fn requests_that_are_over_are_forgotten_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path());
    let node = Change::Add(NewNode {
        name: "r01n01".into(),
        hwaddrs: vec![HwAddr([0x52, 0x54, 0, 1, 1, 1])],
        ..NewNode::default()
    });
    lab.nodes.change(&[node], "test", at(0)).unwrap();
    for i in 0..20 {
        let wanted = lab.restarts.want(&wish(&["r01n01"], 1), at(i), false).unwrap();
        assert_eq!(wanted.nodes, ["r01n01"]);
        lab.restarts.cancel(&["r01n01".into()], "test", at(i)).unwrap();
        let batch = lab.restarts.advance(at(i)).0;
        lab.store.commit(batch).await.unwrap();
    }
    assert_eq!(lab.restarts.list().len(), 8);
    let rows = lab.store.scan::<serde_json::Value>(Table::Restarts, b"").unwrap();
    assert_eq!(rows.len(), 16);
}

#[tokio::test]
async fn what_a_rollout_wanted_is_withdrawn_with_it_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path());
    let add = |slot: u8| {
        Change::Add(NewNode {
            name: format!("r01n{slot:02}"),
            hwaddrs: vec![HwAddr([0x52, 0x54, 0, 1, 1, slot])],
            ..NewNode::default()
        })
    };
    lab.nodes
        .change(&(1..=5).map(add).collect::<Vec<_>>(), "test", at(0))
        .unwrap();
    let mut first = None;
    for slot in 1..=5 {
        let boot = ready(&lab, &format!("r01n{slot:02}"), at(1)).await;
        first = first.or(Some(boot));
    }
    let want = |node: &str, rollout: &str| {
        let want = Want {
            rollout: rollout.into(),
            ..wish(&[node], 1)
        };
        lab.restarts.want(&want, at(2), false).unwrap();
    };
    for node in ["r01n01", "r01n02", "r01n03"] {
        want(node, "debian");
    }
    want("r01n04", "rocky");
    want("r01n05", "");
    let (batch, jobs) = lab.restarts.advance(at(3));
    lab.store.commit(batch).await.unwrap();
    for job in jobs.iter().filter(|job| job.nodes != ["r01n02"]) {
        lab.restarts.ran(job, &Ok(()), at(4), |_| at(0));
    }
    assert_eq!(
        lab.restarts.awaited_by_rollout("r01n01").as_deref(),
        Some("debian"),
        "it is drained, and has no order"
    );
    assert!(lab.restarts.order(&first.unwrap(), at(5)).await.is_some());
    assert_eq!(lab.restarts.awaited_by_rollout("r01n01"), None);
    assert_eq!(lab.restarts.awaited_by_rollout("r01n05"), None, "a person wants that");
    let withdraw = |node: Option<&str>, wanted: &str| {
        let wanted = |name: &str| name == wanted;
        lab.restarts.withdraw("debian", node, wanted, "paused", at(6)).unwrap()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(withdraw(Some("r01n03"), "r01n03"), Withdrawn::default());
    let withdrawn = withdraw(None, "r01n03");
    assert_eq!(
        (withdrawn.cancelled, withdrawn.told),
        (names(&["r01n02"]), names(&["r01n01"]))
    );
    assert_eq!(withdraw(None, "").cancelled, names(&["r01n03"]));
    assert_eq!(withdraw(None, "").cancelled, names(&[]));
    let steps = |restarts: &Restarts| -> Vec<String> {
        let list = restarts.list();
        let members = list.iter().flat_map(|request| &request.nodes);
        let mut steps: Vec<String> = members
            .map(|m| format!("{} {}", &m.name[3..], m.step.as_str()))
            .collect();
        steps.sort();
        steps
    };
    let expected = [
        "n01 restarting",
        "n02 not restarted",
        "n03 not restarted",
        "n04 drained",
        "n05 drained",
    ];
    assert_eq!(steps(&lab.restarts), expected, "the site has no resume program");
    drop(lab);
    let again = super::tests::lab(dir.path());
    let told = steps(&again.restarts);
    assert_eq!(told[1..3], expected[1..3], "on disk: {told:?}");
}

#[tokio::test]
async fn who_restarted_and_is_not_well_can_be_restarted_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path());
    let add = Change::Add(NewNode {
        name: "r01n01".into(),
        hwaddrs: vec![HwAddr([0x52, 0x54, 0, 1, 1, 1])],
        ..NewNode::default()
    });
    lab.nodes.change(&[add], "test", at(0)).unwrap();
    let first = ready(&lab, "r01n01", at(1)).await;
    let want = |secs: u64, drain: bool| {
        let want = Want {
            drain,
            ..wish(&["r01n01"], 1)
        };
        lab.restarts.want(&want, at(secs), false).unwrap()
    };
    let drained = |secs: u64| {
        let (_, jobs) = lab.restarts.advance(at(secs));
        let count = jobs.len();
        for job in &jobs {
            lab.restarts.ran(job, &Ok(()), at(secs), |_| at(0));
        }
        count
    };
    assert_eq!(want(2, true).nodes, ["r01n01"]);
    assert_eq!(drained(3), 1);
    assert!(lab.restarts.order(&first, at(4)).await.is_some());
    assert_eq!(want(5, true).already, ["r01n01"], "it is on its way");

    // It comes back, and its checks do not hold.
    let second = ready(&lab, "r01n01", at(60)).await;
    lab.boots.note_health(&second.plan.id, &second.token, false).unwrap();
    assert_eq!(drained(61), 0, "it is not resumed");
    assert_eq!(want(62, false).already, ["r01n01"], "nobody would resume it");
    assert_eq!(want(62, true).nodes, ["r01n01"]);
    assert_eq!(want(63, true).already, ["r01n01"], "taken over once");
    assert_eq!(drained(64), 0, "it is drained already");
    let order = lab
        .restarts
        .order(&second, at(65))
        .await
        .expect("told in the boot in which it is not well");
    let steps = |restarts: &Restarts| -> Vec<&'static str> {
        let list = restarts.list();
        list.iter()
            .flat_map(|request| &request.nodes)
            .map(|node| node.step.as_str())
            .collect()
    };
    assert_eq!(steps(&lab.restarts), ["restarted, unwell", "restarting"]);
    assert_eq!(lab.restarts.get(&order.id).unwrap().wanted, at(62));
    let third = ready(&lab, "r01n01", at(120)).await;
    lab.boots.note_health(&third.plan.id, &third.token, true).unwrap();
    let (batch, _) = lab.restarts.advance(at(121));
    lab.store.commit(batch).await.unwrap();
    assert_eq!(steps(&lab.restarts), ["restarted, unwell", "restarted"]);
    drop(lab);
    let again = super::tests::lab(dir.path());
    assert_eq!(steps(&again.restarts), ["restarted, unwell", "restarted"], "on disk");
}
