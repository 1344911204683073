//! A panic of the writer's thread.

use super::*;
use rackstrap_base::{clock::Timestamp, panics, warnings::SiteWarnings};
use std::thread;

fn put(number: u32) -> Batch {
    Batch::new().put(Table::Nodes, number.to_be_bytes(), &number)
}

#[test]
fn a_panic_of_the_writer_is_reported_and_confirmed_batches_are_on_disk() {
    let warnings = SiteWarnings::default();
    panics::tell(&warnings);
    let (dir, store) = open();
    store.commit_blocking(put(1)).unwrap();

    // Many callers wait at the same time, and one batch panics inside a transaction: no caller waits for ever, and every "written" is
    // true. Batches in the same transaction are not written either, and are counted.
    assert!(store.queue(Batch::new().put(Table::Events, *b"lazy", &1)));
    let written: Vec<u32> = thread::scope(|scope| {
        let commit = |number: u32| {
            let store = &store;
            scope.spawn(move || {
                let batch = put(number);
                let batch = if number == 30 { batch.panic() } else { batch };
                match store.commit_blocking(batch) {
                    Ok(()) => Some(number),
                    Err(error) => {
                        assert!(
                            error.to_string().contains("not written, because its writer panicked"),
                            "{error}"
                        );
                        None
                    }
                }
            })
        };
        let waiting: Vec<_> = (10..50).map(commit).collect();
        waiting.into_iter().filter_map(|one| one.join().unwrap()).collect()
    });
    assert!(written.iter().all(|number| *number != 30), "{written:?}");
    let told = warnings.list(Timestamp::now());
    let told: Vec<&str> = told.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(told, ["thread store panicked: a test wants it"]);

    // The daemon ends with that reason. Until then, no further batch is confirmed.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reason = runtime.block_on(store.ended()).unwrap_err().to_string();
    assert!(
        reason.starts_with("thread store panicked: a test wants it; this is a defect"),
        "{reason}"
    );
    let error = runtime.block_on(store.commit(put(3))).unwrap_err().to_string();
    assert!(error.contains("its writer panicked"), "{error}");
    assert!(!store.queue(put(4)));
    assert!(store.dropped() >= 1, "the queued batch");

    let numbers = |store: &Store| -> Vec<u32> {
        let rows = store.scan::<u32>(Table::Nodes, b"").unwrap();
        rows.into_iter().map(|(_, number)| number).collect()
    };
    let right = [&[1], written.as_slice()].concat();
    assert_eq!(numbers(&store), right);
    assert!(store.look().unwrap().is_sound());
    let path = dir.path().join("store.redb");
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(numbers(&store), right, "the file differs");
    assert!(store.look().unwrap().is_sound());
    store.commit_blocking(put(5)).unwrap();
}
