//! The store: the data that must outlive the daemon, in one file, as ordered keys and JSON values.
//!
//! It offers three operations that a shared store such as etcd also has; only `embedded.rs` knows the database below:
//! - reads: one key ([`Store::get`]), a prefix ([`Store::scan`]), or several in one snapshot ([`Store::read`]);
//! - a watch per table ([`Store::watch`]);
//! - compare and write: a [`Batch`] that is written completely if its expectations hold. There is no interactive write transaction.
//!
//! There are two ways to write:
//! - [`Store::commit`] and [`Store::commit_blocking`]: on disk when they return. Batches that wait at the same time share a disk flush
//!   (leases and boots of hundreds of machines, one flush);
//! - [`Store::queue`]: a batch that is written within [`LAZY_FLUSH`], without a caller that waits (timelines).
//!
//! [`Keeper`] is the only way to change rows durably: change a draft, commit its batch, publish.
//!
//! Values have checksums (`row`); `look` verifies all of them. Unreadable rows are skipped if the daemon can run without them
//! (`damage`), and refused otherwise. The database panics on some damage; that becomes an error (`guard`).
//!
//! `backup` is the format of a backup, `copy` makes one from a store, `restore` makes a store from one.

pub mod backup;
mod batch;
mod copy;
mod damage;
mod embedded;
mod error;
mod guard;
mod keeper;
mod locks;
mod look;
mod migrate;
mod restore;
mod row;
mod writer;

#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use damage::BadRow;
pub use embedded::Read;
pub use error::StoreError;
pub use keeper::Keeper;
pub use look::{Look, SetAside};
pub use migrate::SCHEMA;
pub use restore::{RestoreError, Staged};
pub use writer::LAZY_FLUSH;

use embedded::Database;
use serde::{Serialize, de::DeserializeOwned};
use std::{path::Path, sync::Arc};
use tokio::sync::watch;
use writer::Writer;

/// The tables. Keys are ordered bytes; values are JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// `inventory::Node` by name.
    Nodes,
    /// `inventory::Entry` by node name and number.
    History,
    /// `discovery::Machine` by hardware address.
    Machines,
    /// `discovery::Session` by rack.
    Sessions,
    /// DHCP leases of the temporary pools, by the four bytes of the address.
    Leases,
    /// `boots::Boot` by id.
    Boots,
    /// `boots::NodeDisk` by node name.
    Disks,
    /// `orders::BootOrder` by node name.
    Orders,
    /// `restart::Request` by id, and its nodes by id, a slash and their number.
    Restarts,
    /// Timeline events by subject and sequence number.
    Events,
    /// Summaries of timelines, by subject. They follow from the events, and save reading these.
    Standings,
    /// `rollout::Current` by image name.
    Current,
    /// `rollout::Rollout` by number, without its nodes.
    Rollouts,
    /// Nodes of rollouts, by number and node name.
    RolloutNodes,
    /// `rollout::Trial` by node name.
    Trials,
    /// ssh host keys and other secrets, by node name and kind.
    Secrets,
    /// Data of the cluster: schema version, keys.
    Meta,
    /// [`SetAside`]: unreadable rows of the tables above, by table and key.
    SetAside,
}

/// Key in [`Table::Meta`] of the confirmed rules for disks (`boots::Boots::hold_back`).
pub const DISK_RULES: &[u8] = b"confirmed-disk-rules";

/// Key in [`Table::Meta`] of the last time at which a daemon was running.
pub const ALIVE: &[u8] = b"alive";

impl Table {
    /// All tables.
    pub const ALL: [Table; 18] = [
        Table::Nodes,
        Table::History,
        Table::Machines,
        Table::Sessions,
        Table::Leases,
        Table::Boots,
        Table::Disks,
        Table::Orders,
        Table::Restarts,
        Table::Events,
        Table::Standings,
        Table::Current,
        Table::Rollouts,
        Table::RolloutNodes,
        Table::Trials,
        Table::Secrets,
        Table::Meta,
        Table::SetAside,
    ];

    /// Name in the file, which never changes.
    pub fn name(self) -> &'static str {
        match self {
            Table::Nodes => "nodes",
            Table::History => "history",
            Table::Machines => "machines",
            Table::Sessions => "sessions",
            Table::Leases => "leases",
            Table::Boots => "boots",
            Table::Disks => "disks",
            Table::Orders => "orders",
            Table::Restarts => "restarts",
            Table::Events => "events",
            Table::Standings => "standings",
            Table::Current => "current",
            Table::Rollouts => "rollouts",
            Table::RolloutNodes => "rollout-nodes",
            Table::Trials => "trials",
            Table::Secrets => "secrets",
            Table::Meta => "meta",
            Table::SetAside => "set-aside",
        }
    }
}

/// An open store; clones share it. Its file is locked against other processes while a clone exists.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    // The writer is dropped first: its thread writes all that it holds and is joined before the file is closed.
    writer: Writer,
    database: Arc<Database>,
    watches: Arc<Watches>,
}

/// One generation counter for each table.
struct Watches(Vec<watch::Sender<u64>>);

impl Watches {
    fn changed(&self, tables: &[Table]) {
        for table in tables {
            self.0[*table as usize].send_modify(|generation| *generation += 1);
        }
    }
}

impl Store {
    /// Opens the store in file `path`, creates it if it does not exist, and migrates an older schema to [`SCHEMA`].
    ///
    /// Errors: another process has it open, a newer release wrote it, it is damaged or not a store, or rows that the daemon needs cannot
    /// be read.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let database = Arc::new(Database::open(path)?);
        migrate::bring_up(&database, migrate::MIGRATIONS)?;
        look::refuse_damaged(&database)?;
        let watches = Arc::new(Watches(Table::ALL.iter().map(|_| watch::Sender::new(0)).collect()));
        let writer = Writer::spawn(database.clone(), watches.clone());
        Ok(Store {
            shared: Arc::new(Shared {
                writer,
                database,
                watches,
            }),
        })
    }

    /// Runs `f` on a snapshot.
    pub fn read<T, E: From<StoreError>>(&self, f: impl FnOnce(&Read) -> Result<T, E>) -> Result<T, E> {
        self.shared.database.read(f)
    }

    /// The value of `key`.
    pub fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.read(|tx| tx.get(table, key))
    }

    /// All entries whose key begins with `prefix`, in the order of keys.
    pub fn scan<T: DeserializeOwned>(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        self.read(|tx| tx.scan(table, prefix))
    }

    /// Writes `batch`, which is on disk when this returns. Batches that wait at the same time share one flush. They are applied in order,
    /// each completely or (with [`StoreError::Conflict`]) not at all.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.shared.writer.commit(batch).await
    }

    /// Like [`Store::commit`], for threads that may block.
    pub fn commit_blocking(&self, batch: Batch) -> Result<(), StoreError> {
        self.shared.writer.commit_blocking(batch)
    }

    /// Queues `batch`, to be written within [`LAZY_FLUSH`]; never blocks. Returns false if the queue is full (the disk is too slow) and the
    /// batch is dropped, which [`Store::dropped`] counts.
    pub fn queue(&self, batch: Batch) -> bool {
        self.shared.writer.queue(batch)
    }

    /// Number of queued batches that were dropped, or could not be written, since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.writer.dropped()
    }

    /// Waits until all queued batches are on disk.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.commit_blocking(Batch::new())
    }

    /// Waits until the writer's thread has ended. The daemon ends with it after a panic.
    ///
    /// # Errors
    /// It panicked, or could not be started.
    pub fn ended(&self) -> impl Future<Output = std::io::Result<()>> + Send + 'static {
        self.shared.writer.ended()
    }

    /// A counter that increases after each commit that changed `table`.
    pub fn watch(&self, table: Table) -> watch::Receiver<u64> {
        self.shared.watches.0[table as usize].subscribe()
    }

    /// The random key `name` of this cluster (for example `nfs-handle`), created at its first use and on disk when this returns.
    pub fn cluster_key(&self, name: &str) -> Result<[u8; 32], StoreError> {
        let key = format!("key/{name}");
        let made = || hex::encode(rand::random::<[u8; 32]>());
        let found = self.get_or_make(Table::Meta, key.as_bytes(), made)?;
        decode_key(&found).ok_or_else(|| StoreError::Value {
            table: Table::Meta.name(),
            key,
            error: "not 64 hex digits".into(),
        })
    }

    /// The secret `kind` of `node`, created by `make` at its first use and on disk when this returns.
    pub fn secret<T: Serialize + DeserializeOwned>(
        &self,
        node: &str,
        kind: &str,
        make: impl FnOnce() -> T,
    ) -> Result<T, StoreError> {
        self.get_or_make(Table::Secrets, &secret_key(node, kind), make)
    }

    /// The value of `key`, created by `make` if it is missing. If several callers create it at the same time, all get the same value.
    fn get_or_make<T: Serialize + DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
        make: impl FnOnce() -> T,
    ) -> Result<T, StoreError> {
        if let Some(found) = self.get(table, key)? {
            return Ok(found);
        }
        let made = make();
        let batch = Batch::new().expect_absent(table, key).put(table, key, &made);
        match self.commit_blocking(batch) {
            Ok(()) => Ok(made),
            Err(conflict @ StoreError::Conflict { .. }) => self.get(table, key)?.ok_or(conflict),
            Err(error) => Err(error),
        }
    }
}

/// Key of a node's secret; names of nodes contain no slash.
pub fn secret_key(node: &str, kind: &str) -> Vec<u8> {
    format!("{node}/{kind}").into_bytes()
}

fn decode_key(text: &str) -> Option<[u8; 32]> {
    hex::decode(text).ok()?.try_into().ok()
}
