//! The schema's version, and migrations from older ones.

use super::{
    StoreError, Table,
    embedded::{Database, Transaction},
};

/// Version of the tables' content that this release writes.
pub const SCHEMA: u32 = MIGRATIONS.len() as u32 + 1;

/// `MIGRATIONS[i]` migrates version `i + 1` to version `i + 2`.
pub(super) const MIGRATIONS: &[Migration] = &[several_profiles, current_versions, checksums];

pub(super) type Migration = fn(&mut Transaction) -> Result<(), StoreError>;

/// Key of the version in [`Table::Meta`].
pub(super) const KEY: &[u8] = b"schema";

/// The first version whose rows have checksums.
const CHECKSUMS: u32 = 4;

/// True if a store of that version has rows without checksums.
pub(super) fn is_bare(schema: Option<u32>) -> bool {
    schema.is_some_and(|schema| schema < CHECKSUMS)
}

/// True for the row of the version, the only one without a checksum.
pub(super) fn is_schema(table: Table, key: &[u8]) -> bool {
    table == Table::Meta && key == KEY
}

/// Version 2: a node has several profiles, and `default` need not be listed.
fn several_profiles(tx: &mut Transaction<'_>) -> Result<(), StoreError> {
    for (key, mut node) in tx.scan::<serde_json::Map<String, serde_json::Value>>(Table::Nodes, b"")? {
        if let Some(profile) = node.remove("profile") {
            let profiles = Vec::from_iter((profile != "default").then_some(profile));
            node.insert("profiles".into(), profiles.into());
            tx.put(Table::Nodes, &key, &node)?;
        }
    }
    Ok(())
}

/// Version 3: images have a current version. The daemon creates these rows after it has read the images. The version number keeps an
/// older release from opening the store, because it would give every node the newest version.
fn current_versions(_: &mut Transaction<'_>) -> Result<(), StoreError> {
    Ok(())
}

/// Version 4: rows have checksums. [`bring_up`] adds them before the first migration, so that migrations read rows in the same way.
fn checksums(_: &mut Transaction<'_>) -> Result<(), StoreError> {
    Ok(())
}

/// Writes the version into a new store, migrates an older one in one transaction, and refuses a newer one.
pub(super) fn bring_up(database: &Database, migrations: &[Migration]) -> Result<(), StoreError> {
    let known = migrations.len() as u32 + 1;
    let found = database.read(|tx| tx.get::<u32>(Table::Meta, KEY))?;
    match found {
        Some(found) if found == known => Ok(()),
        Some(found) if found > known => Err(StoreError::Newer {
            path: database.path().to_owned(),
            found,
            known,
        }),
        Some(0) => Err(StoreError::Damaged {
            path: database.path().to_owned(),
            error: "its schema claims to be version 0".into(),
        }),
        _ => {
            let first = found.map_or(migrations.len(), |found| found as usize - 1);
            database.write(|tx| {
                if is_bare(found) {
                    tx.add_checksums()?;
                }
                for migration in &migrations[first..] {
                    migration(tx)?;
                }
                tx.put(Table::Meta, KEY, &known)
            })?;
            database.read_bare(false);
            if let Some(found) = found {
                tracing::info!("store {}: schema {found} -> {known}", database.path().display());
            }
            Ok(())
        }
    }
}
