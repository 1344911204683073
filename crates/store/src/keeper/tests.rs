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

/// A registry as small as it can be: readers get what was published last, changes are made of a copy.
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
fn what_is_published_is_on_disk_and_what_cannot_be_written_is_not_published() {
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
    // Somebody else was faster, each time.
    let error = push(3, Batch::new().expect_absent(Table::Meta, *b"numbers")).unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert_eq!(*kept.get(), [1, 2]);
    // The draft itself refuses.
    let refused = kept.change::<(), StoreError>(|numbers| {
        numbers.clear();
        Err(StoreError::Closed)
    });
    assert!(refused.is_err());
    assert_eq!(*kept.get(), [1, 2]);
    assert_eq!(store.get::<Vec<u32>>(Table::Meta, b"numbers").unwrap().unwrap(), [1, 2]);
}

#[test]
fn a_draft_is_made_again_of_what_somebody_else_wrote_meanwhile() {
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
fn readers_are_not_held_up_while_a_change_waits_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept::new(store(dir.path()), 1);
    let ((drafting, drafted), (go, flushed)) = (channel(), channel::<()>());
    thread::scope(|scope| {
        let kept = &kept;
        let changing = scope.spawn(move || {
            // The disk is as slow as the test wants.
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
            "what was published before"
        );
        go.send(()).unwrap();
        changing.join().unwrap().unwrap();
    });
}
