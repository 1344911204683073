//! Tests of watched answers, and of requests of other releases.

use super::*;
use rackstrap_registries::discovery::Wanted;
use std::time::{Duration, Instant};

/// Longer than an answer may be delayed, and shorter than the interval of signs of life.
const SOON: Duration = Duration::from_secs(9);

fn add(slot: u8) -> api::Changes {
    let new = NewNode {
        name: format!("r01n{slot:02}"),
        hwaddrs: vec![HwAddr([0x52, 0x54, 0, 1, 1, slot])],
        ..NewNode::default()
    };
    api::Changes {
        changes: vec![Change::Add(new)],
        ..api::Changes::default()
    }
}

fn next<T: serde::de::DeserializeOwned + Send + 'static>(watch: &mut Watch<T>) -> T {
    let answer = watch.blocking_next().expect("the watch goes on");
    answer.unwrap_or_else(|error| panic!("{error}"))
}

/// The first answer that fits, and the number of answers until then.
fn until<T>(watch: &mut Watch<T>, fits: impl Fn(&T) -> bool) -> (T, usize)
where
    T: serde::de::DeserializeOwned + Send + 'static,
{
    let mut count = 0;
    loop {
        let answer = next(watch);
        count += 1;
        if fits(&answer) {
            return (answer, count);
        }
    }
}

fn served(client: &Client) -> u64 {
    let counters: BTreeMap<String, u64> = client.get(api::paths::COUNTERS).unwrap();
    counters["control requests"]
}

#[test]
fn an_event_appears_on_a_watch_that_asked_once() {
    with_daemon(|client, context| {
        client.post::<api::ChangesAnswer>(api::paths::CHANGES, &add(1)).unwrap();
        let before = served(client);
        let mut watch = client.watch::<api::StatusAnswer>(api::paths::STATUS).unwrap();
        assert_eq!(next(&mut watch).nodes[0].state, NodeState::Absent);
        let begun = Instant::now();
        let up = Event::new(Timestamp::now(), EventKind::Ready, Level::Ok, "up");
        context.recorder.record(Subject::Node("r01n01".into()), up);
        let (_, answers) = until(&mut watch, |status| status.nodes[0].state == NodeState::Ready);
        assert!(begun.elapsed() < SOON, "pushed, and not only with the sign of life");
        assert_eq!(answers, 1, "each change is one answer");
        assert_eq!(served(client), before + 2, "the watch, and the counters before");
    });
}

#[test]
fn what_only_memory_knows_appears_on_a_watch_as_well() {
    with_daemon(|client, context| {
        let mut watch = client.watch::<api::DiscoveryAnswer>(api::paths::DISCOVERY).unwrap();
        assert!(next(&mut watch).machines.is_empty());
        let begun = Instant::now();
        // The machine never took an address, so it is in no table.
        context.discovery.observe(packet(HwAddr([0x52, 0x54, 0, 0, 0, 9])));
        until(&mut watch, |answer| answer.machines.len() == 1);
        let wanted = Wanted {
            rack: "r03".into(),
            secs: 600,
            ..Wanted::default()
        };
        context.discovery.begin(&wanted, "tests", Timestamp::now()).unwrap();
        until(&mut watch, |answer| answer.racks.len() == 1);
        assert!(begun.elapsed() < 2 * SOON);
    });
}

#[test]
fn many_changes_at_once_are_few_answers() {
    with_daemon(|client, _| {
        let mut watch = client.watch::<api::StatusAnswer>(api::paths::STATUS).unwrap();
        assert!(next(&mut watch).nodes.is_empty());
        let begun = Instant::now();
        for slot in 1..=40 {
            client
                .post::<api::ChangesAnswer>(api::paths::CHANGES, &add(slot))
                .unwrap();
        }
        let (_, answers) = until(&mut watch, |status| status.nodes.len() == 40);
        let most = begun.elapsed().as_millis() / 500 + 2;
        assert!(answers as u128 <= most, "{answers} answers, and not more than {most}");
    });
}

#[test]
fn a_daemon_that_ends_closes_its_watches_and_the_next_one_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let context = context(dir.path());
    let begin = || {
        let cancel = CancellationToken::new();
        let socket = runtime.block_on(bind(&path)).unwrap();
        (cancel.clone(), runtime.spawn(serve(socket, context.clone(), cancel)))
    };
    let (cancel, served) = begin();
    let client = Client::new(&path).unwrap();
    let mut watch = client.watch::<api::StatusAnswer>(api::paths::STATUS).unwrap();
    assert_eq!(next(&mut watch).cluster, "lab");
    // This watcher never reads, and its unread answers delay no other watcher.
    let mut idle = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let request = format!("GET {}?watch=true HTTP/1.1\r\nHost: x\r\n\r\n", api::paths::STATUS);
    std::io::Write::write_all(&mut idle, request.as_bytes()).unwrap();
    let begun = Instant::now();
    cancel.cancel();
    runtime.block_on(served).unwrap().unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let error = watch.blocking_next().unwrap().unwrap_err();
    assert!(
        error.passes() && error.to_string().ends_with("the daemon stops"),
        "{error}"
    );
    let error = watch.blocking_next().unwrap().unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon(_)), "{error}");
    let (cancel, served) = begin();
    let back = std::iter::from_fn(|| watch.blocking_next()).find_map(Result::ok);
    assert_eq!(back.unwrap().cluster, "lab");
    cancel.cancel();
    runtime.block_on(served).unwrap().unwrap();
}

#[test]
fn watchers_are_bounded_and_a_place_is_free_when_one_goes() {
    with_daemon(|client, _| {
        let begin = || client.watch::<api::RolloutsAnswer>(api::paths::ROLLOUTS).unwrap();
        let mut all: Vec<_> = (0..64).map(|_| begin()).collect();
        for watch in &mut all {
            next(watch);
        }
        let refused = begin().blocking_next().unwrap().unwrap_err();
        assert!(matches!(refused, ClientError::Refused(_)), "{refused}");
        assert!(
            refused.to_string().starts_with("64 commands already watch this daemon"),
            "{refused}"
        );
        drop(all.pop());
        let begun = Instant::now();
        while !matches!(begin().blocking_next(), Some(Ok(_))) {
            assert!(begun.elapsed() < SOON, "its place is free");
        }
    });
}

#[test]
fn a_watch_of_what_is_no_more_ends_with_the_reason() {
    with_daemon(|client, _| {
        client.post::<api::ChangesAnswer>(api::paths::CHANGES, &add(1)).unwrap();
        let mut watch = client.watch::<api::TimelineAnswer>("/v1/timeline/r01n01").unwrap();
        assert!(next(&mut watch).events.is_empty());
        let delete = api::Changes {
            changes: vec![Change::Delete { name: "r01n01".into() }],
            ..api::Changes::default()
        };
        client.post::<api::ChangesAnswer>(api::paths::CHANGES, &delete).unwrap();
        let last = std::iter::from_fn(|| watch.blocking_next())
            .last()
            .unwrap()
            .unwrap_err();
        assert!(
            last.to_string().contains("node r01n01 is not in the inventory"),
            "{last}"
        );
        let never = client
            .watch::<api::TimelineAnswer>("/v1/timeline/r09n09")
            .unwrap()
            .blocking_next();
        assert!(matches!(never, Some(Err(ClientError::Refused(_)))));
    });
}

#[test]
fn who_did_it_is_what_the_kernel_says_and_not_what_the_request_says() {
    with_daemon(|client, _| {
        let mut forged = serde_json::to_value(add(1)).unwrap();
        forged["by"] = "mallory".into();
        client.post::<api::ChangesAnswer>(api::paths::CHANGES, &forged).unwrap();
        let history: Vec<api::HistoryRow> = client.get("/v1/history/r01n01").unwrap();
        assert_eq!(history[0].by, rackstrap_control::author::own());
        let restart = serde_json::json!({
            "want": {"nodes": ["r01n01"], "reason": "", "max_down": 1, "drain": false, "within_secs": 600, "by": "mallory"},
            "dry_run": false,
            "by": "mallory",
        });
        client
            .post::<serde_json::Value>(api::paths::RESTARTS, &restart)
            .unwrap();
        let restarts: serde_json::Value = client.get(api::paths::RESTARTS).unwrap();
        assert_eq!(restarts["requests"][0]["by"], rackstrap_control::author::own());
        assert!(!restarts.to_string().contains("mallory"), "{restarts}");
    });
}

#[test]
fn a_command_of_another_release_is_told_what_to_do() {
    with_daemon(|client, _| {
        let newer = serde_json::json!({"changes": [{"paint": {"name": "r01n01", "colour": "red"}}]});
        for said in [
            client.get::<api::Done>("/v1/dance").unwrap_err(),
            client.post::<api::Done>(api::paths::COUNTERS, &()).unwrap_err(),
            client.post::<api::Done>(api::paths::CHANGES, &newer).unwrap_err(),
            client.post::<api::Done>(api::paths::IGNORE, &newer).unwrap_err(),
            // An answer that this command does not understand.
            client.get::<api::Done>(api::paths::STATUS).unwrap_err(),
            // A daemon without watches answers once, as this route does.
            client
                .watch::<api::Done>(api::paths::COUNTERS)
                .unwrap()
                .blocking_next()
                .unwrap()
                .unwrap_err(),
        ] {
            let said = said.to_string();
            assert!(said.contains("daemon and command are of different releases"), "{said}");
            assert!(said.contains("`systemctl restart rackstrap`"), "{said}");
        }
    });
}
