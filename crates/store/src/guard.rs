//! Catches panics of redb. Some damage inside a file makes it panic; that becomes an error.

use super::{StoreError, locks};
use std::{
    cell::{Cell, RefCell},
    io,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Once,
};

thread_local! {
    /// Whether this thread is inside [`guard`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    /// Message and place of the last panic inside it.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
    /// Number of panics that this thread has caught.
    static CAUGHT: Cell<u64> = const { Cell::new(0) };
}

/// Number of panics of the database that this thread has caught so far. If it grows, the database must be reopened, because its locks
/// are poisoned.
pub(super) fn panics() -> u64 {
    CAUGHT.get()
}

/// Runs a call of redb. A panic in it becomes [`StoreError::Damaged`].
pub(super) fn guard<T, E: Into<redb::Error>>(
    path: &Path,
    what: &'static str,
    call: impl FnOnce() -> Result<T, E>,
) -> Result<T, StoreError> {
    keep_quiet();
    let outer = GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    match result {
        Ok(result) => result.map_err(|error| storage_error(path, what, error.into())),
        Err(_) => {
            CAUGHT.set(CAUGHT.get() + 1);
            Err(StoreError::Damaged {
                path: path.to_owned(),
                error: format!("cannot {what} it: the database panicked{}", SAID.take()),
            })
        }
    }
}

/// Makes panics inside [`guard`] part of an error's text instead of lines on stderr. Other panics are reported as before.
fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                return previous(info);
            }
            let place = info.location().map_or(String::new(), |at| {
                let file = at.file().rsplit_once("/src/").map_or(at.file(), |(_, file)| file);
                format!(" at {file}:{}", at.line())
            });
            SAID.replace(place);
        }));
    });
}

fn storage_error(path: &Path, what: &'static str, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked {
            holder: locks::holder(&path),
            path,
        },
        // redb returns these for a file without its magic number, and for a file that ends too early.
        redb::Error::Io(e) if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            StoreError::Damaged {
                path,
                error: e.to_string(),
            }
        }
        redb::Error::Io(e) => StoreError::Io {
            path,
            what,
            error: e.to_string(),
        },
        redb::Error::Corrupted(error) => StoreError::Damaged { path, error },
        e @ (redb::Error::UpgradeRequired(_) | redb::Error::RepairAborted | redb::Error::TableTypeMismatch { .. }) => {
            StoreError::Damaged {
                path,
                error: e.to_string(),
            }
        }
        other => StoreError::Io {
            path,
            what,
            error: other.to_string(),
        },
    }
}
