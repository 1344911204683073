//! Clients that send invalid data, too much data, or nothing, and clients that read no reply.

use super::{
    Daemon, export, test_config, tree,
    wire::{Wire, call, record, words, words_after},
};
use rackstrap_nfs::{Config, NfsEvent};
use std::time::Duration;
use tokio::io::AsyncReadExt;

async fn still_serves(daemon: &Daemon) {
    let mut client = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    let root = client.mount().await;
    let reply = client.nfs(1, &words_after(&root, &[])).await;
    assert_eq!(reply[24..28], [0; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_streams_are_closed_and_others_stay_open() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let good = record(&call(1, 100_003, 3, 0, &[]));
    let streams: [(Vec<u8>, &str); 6] = [
        (words(&[0xffff_ffff]), "malformed_record"),
        (words(&[0x7fff_ffff]), "malformed_record"),
        (vec![0; 4 * 2000], "malformed_record"),
        (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n".to_vec(), "malformed_record"),
        (record(&words(&[1, 0, 2, 100_003])), "malformed_call"),
        (record(&[]), "malformed_call"),
    ];
    for (bytes, counter) in streams {
        let before = daemon.counted(counter);
        let mut wire = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
        wire.send(&good).await;
        assert!(wire.reply().await.is_some());
        wire.send(&bytes).await;
        assert_eq!(wire.reply().await, None, "{counter}");
        assert_eq!(daemon.counted(counter), before + 1);
        still_serves(&daemon).await;
    }
    let told = daemon
        .events()
        .into_iter()
        .filter(|e| matches!(e, NfsEvent::Trouble { .. }))
        .count();
    assert_eq!(told, 6);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cut_of_every_call_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut wire = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    let root = wire.mount().await;
    // Arguments that are long enough for every procedure, and lengths that are far too large.
    let full = [words_after(&root, &[4]), b"name".to_vec(), words(&[1; 30])].concat();
    for procedure in 1..22 {
        for cut in (0..full.len()).step_by(4) {
            let reply = wire.nfs(procedure, &full[..cut]).await;
            assert_eq!(reply[4..20], words(&[1, 0, 0, 0])[..], "accepted");
            let status = u32::from_be_bytes(reply[20..24].try_into().unwrap());
            assert!(
                status == 0 || status == 4,
                "procedure {procedure} cut at {cut}: {status}"
            );
        }
        let reply = wire.nfs(procedure, &words(&[u32::MAX, 1, 2, 3])).await;
        assert_eq!(reply[20..], words(&[4]), "GARBAGE_ARGS");
        let huge = [words_after(&root, &[u32::MAX]), vec![0; 64]].concat();
        wire.nfs(procedure, &huge).await;
    }
    assert_eq!(daemon.counted("system_error"), 0);
    still_serves(&daemon).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragmented_calls_and_many_calls_at_once_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut wire = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    let root = wire.mount().await;
    let getattr = |xid| call(xid, 100_003, 3, 1, &words_after(&root, &[]));
    // One byte a fragment.
    let whole = getattr(5);
    let mut bytes = Vec::new();
    for (i, byte) in whole.iter().enumerate() {
        let last = u32::from(i + 1 == whole.len()) << 31;
        bytes.extend(words(&[1 | last]));
        bytes.push(*byte);
    }
    wire.send(&bytes).await;
    assert_eq!(wire.reply().await.unwrap().len(), 28 + 84);
    // 5,000 calls at once: GETATTR inline and READDIR on other threads. Each gets a reply, in any order.
    let mut heap = Vec::new();
    for xid in 1000..6000 {
        let call = match xid % 50 {
            0 => call(xid, 100_003, 3, 16, &words_after(&root, &[0, 0, 0, 0, 4096])),
            _ => getattr(xid),
        };
        heap.extend(record(&call));
    }
    let (mut receive, mut send) = wire.stream.split();
    let sending = async {
        tokio::io::AsyncWriteExt::write_all(&mut send, &heap).await.unwrap();
    };
    let receiving = async {
        let mut xids = std::collections::BTreeSet::new();
        while xids.len() < 5000 {
            let mark = receive.read_u32().await.unwrap();
            let mut reply = vec![0; (mark & 0x7fff_ffff) as usize];
            receive.read_exact(&mut reply).await.unwrap();
            assert_eq!(reply[24..28], [0; 4]);
            assert!(
                xids.insert(u32::from_be_bytes(reply[..4].try_into().unwrap())),
                "answered twice"
            );
        }
        assert_eq!((xids.first(), xids.last()), (Some(&1000), Some(&5999)));
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(sending, receiving) })
        .await
        .expect("not all calls are answered");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_no_replies_delays_no_other_and_holds_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let config = Config {
        stall: Duration::from_secs(2),
        ..test_config()
    };
    let daemon = Daemon::start(export(dir.path()), config);
    let mut greedy = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    let root = greedy.mount().await;
    // The handle of a file with data, by two LOOKUPs.
    let mut handle = root;
    for name in [&b"srv"[..], b"data"] {
        let args = [words_after(&handle, &[]), words_after(name, &[])].concat();
        let reply = greedy.nfs(3, &args).await;
        let len = u32::from_be_bytes(reply[28..32].try_into().unwrap()) as usize;
        handle = reply[32..32 + len].to_vec();
    }
    // 2,000 READs of 1 MiB each, and no reply is read.
    let read = record(&call(7, 100_003, 3, 6, &words_after(&handle, &[0, 0, 1 << 20])));
    let before = daemon.counted("read_bytes");
    greedy.send(&read.repeat(2000)).await;
    still_serves(&daemon).await;
    // The connection is counted and closed, after some replies went into socket buffers.
    let closed = async {
        while daemon.counted("connections_stalled") == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            still_serves(&daemon).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), closed)
        .await
        .expect("never closed");
    let executed = (daemon.counted("read_bytes") - before) >> 20;
    assert!(executed < 100, "{executed} of 2,000 READs were executed");
    assert!(
        daemon
            .events()
            .iter()
            .any(|e| matches!(e, NfsEvent::Trouble { why, .. } if why.contains("read none")))
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_and_half_sent_connections_end() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let config = Config {
        stall: Duration::from_millis(300),
        idle: Duration::from_millis(900),
        ..test_config()
    };
    let daemon = Daemon::start(export(dir.path()), config);
    let mut half = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    half.send(&words(&[1 << 31 | 100, 1, 0, 2])).await;
    let mut quiet = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    let ended = tokio::time::timeout(Duration::from_secs(30), async {
        (half.reply().await, quiet.reply().await)
    });
    assert_eq!(ended.await.expect("still open"), (None, None));
    assert_eq!(
        (
            daemon.counted("connections_stalled"),
            daemon.counted("connections_idle")
        ),
        (1, 1)
    );
    still_serves(&daemon).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_cannot_take_all_connections() {
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let config = Config {
        connections_per_peer: 3,
        ..test_config()
    };
    let daemon = Daemon::start(export(dir.path()), config);
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut wire = Wire::connect(daemon.addr, [127, 0, 0, 2]).await;
        wire.nfs(0, &[]).await;
        held.push(wire);
    }
    // For the fourth, the one that was idle for longest was closed.
    assert_eq!(held[0].reply().await, None);
    assert_eq!(daemon.counted("connections_displaced"), 1);
    for wire in &mut held[1..] {
        wire.nfs(0, &[]).await;
    }
    still_serves(&daemon).await;
    daemon.stop().await;
}

/// 17,000 connections from addresses of no node: a node keeps its connection, and opens another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_addresses_take_no_connection_of_a_node() {
    const CONNECTIONS: u32 = 17_000;
    crate::netns::raise_descriptor_limit();
    let dir = tempfile::tempdir().unwrap();
    tree::make(dir.path());
    let daemon = Daemon::start(export(dir.path()), test_config());
    let mut node = Wire::connect(daemon.addr, [127, 0, 0, 1]).await;
    let root = node.mount().await;
    let mut others = Vec::new();
    for number in 0..CONNECTIONS {
        // 20 of each address.
        let [a, b] = ((number / 20) as u16).to_be_bytes();
        others.push(Wire::connect(daemon.addr, [127, 1, a, b]).await);
        if number % 1000 == 999 {
            still_serves(&daemon).await;
        }
    }
    node.nfs(1, &words_after(&root, &[])).await;
    still_serves(&daemon).await;
    // All but the 64 that unknown addresses may have were closed, without waiting for a timeout.
    let closed = async {
        while daemon.counted("connections_displaced") + daemon.counted("connections_refused")
            < u64::from(CONNECTIONS) - 64
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), closed)
        .await
        .expect("unknown addresses keep more connections than their limit");
    // A new connection of an unknown address is served.
    let mut late = Wire::connect(daemon.addr, [127, 2, 0, 1]).await;
    late.nfs(0, &[]).await;
    node.nfs(1, &words_after(&root, &[])).await;
    drop(others);
    daemon.stop().await;
}

#[test]
fn the_fuzzers_corpus_is_answered() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/nfs");
    let mut replies = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let stream = std::fs::read(entry.path()).unwrap();
        replies.insert(
            entry.file_name().into_string().unwrap(),
            crate::fuzz_corpus::nfs::replies(&stream),
        );
    }
    // The number of calls in the corpus that get a reply; the files that the fuzzer adds have other names.
    for (name, want) in [
        ("mount", 6),
        ("lookup", 8),
        ("read", 6),
        ("readdir", 6),
        ("modify", 13),
        ("credentials", 5),
        ("versions", 4),
        ("fragments", 1),
        ("long-record", 1),
        ("not-rpc", 0),
    ] {
        assert_eq!(replies.get(name), Some(&want), "{name}");
    }
}

/// Random bytes, alone and after a valid call's header.
#[test]
fn any_stream_is_answered_or_closed() {
    use proptest::prelude::*;
    proptest!(ProptestConfig::with_cases(2000), |(
        procedure in 0u32..24,
        program in prop::sample::select(vec![100_003u32, 100_005]),
        bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(8), any::<u8>()], 0..200),
        handle in prop::sample::select(vec![&b"ROOTROOT"[..], b"FILEFILE", b"LINKLINK", b"none"]),
    )| {
        crate::fuzz_corpus::nfs::replies(&bytes);
        let mut args = words_after(handle, &[]);
        args.extend(&bytes);
        let replies = crate::fuzz_corpus::nfs::replies(&record(&call(1, program, 3, procedure, &args)));
        prop_assert_eq!(replies, 1);
    });
}
