//! Tests of the executor: on disk, over a restart of the daemon, and with several requests.

use super::*;
use crate::{
    Registries,
    boots::Boot,
    testing::{cluster, world},
    timeline::{EventKind, Subject},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_lifecycle::{Job, restart::Program};
use rackstrap_store::{Batch, StoreError, Table};
use rackstrap_wire::{Restart, RestartReport};
use std::{collections::BTreeMap, path::Path, sync::Arc};

fn at(secs: u64) -> Timestamp {
    Timestamp(1_000_000 + secs * 1000)
}

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

impl Lab {
    /// Runs the planner, writes its decisions, and carries them out. Returns the programs to run.
    fn plan(&self, now: Timestamp) -> Vec<Job> {
        let draft = |(): &()| {
            let advance = self.restarts.advance(&BTreeMap::new(), BTreeMap::new(), now);
            Ok::<_, StoreError>(((advance.requests, advance.actions), advance.batch))
        };
        let planned = self.restarts.keeper().change(draft, |(), (requests, actions)| {
            self.restarts.publish(requests);
            self.restarts.carry_out(actions, now);
        });
        planned.unwrap();
        std::iter::from_fn(|| self.restarts.next_job()).collect()
    }

    /// A heartbeat of the node arrives, and the planner's thread answers.
    async fn order(&self, boot: &Arc<Boot>, now: Timestamp) -> Option<Restart> {
        let answer = async { self.restarts.answer() };
        tokio::join!(self.restarts.order(boot, now), answer).0
    }

    /// A node answers its order.
    fn noted(&self, boot: &Arc<Boot>, note: &RestartReport, now: Timestamp) {
        self.restarts.noted(boot, note, now);
        self.restarts.answer();
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
    assert!(
        refused.to_string().contains("node r01n09 is not in the inventory"),
        "{refused}"
    );
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
    let jobs = first.plan(at(4));
    assert_eq!(jobs.len(), 1);
    assert_eq!(
        (jobs[0].program, jobs[0].nodes.as_slice()),
        (Program::Drain, &["r01n01".to_owned()][..])
    );
    assert!(first.plan(at(4)).is_empty(), "it runs already");
    assert!(first.order(&boot, at(4)).await.is_none(), "not drained yet");
    drop(first);

    // The drain program was killed with the daemon, and is run again.
    let second = lab(dir.path());
    let jobs = second.plan(at(5));
    assert_eq!(jobs[0].nodes, ["r01n01"]);
    second.restarts.ran(&jobs[0], &Ok(()), at(6), |_| at(0)).unwrap();
    assert!(second.plan(at(6)).is_empty());
    assert!(second.order(&old, at(7)).await.is_none(), "a boot that is over");
    assert!(second.order(&other, at(7)).await.is_none(), "another's turn");
    let order = second.order(&boot, at(7)).await.unwrap();
    assert_eq!(
        (order.id.as_str(), order.reason.as_str()),
        (wanted.id.as_str(), "new kernel")
    );
    drop(second);

    let third = lab(dir.path());
    third.plan(at(9));
    assert!(
        third.order(&boot, at(9)).await.is_none(),
        "told before the daemon was killed"
    );
    let note = RestartReport {
        id: wanted.id.clone(),
        detail: "restarts with systemctl reboot".into(),
    };
    third.noted(&boot, &note, at(10));
    third.plan(at(200));
    assert!(third.order(&boot, at(200)).await.is_none());
    third
        .recorder
        .heartbeat(Subject::Node("r01n02".into()), at(200), &other.plan.id, "");
    let new = ready(&third, "r01n01", at(201)).await;
    third.plan(at(202));
    assert!(third.order(&new, at(203)).await.is_none());
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
    assert!(said.contains(&"ordered to restart: new kernel".to_owned()), "{said:?}");
    assert!(said.contains(&"restarts with systemctl reboot".to_owned()), "{said:?}");
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
        lab.plan(at(i));
    }
    assert_eq!(lab.restarts.list().len(), 8);
    let rows = lab.store.scan::<serde_json::Value>(Table::Restarts, b"").unwrap();
    assert_eq!(rows.len(), 16);
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
        let jobs = lab.plan(at(secs));
        let count = jobs.len();
        for job in &jobs {
            lab.restarts.ran(job, &Ok(()), at(secs), |_| at(0)).unwrap();
        }
        lab.plan(at(secs));
        count
    };
    assert_eq!(want(2, true).nodes, ["r01n01"]);
    assert_eq!(drained(3), 1);
    assert!(lab.order(&first, at(4)).await.is_some());
    assert_eq!(want(5, true).already, ["r01n01"], "it is on its way");

    // The node comes back, and its checks fail.
    let second = ready(&lab, "r01n01", at(60)).await;
    lab.boots.record_health(&second.plan.id, &second.token, false).unwrap();
    assert_eq!(drained(61), 0, "it is not resumed");
    assert_eq!(want(62, false).already, ["r01n01"], "nobody would resume it");
    assert_eq!(want(62, true).nodes, ["r01n01"]);
    assert_eq!(want(63, true).already, ["r01n01"], "taken over once");
    assert_eq!(drained(64), 0, "it is drained already");
    let order = lab
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
    lab.boots.record_health(&third.plan.id, &third.token, true).unwrap();
    lab.plan(at(121));
    assert_eq!(steps(&lab.restarts), ["restarted, unwell", "restarted"]);
    drop(lab);
    let again = super::tests::lab(dir.path());
    assert_eq!(steps(&again.restarts), ["restarted, unwell", "restarted"], "on disk");
}

/// Older releases made one request for each node of a rollout: rows as such a release wrote them.
#[tokio::test]
async fn requests_that_an_older_release_made_for_a_rollout_become_one() {
    let dir = tempfile::tempdir().unwrap();
    let boot = {
        let lab = lab(dir.path());
        lab.add(&["r01n01", "r01n02", "r01n03"]);
        let boot = ready(&lab, "r01n01", at(1)).await;
        // It stopped a request at any node that was late.
        let head = |id: &str, after: u64, rollout: &str| {
            format!(
                r#"{{"id":"{id}","wanted":{},"after":{after},"by":"rollout"{rollout},"reason":"a rollout gives it another version than debian@1",
                   "max_down":1,"drain":true,"within_secs":900,"stopped":"late","nodes":[]}}"#,
                at(2).0
            )
        };
        let rollout = r#","rollout":"debian""#;
        let told = format!(r#"{{"is":"told","boot":"{}","last":5,"noted":false}}"#, boot.plan.id);
        let member = |name: &str, step: &str| {
            format!(
                r#"{{"name":"{name}","step":{step},"since":{},"failures":0,"again":0,"said":""}}"#,
                at(3).0
            )
        };
        let json = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
        let rows = [
            ("aa", head("aa", 1, rollout)),
            ("aa/0", member("r01n01", &told)),
            ("bb", head("bb", 7, rollout)),
            ("bb/0", member("r01n02", r#"{"is":"draining"}"#)),
            ("cc", head("cc", 3, rollout)),
            ("cc/0", member("r01n03", r#"{"is":"ended","how":"restarted"}"#)),
            ("dd", head("dd", 4, "")),
            ("dd/0", member("r01n03", r#"{"is":"waiting"}"#)),
        ];
        let put = |batch: Batch, (key, row): (&str, String)| batch.put(Table::Restarts, key.as_bytes(), &json(row));
        lab.store
            .commit_blocking(rows.into_iter().fold(Batch::new(), put))
            .unwrap();
        boot
    };
    for _ in 0..2 {
        let lab = lab(dir.path());
        let list = lab.restarts.list();
        let shown = |request: &Request| {
            let nodes: Vec<String> = (request.nodes.iter())
                .map(|node| format!("{} {} {:?}", node.name, node.step.as_str(), node.after))
                .collect();
            let stopped = if request.stopped.is_empty() { "" } else { " stopped" };
            format!("{}{}{stopped}: {}", request.rollout, request.number, nodes.join(", "))
        };
        let mut shown: Vec<String> = list.iter().map(shown).collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "0 stopped: r01n03 waiting None",
                "debian0 stopped: r01n03 restarted None",
                "debian0: r01n01 restarting Some(1), r01n02 draining Some(7)",
            ],
            "a rollout says itself whether it has stopped; of an administrator's request nobody else does"
        );
        let rows = lab.store.scan::<serde_json::Value>(Table::Restarts, b"").unwrap();
        assert_eq!(rows.len(), 7, "one head less than there were");
        // The node answers the order that it got from the older release.
        let note = RestartReport {
            id: "aa".into(),
            detail: "restarts with systemctl reboot".into(),
        };
        lab.noted(&boot, &note, at(9));
        let noted = lab
            .restarts
            .list()
            .iter()
            .flat_map(|request| request.nodes.clone())
            .any(|node| matches!(node.step, Step::Ordered { acknowledged: true, .. }));
        assert!(noted);
    }
}

#[tokio::test]
async fn what_cannot_be_written_has_not_happened() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path());
    lab.add(&["r01n01", "r01n02"]);
    let boot = ready(&lab, "r01n01", at(1)).await;
    lab.restarts.want(&wish(&["r01n01"], 1), at(2), false).unwrap();
    let jobs = lab.plan(at(3));
    lab.restarts.ran(&jobs[0], &Ok(()), at(4), |_| at(0)).unwrap();
    assert!(lab.plan(at(4)).is_empty(), "it is drained");
    let request = lab.restarts.list().remove(0);
    let key = format!("{}/0", request.id);
    let row: serde_json::Value = lab.store.get(Table::Restarts, key.as_bytes()).unwrap().unwrap();
    let put = |row: &serde_json::Value| {
        let batch = Batch::new().put(Table::Restarts, key.as_bytes(), row);
        lab.store.commit_blocking(batch).unwrap();
    };
    // Another process changes the row.
    let mut other = row.clone();
    other["failures"] = 7.into();
    put(&other);
    assert!(lab.order(&boot, at(5)).await.is_none(), "no order without its row");
    let cancelled = lab.restarts.cancel(&["r01n01".into()], "test", at(6));
    assert!(matches!(cancelled, Err(StoreError::Conflict { .. })));
    assert_eq!(lab.restarts.list(), std::slice::from_ref(&request));
    // A change of other rows does not matter.
    assert_eq!(
        lab.restarts.want(&wish(&["r01n02"], 1), at(7), false).unwrap().nodes,
        ["r01n02"]
    );
    put(&row);
    lab.plan(at(8));
    assert!(lab.order(&boot, at(9)).await.is_some(), "asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_end_cannot_be_written_does_not_run_again_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path());
    lab.add(&["r01n01"]);
    ready(&lab, "r01n01", at(1)).await;
    lab.restarts.want(&wish(&["r01n01"], 1), at(2), false).unwrap();
    let jobs = lab.plan(at(3));
    let key = format!("{}/0", lab.restarts.list()[0].id);
    let row: serde_json::Value = lab.store.get(Table::Restarts, key.as_bytes()).unwrap().unwrap();
    let put = |row: &serde_json::Value| {
        let batch = Batch::new().put(Table::Restarts, key.as_bytes(), row);
        lab.store.commit_blocking(batch).unwrap();
    };
    let mut other = row.clone();
    other["failures"] = 7.into();
    put(&other);
    assert!(lab.restarts.ran(&jobs[0], &Ok(()), at(4), |_| at(0)).is_err());
    assert!(lab.plan(at(5)).is_empty(), "the drain program would run again");
    put(&row);
    lab.restarts.ran(&jobs[0], &Ok(()), at(6), |_| at(0)).unwrap();
    assert!(lab.plan(at(7)).is_empty(), "it is drained");
    assert_eq!(lab.restarts.list()[0].nodes[0].failures, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_wait_only_for_nodes_of_a_request_and_with_a_bounded_length() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path());
    lab.add(&["r01n01", "r01n02"]);
    let boot = ready(&lab, "r01n01", at(1)).await;
    let report = |id: &str| RestartReport {
        id: id.to_owned(),
        detail: format!("one\ntwo{}", "x".repeat(500 << 10)),
    };
    let waiting = || rackstrap_base::sync::lock(&lab.restarts.shared.asked).len();
    lab.restarts.noted(&boot, &report("x"), at(2));
    assert_eq!(waiting(), 0, "it has no request");
    lab.restarts.want(&wish(&["r01n01"], 1), at(2), false).unwrap();
    let id = lab.restarts.list()[0].id.clone();
    lab.restarts.noted(&boot, &report(&id), at(3));
    assert_eq!(waiting(), 1);
    lab.restarts.answer();
    let events = lab.recorder.of(&Subject::Node("r01n01".into()));
    let said = events.iter().find(|event| event.detail.starts_with("one")).unwrap();
    assert!(
        said.detail.len() <= 210 && !said.detail.contains('\n'),
        "{} bytes",
        said.detail.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cancellations_and_plans_at_the_same_time_leave_on_disk_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (1..=8).map(|slot| format!("r01n{slot:02}")).collect();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    let known = {
        let lab = lab(dir.path());
        lab.add(&nodes);
        for node in &nodes {
            ready(&lab, node, at(1)).await;
        }
        lab.restarts.want(&wish(&nodes, 8), at(2), false).unwrap();
        std::thread::scope(|scope| {
            for node in &names[..4] {
                let restarts = &lab.restarts;
                scope.spawn(move || restarts.cancel(std::slice::from_ref(node), "test", at(3)).unwrap());
            }
            for secs in 3..9 {
                lab.plan(at(secs));
            }
        });
        lab.restarts.list()
    };
    let steps = |requests: &[Request]| -> Vec<&'static str> {
        let nodes = requests.iter().flat_map(|request| &request.nodes);
        nodes.map(|node| node.step.as_str()).collect()
    };
    assert_eq!(steps(&known)[..4], ["not restarted"; 4]);
    assert_eq!(
        lab(dir.path()).restarts.list(),
        known,
        "a cancellation is not undone by an earlier plan"
    );
}

#[tokio::test]
async fn nodes_that_have_their_orders_at_the_same_time_share_one_change() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path());
    lab.add(&["r01n01", "r01n02"]);
    let first = ready(&lab, "r01n01", at(1)).await;
    let second = ready(&lab, "r01n02", at(1)).await;
    let want = Want {
        drain: false,
        ..wish(&["r01n01", "r01n02"], 2)
    };
    lab.restarts.want(&want, at(2), false).unwrap();
    lab.plan(at(3));
    let before = *lab.store.watch(Table::Restarts).borrow();
    let answer = async { lab.restarts.answer() };
    let (one, other, ()) = tokio::join!(
        lab.restarts.order(&first, at(4)),
        lab.restarts.order(&second, at(4)),
        answer
    );
    assert!(one.is_some() && other.is_some());
    assert_eq!(*lab.store.watch(Table::Restarts).borrow(), before + 1, "one batch");
}
