//! The table of contents of an archive, for archives that are read in another order than their own.

use super::reader::{Kind, Reader};
use crate::error::{ImportError, Result};
use rustix::fs::FileType;
use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Seek, SeekFrom},
};

/// Most members of an archive with a container image: two for each layer, some for each platform.
const MOST_MEMBERS: usize = 100_000;
/// Most links that lead to links.
const MOST_LINKS: usize = 8;

/// The place of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Offset from the archive's start.
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
}

enum Found {
    File(Member),
    /// Another name of a file.
    Link(Vec<u8>),
}

/// Regular files of an uncompressed archive, by their cleaned names, with links resolved.
pub(crate) fn members(file: &File) -> Result<HashMap<Vec<u8>, Member>> {
    let mut bytes = BufReader::with_capacity(4096, file);
    bytes.seek(SeekFrom::Start(0)).map_err(|e| ImportError::Io {
        doing: "reading the archive".to_owned(),
        source: e,
    })?;
    let mut reader = Reader::new(bytes).ends_anywhere();
    let mut found: HashMap<Vec<u8>, Found> = HashMap::new();
    while let Some(entry) = reader.next()? {
        let (offset, size) = reader.pass()?;
        let path = normal(&entry.path, b"");
        match entry.kind {
            Kind::Node(FileType::RegularFile, ..) if entry.data.segments.len() <= 1 && entry.data.size == size => {
                found.insert(path, Found::File(Member { offset, size }));
            }
            Kind::HardLink => {
                found.insert(path, Found::Link(normal(&entry.link, b"")));
            }
            Kind::Node(FileType::Symlink, ..) => {
                let target = normal(&entry.link, &path);
                found.insert(path, Found::Link(target));
            }
            _ => continue,
        }
        if found.len() > MOST_MEMBERS {
            return Err(ImportError::Request(format!(
                "the archive has more than {MOST_MEMBERS} files; it is not a container image"
            )));
        }
    }
    let resolved = found.keys().filter_map(|name| {
        let mut at = name;
        for _ in 0..=MOST_LINKS {
            match found.get(at)? {
                Found::File(member) => return Some((name.clone(), *member)),
                Found::Link(next) => at = next,
            }
        }
        None
    });
    Ok(resolved.collect())
}

/// A path without `.` and `..`, relative to the directory of `from`. It is only looked up in a table.
fn normal(path: &[u8], from: &[u8]) -> Vec<u8> {
    let base = from
        .iter()
        .rposition(|b| *b == b'/')
        .map_or(&from[..0], |at| &from[..at]);
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in base.split(|b| *b == b'/').chain(path.split(|b| *b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}
