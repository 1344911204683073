//! Damaged files: flipped bits, lost or repeated pages, cut files.

use super::*;
use rackstrap_base::clock::Timestamp;
use std::{sync::mpsc, thread};

/// Size of redb's pages.
const PAGE: usize = 4096;

/// Tables with usual rows: some that the daemon needs, and some that it can run without.
const FILLED: [Table; 5] = [
    Table::Nodes,
    Table::Leases,
    Table::Secrets,
    Table::Events,
    Table::Standings,
];

fn value(table: Table, number: u32) -> String {
    format!("{} {number} {}", table.name(), "v".repeat(number as usize % 400))
}

fn fill(path: &Path) {
    let store = Store::open(path).unwrap();
    for table in FILLED {
        for number in 0..150u32 {
            store.queue(Batch::new().put(table, number.to_be_bytes(), &value(table, number)));
        }
    }
    store.cluster_key("nfs-handle").unwrap();
}

#[derive(Clone, Debug)]
enum Harm {
    Flip(prop::sample::Index, u8),
    Overwrite(prop::sample::Index, Vec<u8>),
    Zero(prop::sample::Index),
    /// The second page becomes a copy of the first one.
    Repeat(prop::sample::Index, prop::sample::Index),
    Cut(prop::sample::Index),
    /// A byte of the header changes.
    Header(usize, u8),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        6 => (at(), 0..8u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        2 => (at(), prop::collection::vec(any::<u8>(), 1..64)).prop_map(|(at, bytes)| Harm::Overwrite(at, bytes)),
        2 => at().prop_map(Harm::Zero),
        2 => (at(), at()).prop_map(|(from, to)| Harm::Repeat(from, to)),
        1 => at().prop_map(Harm::Cut),
        1 => (0..320usize, any::<u8>()).prop_map(|(at, byte)| Harm::Header(at, byte)),
    ]
}

/// The offsets of pages in use: damage in a free page proves nothing.
fn used(whole: &[u8]) -> Vec<usize> {
    let pages = whole.chunks(PAGE).enumerate();
    pages
        .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
        .map(|(number, _)| number * PAGE)
        .collect()
}

impl Harm {
    fn inflict(&self, whole: &[u8]) -> Vec<u8> {
        let mut file = whole.to_vec();
        let used = used(whole);
        let place = |at: &prop::sample::Index| {
            let flat = at.index(used.len() * PAGE);
            (used[flat / PAGE] + flat % PAGE).min(whole.len() - 1)
        };
        let page = |at: &prop::sample::Index| {
            let start = used[at.index(used.len())];
            start..(start + PAGE).min(whole.len())
        };
        match self {
            Harm::Flip(at, bit) => file[place(at)] ^= 1 << bit,
            Harm::Overwrite(at, bytes) => {
                let at = place(at);
                let end = (at + bytes.len()).min(file.len());
                file[at..end].copy_from_slice(&bytes[..end - at]);
            }
            Harm::Zero(at) => file[page(at)].fill(0),
            Harm::Repeat(from, to) => {
                let (from, to) = (page(from), page(to));
                let length = from.len().min(to.len());
                file[to.start..to.start + length].copy_from_slice(&whole[from.start..from.start + length]);
            }
            Harm::Cut(at) => file.truncate(at.index(whole.len())),
            Harm::Header(at, byte) => file[*at] = *byte,
        }
        file
    }
}

/// Uses the store like a daemon. It may see all rows that it needs, and of the rest no wrong one.
fn use_it(path: &Path) -> Result<(), StoreError> {
    let store = Store::open(path)?;
    for table in FILLED {
        let rows = store.scan::<String>(table, b"")?;
        for (key, read) in &rows {
            let number = u32::from_be_bytes(key.as_slice().try_into().unwrap());
            assert_eq!(*read, value(table, number), "a wrong value of {table:?}");
        }
        assert!(
            table.is_expendable() || rows.len() == 150,
            "{} rows of {table:?}",
            rows.len()
        );
        for number in (0..150u32).step_by(7) {
            let read = store.get::<String>(table, &number.to_be_bytes())?;
            let right = read.as_deref() == Some(&value(table, number)) || table.is_expendable() && read.is_none();
            assert!(right, "{table:?} {number}: {read:?}");
        }
    }
    let key = store.cluster_key("nfs-handle")?;
    store.look()?;
    store.set_aside_damaged(Timestamp(1))?;
    store.commit_blocking(Batch::new().put(Table::Nodes, 7u32.to_be_bytes(), &value(Table::Nodes, 7)))?;
    store.commit_blocking(Batch::new().put(Table::Events, *b"more", &"later"))?;
    let mut backup = Vec::new();
    // A backup can be restored, or it fails.
    if store.back_up("lab", Timestamp(1), &mut backup).is_ok() {
        let mut reader = backup::Reader::new(&backup[..]).unwrap();
        while reader.next_row().unwrap().is_some() {}
    }
    assert_eq!(store.cluster_key("nfs-handle")?, key);
    Ok(())
}

/// Prints the damage if the test fails or hangs.
fn within_a_minute<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, waits) = mpsc::channel();
    let thread = thread::spawn(move || {
        let result = run();
        let _ = done.send(());
        result
    });
    if waits.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
        // The thread holds the file for ever, so the process must end with the test.
        panic!("hangs with {what}");
    }
    match thread.join() {
        Ok(result) => result,
        Err(_) => panic!("failed with {what}, see above"),
    }
}

#[test]
fn a_damaged_store_is_refused_with_a_remedy_or_reads_correctly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    fill(&path);
    let whole = std::fs::read(&path).unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut refused, mut lived) = (0, 0);
    for round in 0..200 {
        let harm = harm().new_tree(&mut runner).unwrap().current();
        std::fs::write(&path, harm.inflict(&whole)).unwrap();
        let what = format!("damage {round}: {harm:?}");
        let file = path.clone();
        match within_a_minute(&what, move || use_it(&file)) {
            Ok(()) => lived += 1,
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                let helps = text.contains("rackstrap restore") || text.contains("a newer");
                assert!(helps || text.contains("restore the store"), "{what}: {text}");
            }
        }
    }
    assert!(refused > 20 && lived > 20, "{refused} refused, {lived} usable");
}

/// Flips a bit of `text` in the store's file.
fn flip_in(path: &Path, text: &str) {
    let mut file = std::fs::read(path).unwrap();
    let places: Vec<usize> = file
        .windows(text.len())
        .enumerate()
        .filter(|(_, window)| *window == text.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "{text:?} is not in the store");
    // Pages of earlier transactions may still contain it.
    for at in places {
        file[at + text.len() - 1] ^= 1;
    }
    std::fs::write(path, file).unwrap();
}

#[test]
fn an_unreadable_row_that_is_needed_is_named_in_the_refusal() {
    for (table, name) in [
        (Table::Nodes, "nodes"),
        (Table::Leases, "leases"),
        (Table::Secrets, "secrets"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let store = Store::open(&path).unwrap();
        store
            .commit_blocking(Batch::new().put(table, *b"r01n03", &"precious"))
            .unwrap();
        drop(store);
        flip_in(&path, "precious");
        let error = Store::open(&path).err().unwrap().to_string();
        assert!(
            error.contains(&format!("{name} r01n03: its checksum is wrong")),
            "{error}"
        );
        assert!(error.contains("rackstrap restore"), "{error}");
    }
}

#[test]
fn an_expendable_unreadable_row_is_skipped_reported_and_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    let event = |number: u8| format!("event number {number}");
    for number in 0..4 {
        store
            .commit_blocking(Batch::new().put(Table::Events, [b'n', number], &event(number)))
            .unwrap();
    }
    drop(store);
    flip_in(&path, &event(2));
    let store = Store::open(&path).unwrap();
    let read = |store: &Store| -> Vec<String> {
        let rows = store.scan(Table::Events, b"").unwrap();
        rows.into_iter().map(|(_, event)| event).collect()
    };
    assert_eq!(read(&store), [event(0), event(1), event(3)]);
    assert_eq!(store.get::<String>(Table::Events, &[b'n', 2]).unwrap(), None);
    let (rows, more) = store.skipped();
    assert_eq!(
        (rows.len(), more),
        (1, 0),
        "it is recorded once, however often it is found"
    );
    assert_eq!(
        (rows[0].table.as_str(), rows[0].reason.as_str()),
        ("events", "its checksum is wrong")
    );
    let found = store.look().unwrap();
    assert_eq!((found.expendable.len(), found.rows["events"]), (1, 3));
    assert!(found.needed.is_empty() && found.tables.is_empty() && !found.is_sound());

    assert_eq!(store.set_aside_damaged(Timestamp(7)).unwrap(), 1);
    assert_eq!(store.set_aside_damaged(Timestamp(8)).unwrap(), 0);
    assert!(store.look().unwrap().is_sound());
    let aside = store.rows_set_aside().unwrap();
    assert_eq!((aside.len(), aside[0].at), (1, Timestamp(7)));
    assert_eq!(aside[0].row, found.expendable[0]);
    assert_eq!(store.forget_rows_set_aside().unwrap(), 1);
    assert_eq!(read(&store), [event(0), event(1), event(3)]);
}

#[test]
fn a_backup_omits_expendable_unreadable_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    let batch = Batch::new().put(Table::Events, *b"n1", &"event one");
    store
        .commit_blocking(batch.put(Table::Events, *b"n2", &"event two"))
        .unwrap();
    drop(store);
    flip_in(&path, "event one");
    let mut file = Vec::new();
    let header = Store::back_up_file(&path, "lab", Timestamp(1), &mut file).unwrap();
    assert_eq!(header.count(Table::Events), 1);
    let mut reader = backup::Reader::new(&file[..]).unwrap();
    while reader.next_row().unwrap().is_some() {}
}

#[test]
fn checksums_are_added_before_rows_are_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    // Releases up to schema version 3 wrote it in this form.
    let raw = redb::Database::create(&path).unwrap();
    let tx = raw.begin_write().unwrap();
    {
        let definition = |name| redb::TableDefinition::<&[u8], &[u8]>::new(name);
        let mut meta = tx.open_table(definition("meta")).unwrap();
        meta.insert(&b"schema"[..], &b"1"[..]).unwrap();
        let mut nodes = tx.open_table(definition("nodes")).unwrap();
        nodes
            .insert(&b"r01n01"[..], &br#"{"name":"r01n01","profile":"gpu"}"#[..])
            .unwrap();
    }
    tx.commit().unwrap();
    drop(raw);
    // It can be backed up and verified before the migration.
    let mut backup = Vec::new();
    let header = Store::back_up_file(&path, "lab", Timestamp(1), &mut backup).unwrap();
    assert_eq!((header.schema, header.count(Table::Nodes)), (1, 1));
    let mut reader = backup::Reader::new(&backup[..]).unwrap();
    while reader.next_row().unwrap().is_some() {}
    assert!(Store::look_at_file(&path).unwrap().is_sound());
    let store = Store::open(&path).unwrap();
    assert!(store.look().unwrap().is_sound());
    let node: serde_json::Value = store.get(Table::Nodes, b"r01n01").unwrap().unwrap();
    assert_eq!(node["profiles"], serde_json::json!(["gpu"]));
    drop(store);
    // A release without checksums can read the version, and so refuses the store as newer.
    let raw = redb::Database::open(&path).unwrap();
    let tx = redb::ReadableDatabase::begin_read(&raw).unwrap();
    let meta = tx
        .open_table(redb::TableDefinition::<&[u8], &[u8]>::new("meta"))
        .unwrap();
    let schema = meta.get(&b"schema"[..]).unwrap().unwrap();
    assert_eq!(schema.value(), SCHEMA.to_string().as_bytes());
}
