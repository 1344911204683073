//! Errors of making and changing images.

use rackstrap_base::text::is_harmful;
use std::{fmt, io, path::PathBuf};

/// Why an operation on images failed. An import that fails leaves nothing on disk.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The request itself is wrong (a name, a path, missing rights).
    #[error("{0}")]
    Request(String),
    /// The tree cannot boot a node. All reasons are given at once.
    #[error("{}", refused(.0))]
    Refused(Vec<String>),
    /// The same for a container image, which usually holds no operating system.
    #[error("{}", unbootable(.0))]
    Unbootable(Vec<String>),
    /// The archive is damaged, hostile, or holds something that cannot be extracted.
    #[error("archive entry {entry}: {}", show_name(why.as_bytes()))]
    Archive {
        /// Name of the entry, escaped if it is not plain text; or a byte offset.
        entry: String,
        /// The fault; it may quote the archive.
        why: String,
    },
    /// A container image is damaged, hostile, or not the wanted one; or its registry refuses it.
    #[error("{0}")]
    Container(String),
    /// The file system of the images has too little free space.
    #[error("{}", no_space(.dir, *.free, *.missing, *.inodes))]
    NoSpace {
        /// Directory on the full file system.
        dir: PathBuf,
        /// Free bytes when the lack was found.
        free: u64,
        /// Missing bytes; none if the total is not known, such as for an archive.
        missing: Option<u64>,
        /// True if it ran out of inodes, not bytes.
        inodes: bool,
    },
    /// A system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// The operation and its object.
        doing: String,
        /// The error of the system call.
        source: io::Error,
    },
}

/// Shorthand of this module.
pub type Result<T> = std::result::Result<T, ImportError>;

fn refused(problems: &[String]) -> String {
    let mut text = String::from("this tree cannot boot a node:");
    for problem in problems {
        text.push_str("\n  - ");
        text.push_str(problem);
    }
    text
}

fn unbootable(problems: &[String]) -> String {
    format!(
        "{}\nContainer images usually have no kernel, because containers run on the kernel of their host. Build an image with a \
         kernel from yours (Debian, Ubuntu):\n  \
         FROM debian:12\n  \
         RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y linux-image-amd64 systemd-sysv udev kmod \
         dbus openssh-server e2fsprogs xfsprogs && apt-get clean\nSee docs/how-to/container-images.md.",
        refused(problems)
    )
}

fn no_space(dir: &std::path::Path, free: u64, missing: Option<u64>, inodes: bool) -> String {
    let dir = dir.display();
    if inodes {
        return format!("no inodes left on the file system of {dir}; delete files there or give it more inodes");
    }
    let free_text = show_bytes(free);
    match missing {
        Some(missing) => format!(
            "not enough room on the file system of {dir}: {} more needed ({missing} bytes), {free_text} free",
            show_bytes(missing)
        ),
        None => {
            format!("not enough room on the file system of {dir}: {free_text} free, and more has to be written")
        }
    }
}

/// Adds the operation to an error of a system call.
pub(crate) trait Doing<T> {
    /// `doing` is a gerund with its object: `reading /boot/config`.
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| ImportError::Io {
            doing: doing().into(),
            source: e.into(),
        })
    }
}

impl ImportError {
    /// True if the file system or a quota is full.
    pub fn is_full(&self) -> bool {
        match self {
            ImportError::NoSpace { .. } => true,
            ImportError::Io { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::ENOSPC) | Some(libc::EDQUOT))
            }
            _ => false,
        }
    }
}

/// A file name for people: escaped unless it is plain text.
pub(crate) fn show_name(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if !text.chars().any(is_harmful) => text.to_owned(),
        _ => name.escape_ascii().to_string(),
    }
}

/// A number of bytes for people, in binary units.
pub fn show_bytes(bytes: u64) -> String {
    struct Shown(u64);
    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
            if self.0 < 1024 {
                return write!(f, "{} B", self.0);
            }
            let mut value = self.0 as f64 / 1024.0;
            let mut unit = 0;
            while value >= 1023.95 && unit + 1 < UNITS.len() {
                value /= 1024.0;
                unit += 1;
            }
            write!(f, "{value:.1} {}", UNITS[unit])
        }
    }
    Shown(bytes).to_string()
}
