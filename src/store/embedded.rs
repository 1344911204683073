//! The embedded database (redb): the one file that knows what lies below the store.

use super::{StoreError, Table, error::key_text, locks};
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

/// Memory for pages; the whole store of 4,000 nodes is smaller than this many bytes.
const CACHE_BYTES: usize = 64 << 20;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

type Opened<'tx> = redb::Table<'tx, &'static [u8], &'static [u8]>;

fn definition(table: Table) -> Definition {
    Definition::new(table.name())
}

/// The open file.
pub(super) struct Database {
    path: PathBuf,
    // `None` only after an I/O error whose reopening failed too: the next use tries again.
    open: RwLock<Option<redb::Database>>,
}

/// A snapshot to read from.
pub struct Read<'db> {
    path: &'db Path,
    tx: redb::ReadTransaction,
}

/// A transaction to write in: it reads its own writes.
pub struct Write<'tx> {
    path: &'tx Path,
    tx: &'tx redb::WriteTransaction,
    tables: [Option<Opened<'tx>>; Table::ALL.len()],
    changed: [bool; Table::ALL.len()],
    broken: bool,
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
        let database = Database {
            path: path.to_owned(),
            open: RwLock::new(Some(open(path)?)),
        };
        // All tables exist from the start, so that reading never has to ask.
        database.write(|tx| {
            for table in Table::ALL {
                tx.get_raw(table, b"")?;
            }
            Ok::<_, StoreError>(())
        })?;
        Ok(database)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read<T, E: From<StoreError>>(&self, f: impl FnOnce(&Read) -> Result<T, E>) -> Result<T, E> {
        self.reopen_if_broken()?;
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let database = open.as_ref().ok_or(StoreError::Closed)?;
        let tx = guard(&self.path, "read", || redb::ReadableDatabase::begin_read(database))?;
        f(&Read { path: &self.path, tx })
    }

    /// Runs `f` and commits, on disk; says which tables were written to.
    pub(super) fn write<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&mut Write) -> Result<T, E>,
    ) -> Result<(T, Vec<Table>), E> {
        self.reopen_if_broken()?;
        let result = self.write_once(f);
        if let Err((_, true)) = &result {
            // After a failed write (a full disk) redb refuses everything until it is opened anew.
            self.reopen();
        }
        result.map_err(|(error, _)| error)
    }

    /// The flag of an error says whether the database itself failed.
    fn write_once<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&mut Write) -> Result<T, E>,
    ) -> Result<(T, Vec<Table>), (E, bool)> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let database = open.as_ref().ok_or((StoreError::Closed.into(), false))?;
        let failed = |error: StoreError| (error.into(), true);
        let mut tx = guard(&self.path, "write", || database.begin_write()).map_err(failed)?;
        guard(&self.path, "write", || tx.set_durability(redb::Durability::Immediate)).map_err(failed)?;
        let mut write = Write {
            path: &self.path,
            tx: &tx,
            tables: Default::default(),
            changed: Default::default(),
            broken: false,
        };
        let result = f(&mut write);
        let (changed, mut broken) = (write.changed, write.broken);
        let closed = guard(&self.path, "write", || {
            drop(write);
            Ok::<_, redb::Error>(())
        });
        broken |= closed.is_err();
        match result {
            Ok(value) if !broken => {
                guard(&self.path, "write", || tx.commit()).map_err(failed)?;
                let tables = Table::ALL.into_iter().filter(|t| changed[*t as usize]).collect();
                Ok((value, tables))
            }
            result => {
                broken |= guard(&self.path, "write", || tx.abort()).is_err();
                let error = match result {
                    Err(error) => error,
                    // `f` swallowed an error of the database: what it wrote is incomplete.
                    Ok(_) => StoreError::NotWritten(format!("store {}: a write failed", self.path.display())).into(),
                };
                Err((error, broken))
            }
        }
    }

    fn reopen_if_broken(&self) -> Result<(), StoreError> {
        if self.open.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.try_reopen()?;
        }
        Ok(())
    }

    fn reopen(&self) {
        if let Err(error) = self.try_reopen() {
            tracing::error!("{error}; it will be tried again");
        }
    }

    fn try_reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // Closed before it is opened: its lock is on the file.
        let old = slot.take();
        guard(&self.path, "close", || {
            drop(old);
            Ok::<_, redb::Error>(())
        })?;
        *slot = Some(open(&self.path)?);
        Ok(())
    }
}

fn open(path: &Path) -> Result<redb::Database, StoreError> {
    let io = |error: io::Error| StoreError::Io {
        path: path.to_owned(),
        what: "open",
        error: error.to_string(),
    };
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(io)?;
    }
    // ssh host keys and tokens are in it: for nobody but root.
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    guard(path, "open", || builder.create_file(file))
}

/// Runs a call of redb, which panics on some kinds of damage in the middle of a file: that is an error like any other.
fn guard<T, E: Into<redb::Error>>(
    path: &Path,
    what: &'static str,
    call: impl FnOnce() -> Result<T, E>,
) -> Result<T, StoreError> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| storage_error(path, what, error.into())),
        Err(_) => Err(StoreError::Damaged {
            path: path.to_owned(),
            error: format!("an impossible content was met when trying to {what} it"),
        }),
    }
}

fn storage_error(path: &Path, what: &'static str, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked {
            holder: locks::holder(&path),
            path,
        },
        // What redb says of a file without its magic number, and of an end that comes too early.
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

fn decode<T: DeserializeOwned>(table: Table, key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Value {
        table: table.name(),
        key: key_text(key),
        error: error.to_string(),
    })
}

/// A key, and its value if that can be read.
type Entry<T> = (Vec<u8>, Result<T, StoreError>);

/// All entries of `table` whose key begins with `prefix`, from `start` on.
fn scan<T: DeserializeOwned>(
    opened: &impl ReadableTable<&'static [u8], &'static [u8]>,
    table: Table,
    prefix: &[u8],
    start: &[u8],
) -> Result<Vec<Entry<T>>, redb::StorageError> {
    let mut found = Vec::new();
    for entry in opened.range(start..)? {
        let (key, value) = entry?;
        if !key.value().starts_with(prefix) {
            break;
        }
        found.push((key.value().to_vec(), decode(table, key.value(), value.value())));
    }
    Ok(found)
}

impl Read<'_> {
    /// The value of `key`.
    pub fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
        let opened = self.table(table)?;
        let found = guard(self.path, "read", || {
            let found = opened.get(key)?;
            Ok::<_, redb::StorageError>(found.map(|value| decode(table, key, value.value())))
        })?;
        found.transpose()
    }

    /// All keys that begin with `prefix` and their values, in the keys' order.
    pub fn scan<T: DeserializeOwned>(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        self.scan_from(table, prefix, prefix)
    }

    /// The same from the key `start` on.
    pub fn scan_from<T: DeserializeOwned>(
        &self,
        table: Table,
        prefix: &[u8],
        start: &[u8],
    ) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        let opened = self.table(table)?;
        let found = guard(self.path, "read", || scan(&opened, table, prefix, start))?;
        found.into_iter().map(|(key, value)| Ok((key, value?))).collect()
    }

    /// The first key that is not before `start`.
    pub fn next_key(&self, table: Table, start: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let opened = self.table(table)?;
        guard(self.path, "read", || {
            let next = opened.range(start..)?.next().transpose()?;
            Ok::<_, redb::StorageError>(next.map(|(key, _)| key.value().to_vec()))
        })
    }

    /// Number of rows of `table`.
    pub(super) fn count(&self, table: Table) -> Result<u64, StoreError> {
        let opened = self.table(table)?;
        guard(self.path, "read", || opened.len())
    }

    /// Hands every row of `table` to `each`, key and value as they are stored, until one fails.
    pub(super) fn each_raw<E: From<StoreError>>(
        &self,
        table: Table,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let opened = self.table(table)?;
        let mut rows = guard(self.path, "read", || opened.iter())?;
        while let Some(row) = guard(self.path, "read", || rows.next().transpose())? {
            each(row.0.value(), row.1.value())?;
        }
        Ok(())
    }

    fn table(&self, table: Table) -> Result<redb::ReadOnlyTable<&'static [u8], &'static [u8]>, StoreError> {
        guard(self.path, "read", || self.tx.open_table(definition(table)))
    }
}

impl<'tx> Write<'tx> {
    /// The value of `key`.
    pub fn get<T: DeserializeOwned>(&mut self, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
        let found = self.get_raw(table, key)?;
        found.map(|value| decode(table, key, &value)).transpose()
    }

    /// All keys that begin with `prefix` and their values, in the keys' order.
    pub fn scan<T: DeserializeOwned>(&mut self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        let found = self.on(table, "read", |opened| scan(opened, table, prefix, prefix))?;
        found.into_iter().map(|(key, value)| Ok((key, value?))).collect()
    }

    /// Sets `key` to `value`.
    pub fn put<T: Serialize>(&mut self, table: Table, key: &[u8], value: &T) -> Result<(), StoreError> {
        let value = serde_json::to_vec(value).map_err(|error| StoreError::Value {
            table: table.name(),
            key: key_text(key),
            error: error.to_string(),
        })?;
        self.put_raw(table, key, &value)
    }

    /// Removes `key`, if it is there.
    pub fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        let removed = self.on(table, "write", |opened| Ok(opened.remove(key)?.is_some()))?;
        self.changed[table as usize] |= removed;
        Ok(())
    }

    pub(super) fn get_raw(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.on(table, "read", |opened| {
            Ok(opened.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    pub(super) fn put_raw(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.on(table, "write", |opened| opened.insert(key, value).map(drop))?;
        self.changed[table as usize] = true;
        Ok(())
    }

    /// Runs a call on the table, which is opened once a transaction.
    fn on<T>(
        &mut self,
        table: Table,
        what: &'static str,
        call: impl FnOnce(&mut Opened<'tx>) -> Result<T, redb::StorageError>,
    ) -> Result<T, StoreError> {
        let (tx, slot) = (self.tx, &mut self.tables[table as usize]);
        let result = guard(self.path, what, || {
            let opened = match slot {
                Some(opened) => opened,
                None => slot.insert(tx.open_table(definition(table))?),
            };
            call(opened).map_err(redb::Error::from)
        });
        self.broken |= result.is_err();
        result
    }
}
