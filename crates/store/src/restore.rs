//! Makes a store from a backup: written next to the old one, verified, and then put in its place atomically.

#[cfg(test)]
mod tests;

use super::{
    ALIVE, DISK_RULES, SCHEMA, Store, StoreError, Table,
    backup::{BackupError, Reader},
    embedded::Database,
    locks, migrate,
};
use std::{
    fs::{self, File, TryLockError},
    io::{self, BufRead},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Tables with the present state of machines: they use these addresses and roots, which they would lose, and their disks hold what
/// their last boots wrote. They are copied from the store that is replaced, if it can be read.
const PRESENT: [Table; 5] = [
    Table::Leases,
    Table::Boots,
    Table::Disks,
    Table::Orders,
    Table::Restarts,
];

/// Rows of [`Table::Meta`] that are also copied: the confirmed rules for disks, and the time at which the daemon stopped.
const PRESENT_META: [&[u8]; 2] = [DISK_RULES, ALIVE];

/// A store that was made from a backup and is not yet in its place. It is removed when dropped.
pub struct Staged {
    target: PathBuf,
    fresh: PathBuf,
    store: Option<Store>,
    old: Old,
    taken_along: bool,
}

/// The store that is replaced. It stays locked, so that no daemon starts to use it.
enum Old {
    /// It does not exist.
    None,
    /// It can be read.
    Readable(Database),
    /// It is damaged or newer: only its locked file.
    Unreadable(#[expect(dead_code, reason = "holds the lock")] File),
}

/// Why a backup was not restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// A daemon is running.
    #[error(
        "store {}: a rackstrap daemon has it open{}; to stop it first: systemctl stop rackstrap", path.display(),
        holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Running {
        /// The file.
        path: PathBuf,
        /// Process that holds the lock, if the kernel tells.
        holder: Option<u32>,
    },
    /// The file is not a backup, or is damaged.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A daemon was started meanwhile.
    #[error("store {}: a daemon created it meanwhile; stop the daemon and restore again", .0.display())]
    Appeared(PathBuf),
    /// The file system failed.
    #[error("store {}: cannot {what}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operation.
        what: &'static str,
        /// The error of the system call.
        error: io::Error,
    },
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        RestoreError::Backup(BackupError::Store(error))
    }
}

fn io_failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |error| RestoreError::Io { path, what, error }
}

impl Staged {
    /// Makes a store from `backup` that can replace the one in file `target`, and migrates it to [`SCHEMA`]. `each` is called after each
    /// row. `target` is locked, but not changed.
    ///
    /// # Errors
    /// A daemon uses `target`; the backup is cut, altered or newer; errors of the file system.
    pub fn write(
        backup: &mut Reader<impl BufRead>,
        target: &Path,
        mut each: impl FnMut(),
    ) -> Result<Staged, RestoreError> {
        if let Some(dir) = target.parent() {
            fs::create_dir_all(dir).map_err(io_failed(target, "make its directory"))?;
        }
        let old = lock(target)?;
        let mut fresh = target.as_os_str().to_owned();
        fresh.push(format!(".restoring-{}", std::process::id()));
        let mut staged = Staged {
            target: target.to_owned(),
            fresh: fresh.into(),
            store: None,
            old,
            taken_along: false,
        };
        if staged.fresh.exists() {
            fs::remove_file(&staged.fresh)
                .map_err(io_failed(&staged.fresh, "remove the leftover of an earlier restore"))?;
        }
        let database = Database::open(&staged.fresh)?;
        database.write(|tx| {
            while let Some(row) = backup.next_row()? {
                tx.put_value(row.table, row.key, row.value)?;
                each();
            }
            let schema: Option<u32> = tx.get(Table::Meta, migrate::KEY)?;
            match schema == Some(backup.header().schema) {
                true => Ok(()),
                false => Err(BackupError::Damaged(
                    "its rows have another schema version than its header".into(),
                )),
            }
        })?;
        migrate::bring_up(&database, migrate::MIGRATIONS)?;
        staged.taken_along = staged.take_along(&database)?;
        if !staged.taken_along {
            // Restarts that were requested when the backup was made must not happen now.
            database.write(|tx| {
                for (key, _) in tx.scan::<serde::de::IgnoredAny>(Table::Restarts, b"")? {
                    tx.delete(Table::Restarts, &key)?;
                }
                // The backup contains its own time and not the time at which the daemon stopped, so it is unknown how long nodes waited.
                tx.delete(Table::Meta, ALIVE)?;
                Ok::<_, StoreError>(())
            })?;
        }
        // Close the file and open it again, as the daemon will do.
        drop(database);
        staged.store = Some(Store::open(&staged.fresh)?);
        Ok(staged)
    }

    /// The new store, to inspect or change it.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// True if leases, boots and disks are those of the store that is replaced, and not the backup's.
    pub fn took_along(&self) -> bool {
        self.taken_along
    }

    /// Puts the store in its place. The old one, if there was one, stays next to it as `NAME.before-restore-DATE`, which is returned. No
    /// clone of [`Staged::store`] may exist any longer.
    ///
    /// # Errors
    /// Errors of the file system, and [`RestoreError::Appeared`]. The old store is in its place then.
    pub fn put_in_place(mut self, date: &str) -> Result<Option<PathBuf>, RestoreError> {
        self.store = None;
        let target = &self.target;
        let mut kept = target.as_os_str().to_owned();
        kept.push(format!(".before-restore-{date}"));
        let kept = match self.old {
            Old::None => None,
            Old::Readable(_) | Old::Unreadable(_) => Some(PathBuf::from(kept)),
        };
        match &kept {
            Some(kept) => {
                // The old store gets a second name first. Without a store at any moment, a daemon would create an empty one.
                fs::hard_link(target, kept).map_err(io_failed(kept, "keep the old store under this name"))?;
                fs::rename(&self.fresh, target).map_err(io_failed(target, "put the restored one in its place"))?;
            }
            None => {
                fs::hard_link(&self.fresh, target).map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => RestoreError::Appeared(target.clone()),
                    _ => io_failed(target, "put the restored one in its place")(error),
                })?;
            }
        }
        let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty());
        let synced = File::open(dir.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
        synced.map_err(io_failed(target, "write its directory to the disk"))?;
        Ok(kept)
    }

    /// Copies the tables [`PRESENT`] from the old store, if they can be read to their end.
    fn take_along(&self, database: &Database) -> Result<bool, RestoreError> {
        let Old::Readable(old) = &self.old else {
            return Ok(false);
        };
        let (mut rows, mut meta) = (Vec::new(), Vec::new());
        let read = old.read(|snapshot| {
            for key in PRESENT_META {
                meta.push((key, snapshot.get::<serde_json::Value>(Table::Meta, key)?));
            }
            PRESENT.into_iter().try_for_each(|table| {
                snapshot.each_row(table, |key, value| {
                    rows.push((table, key.to_vec(), value.to_vec()));
                    Ok(())
                })
            })
        });
        if let Err::<(), StoreError>(error) = read {
            tracing::warn!("the old store's leases, boots and disks cannot be read: {error}");
            return Ok(false);
        }
        database.write(|tx| {
            for table in PRESENT {
                for (key, _) in tx.scan::<serde::de::IgnoredAny>(table, b"")? {
                    tx.delete(table, &key)?;
                }
            }
            for (key, value) in &meta {
                match value {
                    Some(value) => tx.put(Table::Meta, key, value)?,
                    None => tx.delete(Table::Meta, key)?,
                }
            }
            for (table, key, value) in &rows {
                tx.put_value(*table, key, value)?;
            }
            Ok::<_, StoreError>(())
        })?;
        Ok(true)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.store = None;
        // The file no longer exists if it was renamed.
        let _ = fs::remove_file(&self.fresh);
    }
}

/// Locks the store in file `target` like redb (flock(2)), whatever its state.
fn lock(target: &Path) -> Result<Old, RestoreError> {
    let running = |holder| RestoreError::Running {
        path: target.to_owned(),
        holder,
    };
    let file = match File::options().read(true).write(true).open(target) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Old::None),
        Err(error) => return Err(io_failed(target, "open it")(error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(running(locks::holder(target))),
        Err(TryLockError::Error(error)) => return Err(io_failed(target, "lock it")(error)),
    }
    // redb would make a store of an empty file.
    if file.metadata().map_err(io_failed(target, "look at it"))?.len() == 0 {
        return Ok(Old::Unreadable(file));
    }
    // The lock belongs to the open file. redb can take it after this.
    drop(file);
    let schema = |database: &Database| database.read(|tx| tx.get::<u32>(Table::Meta, migrate::KEY));
    match Database::open(target) {
        // A store of another release may have rows with another meaning.
        Ok(database) if matches!(schema(&database), Ok(Some(SCHEMA))) => Ok(Old::Readable(database)),
        Err(StoreError::Locked { holder, .. }) => Err(running(holder)),
        opened => {
            drop(opened);
            let file = File::open(target).map_err(io_failed(target, "open it"))?;
            match file.try_lock() {
                Ok(()) => Ok(Old::Unreadable(file)),
                Err(_) => Err(running(locks::holder(target))),
            }
        }
    }
}
