//! The store: what must outlive the daemon, in one file, as ordered keys and JSON values.
//!
//! It offers three things, which a shared store such as etcd has as well; only `embedded.rs` knows which database lies below:
//! - reads: one key ([`Store::get`]), a prefix ([`Store::scan`]), or several in one snapshot ([`Store::read`]);
//! - a watch per table ([`Store::watch`]);
//! - compare and write: a [`Batch`] that is written as a whole if what it expects holds. There is no transaction to write in.
//!
//! Two ways to write, by what is promised:
//! - [`Store::commit`] and [`Store::commit_blocking`]: on disk when they return. Batches that wait at the same moment share a disk flush
//!   (leases, boots: hundreds of machines at once, one flush);
//! - [`Store::queue`]: a batch that goes out within [`LAZY_FLUSH`], without anybody waiting (timelines).
//!
//! [`Keeper`] is the one way to keep a promise: change a draft, commit its batch, publish.
//!
//! Values have checksums (`row`); `look` reads all of them. What cannot be read is passed over where that can be done without
//! (`damage`), and refused otherwise. The database panics on some damage: that is an error as well (`guard`).
//!
//! `backup` is the form of a backup, `copy` makes one of a store, `restore` a store of one.

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

/// The tables. Keys are bytes, in order; values are JSON.
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
    /// DHCP's leases of the temporary pools, by the four bytes of the address.
    Leases,
    /// `boots::Boot` by id.
    Boots,
    /// `boots::NodeDisk` by node name.
    Disks,
    /// `restart::Request` by id, and its nodes by id, a slash and their number.
    Restarts,
    /// Timeline events by subject and sequence number.
    Events,
    /// Where timelines have led to, by subject: follows from the events, and saves reading them.
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
    /// The cluster's own: schema version, keys.
    Meta,
    /// [`SetAside`]: rows of the tables above that cannot be read, by table and key.
    SetAside,
}

/// Key in [`Table::Meta`] of the rules for disks that were confirmed (`boots::Boots::hold_back`).
pub const DISK_RULES: &[u8] = b"confirmed-disk-rules";

/// Row of [`Table::Meta`]: when a daemon was last known to run.
pub const ALIVE: &[u8] = b"alive";

impl Table {
    /// All tables.
    pub const ALL: [Table; 17] = [
        Table::Nodes,
        Table::History,
        Table::Machines,
        Table::Sessions,
        Table::Leases,
        Table::Boots,
        Table::Disks,
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

    /// Name in the file; never changes.
    pub fn name(self) -> &'static str {
        match self {
            Table::Nodes => "nodes",
            Table::History => "history",
            Table::Machines => "machines",
            Table::Sessions => "sessions",
            Table::Leases => "leases",
            Table::Boots => "boots",
            Table::Disks => "disks",
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

/// An open store; clones share it. Its file is locked against other processes while any clone lives.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    // The writer goes first: its thread is joined, with all it holds written, before the file is closed.
    writer: Writer,
    database: Arc<Database>,
    watches: Arc<Watches>,
}

/// One generation counter per table.
struct Watches(Vec<watch::Sender<u64>>);

impl Watches {
    fn changed(&self, tables: &[Table]) {
        for table in tables {
            self.0[*table as usize].send_modify(|generation| *generation += 1);
        }
    }
}

impl Store {
    /// Opens the store in file `path`, makes it if it is not there, and brings an older schema up to [`SCHEMA`].
    ///
    /// Errors: another process has it open, it was written by a newer release, it is damaged or no store at all, rows of it
    /// cannot be read that the daemon cannot do without.
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

    /// All keys that begin with `prefix` and their values, in the keys' order.
    pub fn scan<T: DeserializeOwned>(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        self.read(|tx| tx.scan(table, prefix))
    }

    /// Writes `batch`; on disk when this returns. Batches that wait at the same moment share one flush, are applied
    /// in the order in which they came, and each of them wholly or (with [`StoreError::Conflict`]) not at all.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.shared.writer.commit(batch).await
    }

    /// As [`Store::commit`], for threads that may block.
    pub fn commit_blocking(&self, batch: Batch) -> Result<(), StoreError> {
        self.shared.writer.commit_blocking(batch)
    }

    /// Hands `batch` over to be written within [`LAZY_FLUSH`]; never blocks. False if the queue is full (the disk does
    /// not keep up) and the batch is dropped, which [`Store::dropped`] counts.
    pub fn queue(&self, batch: Batch) -> bool {
        self.shared.writer.queue(batch)
    }

    /// Batches that [`Store::queue`] had to drop, or could not write, since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.writer.dropped()
    }

    /// Waits until all that was queued is on disk.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.commit_blocking(Batch::new())
    }

    /// Waits until the thread that writes has ended. The daemon ends with it if that was a panic.
    ///
    /// # Errors
    /// It panicked, or could not be started.
    pub fn ended(&self) -> impl Future<Output = std::io::Result<()>> + Send + 'static {
        self.shared.writer.ended()
    }

    /// A counter that moves after each commit that changed `table`.
    pub fn watch(&self, table: Table) -> watch::Receiver<u64> {
        self.shared.watches.0[table as usize].subscribe()
    }

    /// The random key `name` of this cluster (for instance `nfs-handle`), made at its first use; on disk when this returns.
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

    /// The secret `kind` of `node`, made by `make` at its first use; on disk when this returns.
    pub fn secret<T: Serialize + DeserializeOwned>(
        &self,
        node: &str,
        kind: &str,
        make: impl FnOnce() -> T,
    ) -> Result<T, StoreError> {
        self.get_or_make(Table::Secrets, &secret_key(node, kind), make)
    }

    /// The value of `key`, which `make` makes if there is none. Of those who make it at the same time, all get the one that is kept.
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

/// Key of a node's secret; node names hold no slash.
pub fn secret_key(node: &str, kind: &str) -> Vec<u8> {
    format!("{node}/{kind}").into_bytes()
}

fn decode_key(text: &str) -> Option<[u8; 32]> {
    hex::decode(text).ok()?.try_into().ok()
}
