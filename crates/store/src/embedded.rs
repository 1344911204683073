//! The embedded database (redb). Only this file knows which database is below the store.

use super::{
    StoreError, Table,
    damage::Damage,
    error::key_text,
    guard::{guard, panics},
    migrate,
    row::{self, Sound, decode, unseal, usable},
};
use rackstrap_base::sync;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Memory for pages; the whole store of 4,000 nodes is smaller.
const CACHE_BYTES: usize = 64 << 20;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

type Opened<'tx> = redb::Table<'tx, &'static [u8], &'static [u8]>;

fn definition(table: Table) -> Definition {
    Definition::new(table.name())
}

/// The open file.
pub(super) struct Database {
    path: PathBuf,
    // This is none only after an error whose reopening failed too; the next use tries again.
    open: RwLock<Option<redb::Database>>,
    /// Unreadable rows that were found.
    pub(super) damage: Damage,
    /// Whether rows without a checksum are accepted: in a store from before checksums, until it is migrated.
    bare: AtomicBool,
}

/// A snapshot for reading.
pub struct Read<'db> {
    path: &'db Path,
    damage: &'db Damage,
    bare: bool,
    tx: redb::ReadTransaction,
}

/// The transaction of the writer, of a migration or of a restore. It reads its own writes. It is private to this crate.
pub(super) struct Transaction<'tx> {
    path: &'tx Path,
    damage: &'tx Damage,
    bare: bool,
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
            damage: Damage::default(),
            bare: AtomicBool::new(false),
        };
        // All tables are created at the start, so that reading never has to check for them.
        database.write(|tx| {
            for table in Table::ALL {
                tx.is_there(table, b"")?;
            }
            Ok::<_, StoreError>(())
        })?;
        let schema = database.read(|tx| tx.get::<u32>(Table::Meta, migrate::KEY));
        // The code that needs the version reports its faults.
        database.read_bare(schema.is_ok_and(migrate::is_bare));
        Ok(database)
    }

    /// Sets whether rows without a checksum are accepted.
    pub(super) fn read_bare(&self, bare: bool) {
        self.bare.store(bare, Relaxed);
    }

    /// Opens an existing store.
    pub(super) fn open_existing(path: &Path) -> Result<Database, StoreError> {
        match path.metadata() {
            Ok(_) => Database::open(path),
            Err(error) => Err(StoreError::Io {
                path: path.to_owned(),
                what: "open",
                error: error.to_string(),
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read<T, E: From<StoreError>>(&self, f: impl FnOnce(&Read) -> Result<T, E>) -> Result<T, E> {
        self.reopen_if_broken()?;
        let (result, sound) = self.read_once(f)?;
        if !sound {
            // A panic inside redb leaves its locks poisoned, so later calls would panic too.
            self.reopen();
        }
        result
    }

    /// The flag tells whether the database can still be used.
    fn read_once<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&Read) -> Result<T, E>,
    ) -> Result<(Result<T, E>, bool), StoreError> {
        let before = panics();
        let open = sync::read(&self.open);
        let database = open.as_ref().ok_or(StoreError::Closed)?;
        let tx = match guard(&self.path, "read", || redb::ReadableDatabase::begin_read(database)) {
            Ok(tx) => tx,
            Err(error) => return Ok((Err(error.into()), panics() == before)),
        };
        let read = Read {
            path: &self.path,
            damage: &self.damage,
            bare: self.bare.load(Relaxed),
            tx,
        };
        let result = f(&read);
        let closed = guard(&self.path, "read", || {
            drop(read);
            Ok::<_, redb::Error>(())
        });
        Ok((result, closed.is_ok() && panics() == before))
    }

    /// Runs `f`, commits to disk, and returns the tables that were written.
    pub(super) fn write<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<(T, Vec<Table>), E> {
        self.reopen_if_broken()?;
        let result = self.write_once(f);
        if let Err((_, true)) = &result {
            // After a failed write (a full disk) redb refuses everything until it is reopened.
            self.reopen();
        }
        result.map_err(|(error, _)| error)
    }

    /// The flag of an error tells whether the database itself failed.
    fn write_once<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<(T, Vec<Table>), (E, bool)> {
        let open = sync::read(&self.open);
        let database = open.as_ref().ok_or((StoreError::Closed.into(), false))?;
        let failed = |error: StoreError| (error.into(), true);
        let mut tx = guard(&self.path, "write", || database.begin_write()).map_err(failed)?;
        guard(&self.path, "write", || tx.set_durability(redb::Durability::Immediate)).map_err(failed)?;
        let mut write = Transaction {
            path: &self.path,
            damage: &self.damage,
            bare: self.bare.load(Relaxed),
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
                    // `f` has ignored an error of the database, so its writes are incomplete.
                    Ok(_) => StoreError::NotWritten(format!("store {}: a write failed", self.path.display())).into(),
                };
                Err((error, broken))
            }
        }
    }

    fn reopen_if_broken(&self) -> Result<(), StoreError> {
        if sync::read(&self.open).is_none() {
            self.try_reopen()?;
        }
        Ok(())
    }

    fn reopen(&self) {
        if let Err(error) = self.try_reopen() {
            tracing::error!("{error}; the next access tries again");
        }
    }

    fn try_reopen(&self) -> Result<(), StoreError> {
        let mut slot = sync::write(&self.open);
        // Close it before opening it again, because the open one holds the lock of the file.
        let old = slot.take();
        guard(&self.path, "close", || {
            drop(old);
            Ok::<_, redb::Error>(())
        })?;
        *slot = Some(open(&self.path)?);
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // Confirmed batches are on disk already.
        if let Err(error) = guard(&self.path, "close", || {
            drop(open);
            Ok::<_, redb::Error>(())
        }) {
            tracing::warn!("{error}");
        }
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
    // The file contains ssh host keys and tokens, so only root may read it.
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    // An administrator may have copied the file here with another mode. Then other users could read it, and block the daemon by a lock.
    if file.metadata().map_err(io)?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(io)?;
    }
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    guard(path, "open", || builder.create_file(file))
}

/// A key, with its value or the reason why that cannot be read.
type Entry<T> = (Vec<u8>, Result<T, StoreError>);

/// All entries of `table` from key `start` on whose key begins with `prefix`.
fn scan<T: DeserializeOwned>(
    opened: &impl ReadableTable<&'static [u8], &'static [u8]>,
    bare: bool,
    table: Table,
    prefix: &[u8],
    start: &[u8],
) -> Result<Vec<Entry<T>>, redb::StorageError> {
    let mut found = Vec::new();
    let mut order = Order::new(opened.len()?);
    for entry in opened.range(start..)? {
        let (key, value) = entry?;
        if !key.value().starts_with(prefix) {
            break;
        }
        let value = decode(bare, table, key.value(), value.value());
        order.next(key.value(), value.is_ok())?;
        found.push((key.value().to_vec(), value));
    }
    Ok(found)
}

/// Detects a damaged index: rows in another order than that of their keys, or without an end.
struct Order {
    /// Key of the last readable row.
    last: Option<Vec<u8>>,
    /// Number of rows that may still come.
    rest: u64,
}

impl Order {
    fn new(rows: u64) -> Self {
        Order { last: None, rest: rows }
    }

    fn next(&mut self, key: &[u8], sound: bool) -> Result<(), redb::StorageError> {
        let corrupted = |what: &str| Err(redb::StorageError::Corrupted(what.to_owned()));
        match self.rest.checked_sub(1) {
            Some(rest) => self.rest = rest,
            None => return corrupted("its index leads to more rows than there are"),
        }
        // The key of an unreadable row may itself be damaged, so it is not compared.
        if sound {
            if self.last.as_deref().is_some_and(|last| last >= key) {
                return corrupted("its index leads to rows in a wrong order");
            }
            self.last = Some(key.to_vec());
        }
        Ok(())
    }
}

fn all_usable<T>(damage: &Damage, table: Table, found: Vec<Entry<T>>) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
    let usable = found.into_iter().filter_map(|(key, value)| {
        let value = usable(damage, table, &key, value).transpose()?;
        Some(value.map(|value| (key, value)))
    });
    usable.collect()
}

impl Read<'_> {
    /// The value of `key`. None also for an unreadable row of an expendable table.
    pub fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
        let opened = self.table(table)?;
        let found = guard(self.path, "read", || {
            let found = opened.get(key)?;
            Ok::<_, redb::StorageError>(found.map(|value| decode(self.bare, table, key, value.value())))
        })?;
        match found {
            Some(value) => usable(self.damage, table, key, value),
            None => Ok(None),
        }
    }

    /// All entries whose key begins with `prefix`, in the order of keys. Unreadable rows of an expendable table are skipped.
    pub fn scan<T: DeserializeOwned>(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        self.scan_from(table, prefix, prefix)
    }

    /// Like [`Read::scan`], from the key `start` on.
    pub fn scan_from<T: DeserializeOwned>(
        &self,
        table: Table,
        prefix: &[u8],
        start: &[u8],
    ) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        let opened = self.table(table)?;
        let found = guard(self.path, "read", || scan(&opened, self.bare, table, prefix, start))?;
        all_usable(self.damage, table, found)
    }

    /// The first key that is not before `start`.
    pub fn next_key(&self, table: Table, start: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let opened = self.table(table)?;
        guard(self.path, "read", || {
            let next = opened.range(start..)?.next().transpose()?;
            match next.map(|(key, _)| key.value().to_vec()) {
                Some(key) if key.as_slice() < start => Err(redb::StorageError::Corrupted(
                    "its index leads to rows in a wrong order".to_owned(),
                )),
                key => Ok(key),
            }
        })
    }

    /// Number of rows of `table`, including unreadable ones.
    pub(super) fn count_stored(&self, table: Table) -> Result<u64, StoreError> {
        let opened = self.table(table)?;
        guard(self.path, "read", || opened.len())
    }

    /// Number of rows that [`Read::each_row`] visits. Rows of an expendable table are read for this, because some may be skipped.
    pub(super) fn count(&self, table: Table) -> Result<u64, StoreError> {
        if !table.is_expendable() {
            return self.count_stored(table);
        }
        let mut rows = 0;
        self.each_row(table, |_, _| {
            rows += 1;
            Ok::<_, StoreError>(())
        })?;
        Ok(rows)
    }

    /// Calls `each` for the key and value of every row of `table`, until it fails. Unreadable rows of an expendable table are skipped; in
    /// another table they are an error.
    pub(super) fn each_row<E: From<StoreError>>(
        &self,
        table: Table,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.each_checked(table, |key, row| match row {
            Sound::Value(value) => each(key, value),
            Sound::Unreadable(reason) => {
                let error = StoreError::Value {
                    table: table.name(),
                    key: key_text(key),
                    error: reason.to_owned(),
                };
                usable(self.damage, table, key, Err::<(), _>(error))?;
                Ok(())
            }
        })
    }

    /// The stored bytes of `key`, whether they can be read or not.
    pub(super) fn stored(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let opened = self.table(table)?;
        guard(self.path, "read", || {
            let found = opened.get(key)?;
            Ok::<_, redb::StorageError>(found.map(|value| value.value().to_vec()))
        })
    }

    /// Calls `each` for every row of `table`, readable or not, until it fails.
    pub(super) fn each_checked<E: From<StoreError>>(
        &self,
        table: Table,
        mut each: impl FnMut(&[u8], Sound<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let opened = self.table(table)?;
        let (mut rows, mut order) = guard(self.path, "read", || {
            Ok::<_, redb::StorageError>((opened.iter()?, Order::new(opened.len()?)))
        })?;
        let mut next = || {
            guard(self.path, "read", || {
                let Some(row) = rows.next().transpose()? else {
                    return Ok(None);
                };
                let (key, stored) = (row.0.value().to_vec(), row.1.value().to_vec());
                let sound = matches!(unseal(self.bare, table, &key, &stored), Sound::Value(_));
                order.next(&key, sound)?;
                Ok::<_, redb::StorageError>(Some((key, stored)))
            })
        };
        while let Some((key, stored)) = next()? {
            each(&key, unseal(self.bare, table, &key, &stored))?;
        }
        match order.rest {
            0 => Ok(()),
            missing => Err(StoreError::Damaged {
                path: self.path.to_owned(),
                error: format!("table {}: its index misses {missing} of its rows", table.name()),
            }
            .into()),
        }
    }

    fn table(&self, table: Table) -> Result<redb::ReadOnlyTable<&'static [u8], &'static [u8]>, StoreError> {
        guard(self.path, "read", || self.tx.open_table(definition(table)))
    }
}

impl<'tx> Transaction<'tx> {
    /// The value of `key`. None also for an unreadable row of an expendable table.
    pub(super) fn get<T: DeserializeOwned>(&mut self, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
        match self.stored(table, key)? {
            Some(stored) => usable(self.damage, table, key, decode(self.bare, table, key, &stored)),
            None => Ok(None),
        }
    }

    /// All entries whose key begins with `prefix`, in the order of keys. Unreadable rows of an expendable table are skipped.
    pub(super) fn scan<T: DeserializeOwned>(
        &mut self,
        table: Table,
        prefix: &[u8],
    ) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        let bare = self.bare;
        let found = self.on(table, "read", |opened| scan(opened, bare, table, prefix, prefix))?;
        all_usable(self.damage, table, found)
    }

    /// Sets `key` to `value`.
    pub(super) fn put<T: Serialize>(&mut self, table: Table, key: &[u8], value: &T) -> Result<(), StoreError> {
        let value = serde_json::to_vec(value).map_err(|error| StoreError::Value {
            table: table.name(),
            key: key_text(key),
            error: error.to_string(),
        })?;
        self.put_value(table, key, &value)
    }

    /// Removes `key` if it exists.
    pub(super) fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        let removed = self.on(table, "write", |opened| Ok(opened.remove(key)?.is_some()))?;
        self.changed[table as usize] |= removed;
        Ok(())
    }

    /// Whether `key` exists, readable or not.
    pub(super) fn is_there(&mut self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        self.on(table, "read", |opened| Ok(opened.get(key)?.is_some()))
    }

    /// The value of `key` as JSON; none if it does not exist or cannot be read.
    pub(super) fn value(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let stored = self.stored(table, key)?;
        Ok(stored.and_then(|stored| match unseal(self.bare, table, key, &stored) {
            Sound::Value(value) => Some(value.to_vec()),
            Sound::Unreadable(_) => None,
        }))
    }

    /// Adds a checksum to each row without one; releases before schema version 4 wrote none.
    pub(super) fn add_checksums(&mut self) -> Result<(), StoreError> {
        for table in Table::ALL {
            let bare = self.on(table, "read", |opened| {
                let mut bare = Vec::new();
                for entry in opened.iter()? {
                    let (key, stored) = entry?;
                    if let Sound::Unreadable(_) = unseal(false, table, key.value(), stored.value()) {
                        bare.push((key.value().to_vec(), stored.value().to_vec()));
                    }
                }
                Ok(bare)
            })?;
            for (key, value) in bare {
                self.put_value(table, &key, &value)?;
            }
        }
        Ok(())
    }

    /// The stored bytes of `key`, whether they can be read or not.
    pub(super) fn stored(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.on(table, "read", |opened| {
            Ok(opened.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    /// Sets `key` to a value that is already JSON.
    pub(super) fn put_value(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let sealed = (!migrate::is_schema(table, key)).then(|| row::seal(table, key, value));
        let stored = sealed.as_deref().unwrap_or(value);
        self.on(table, "write", |opened| opened.insert(key, stored).map(drop))?;
        self.changed[table as usize] = true;
        Ok(())
    }

    /// Runs a call on the table, which is opened once per transaction.
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
