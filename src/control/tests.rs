//! Tests of the control socket: binding, access, routes.

use super::socket::SocketError;
use super::*;
use crate::testkit;
use rackstrap_base::clock::Timestamp;
use rackstrap_control::{Client, ClientError, Watch, segment};
use rackstrap_model::{
    decide::World,
    inventory::{Change, NewNode},
};
use rackstrap_registries::testing::{self, CLUSTER};
use rackstrap_registries::{
    discovery::{Observation, Place},
    timeline::{DhcpMessage, Event, EventKind, Level, NodeState, Subject},
};
use rackstrap_wire::HwAddr;
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::Path};
use tokio_util::sync::CancellationToken;

mod watches;

fn context(dir: &Path) -> Arc<Context> {
    Arc::new(testkit::daemon(dir, "").control_context(
        Arc::new(|_| anyhow::bail!("line 3: no")),
        Arc::new(|| Ok("2 image versions".into())),
        Arc::new(|addresses| Ok(addresses.to_vec())),
        Arc::new(|| vec![("dhcp offers".into(), 3)]),
    ))
}

/// Runs `f` with a client of a daemon's control socket.
fn with_daemon(f: impl FnOnce(&Client, &Context)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let socket = runtime.block_on(bind(&path)).unwrap();
    let context = context(dir.path());
    let cancel = CancellationToken::new();
    let served = runtime.spawn(serve(socket, context.clone(), cancel.clone()));
    f(&Client::new(&path).unwrap(), &context);
    cancel.cancel();
    runtime.block_on(served).unwrap().unwrap();
    assert!(!path.exists(), "removed at the end");
}

fn packet(hwaddr: HwAddr) -> Observation {
    Observation {
        at: Timestamp::now(),
        hwaddr,
        uuid: None,
        arch: Some(0),
        class: String::new(),
        booting: true,
        confirmed: false,
        offered: false,
        no_room: None,
        place: Place {
            interface: "eth1".into(),
            relay: None,
            network: None,
            switch: String::new(),
            port: String::new(),
        },
    }
}

/// The status as soon as it fits, which takes a moment after a packet.
fn status_when(client: &Client, fits: impl Fn(&api::StatusAnswer) -> bool) -> api::StatusAnswer {
    for _ in 0..600 {
        let status: api::StatusAnswer = client.get(api::paths::STATUS).unwrap();
        if fits(&status) {
            return status;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{:?}", client.get::<api::StatusAnswer>(api::paths::STATUS));
}

#[test]
fn status_shows_who_waits_and_why_and_hides_who_is_ignored() {
    with_daemon(|client, context| {
        let (first, second) = ("52:54:00:00:00:01", "52:54:00:00:00:02");
        let network = "10.5.0.0/16".parse().unwrap();
        context.discovery.observe(packet(first.parse().unwrap()));
        context.discovery.observe(Observation {
            no_room: Some(rackstrap_registries::discovery::NoRoom {
                network,
                why: "the temporary pool A-B is full: all".to_owned(),
                since: Timestamp::now(),
                until: None,
            }),
            ..packet(second.parse().unwrap())
        });
        let status = status_when(client, |status| status.nodes.len() == 2);
        assert_eq!((&*status.nodes[0].node, &*status.nodes[0].last_error), (first, ""));
        assert_eq!(
            (&*status.nodes[1].node, &*status.nodes[1].last_error),
            (second, "the temporary pool A-B is full: all")
        );
        assert_eq!((status.full.len(), status.full[0].machines), (1, 1));
        let ignore = api::Ignore {
            hwaddr: first.parse().unwrap(),
            ignored: true,
        };
        client.post::<api::Done>(api::paths::IGNORE, &ignore).unwrap();
        let status = status_when(client, |status| status.ignored == 1);
        assert_eq!((status.nodes.len(), &*status.nodes[0].node), (1, second));
    });
}

#[test]
fn status_has_the_warnings_of_the_site_until_they_are_cleared() {
    with_daemon(|client, context| {
        let now = Timestamp::now();
        context
            .warnings
            .raise(now, "dhcp 10.5.0.9", "another server", "stop it");
        let status: api::StatusAnswer = client.get(api::paths::STATUS).unwrap();
        let said: Vec<(&str, &str)> = status.warnings.iter().map(|w| (&*w.message, &*w.help)).collect();
        assert_eq!(said, [("another server", "stop it")]);
        context.warnings.clear("dhcp 10.5.0.9");
        let status: api::StatusAnswer = client.get(api::paths::STATUS).unwrap();
        assert!(status.warnings.is_empty());
    });
}

#[test]
fn a_node_from_its_first_packet_to_its_end() {
    with_daemon(|client, context| {
        let hwaddr = "52:54:00:01:01:01".parse().unwrap();
        let machine = Subject::Machine(hwaddr);
        context.recorder.record(
            machine,
            Event::new(
                Timestamp::now(),
                EventKind::Dhcp(DhcpMessage::Discover),
                Level::Ok,
                "unknown",
            ),
        );
        context.discovery.observe(packet(hwaddr));
        let status = status_when(client, |status| !status.nodes.is_empty());
        assert_eq!(status.cluster, "lab");
        assert_eq!(status.nodes[0].state, NodeState::Waiting);
        let explained: api::ExplainAnswer = client.get("/v1/explain/52:54:00:01:01:01").unwrap();
        assert!(explained.decision.is_none());
        assert!(
            explained.why.iter().any(|why| why.contains("belongs to no node")),
            "{:?}",
            explained.why
        );

        let new = NewNode {
            name: "r01n01".into(),
            hwaddrs: vec![hwaddr],
            ..NewNode::default()
        };
        let change = |change: Change| api::Changes {
            changes: vec![change],
            ..api::Changes::default()
        };
        let add = change(Change::Add(new));
        let planned = api::Changes {
            dry_run: true,
            ..add.clone()
        };
        let planned: api::ChangesAnswer = client.post(api::paths::CHANGES, &planned).unwrap();
        assert!(client.get::<Vec<api::NodeRow>>(api::paths::NODES).unwrap().is_empty());
        let done: api::ChangesAnswer = client.post(api::paths::CHANGES, &add).unwrap();
        assert_eq!(done.changed, planned.changed);
        let node = done.changed[0].after.clone().unwrap();
        assert_eq!(node.ipaddr.to_string(), "10.5.1.1");
        let again = client
            .post::<api::ChangesAnswer>(api::paths::CHANGES, &add)
            .unwrap_err();
        assert!(again.to_string().starts_with("node r01n01 already exists"), "{again}");
        let status: api::StatusAnswer = client.get(api::paths::STATUS).unwrap();
        assert_eq!(
            (status.nodes.len(), status.nodes[0].state),
            (1, NodeState::Loading),
            "it waits no longer, and what was heard of it came along"
        );

        let subject = Subject::Node("r01n01".into());
        context.recorder.record(
            subject,
            Event::new(
                Timestamp::now(),
                EventKind::Dhcp(DhcpMessage::Discover),
                Level::Ok,
                "BIOS",
            ),
        );
        for about in ["r01n01", "52-54-00-01-01-01", "10.5.1.1"] {
            let explained: api::ExplainAnswer = client.get(&format!("/v1/explain/{about}")).unwrap();
            let decision = explained.decision.unwrap();
            assert_eq!(decision.node, node);
            assert!(decision.image_problem.unwrap().contains("names no image"));
            let timeline: api::TimelineAnswer = client.get(&format!("/v1/timeline/{about}")).unwrap();
            assert_eq!(timeline.events.len(), 2);
        }
        let shown: api::NodeAnswer = client.get("/v1/nodes/r01n01").unwrap();
        assert_eq!((shown.status.state, shown.boots.len()), (NodeState::Loading, 1));

        // Its loader did not progress. All answers about the node agree.
        context
            .recorder
            .record_overdue(Timestamp::now().plus_secs(3_600), |_| 30);
        let status: api::StatusAnswer = client.get(api::paths::STATUS).unwrap();
        assert_eq!(status.nodes[0].state, NodeState::Stalled);
        let groups: BTreeMap<String, Vec<String>> = client.get(api::paths::GROUPS).unwrap();
        assert_eq!(groups["state:stalled"], ["r01n01"]);
        let explained: api::ExplainAnswer = client.get("/v1/explain/r01n01").unwrap();
        let stalled = ": dhcp discover: has an address but fetched no loader";
        let tells = |warning: &String| warning.starts_with("the node is stalled for ") && warning.contains(stalled);
        assert!(explained.warnings.iter().any(tells), "{:?}", explained.warnings);

        // A node that is up would lose its root.
        let up = Event::new(Timestamp::now(), EventKind::Ready, Level::Ok, "up");
        context.recorder.record(Subject::Node("r01n01".into()), up);
        let mut delete = change(Change::Delete { name: "r01n01".into() });
        let refused = client.post::<api::ChangesAnswer>(api::paths::CHANGES, &delete);
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.starts_with("node r01n01 is ready and runs from its root"),
            "{refused}"
        );
        assert!(client.get::<api::NodeAnswer>("/v1/nodes/r01n01").is_ok());

        delete.running = true;
        let done: api::ChangesAnswer = client.post(api::paths::CHANGES, &delete).unwrap();
        assert_eq!(done.changed[0].before.as_ref(), Some(&node));
        let history: Vec<api::HistoryRow> = client.get("/v1/history/r01n01").unwrap();
        let author = rackstrap_control::author::own();
        assert_eq!((history.len(), history[1].by.as_str()), (2, author.as_str()));
        let unknown = client.get::<Vec<api::HistoryRow>>("/v1/history/r09n09");
        assert!(
            unknown
                .unwrap_err()
                .to_string()
                .contains("node r09n09 is not in the inventory")
        );
        let gone = client.get::<api::NodeAnswer>("/v1/nodes/r01n01").unwrap_err();
        assert!(matches!(gone, ClientError::Refused(_)), "{gone}");
        assert!(client.get::<Vec<api::NodeRow>>(api::paths::NODES).unwrap().is_empty());
    });
}

#[test]
fn actions_counters_and_leases_come_through() {
    with_daemon(|client, context| {
        let done: api::Done = client.post(api::paths::RESCAN, &()).unwrap();
        assert_eq!(done.message, "2 image versions");
        let refused = client
            .post::<api::Reloaded>(api::paths::RELOAD, &api::Reload::default())
            .unwrap_err();
        assert_eq!(refused.to_string(), "line 3: no");
        let counters: std::collections::BTreeMap<String, u64> = client.get(api::paths::COUNTERS).unwrap();
        assert_eq!(counters["dhcp offers"], 3);
        let lease = serde_json::json!({"ipaddr": "10.5.255.7", "hwaddr": "52:54:00:00:00:07", "state": "bound", "since": 1, "expires": 2});
        let put = rackstrap_store::Batch::new().put(rackstrap_store::Table::Leases, [10, 5, 255, 7], &lease);
        context.store.commit_blocking(put).unwrap();
        let leases: Vec<api::LeaseRow> = client.get(api::paths::LEASES).unwrap();
        assert_eq!(leases[0].ipaddr.to_string(), "10.5.255.7");
        let explained: api::ExplainAnswer = client.get("/v1/explain/10.5.255.7").unwrap();
        assert_eq!(explained.lease.unwrap().hwaddr.to_string(), "52:54:00:00:00:07");
        assert!(
            client
                .get::<Vec<api::LayoutRow>>(api::paths::LAYOUTS)
                .unwrap()
                .is_empty()
        );
        assert!(
            client
                .get::<Vec<api::ImageUse>>(api::paths::IMAGES_IN_USE)
                .unwrap()
                .is_empty()
        );
        let unknown = client.get::<api::Done>("/v1/dance").unwrap_err();
        assert!(unknown.to_string().contains("does not know /v1/dance"), "{unknown}");
        for hostile in ["../../etc/passwd", "a/b?c#d", "\u{1b}[2J", "%00", &"x".repeat(4000)] {
            let path = format!("{}{}", api::paths::NODE, segment(hostile));
            assert!(
                matches!(client.get::<api::NodeRow>(&path), Err(ClientError::Refused(_))),
                "{hostile}"
            );
        }
    });
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    // The state after a daemon was killed: a socket file without a listener.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = bind(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = bind(&path).await.err().unwrap();
    assert!(matches!(error, SocketError::InUse(_)), "{error}");
    assert!(path.exists());
    drop(socket);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let error = bind(&path).await.err().unwrap();
    assert!(matches!(error, SocketError::NoSocket(_)), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn without_a_daemon_the_error_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let error = Client::new(&path).unwrap().get::<api::Done>("/").unwrap_err();
    assert!(error.to_string().contains("systemctl start rackstrap"), "{error}");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = Client::new(&path).unwrap().get::<api::Done>("/").unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon(_)), "{error}");
}

#[test]
fn backups_are_made_one_at_a_time_and_a_reader_that_goes_away_ends_its_own() {
    use rackstrap_store::backup::Reader;
    use std::io::{BufReader, Read};
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let context = context(dir.path());
    // More than all buffers on the way can hold, and not compressible.
    let noise = hex::encode(Vec::from_iter((0..4_000_000).map(|_| rand::random::<u8>())));
    context
        .store
        .commit_blocking(rackstrap_store::Batch::new().put(rackstrap_store::Table::Events, *b"noise", &noise))
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cancel = CancellationToken::new();
    let bound = runtime.block_on(bind(&socket)).unwrap();
    let served = runtime.spawn(serve(bound, context, cancel.clone()));
    let client = Client::new(&socket).unwrap();
    let mut first = client.stream(api::paths::BACKUP).unwrap();
    first.read_exact(&mut [0; 100]).unwrap();
    let other = Client::new(&socket).unwrap();
    let why = other.stream(api::paths::BACKUP).err().unwrap();
    assert!(
        matches!(&why, ClientError::Refused(why) if why.contains("another backup is running")),
        "{why}"
    );
    // The server notices the end of the reader when the buffers are full.
    drop(first);
    drop(client);
    let again = (0..200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        other.stream(api::paths::BACKUP).ok()
    });
    let mut reader = Reader::new(BufReader::new(again.expect("its turn comes"))).unwrap();
    assert_eq!(reader.header().cluster, "lab");
    let mut rows = 0;
    while reader.next_row().unwrap().is_some() {
        rows += 1;
    }
    assert_eq!(rows, reader.header().total());
    drop(reader);
    cancel.cancel();
    runtime.block_on(served).unwrap().unwrap();
}

#[test]
fn status_and_explain_tell_of_nodes_that_the_site_file_has_left_behind() {
    with_daemon(|client, context| {
        let swap = |text: &str| {
            let site = Arc::new(testing::site(text));
            context.world.rcu(|world| World {
                site: site.clone(),
                ..World::clone(world)
            });
        };
        let warnings = || -> Vec<String> {
            let status: api::StatusAnswer = client.get(api::paths::STATUS).unwrap();
            status.warnings.into_iter().map(|warning| warning.message).collect()
        };
        let how = || {
            client
                .get::<api::ExplainAnswer>("/v1/explain/r01n02")
                .unwrap()
                .why
                .join("\n")
        };
        swap(&format!("{CLUSTER}\n[profile.gpu]\n"));
        let node = rackstrap_model::inventory::NewNode {
            name: "r01n02".into(),
            hwaddrs: vec!["52:54:00:01:01:02".parse().unwrap()],
            profiles: vec!["gpu".into()],
            ..Default::default()
        };
        let add = [rackstrap_model::inventory::Change::Add(node)];
        context.nodes.change(&add, "tests", Timestamp::now()).unwrap();
        assert_eq!(warnings(), Vec::<String>::new());
        assert!(how().contains("address 10.5.1.2 in subnet 10.5.0.0/16, by the name's position"));
        swap(&CLUSTER.replace("10.5.{rack}.{slot}", "10.5.{slot}.{rack}"));
        let told = warnings();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("profile 'gpu' of r01n02 is not in the site file"),
            "{told:?}"
        );
        assert!(told[1].starts_with("the addresses of r01n02 do not follow"), "{told:?}");
        let kept = "in subnet 10.5.0.0/16, kept from before: node-address gives 10.5.2.1 to this name";
        assert!(how().contains(kept), "{}", how());
    });
}
