//! Checks the store when the daemon has started, and backs it up every night.

use super::Shared;
use anyhow::{Context, Result};
use jiff::{ToSpan, tz::TimeZone};
use rackstrap_base::{clock::Timestamp, warnings::SiteWarnings, words::count};
use rackstrap_site::Backup;
use rackstrap_store::{
    Store,
    backup::{
        Reader,
        file::{self, Place, UNFINISHED},
    },
};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufReader},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Names of nightly backups begin with this. Other files in the directory belong to the administrator, and stay.
const PREFIX: &str = "nightly-";
/// Names of nightly backups end with this.
const SUFFIX: &str = ".backup";

/// Time between two looks at the clock.
const PAUSE: Duration = Duration::from_secs(60);

/// Time until the next attempt after a failed backup: it must not fill a full disk every minute.
const AFTER_FAILURE: Duration = Duration::from_secs(3600);

/// Topics of the warnings that `status` shows.
const BACKUP_TOPIC: &str = "backup";
const STORE_TOPIC: &str = "store";

/// Runs until `cancel`.
pub(super) async fn serve(shared: Shared, cancel: CancellationToken) -> io::Result<()> {
    let (store, warnings) = (shared.store.clone(), shared.warnings.clone());
    if let Err(panic) = tokio::task::spawn_blocking(move || look(&store, &warnings)).await {
        tracing::error!("the store was not checked: {panic}");
    }
    let mut not_before = Instant::now();
    // The first pause lets nodes boot first that waited for the daemon.
    while cancel.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
        let site = shared.world.load().site.clone();
        if site.backup.keep == 0 || Instant::now() < not_before {
            continue;
        }
        let store = shared.store.clone();
        let made = tokio::task::spawn_blocking(move || {
            let now = Timestamp::now();
            match is_due(&site.backup, now) {
                true => make(&store, &site.cluster.name, &site.backup, now).map(Some),
                false => Ok(None),
            }
        });
        match made.await.unwrap_or_else(|panic| Err(panic.into())) {
            Ok(None) => {}
            Ok(Some(file)) => {
                tracing::info!("nightly backup: {}", file.display());
                shared.warnings.clear(BACKUP_TOPIC);
            }
            Err(error) => {
                let text = format!("{error:#}");
                tracing::error!("nightly backup failed: {text}; it will be tried again in an hour");
                let help = "free space or correct [backup] dir; `rackstrap backup FILE` makes a backup now";
                let message = format!("the nightly backup failed: {text}");
                shared.warnings.raise(Timestamp::now(), BACKUP_TOPIC, &message, help);
                not_before = Instant::now() + AFTER_FAILURE;
            }
        }
    }
    Ok(())
}

/// Reads all rows, and sets aside unreadable rows that are not needed.
fn look(store: &Store, warnings: &SiteWarnings) {
    let begun = Instant::now();
    let found = match store.look() {
        Ok(found) => found,
        Err(error) => return tracing::error!("{error}"),
    };
    let millis = begun.elapsed().as_millis();
    tracing::debug!("store: {} rows read in {millis} ms", found.total());
    let lost: Vec<String> = (found
        .tables
        .iter()
        .map(|(table, error)| format!("table {table}: {error}")))
    .chain(found.needed.iter().map(ToString::to_string))
    .collect();
    if let Some(first) = lost.first() {
        let message = format!("the store is damaged in {}: {first}", count(lost.len(), "place"));
        let help = "stop the daemon and run `rackstrap restore FILE` with a backup; `rackstrap backup --check` lists all damaged rows";
        tracing::error!("{message}; {help}");
        warnings.raise(Timestamp::now(), STORE_TOPIC, &message, help);
    }
    if !found.expendable.is_empty() {
        match store.set_aside_damaged(Timestamp::now()) {
            Ok(rows) => tracing::warn!(
                "store: {} set aside",
                count(usize::try_from(rows).unwrap_or(usize::MAX), "damaged row")
            ),
            Err(error) => tracing::error!("store: damaged rows stay where they are: {error}"),
        }
    }
    let aside = store.rows_set_aside().unwrap_or_default();
    if let (Some(first), true) = (aside.first(), lost.is_empty()) {
        let message = format!(
            "{} of the store could not be read and were set aside: {}",
            count(aside.len(), "row"),
            first.row
        );
        let help = "check disk and memory; `rackstrap backup --check` lists the rows, --discard deletes them";
        warnings.raise(Timestamp::now(), STORE_TOPIC, &message, help);
    }
}

/// Whether the last scheduled time is later than the last backup.
fn is_due(wanted: &Backup, now: Timestamp) -> bool {
    let last = nightly_files(&wanted.dir).into_iter().map(|(_, made)| made);
    // A backup from the future was made while the clock was wrong.
    let last = last.filter(|made| *made <= now).max();
    match last {
        None => true,
        Some(last) => scheduled(wanted.at, now, &TimeZone::system()).is_none_or(|moment| last < moment),
    }
}

/// The last time before `now` that is `at`, in local time. None if the calendar has no such time.
fn scheduled(at: (u8, u8), now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let now = jiff::Timestamp::from_millisecond(i64::try_from(now.0).ok()?).ok()?;
    let today = now.to_zoned(zone.clone()).date();
    let on = |date: jiff::civil::Date| {
        // A time that summer time skips is moved to the next hour.
        let zoned = date
            .at(i8::try_from(at.0).ok()?, i8::try_from(at.1).ok()?, 0, 0)
            .to_zoned(zone.clone())
            .ok()?;
        Some(zoned.timestamp())
    };
    let moment = on(today)?;
    let moment = match moment > now {
        true => on(today.checked_sub(1.day()).ok()?)?,
        false => moment,
    };
    Some(Timestamp(u64::try_from(moment.as_millisecond()).ok()?))
}

/// Makes a backup, reads it back, and deletes the oldest ones beyond the limit.
fn make(store: &Store, cluster: &str, wanted: &Backup, now: Timestamp) -> Result<PathBuf> {
    let dir = &wanted.dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("making {}", dir.display()))?;
    remove_unfinished(dir);
    let place = Place {
        dir: dir.clone(),
        name: Some(format!("{PREFIX}{}{SUFFIX}", file::date(now)).into()),
        // When summer time ends, an hour comes twice.
        replace: true,
    };
    let (file, _) = file::write(&place, |out| {
        store
            .back_up(cluster, now, out)
            .with_context(|| format!("writing to {}", dir.display()))
    })?;
    read_back(&file).with_context(|| format!("reading back {}", file.display()))?;
    // The new backup is never deleted, even if its time is the oldest because of a wrong clock.
    let mut others = nightly_files(dir);
    others.retain(|(other, _)| *other != file);
    for (old, _) in too_many(others, wanted.keep.saturating_sub(1)) {
        fs::remove_file(&old).with_context(|| format!("deleting the old backup {}", old.display()))?;
    }
    Ok(file)
}

fn read_back(file: &Path) -> Result<()> {
    let mut reader = Reader::new(BufReader::with_capacity(1 << 17, File::open(file)?))?;
    while reader.next_row()?.is_some() {}
    Ok(())
}

/// The nightly backups in `dir`, with the time at which each was made.
fn nightly_files(dir: &Path) -> Vec<(PathBuf, Timestamp)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let files = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?;
        if !name.starts_with(PREFIX) || !name.ends_with(SUFFIX) || !entry.file_type().ok()?.is_file() {
            return None;
        }
        let made = entry.metadata().ok()?.modified().ok()?;
        let made = made.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Some((entry.path(), Timestamp(u64::try_from(made.as_millis()).ok()?)))
    });
    files.collect()
}

/// The oldest backups, so that `keep` remain.
fn too_many(mut files: Vec<(PathBuf, Timestamp)>, keep: usize) -> Vec<(PathBuf, Timestamp)> {
    files.sort_by(|a, b| (b.1, &b.0).cmp(&(a.1, &a.0)));
    files.split_off(keep.min(files.len()))
}

/// Removes the unfinished file of a daemon that was killed.
fn remove_unfinished(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(UNFINISHED));
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_store::{Batch, Table};

    fn at(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().unwrap();
        Timestamp(time.as_millisecond() as u64)
    }

    #[test]
    fn the_last_scheduled_time_is_today_or_yesterday_in_local_time() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let last = |now| scheduled((3, 0), at(now), &zone).unwrap();
        assert_eq!(last("2026-11-27T01:59:00Z"), at("2026-11-26T02:00:00Z"));
        assert_eq!(last("2026-11-27T02:00:00Z"), at("2026-11-27T02:00:00Z"));
        assert_eq!(last("2026-11-27T23:30:00Z"), at("2026-11-27T02:00:00Z"));
        // Summer time skips 2:30 on 2026-03-29.
        assert_eq!(
            scheduled((2, 30), at("2026-03-29T12:00:00Z"), &zone).unwrap(),
            at("2026-03-29T01:30:00Z")
        );
    }

    #[test]
    fn a_backup_is_due_after_the_scheduled_time_and_the_oldest_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let store = rackstrap_registries::testing::store(dir.path());
        store
            .commit_blocking(Batch::new().put(Table::Nodes, *b"r01n01", &"x"))
            .unwrap();
        let wanted = Backup {
            keep: 2,
            dir: dir.path().join("backups"),
            at: (3, 0),
        };
        let now = Timestamp::now();
        assert!(is_due(&wanted, now), "there is none");
        let mine = wanted.dir.join("my-own.backup");
        let mut made = Vec::new();
        for day in 0..4 {
            let file = make(&store, "lab", &wanted, now.plus_secs(day * 86_400)).unwrap();
            let handle = File::options().write(true).open(&file).unwrap();
            handle
                .set_modified(std::time::UNIX_EPOCH + Duration::from_millis(now.0) + Duration::from_secs(day * 86_400))
                .unwrap();
            fs::write(&mine, "kept").unwrap();
            made.push(file);
        }
        let kept: Vec<PathBuf> = made.iter().filter(|file| file.exists()).cloned().collect();
        assert_eq!(kept, made[2..], "the newest two");
        assert!(mine.exists(), "what has another name stays");
        assert!(!is_due(&wanted, now.plus_secs(3 * 86_400)));
        assert!(is_due(&wanted, now.plus_secs(5 * 86_400)));
        // The clock was set back: backups from the future do not count.
        assert!(is_due(&wanted, now));
        let mode = |path: &Path| std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap()) & 0o777;
        assert_eq!((mode(&wanted.dir), mode(&made[3])), (0o700, 0o600));
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = rackstrap_registries::testing::store(dir.path());
        let wanted = Backup {
            keep: 2,
            dir: dir.path().join("store.redb/backups"),
            at: (3, 0),
        };
        let error = format!("{:#}", make(&store, "lab", &wanted, Timestamp::now()).unwrap_err());
        assert!(error.contains("store.redb/backups"), "{error}");
    }
}
