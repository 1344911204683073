use super::*;
use crate::{
    Registries,
    testing::{self, add, cluster},
    timeline::{Event, EventKind, Level, Subject},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::{decide::World, inventory::Change};
use rackstrap_wire::{DiskFault, DiskHealth, FaultKind};
use std::{path::Path, sync::Arc, time::Instant};

const SECOND: Duration = Duration::from_secs(1);

fn words(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn output_and_failures_of_programs_are_reported() {
    let environment = [("RACKSTRAP_ADDED", "r01n[01-02]".to_owned())];
    let said = run(
        &words("echo got $RACKSTRAP_ADDED in $PWD; echo so >&2"),
        &environment,
        60 * SECOND,
    )
    .await;
    assert_eq!(said.unwrap(), "got r01n[01-02] in /\nso\n");
    let failed = run(&words("echo no; exit 3"), &[], 60 * SECOND).await.unwrap_err();
    assert_eq!(
        failed.to_string(),
        "/bin/sh ended with exit status: 3, with the output: no"
    );
    let failed = run(&["/no/such".to_owned()], &[], SECOND).await.unwrap_err();
    assert!(
        failed.to_string().starts_with("/no/such cannot be run: No such file"),
        "{failed}"
    );
    let much = run(&words("yes | head -c 1000000"), &[], 60 * SECOND).await.unwrap();
    assert_eq!(much.len(), 16 << 10, "the rest is dropped, and did not block it");
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
    let began = Instant::now();
    let failed = run(&words(&script), &[], SECOND).await.unwrap_err();
    assert!(failed.to_string().contains("was killed after 1 s"), "{failed}");
    assert!(began.elapsed() < 300 * SECOND);
    let child = std::fs::read_to_string(&pid).unwrap();
    let stat = Path::new("/proc").join(child.trim()).join("stat");
    // Its parent is gone, so it may remain as a zombie until it is reaped. It closes its output a moment before it becomes
    // one.
    let is_alive = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    let mut alive = is_alive();
    while alive && began.elapsed() < 300 * SECOND {
        tokio::time::sleep(Duration::from_millis(10)).await;
        alive = is_alive();
    }
    assert!(!alive, "the child was left running");
}

#[tokio::test]
async fn processes_in_the_background_do_not_delay_the_result() {
    let began = Instant::now();
    assert_eq!(
        run(&words("sleep 20 & echo done"), &[], 600 * SECOND).await.unwrap(),
        ""
    );
    assert!(began.elapsed() < 19 * SECOND);
}

#[test]
fn a_hook_that_fails_is_run_again_less_and_less_often() {
    let seconds: Vec<u64> = [1, 2, 3, 7, 8, 1000].map(|count| retry_after(count).as_secs()).into();
    assert_eq!(seconds, [10, 20, 40, 600, 600, 600]);
}

/// Waits until `file` has `count` lines.
async fn lines(file: &Path, count: usize) -> Vec<String> {
    for _ in 0..1200 {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.lines().count() >= count {
            return text.lines().map(str::to_owned).collect();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{}: {:?}", file.display(), std::fs::read_to_string(file));
}

#[tokio::test]
async fn on_change_runs_at_the_start_and_once_for_several_changes() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = format!(
        "echo \"+$RACKSTRAP_ADDED ~$RACKSTRAP_CHANGED -$RACKSTRAP_DELETED stalled:$RACKSTRAP_STALLED lost:$RACKSTRAP_LOST${{RACKSTRAP_DISK_FAULTS:+ faults:$RACKSTRAP_DISK_FAULTS}}\" >> {}",
        log.display()
    );
    let site = cluster(&format!("[hooks]\non-change = [\"/bin/sh\", \"-c\", {script:?}]\n"));
    let Registries {
        store,
        world,
        recorder,
        boots,
        nodes,
    } = Registries::open(dir.path(), testing::world(site));
    let reloaded: Arc<Notify> = Arc::default();
    let watched = Watched {
        world: world.clone(),
        boots: boots.clone(),
        recorder: recorder.clone(),
        store,
        reloaded: reloaded.clone(),
        config: dir.path().join("site.toml"),
    };
    let cancel = CancellationToken::new();
    let task = tokio::spawn(serve(watched, cancel.clone()));
    assert_eq!(lines(&log, 1).await, ["+ ~ - stalled: lost:"], "at the start");
    let change = |changes: Vec<Change>| {
        let nodes = nodes.clone();
        tokio::task::spawn_blocking(move || nodes.change(&changes, "test", Timestamp(1)).unwrap())
    };
    change(vec![add("r01n01"), add("r01n02")]).await.unwrap();
    assert_eq!(lines(&log, 2).await[1], "+r01n[01-02] ~ - stalled: lost:");
    let join = Change::Set {
        name: "r01n01".to_owned(),
        patch: rackstrap_model::inventory::Patch {
            join: ["new".to_owned()].into(),
            ..Default::default()
        },
    };
    let delete = Change::Delete {
        name: "r01n02".to_owned(),
    };
    change(vec![join, delete, add("r01n03")]).await.unwrap();
    assert_eq!(lines(&log, 3).await[2], "+r01n03 ~r01n01 -r01n02 stalled: lost:");
    // One node stops half way, and the other one becomes silent. The daemon notices both by itself, and runs the program.
    let say = |node: &str, secs: u64, step: EventKind| {
        let event = Event::new(Timestamp(secs * 1000), step, Level::Ok, "").of_boot(node);
        recorder.record(Subject::Node(node.to_owned()), event);
    };
    say("r01n01", 10, EventKind::Kernel);
    say("r01n03", 15, EventKind::Ready);
    recorder.record_overdue(Timestamp(611_000), |_| 600);
    assert_eq!(lines(&log, 4).await[3], "+ ~r01n01 - stalled:r01n01 lost:");
    recorder.record_overdue(Timestamp(2_000_000), |_| 600);
    assert_eq!(lines(&log, 5).await[4], "+ ~r01n03 - stalled:r01n01 lost:r01n03");
    say("r01n01", 2_010, EventKind::Agent(rackstrap_wire::Phase::Plan));
    assert_eq!(lines(&log, 6).await[5], "+ ~r01n01 - stalled: lost:r01n03");
    say("r01n03", 2_011, EventKind::Heartbeat);
    assert_eq!(lines(&log, 7).await[6], "+ ~r01n03 - stalled: lost:");
    // A disk gets a fault, and loses it. A temperature is no news.
    let report = |faulty: bool, celsius| {
        let fault = DiskFault {
            kind: FaultKind::Failing,
            detail: String::new(),
        };
        let disk = DiskHealth {
            device: "sda".to_owned(),
            faults: if faulty { vec![fault] } else { Vec::new() },
            celsius: Some(celsius),
            ..DiskHealth::default()
        };
        boots.disks().record_health("r01n01", vec![disk], Timestamp(5));
    };
    report(true, 40);
    assert_eq!(lines(&log, 8).await[7], "+ ~r01n01 - stalled: lost: faults:r01n01");
    report(true, 41);
    report(false, 42);
    assert_eq!(lines(&log, 9).await[8], "+ ~r01n01 - stalled: lost:");
    // An event of a node that is neither lost nor stalled does not run the program.
    say("r01n01", 2_020, EventKind::Ready);
    // The site file names another program.
    let mut site = world.load().site.as_ref().clone();
    site.hooks.on_change.push("more".to_owned());
    world.rcu(|world| World {
        site: Arc::new(site.clone()),
        ..World::clone(world)
    });
    reloaded.notify_one();
    assert_eq!(
        lines(&log, 10).await[9],
        "+ ~ - stalled: lost:",
        "which knows nothing yet"
    );
    cancel.cancel();
    task.await.unwrap().unwrap();
    assert_eq!(lines(&log, 10).await.len(), 10, "nothing was told twice");
}

#[test]
fn programs_get_the_variables_of_their_nodes_and_no_secrets() {
    let site = crate::testing::cluster(
        "[profile.gpu]\nvars = { pdu = \"pdu1\", slots = 4 }\nvars-secret = { pin = \"s3cret\" }\n",
    );
    let of = |name: &str, settings: serde_json::Value| rackstrap_model::inventory::Node {
        profiles: vec!["gpu".to_owned()],
        settings: serde_json::from_value(settings).unwrap(),
        ..crate::testing::node(name)
    };
    let nodes = [
        of(
            "r01n01",
            serde_json::json!({ "vars.pdu": "pdu2", "vars-secret.own": "s3cret" }),
        ),
        of("r01n02", serde_json::json!({ "vars.long": "x".repeat(8000) })),
    ];
    let world = crate::testing::world(site).nodes(nodes).build();
    let (name, json) = variables(&world, ["r01n01", "gone"].into_iter());
    assert_eq!(
        (name, json.as_str()),
        ("RACKSTRAP_VARS", r#"{"r01n01":{"pdu":"pdu2","slots":4}}"#)
    );
    assert_eq!(variables(&world, std::iter::empty()).1, "{}");
    assert!(variables(&world, ["r01n02"].into_iter()).1.len() > 8000);
}
