//! A writer's thread that panics.

use super::*;
use rackstrap_base::{clock::Timestamp, panics, warnings::SiteWarnings};
use std::thread;

fn put(number: u32) -> Batch {
    Batch::new().put(Table::Nodes, number.to_be_bytes(), &number)
}

#[test]
fn a_panic_of_the_writer_costs_its_batch_is_told_and_the_store_goes_on() {
    let warnings = SiteWarnings::default();
    panics::tell(&warnings);
    let (dir, store) = open();
    store.commit_blocking(put(1)).unwrap();

    // In the middle of a transaction: what shares it is not written either, and is counted.
    assert!(store.queue(Batch::new().put(Table::Events, *b"lazy", &1)));
    let error = store.commit_blocking(put(2).panic()).unwrap_err().to_string();
    assert!(error.contains("not written, because its writer panicked"), "{error}");
    let told = warnings.list(Timestamp::now());
    let told: Vec<&str> = told.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(told, ["thread store panicked: a test wants it"]);

    // Many who wait at once, one of whom breaks it again and again: nobody waits for ever, and who is told "written" is right.
    let written: Vec<u32> = thread::scope(|scope| {
        let commit = |number: u32| {
            let store = &store;
            scope.spawn(move || {
                let batch = put(number);
                let batch = if number.is_multiple_of(10) {
                    batch.panic()
                } else {
                    batch
                };
                store.commit_blocking(batch).is_ok().then_some(number)
            })
        };
        let waiting: Vec<_> = (10..50).map(commit).collect();
        waiting.into_iter().filter_map(|one| one.join().unwrap()).collect()
    });
    assert!(written.iter().all(|number| number % 10 != 0), "{written:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.commit(put(3))).unwrap();
    let error = runtime.block_on(store.commit(put(4).panic())).unwrap_err().to_string();
    assert!(error.contains("its writer panicked"), "{error}");
    store.commit_blocking(put(5)).unwrap();
    store
        .write(|tx| tx.put(Table::Nodes, &6u32.to_be_bytes(), &6u32))
        .unwrap();

    let numbers = |store: &Store| -> Vec<u32> {
        let rows = store.scan::<u32>(Table::Nodes, b"").unwrap();
        rows.into_iter().map(|(_, number)| number).collect()
    };
    let mut right = [&[1, 3, 5, 6], written.as_slice()].concat();
    right.sort_unstable();
    assert_eq!(numbers(&store), right);
    assert!(store.dropped() >= 1, "the batch that nobody waited for");
    assert!(store.look().unwrap().is_sound());
    let path = dir.path().join("store.redb");
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(numbers(&store), right, "also on disk");
    assert!(store.look().unwrap().is_sound());
}
