//! Writes a backup to a file: first under a hidden name in the same directory, and renamed when it is complete and on disk.

use super::Header;
use anyhow::{Context, Result, anyhow};
use rackstrap_base::clock::Timestamp;
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The place of a backup.
#[derive(Clone, Debug)]
pub struct Place {
    /// Directory; an empty path is the current one.
    pub dir: PathBuf,
    /// Name of the file; none for [`default_name`].
    pub name: Option<OsString>,
    /// Whether to replace an existing file of that name.
    pub replace: bool,
}

/// Calls `write` to write a backup with mode 0600, and returns its path and its header.
///
/// # Errors
/// Errors of `write` and of the file system; a file of that name exists. Nothing is left behind then.
pub fn write(place: &Place, write: impl FnOnce(&mut BufWriter<&File>) -> Result<Header>) -> Result<(PathBuf, Header)> {
    let refuse_existing = |file: &Path| match !place.replace && file.symlink_metadata().is_ok() {
        true => Err(exists(file)),
        false => Ok(()),
    };
    if let Some(name) = &place.name {
        refuse_existing(&place.dir.join(name))?;
    }
    let unfinished = Unfinished(place.dir.join(format!("{UNFINISHED}{}", std::process::id())));
    let failed = |what: &'static str| {
        let path = unfinished.0.display().to_string();
        move || format!("{what} {path}")
    };
    let out = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished.0)
        .with_context(failed("making"))?;
    let mut buffered = BufWriter::with_capacity(1 << 17, &out);
    let header = write(&mut buffered)?;
    buffered.flush().with_context(failed("writing"))?;
    drop(buffered);
    out.sync_all().with_context(failed("writing"))?;
    let name = place.name.clone().unwrap_or_else(|| default_name(&header).into());
    let file = place.dir.join(name);
    let renamed = match place.replace {
        true => fs::rename(&unfinished.0, &file).map_err(anyhow::Error::new),
        false => match renameat_with(CWD, &unfinished.0, CWD, &file, RenameFlags::NOREPLACE) {
            // Not every file system supports this flag (rename(2)).
            Err(Errno::INVAL | Errno::NOSYS) => {
                refuse_existing(&file)?;
                fs::rename(&unfinished.0, &file).map_err(anyhow::Error::new)
            }
            Err(Errno::EXIST) => return Err(exists(&file)),
            other => other.map_err(anyhow::Error::new),
        },
    };
    renamed.with_context(|| format!("naming it {}", file.display()))?;
    let dir = match place.dir.as_os_str().is_empty() {
        true => Path::new("."),
        false => &place.dir,
    };
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("writing directory {} to the disk", dir.display()))?;
    Ok((file, header))
}

/// Beginning of the names of unfinished backups; the id of the process follows.
pub const UNFINISHED: &str = ".rackstrap-backup-";

fn exists(file: &Path) -> anyhow::Error {
    anyhow!(
        "{}: it exists; name another file, or replace it with --force",
        file.display()
    )
}

/// An unfinished file, removed when dropped unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// `rackstrap-lab-2026-11-21-140307.backup`
fn default_name(header: &Header) -> String {
    let plain = |c: char| {
        if c.is_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let cluster: String = header.cluster.chars().map(plain).take(64).collect();
    format!("rackstrap-{cluster}-{}.backup", date(header.made))
}

/// Local date and time for names of files: `2026-11-21-140307`. They sort by time, except in the repeated hour at the end of summer
/// time.
pub fn date(at: Timestamp) -> String {
    let time = i64::try_from(at.0)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    let local = time.unwrap_or_default().to_zoned(jiff::tz::TimeZone::system());
    local.strftime("%Y-%m-%d-%H%M%S").to_string()
}
