//! Directories: the repository, the cache below `target/`, and the directory of one run.

use crate::Result;
use anyhow::Context;
use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Prefix of run directories and namespaces; the rest of such a name is `PID-NUMBER`.
pub(crate) const PREFIX: &str = "rackstrap-";

/// If this variable is set, the run directories (logs, consoles, disks) are kept.
pub const KEEP: &str = "RACKSTRAP_KEEP";

/// Top of the repository.
pub fn repo_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => repo_root().join(dir),
        None => repo_root().join("target"),
    }
}

/// The cache between runs: root trees and imported images.
pub fn cache_dir() -> Result<PathBuf> {
    let dir = target_dir().join("testbed");
    fs::create_dir_all(&dir).with_context(|| format!("making the cache directory {}", dir.display()))?;
    Ok(dir)
}

/// A name that no other living process uses, and that contains the id of its process.
pub(crate) fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}", std::process::id())
}

/// True for a name from [`unique_name`] of a process that has ended.
pub(crate) fn is_leftover(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    match pid.and_then(|pid| pid.parse::<u32>().ok()) {
        Some(pid) => !Path::new(&format!("/proc/{pid}")).exists(),
        None => false,
    }
}

/// A directory for one run: sockets, logs, disks. It is removed when dropped, unless [`KEEP`] is set.
///
/// It is in the system's temporary directory and not below `target/`, because the path of a unix socket has at most 107 bytes and a
/// checkout may be anywhere.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    keep: bool,
}

impl RunDir {
    /// Makes a directory, after removing those of processes that have ended.
    pub fn new() -> Result<Self> {
        let base = env::temp_dir();
        for entry in fs::read_dir(&base)
            .with_context(|| format!("reading {}", base.display()))?
            .flatten()
        {
            if entry.file_name().to_str().is_some_and(is_leftover) && env::var_os(KEEP).is_none() {
                // Another process may be removing the same one.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = base.join(unique_name());
        fs::create_dir(&path).with_context(|| format!("making the run directory {}", path.display()))?;
        Ok(RunDir {
            path,
            keep: env::var_os(KEEP).is_some(),
        })
    }

    /// Keeps the directory when this is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("testbed: kept {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("testbed: could not remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_processes_are_leftovers() {
        assert!(!is_leftover(&unique_name()));
        // Linux assigns process ids up to 2^22 (PID_MAX_LIMIT).
        assert!(is_leftover("rackstrap-4999999-0"));
        for other in ["rackstrap", "rackstrap-demo", "systemd-4999999-0", "rackstrap--1"] {
            assert!(!is_leftover(other), "{other}");
        }
    }

    #[test]
    fn run_directories_are_removed_when_dropped() {
        let dir = RunDir::new().unwrap();
        let path = dir.path().to_owned();
        fs::write(path.join("log"), "x").unwrap();
        drop(dir);
        assert!(!path.exists() || env::var_os(KEEP).is_some());
    }
}
