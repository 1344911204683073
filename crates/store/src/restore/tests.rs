//! Tests of restoring: migration, refusals, rows that are kept, and leftovers.

use super::*;
use crate::{
    Batch,
    backup::{Header, Row, Writer},
};
use rackstrap_base::clock::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn backed_up(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    Store::back_up_file(path, "lab", Timestamp(1), &mut bytes).unwrap();
    bytes
}

fn staged(bytes: &[u8], target: &Path) -> Result<Staged, RestoreError> {
    Staged::write(&mut Reader::new(bytes)?, target, || {})
}

/// A store of release 0.1.0 with schema version 1, in which a node had one profile.
fn version_1(path: &Path) {
    let database = Database::open(path).unwrap();
    let node = |name: &str, profile: &str, last: u8| json!({"name": name, "hwaddrs": [format!("52:54:00:00:00:0{last}")], "ipaddr": format!("10.5.1.{last}"), "profile": profile});
    database
        .write(|tx| {
            tx.put(Table::Nodes, b"r01n01", &node("r01n01", "default", 1))?;
            tx.put(Table::Nodes, b"r01n02", &node("r01n02", "gpu", 2))?;
            tx.put(Table::Meta, migrate::KEY, &1)
        })
        .unwrap();
}

fn profiles(store: &Store) -> Vec<Vec<String>> {
    let nodes = store.scan::<Value>(Table::Nodes, b"").unwrap();
    let profiles = |(_, mut node): (_, Value)| match node["profiles"].take() {
        Value::Null => Vec::new(),
        some => serde_json::from_value(some).unwrap(),
    };
    nodes.into_iter().map(profiles).collect()
}

#[test]
fn an_older_store_is_migrated_when_it_is_opened_and_when_its_backup_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old.redb"), dir.path().join("new.redb"));
    version_1(&old);
    let bytes = backed_up(&old);
    assert_eq!(
        Reader::new(&bytes[..]).unwrap().header().schema,
        1,
        "the backup migrated the store"
    );
    assert_eq!(backed_up(&old), bytes);
    let want = [vec![], vec!["gpu".to_owned()]];
    assert_eq!(profiles(&Store::open(&old).unwrap()), want);
    let staged = staged(&bytes, &new).unwrap();
    assert_eq!(profiles(staged.store().unwrap()), want);
    assert_eq!(staged.put_in_place("x").unwrap(), None);
    let store = Store::open(&new).unwrap();
    assert_eq!(profiles(&store), want);
    assert_eq!(store.get::<u32>(Table::Meta, migrate::KEY).unwrap(), Some(SCHEMA));
}

#[test]
fn a_newer_store_is_not_backed_up_and_its_backup_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    let newer = SCHEMA + 1;
    store
        .commit_blocking(Batch::new().put(Table::Meta, migrate::KEY, &newer))
        .unwrap();
    drop(store);
    let error = Store::back_up_file(&path, "lab", Timestamp(1), Vec::new()).unwrap_err();
    assert!(matches!(error, BackupError::Store(StoreError::Newer { .. })), "{error}");
    // The header has an older schema version than the rows.
    let header = Header {
        schema: SCHEMA,
        cluster: "lab".into(),
        made: Timestamp(1),
        rackstrap: "9".into(),
        rows: BTreeMap::from([("meta".into(), 1)]),
    };
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    let newer = newer.to_string();
    let row = Row {
        table: Table::Meta,
        key: migrate::KEY,
        value: newer.as_bytes(),
    };
    writer.row(row).unwrap();
    let error = staged(&writer.finish().unwrap(), &dir.path().join("new.redb"))
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("another schema version than its header"),
        "{error}"
    );
    // An older backup can replace the newer store, but nothing is copied from it.
    let other = dir.path().join("other.redb");
    drop(Store::open(&other).unwrap());
    let staged = staged(&backed_up(&other), &path).unwrap();
    assert!(!staged.took_along());
    let kept = staged.put_in_place("then").unwrap().unwrap();
    assert_eq!(kept, dir.path().join("store.redb.before-restore-then"));
    assert!(Store::open(&path).is_ok());
    assert!(matches!(Store::open(&kept), Err(StoreError::Newer { .. })));
}

#[test]
fn the_present_state_of_machines_is_kept_if_it_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let put = |pairs: &[(Table, &str)]| {
        let store = Store::open(&path).unwrap();
        let put = |batch: Batch, (table, key): &(Table, &str)| batch.put(*table, key.as_bytes(), &json!(key));
        store.commit_blocking(pairs.iter().fold(Batch::new(), put)).unwrap();
    };
    let rules = |value: &str| {
        let store = Store::open(&path).unwrap();
        let batch = Batch::new().put(Table::Meta, ALIVE, &value);
        store
            .commit_blocking(batch.put(Table::Meta, DISK_RULES, &value))
            .unwrap();
    };
    let alive_of = |store: &Store| store.get::<String>(Table::Meta, ALIVE).unwrap();
    let rules_of = |store: &Store| store.get::<String>(Table::Meta, DISK_RULES).unwrap();
    rules("old");
    put(&[
        (Table::Leases, "old"),
        (Table::Boots, "old"),
        (Table::Disks, "old"),
        (Table::Restarts, "old"),
        (Table::Secrets, "old"),
    ]);
    let bytes = backed_up(&path);
    std::fs::remove_file(&path).unwrap();
    rules("now");
    put(&[
        (Table::Leases, "now"),
        (Table::Boots, "now"),
        (Table::Disks, "now"),
        (Table::Restarts, "now"),
        (Table::Secrets, "now"),
    ]);
    let keys = |store: &Store, table| -> Vec<String> {
        let rows = store.scan::<Value>(table, b"").unwrap();
        rows.into_iter()
            .map(|(key, _)| String::from_utf8(key).unwrap())
            .collect()
    };
    let good = staged(&bytes, &path).unwrap();
    assert!(good.took_along());
    let store = good.store().unwrap();
    assert_eq!(keys(store, Table::Leases), ["now"]);
    assert_eq!(keys(store, Table::Boots), ["now"]);
    assert_eq!(keys(store, Table::Disks), ["now"]);
    assert_eq!(keys(store, Table::Restarts), ["now"]);
    assert_eq!(rules_of(store).as_deref(), Some("now"));
    assert_eq!(alive_of(store).as_deref(), Some("now"));
    assert_eq!(keys(store, Table::Secrets), ["old"]);
    drop(good);
    for wreck in [&b"wrecked"[..], b"", &[0; 10_000]] {
        std::fs::write(&path, wreck).unwrap();
        let bad = staged(&bytes, &path).unwrap();
        assert!(!bad.took_along());
        assert_eq!(keys(bad.store().unwrap(), Table::Leases), ["old"]);
        assert_eq!(rules_of(bad.store().unwrap()).as_deref(), Some("old"));
        assert!(keys(bad.store().unwrap(), Table::Restarts).is_empty());
        assert_eq!(
            alive_of(bad.store().unwrap()),
            None,
            "the time at which the daemon stopped is unknown"
        );
        drop(bad);
        assert!(std::fs::read(&path).unwrap() == wreck, "dropping it changed the store");
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "a file is left behind"
    );
}

#[test]
fn a_store_in_use_is_neither_replaced_nor_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    let mut bytes = Vec::new();
    store.back_up("lab", Timestamp(1), &mut bytes).unwrap();
    let error = staged(&bytes, &path).err().unwrap();
    assert!(matches!(error, RestoreError::Running { .. }), "{error}");
    assert!(error.to_string().contains("systemctl stop rackstrap"), "{error}");
    drop(store);
    // During a restore, no daemon can open the old store.
    let half = staged(&bytes, &path).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Locked { .. })));
    drop(half);
    assert!(Store::open(&path).is_ok());
    // A store that appears meanwhile is not replaced.
    let fresh = dir.path().join("fresh.redb");
    let half = staged(&bytes, &fresh).unwrap();
    drop(Store::open(&fresh).unwrap());
    assert!(matches!(half.put_in_place("x"), Err(RestoreError::Appeared(_))));
    assert!(Store::open(&fresh).is_ok());
}

#[test]
fn a_cut_backup_leaves_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    version_1(&path);
    let bytes = backed_up(&path);
    for length in [bytes.len() - 1, bytes.len() - 60] {
        let error = staged(&bytes[..length], &path).err().unwrap();
        assert!(matches!(error, RestoreError::Backup(BackupError::Cut)), "{error}");
    }
    assert!(backed_up(&path) == bytes, "the content or the schema changed");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
