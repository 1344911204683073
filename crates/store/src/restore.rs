//! From a backup to a store: written beside the old one, looked at, and then put in its place at one stroke.

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

/// Tables about what is true now, whatever was true when the backup was made: machines hold these addresses and run from these
/// roots, which they would lose, and their disks hold what their last boots left. They are taken from the store that is replaced, if it
/// can be read.
const PRESENT: [Table; 4] = [Table::Leases, Table::Boots, Table::Disks, Table::Restarts];

/// The same of rows of [`Table::Meta`]: which rules for disks were confirmed, and when the daemon stopped.
const PRESENT_META: [&[u8]; 2] = [DISK_RULES, ALIVE];

/// A store that was made of a backup and is not yet in its place; removed when dropped.
pub struct Staged {
    target: PathBuf,
    fresh: PathBuf,
    store: Option<Store>,
    old: Old,
    taken_along: bool,
}

/// The store that is replaced. It stays locked, so that no daemon begins to work with it.
enum Old {
    /// There is none.
    None,
    /// It can be read.
    Good(Database),
    /// It is damaged, or newer: its file, locked.
    Bad(#[expect(dead_code, reason = "holds the lock")] File),
}

/// Why a backup was not restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// A daemon runs.
    #[error(
        "store {}: a rackstrap daemon has it open{}; to stop it first: systemctl stop rackstrap", path.display(),
        holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Running {
        /// The file.
        path: PathBuf,
        /// Process that holds the lock, where the kernel says.
        holder: Option<u32>,
    },
    /// The backup is none, or no good.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A daemon was started meanwhile.
    #[error("store {}: it was made meanwhile, by a daemon that was started; stop that one and begin again", .0.display())]
    Appeared(PathBuf),
    /// The file system said no.
    #[error("store {}: cannot {what}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the system said.
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
    /// Makes a store of `backup` that can take the place of the one in file `target`, and brings it up to [`SCHEMA`]; `each` is
    /// called after each row. Nothing is changed about `target` but that it is locked.
    ///
    /// # Errors
    /// A daemon works with `target`; the backup is cut, altered or newer; the file system's.
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
            fs::remove_file(&staged.fresh).map_err(io_failed(&staged.fresh, "remove what an earlier restore left"))?;
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
            // Restarts that somebody wanted when the backup was made are not to happen now.
            database.write(|tx| {
                for (key, _) in tx.scan::<serde::de::IgnoredAny>(Table::Restarts, b"")? {
                    tx.delete(Table::Restarts, &key)?;
                }
                // The backup says when it was made, and not when the daemon stopped: nobody knows for how long nodes waited.
                tx.delete(Table::Meta, ALIVE)?;
                Ok::<_, StoreError>(())
            })?;
        }
        // The file is closed and opened again: as the daemon will.
        drop(database);
        staged.store = Some(Store::open(&staged.fresh)?);
        Ok(staged)
    }

    /// The store as it will be; look at it, or change it.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// True if leases, boots and disks are kept of the store that is replaced, and not the backup's.
    pub fn took_along(&self) -> bool {
        self.taken_along
    }

    /// Puts it in its place. The old one, if there was one, stays beside it as `NAME.before-restore-DATE`, which is returned. Nobody
    /// may hold a clone of [`Staged::store`] any more.
    ///
    /// # Errors
    /// The file system's, and [`RestoreError::Appeared`]; the old store is in its place then.
    pub fn put_in_place(mut self, date: &str) -> Result<Option<PathBuf>, RestoreError> {
        self.store = None;
        let target = &self.target;
        let mut kept = target.as_os_str().to_owned();
        kept.push(format!(".before-restore-{date}"));
        let kept = match self.old {
            Old::None => None,
            Old::Good(_) | Old::Bad(_) => Some(PathBuf::from(kept)),
        };
        match &kept {
            Some(kept) => {
                // A second name first: at no moment there is no store, of which a daemon would make an empty one.
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

    /// Takes [`PRESENT`] from the old store, if that can be read to its end.
    fn take_along(&self, database: &Database) -> Result<bool, RestoreError> {
        let Old::Good(old) = &self.old else { return Ok(false) };
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
        // Gone already, if it was renamed.
        let _ = fs::remove_file(&self.fresh);
    }
}

/// Locks the store in file `target` as redb does (flock(2)), whatever state it is in.
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
    // An empty file would be made a store.
    if file.metadata().map_err(io_failed(target, "look at it"))?.len() == 0 {
        return Ok(Old::Bad(file));
    }
    // The lock is the open file's: redb gets it when it is given up here.
    drop(file);
    let schema = |database: &Database| database.read(|tx| tx.get::<u32>(Table::Meta, migrate::KEY));
    match Database::open(target) {
        // What another release wrote may mean something else.
        Ok(database) if matches!(schema(&database), Ok(Some(SCHEMA))) => Ok(Old::Good(database)),
        Err(StoreError::Locked { holder, .. }) => Err(running(holder)),
        opened => {
            drop(opened);
            let file = File::open(target).map_err(io_failed(target, "open it"))?;
            match file.try_lock() {
                Ok(()) => Ok(Old::Bad(file)),
                Err(_) => Err(running(locks::holder(target))),
            }
        }
    }
}
