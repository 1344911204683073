//! Makes a backup of a store.

use super::{
    Read, SCHEMA, Store, StoreError, Table,
    backup::{BackupError, Header, Row, Writer},
    embedded::Database,
    migrate,
};
use rackstrap_base::clock::Timestamp;
use std::{io, path::Path};

impl Store {
    /// Writes the content of the store to `out`, in one snapshot, while changes continue. Batches that were queued before are included.
    ///
    /// The pages of the snapshot stay in the file until this returns, so `out` should not be slow.
    ///
    /// # Errors
    /// Errors of the store and of `out`.
    pub fn back_up(&self, cluster: &str, now: Timestamp, out: impl io::Write) -> Result<Header, BackupError> {
        self.flush()?;
        self.read(|snapshot| copy(snapshot, cluster, now, out))
    }

    /// The same for the store in file `path`, which no process may have open. Its schema version stays, even an older one.
    ///
    /// # Errors
    /// The store does not exist, another process has it open, or a newer release wrote it; errors of the store and of `out`.
    pub fn back_up_file(
        path: &Path,
        cluster: &str,
        now: Timestamp,
        out: impl io::Write,
    ) -> Result<Header, BackupError> {
        Database::open_existing(path)?.read(|snapshot| match schema(snapshot)? {
            found if found > SCHEMA => Err(BackupError::Store(StoreError::Newer {
                path: path.to_owned(),
                found,
                known: SCHEMA,
            })),
            _ => copy(snapshot, cluster, now, out),
        })
    }
}

fn schema(snapshot: &Read<'_>) -> Result<u32, StoreError> {
    Ok(snapshot.get(Table::Meta, migrate::KEY)?.unwrap_or(SCHEMA))
}

fn copy(snapshot: &Read<'_>, cluster: &str, now: Timestamp, out: impl io::Write) -> Result<Header, BackupError> {
    let rows = Table::ALL
        .into_iter()
        .map(|table| Ok((table.name().to_owned(), snapshot.count(table)?)));
    let header = Header {
        schema: schema(snapshot)?,
        cluster: cluster.to_owned(),
        made: now,
        rackstrap: env!("CARGO_PKG_VERSION").to_owned(),
        rows: rows.collect::<Result<_, StoreError>>()?,
    };
    let mut writer = Writer::new(out, &header)?;
    for table in Table::ALL {
        snapshot.each_row(table, |key, value| writer.row(Row { table, key, value }))?;
    }
    writer.finish()?;
    Ok(header)
}
