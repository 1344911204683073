//! Tests of the keeper: on disk, over a restart of the daemon, and asked by many.

use super::{super::*, Kind, at};
use crate::{
    boots::Boot,
    testkit::{Registries, cluster, world},
    timeline::{EventKind, Subject},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_store::Table;
use rackstrap_wire::RestartNote;
use std::{path::Path, sync::Arc};

struct Lab {
    restarts: Restarts,
    daemon: Registries,
}

impl std::ops::Deref for Lab {
    type Target = Registries;

    fn deref(&self) -> &Registries {
        &self.daemon
    }
}

fn lab(dir: &Path) -> Lab {
    let daemon = Registries::open(
        dir,
        world(cluster(
            "[hooks]
drain = [\"/bin/true\"]
",
        )),
    );
    Lab {
        restarts: daemon.restarts(),
        daemon,
    }
}

async fn ready(lab: &Lab, node: &str, now: Timestamp) -> Arc<Boot> {
    lab.daemon.ready(node, now).await
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
    first.add(&["r01n01", "r01n02", "r01n03"]);
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
        .filter(|event| event.step == EventKind::Restart)
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
    lab.add(&["r01n01"]);
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
    lab.add(&["r01n01", "r01n02", "r01n03", "r01n04", "r01n05"]);
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
    let again = super::keeper::lab(dir.path());
    let told = steps(&again.restarts);
    assert_eq!(told[1..3], expected[1..3], "on disk: {told:?}");
}

#[tokio::test]
async fn who_restarted_and_is_not_well_can_be_restarted_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path());
    lab.add(&["r01n01"]);
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
    assert_eq!(
        lab.restarts
            .list()
            .iter()
            .find(|request| request.id == order.id)
            .unwrap()
            .wanted,
        at(62)
    );
    let third = ready(&lab, "r01n01", at(120)).await;
    lab.boots.note_health(&third.plan.id, &third.token, true).unwrap();
    let (batch, _) = lab.restarts.advance(at(121));
    lab.store.commit(batch).await.unwrap();
    assert_eq!(steps(&lab.restarts), ["restarted, unwell", "restarted"]);
    drop(lab);
    let again = super::keeper::lab(dir.path());
    assert_eq!(steps(&again.restarts), ["restarted, unwell", "restarted"], "on disk");
}
