use super::*;
use crate::Table;
use rackstrap_base::sync::{read, write};
use std::{
    path::Path,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU32, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

fn store(dir: &Path) -> Store {
    Store::open(&dir.join("store.redb")).unwrap()
}

/// The smallest possible registry: readers get the last published value, and a change edits a copy.
struct Kept<T> {
    keeper: Keeper,
    published: RwLock<Arc<T>>,
}

impl<T: Clone> Kept<T> {
    fn new(store: Store, value: T) -> Self {
        Kept {
            keeper: Keeper::new(store, ()),
            published: RwLock::new(Arc::new(value)),
        }
    }

    fn get(&self) -> Arc<T> {
        read(&self.published).clone()
    }

    fn change<A, E: From<StoreError>>(&self, mut draft: impl FnMut(&mut T) -> Result<(Batch, A), E>) -> Result<A, E> {
        let drafted = |_: &()| {
            let mut copy = T::clone(&self.get());
            let (batch, answer) = draft(&mut copy)?;
            Ok(((copy, answer), batch))
        };
        self.keeper.change(drafted, |(), (copy, answer)| {
            *write(&self.published) = Arc::new(copy);
            answer
        })
    }
}

#[test]
fn published_values_are_on_disk_and_unwritable_ones_are_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let kept = Kept::new(store.clone(), vec![1]);
    let push = |number: u32, batch: Batch| {
        kept.change::<_, StoreError>(|numbers| {
            numbers.push(number);
            Ok((batch.clone().put(Table::Meta, *b"numbers", numbers), numbers.len()))
        })
    };
    assert_eq!(push(2, Batch::new()).unwrap(), 2);
    assert_eq!(
        store.get::<Vec<u32>>(Table::Meta, b"numbers").unwrap().unwrap(),
        *kept.get()
    );
    // Another change was faster, each time.
    let error = push(3, Batch::new().expect_absent(Table::Meta, *b"numbers")).unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert_eq!(*kept.get(), [1, 2]);
    // The draft itself fails.
    let refused = kept.change::<(), StoreError>(|numbers| {
        numbers.clear();
        Err(StoreError::Closed)
    });
    assert!(refused.is_err());
    assert_eq!(*kept.get(), [1, 2]);
    assert_eq!(store.get::<Vec<u32>>(Table::Meta, b"numbers").unwrap().unwrap(), [1, 2]);
}

#[test]
fn a_draft_is_repeated_after_a_change_by_another_keeper() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let keeper = Keeper::new(store.clone(), 0);
    let drafts = AtomicU32::new(0);
    let done = keeper.change::<_, _, StoreError>(
        |_| {
            let known: Option<u32> = store.get(Table::Meta, b"count")?;
            if drafts.fetch_add(1, Ordering::Relaxed) == 0 {
                store.commit_blocking(Batch::new().put(Table::Meta, *b"count", &10))?;
            }
            let next = known.unwrap_or(0) + 1;
            let batch = Batch::new().expect_read(Table::Meta, *b"count", known.as_ref());
            Ok((next, batch.put(Table::Meta, *b"count", &next)))
        },
        |state, next| {
            *state = next;
            next
        },
    );
    assert_eq!((done.unwrap(), drafts.into_inner()), (11, 2));
    assert_eq!(keeper.while_unchanged(|state| *state), 11);
}

#[test]
fn readers_do_not_wait_for_a_change_that_waits_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept::new(store(dir.path()), 1);
    let ((drafting, drafted), (go, flushed)) = (channel(), channel::<()>());
    thread::scope(|scope| {
        let kept = &kept;
        let changing = scope.spawn(move || {
            // The test decides how long the disk takes.
            let commit = |_: &u32, _| {
                drafting.send(()).unwrap();
                flushed.recv().unwrap();
                Ok::<_, StoreError>(())
            };
            let publish = |_: &mut (), value| *write(&kept.published) = Arc::new(value);
            kept.keeper.change_by(|()| Ok((2, Batch::new())), commit, publish)
        });
        drafted.recv().unwrap();
        let (told, heard) = channel();
        scope.spawn(move || told.send(*kept.get()));
        assert_eq!(
            heard.recv_timeout(Duration::from_secs(20)),
            Ok(1),
            "the reader does not see the published value"
        );
        go.send(()).unwrap();
        changing.join().unwrap().unwrap();
    });
}
