//! Tests of the store: as an ordered map, with batches, damage, a full disk, and `kill -9`.

mod damage;
mod panics;

use super::*;
use proptest::{prelude::*, strategy::ValueTree as _};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.redb")).unwrap();
    (dir, store)
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, u32),
    Delete(Vec<u8>),
    /// Expects another value than the stored one, so nothing of it may be written.
    Fail(Vec<u8>, u32),
    /// Expects the stored value.
    If(Vec<u8>, u32),
    Batch(Vec<(Vec<u8>, u32)>),
    Unless(Vec<u8>, u32),
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (key(), any::<u32>()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => key().prop_map(Step::Delete),
        1 => (key(), any::<u32>()).prop_map(|(k, v)| Step::Fail(k, v)),
        1 => (key(), any::<u32>()).prop_map(|(k, v)| Step::If(k, v)),
        2 => prop::collection::vec((key(), any::<u32>()), 0..4).prop_map(Step::Batch),
        1 => (key(), any::<u32>()).prop_map(|(k, v)| Step::Unless(k, v)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_behaves_like_an_ordered_map(steps in prop::collection::vec(step(), 1..24), prefix in key()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let mut store = Store::open(&path).unwrap();
        let mut model: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(k, v) => {
                    store.commit_blocking(Batch::new().put(Table::Nodes, k.clone(), &v)).unwrap();
                    model.insert(k, v);
                }
                Step::Delete(k) => {
                    store.commit_blocking(Batch::new().delete(Table::Nodes, k.clone())).unwrap();
                    model.remove(&k);
                }
                Step::Fail(k, v) => {
                    let other = model.get(&k).map_or(0, |known| known.wrapping_add(1));
                    let batch = Batch::new().put(Table::Nodes, k.clone(), &v).expect(Table::Nodes, k, &other);
                    let refused = matches!(store.commit_blocking(batch), Err(StoreError::Conflict { .. }));
                    prop_assert!(refused);
                }
                Step::If(k, v) => {
                    let known = model.get(&k).copied();
                    let batch = Batch::new().put(Table::Nodes, k.clone(), &v).expect_read(Table::Nodes, k.clone(), known.as_ref());
                    store.commit_blocking(batch).unwrap();
                    model.insert(k, v);
                }
                Step::Batch(pairs) => {
                    let batch = pairs.iter().fold(Batch::new(), |b, (k, v)| b.put(Table::Nodes, k.clone(), v));
                    store.commit_blocking(batch).unwrap();
                    model.extend(pairs);
                }
                Step::Unless(k, v) => {
                    // The write before the expectation must not happen either.
                    let batch = Batch::new().put(Table::Nodes, k.clone(), &v).expect_absent(Table::Nodes, k.clone());
                    let done = store.commit_blocking(batch);
                    prop_assert_eq!(done.is_ok(), !model.contains_key(&k));
                    model.entry(k).or_insert(v);
                }
                Step::Reopen => {
                    drop(store);
                    store = Store::open(&path).unwrap();
                }
            }
        }
        let all: BTreeMap<Vec<u8>, u32> = store.scan(Table::Nodes, b"").unwrap().into_iter().collect();
        prop_assert_eq!(&all, &model);
        let some: Vec<(Vec<u8>, u32)> = store.scan(Table::Nodes, &prefix).unwrap();
        let want: Vec<_> = model.into_iter().filter(|(k, _)| k.starts_with(&prefix)).collect();
        prop_assert_eq!(some, want);
        prop_assert!(store.scan::<u32>(Table::Leases, b"").unwrap().is_empty());
    }
}

#[test]
fn a_batch_is_written_in_order_and_a_snapshot_does_not_change() {
    let (_dir, store) = open();
    let batch = Batch::new().put(Table::Nodes, *b"a", &1).delete(Table::Nodes, *b"a");
    store.commit_blocking(batch.put(Table::Nodes, *b"b", &2)).unwrap();
    assert_eq!(store.scan::<u32>(Table::Nodes, b"").unwrap(), vec![(b"b".to_vec(), 2)]);
    store
        .read(|snapshot| {
            let writer = store.clone();
            let batch = Batch::new().put(Table::Nodes, *b"c", &3);
            std::thread::spawn(move || writer.commit_blocking(batch).unwrap())
                .join()
                .unwrap();
            assert_eq!(snapshot.get::<u32>(Table::Nodes, b"c")?, None);
            assert_eq!(snapshot.get::<u32>(Table::Nodes, b"b")?, Some(2));
            Ok::<_, StoreError>(())
        })
        .unwrap();
    assert_eq!(store.get::<u32>(Table::Nodes, b"c").unwrap(), Some(3));
}

#[test]
fn queued_batches_are_written_without_a_waiting_caller() {
    let (dir, store) = open();
    let mut watch = store.watch(Table::Events);
    for i in 0..100u32 {
        assert!(store.queue(Batch::new().put(Table::Events, i.to_be_bytes(), &i)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), watch.changed()).await })
        .expect("the queued batch was not written")
        .unwrap();
    store.flush().unwrap();
    assert_eq!(store.scan::<u32>(Table::Events, b"").unwrap().len(), 100);
    // Batches that are queued when the store is closed are written before.
    store.queue(Batch::new().put(Table::Events, *b"last", &7));
    drop(store);
    let store = Store::open(&dir.path().join("store.redb")).unwrap();
    assert_eq!(store.get::<u32>(Table::Events, b"last").unwrap(), Some(7));
    assert_eq!(store.dropped(), 0);
}

#[tokio::test]
async fn many_commits_at_once_share_flushes_and_conflicts_stay_apart() {
    let (_dir, store) = open();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..500u32 {
        let store = store.clone();
        tasks.spawn(async move {
            // Ten commits compete for each key.
            let key = (i % 50).to_be_bytes();
            let batch = Batch::new()
                .expect_absent(Table::Leases, key)
                .put(Table::Leases, key, &i);
            store.commit(batch).await
        });
    }
    let mut won = 0;
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Ok(()) => won += 1,
            Err(StoreError::Conflict { table, .. }) => assert_eq!(table, "leases"),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(won, 50);
    assert_eq!(store.scan::<u32>(Table::Leases, b"").unwrap().len(), 50);
    // The blocking form also works on a thread of an async runtime.
    store
        .commit_blocking(Batch::new().put(Table::Leases, *b"x", &1))
        .unwrap();
}

#[test]
fn a_conflict_writes_nothing_and_values_are_compared_instead_of_bytes() {
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Row {
        name: String,
        #[serde(default)]
        groups: Vec<String>,
    }
    let (_dir, store) = open();
    let row = |name: &str| Row {
        name: name.into(),
        groups: Vec::new(),
    };
    // A release without groups wrote this row.
    let older = serde_json::json!({"name": "a"});
    store
        .commit_blocking(Batch::new().put(Table::Nodes, *b"a", &older))
        .unwrap();
    let events = store.watch(Table::Events);
    let change = |expected: &Row| {
        let batch = Batch::new()
            .put(Table::Events, *b"first", &1)
            .put(Table::Nodes, *b"a", &row("b"));
        store.commit_blocking(batch.expect(Table::Nodes, *b"a", expected))
    };
    let error = change(&row("other")).unwrap_err();
    assert_eq!(error.to_string(), "store: nodes a was changed meanwhile");
    assert_eq!(store.get::<Row>(Table::Nodes, b"a").unwrap(), Some(row("a")));
    assert_eq!(store.get::<u32>(Table::Events, b"first").unwrap(), None);
    assert!(!events.has_changed().unwrap());
    change(&row("a")).unwrap();
    assert_eq!(store.get::<u32>(Table::Events, b"first").unwrap(), Some(1));
    assert!(matches!(
        change(&row("a")),
        Err(StoreError::Conflict { table: "nodes", .. })
    ));
    // A missing row, and a row of another type, count as another value.
    let absent = Batch::new().expect(Table::Nodes, *b"z", &row("z"));
    assert!(store.commit_blocking(absent).is_err());
    let other_kind = Batch::new().expect(Table::Events, *b"first", &row("a"));
    assert!(store.commit_blocking(other_kind).is_err());
}

#[test]
fn two_keepers_of_one_row_lose_no_change() {
    let (_dir, store) = open();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let store = store.clone();
            scope.spawn(move || {
                for _ in 0..25 {
                    loop {
                        let known: Option<u32> = store.get(Table::Meta, b"count").unwrap();
                        let next = known.unwrap_or(0) + 1;
                        let batch = Batch::new().expect_read(Table::Meta, *b"count", known.as_ref());
                        match store.commit_blocking(batch.put(Table::Meta, *b"count", &next)) {
                            Ok(()) => break,
                            Err(StoreError::Conflict { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(store.get::<u32>(Table::Meta, b"count").unwrap(), Some(100));
}

#[test]
fn only_watches_of_changed_tables_move() {
    let (_dir, store) = open();
    let (nodes, leases) = (store.watch(Table::Nodes), store.watch(Table::Leases));
    store
        .commit_blocking(Batch::new().put(Table::Nodes, *b"a", &1))
        .unwrap();
    assert!(nodes.has_changed().unwrap());
    assert!(!leases.has_changed().unwrap());
}

#[test]
fn keys_and_secrets_are_created_once() {
    let (dir, store) = open();
    let key = store.cluster_key("nfs-handle").unwrap();
    assert_eq!(store.cluster_key("nfs-handle").unwrap(), key);
    assert_ne!(store.cluster_key("other").unwrap(), key);
    assert_eq!(store.secret("r01n01", "ssh", || "made".to_owned()).unwrap(), "made");
    drop(store);
    let path = dir.path().join("store.redb");
    let mode = || std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode() & 0o777, 0o600, "other users can read the secrets");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(mode() & 0o777, 0o600, "the mode of a copied file was not corrected");
    assert_eq!(store.cluster_key("nfs-handle").unwrap(), key);
    let again = store.secret("r01n01", "ssh", || -> String { panic!("created twice") });
    assert_eq!(again.unwrap(), "made");
}

#[test]
fn a_locked_store_names_the_holder() {
    let (dir, _store) = open();
    let error = Store::open(&dir.path().join("store.redb")).err().unwrap();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("another rackstrap serve uses it"), "{error}");
    if let StoreError::Locked { holder: Some(pid), .. } = error {
        assert_eq!(pid, std::process::id());
    }
}

#[test]
fn a_newer_store_is_refused_and_an_older_one_is_migrated_at_once_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let database = Database::open(&path).unwrap();
    migrate::bring_up(&database, &[]).unwrap();
    database.write(|tx| tx.put(Table::Nodes, b"a", &1)).unwrap();
    let to_2: migrate::Migration = |tx| {
        let a: u32 = tx.get(Table::Nodes, b"a")?.unwrap_or_default();
        tx.put(Table::Nodes, b"a", &(a * 10))
    };
    let fails: migrate::Migration = |_| Err(StoreError::Closed);
    assert!(migrate::bring_up(&database, &[to_2, fails]).is_err());
    assert_eq!(database.read(|tx| tx.get::<u32>(Table::Nodes, b"a")).unwrap(), Some(1));
    migrate::bring_up(&database, &[to_2]).unwrap();
    migrate::bring_up(&database, &[to_2]).unwrap();
    assert_eq!(database.read(|tx| tx.get::<u32>(Table::Nodes, b"a")).unwrap(), Some(10));
    database
        .write(|tx| tx.put(Table::Meta, b"schema", &(SCHEMA + 7)))
        .unwrap();
    drop(database);
    let error = Store::open(&path).err().unwrap().to_string();
    assert!(error.contains(&format!("version {}", SCHEMA + 7)), "{error}");
    assert!(error.contains(&format!("up to {SCHEMA}")), "{error}");
}

#[test]
fn a_file_that_is_not_a_store_is_refused_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    for content in [&b"#!/bin/sh\n"[..], &[0u8; 8192], &[0xff; 100_000]] {
        std::fs::write(&path, content).unwrap();
        let error = Store::open(&path).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    let error = Store::open(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::Io { what: "open", .. }), "{error}");
}

#[test]
fn a_value_of_another_type_is_reported_with_its_key() {
    let (_dir, store) = open();
    store
        .commit_blocking(Batch::new().put(Table::Nodes, *b"r01n01", &"text"))
        .unwrap();
    let error = store.get::<u32>(Table::Nodes, b"r01n01").unwrap_err().to_string();
    assert!(error.starts_with("store: nodes r01n01: unreadable value"), "{error}");
}

/// The environment variable that makes a test a child process, with the path of its store.
const CHILD: &str = "RACKSTRAP_TEST_STORE_CHILD";

/// Runs the test `name` of this binary again as a child process with `path`.
fn child(name: &str, path: &Path, before: &[&str]) -> Child {
    let program = std::env::current_exe().unwrap();
    let mut words: Vec<&std::ffi::OsStr> = before.iter().map(|word| word.as_ref()).collect();
    words.push(program.as_os_str());
    Command::new(words[0])
        .args(&words[1..])
        .args(["--exact", &format!("tests::{name}"), "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Writes numbers as fast as possible, in all three ways, and prints each confirmed one.
fn write_until_killed(path: &Path) -> ! {
    let store = Store::open(path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let first = store.scan::<u64>(Table::Leases, b"").unwrap().len() as u64;
    for number in first.. {
        store.queue(Batch::new().put(Table::Events, number.to_be_bytes(), &number));
        let batch = Batch::new().put(Table::Leases, number.to_be_bytes(), &number).put(
            Table::Boots,
            number.to_be_bytes(),
            &number,
        );
        match number % 2 {
            0 => store.commit_blocking(batch).unwrap(),
            _ => runtime
                .block_on(store.commit(batch.expect_absent(Table::Leases, number.to_be_bytes())))
                .unwrap(),
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "kept {number}").unwrap();
        out.flush().unwrap();
    }
    unreachable!("the numbers never end")
}

#[test]
fn kill_9_loses_nothing_that_was_confirmed() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut kept = 0u64;
    for round in 0..12u64 {
        let mut child = child("kill_9_loses_nothing_that_was_confirmed", &path, &[]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The child is killed after some confirmations, at any moment of the next write.
        let until = 1 + round * 3;
        let mut promised = 0;
        while promised < until {
            let line = lines.next().expect("the child runs until it is killed").unwrap();
            if let Some(number) = line.strip_prefix("kept ") {
                kept = number.parse::<u64>().unwrap() + 1;
                promised += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("kept ") {
                kept = number.parse::<u64>().unwrap() + 1;
            }
        }
        let store = Store::open(&path).unwrap();
        let leases: Vec<u64> = store
            .scan(Table::Leases, b"")
            .unwrap()
            .into_iter()
            .map(|(_, v)| v)
            .collect();
        let boots: Vec<u64> = store
            .scan(Table::Boots, b"")
            .unwrap()
            .into_iter()
            .map(|(_, v)| v)
            .collect();
        assert_eq!(leases, boots, "a transaction is written in part");
        assert!(leases.iter().copied().eq(0..leases.len() as u64), "numbers are missing");
        assert!(
            leases.len() as u64 >= kept,
            "{} of {kept} confirmed ones exist",
            leases.len()
        );
    }
}

#[test]
fn a_full_disk_is_reported_and_survived() {
    if let Some(path) = std::env::var_os(CHILD) {
        return fill_the_disk(Path::new(&path));
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a small file system of its own needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The file system is in a mount namespace of its own, so it disappears with the process.
    let mount = "mount -t tmpfs -o size=4m none \"$RACKSTRAP_TEST_STORE_CHILD\" && exec \"$@\"";
    let before = ["unshare", "--mount", "sh", "-ec", mount, "sh"];
    let child = child("a_full_disk_is_reported_and_survived", dir.path(), &before);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("survived"), "{text}");
}

fn fill_the_disk(dir: &Path) {
    let store = Store::open(&dir.join("store.redb")).unwrap();
    let big = "x".repeat(64 << 10);
    let mut kept = 0u32;
    let error = loop {
        match store.commit_blocking(Batch::new().put(Table::Nodes, kept.to_be_bytes(), &big)) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 1_000, "4 MiB hold 64 MiB");
    };
    assert!(error.to_string().contains("cannot write it"), "{error}");
    let more = Batch::new().put(Table::Nodes, *b"more", &big);
    assert!(store.commit_blocking(more.clone()).is_err());
    let count = || store.scan::<String>(Table::Nodes, b"").unwrap().len();
    assert_eq!(count(), kept as usize, "confirmed rows exist and refused ones do not");
    // After space is freed, the store works without a restart.
    let options = rustix::mount::MountFlags::empty();
    rustix::mount::mount_remount(dir, options, c"size=64m").unwrap();
    store.commit_blocking(more).unwrap();
    store
        .commit_blocking(Batch::new().put(Table::Nodes, *b"and more", &big))
        .unwrap();
    assert_eq!(count(), kept as usize + 2);
    println!("survived");
}
