//! The server's own files, read again when they have changed.

use super::select::{Accounts, select};
use rackstrap_base::sync::lock;
use rackstrap_site::Users;
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Largest file that is read, in bytes: some 100,000 users.
const LARGEST: u64 = 16 << 20;

/// Identifies a version of a file: useradd and vipw replace the file by a new one.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

/// The present users and groups of the server.
#[derive(Debug, Default)]
pub struct Source {
    last: Mutex<Option<LastRead>>,
}

/// Identifies the versions of all files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps([Option<Stamp>; 3]);

impl Stamps {
    /// The stamps of the files that `policy` names, as they are now.
    pub fn of(policy: &Users) -> Self {
        Stamps(paths(policy).each_ref().map(|path| stamp(path)))
    }
}

/// The policy, the versions of the files, and the result.
type LastRead = (Users, Stamps, Arc<Accounts>);

impl Source {
    /// The users and groups that `policy` selects. Blocks for the disk if its files have changed.
    ///
    /// # Errors
    /// A file cannot be read, or is larger than 16 MiB; the text says which.
    pub fn read(&self, policy: &Users) -> Result<Arc<Accounts>, String> {
        let paths = paths(policy);
        // Taken before the files are read, so that a change meanwhile is noticed the next time.
        let stamps = Stamps(paths.each_ref().map(|path| stamp(path)));
        let mut last = lock(&self.last);
        if let Some((seen, at, accounts)) = &*last
            && seen == policy
            && *at == stamps
        {
            return Ok(accounts.clone());
        }
        let [passwd, group, shadow] = &paths;
        let shadow = if policy.shadow { contents(shadow)? } else { Vec::new() };
        let accounts = Arc::new(select(policy, &contents(passwd)?, &contents(group)?, &shadow));
        *last = Some((policy.clone(), stamps, accounts.clone()));
        Ok(accounts)
    }
}

fn paths(policy: &Users) -> [PathBuf; 3] {
    ["passwd", "group", "shadow"].map(|name| policy.from.join(name))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some((
        meta.dev(),
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ))
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        // Checked first, because opening a fifo waits.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > LARGEST {
            true => Err(io::Error::other("it is larger than 16 MiB")),
            false => Ok(bytes),
        }
    };
    read().map_err(|error| format!("reading {}: {error}; see 'from' in [users]", path.display()))
}
