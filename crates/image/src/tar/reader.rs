//! Reads the entries of an archive one after the other, with all of their extensions applied.

use super::{
    pax::{self, Records},
    sparse::SparseMap,
};
use crate::{
    error::{ImportError, Result, show_name},
    tree::Meta,
};
use rustix::fs::FileType;
use std::{
    ffi::CString,
    io::{self, Read, Seek},
};

/// Most bytes of an extended header: attributes have at most 64 KiB each, and a GNU long name is at most a path.
const LARGEST_RECORDS: u64 = 8 << 20;
const LARGEST_NAME: u64 = 1 << 20;
/// Most bytes after the end marker.
const LARGEST_PADDING: u64 = 64 << 20;
const BLOCK: u64 = 512;

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file of that type, with its device number for a device.
    Node(FileType, u32, u32),
    /// Another name of an earlier entry.
    HardLink,
}

/// One entry. Its data is read from the [`Reader`].
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Path as written.
    pub path: Vec<u8>,
    /// Target of a link, as written.
    pub link: Vec<u8>,
    /// Its type.
    pub kind: Kind,
    /// Owner, mode, times and extended attributes.
    pub meta: Meta,
    /// The places of its data; one segment for ordinary files.
    pub data: SparseMap,
    /// True if it has access control lists in a form that is not supported.
    pub text_acl: bool,
    /// True if it has BSD file flags (`schg`), which Linux and NFS do not have.
    pub has_flags: bool,
}

/// Reads the entries of an archive.
pub(super) struct Reader<R> {
    inner: R,
    offset: u64,
    /// Bytes of the current entry's data that were not read yet, and of the padding after it.
    left: u64,
    padding: u64,
    globals: Records,
    /// Whether the input may end between two entries.
    ends_anywhere: bool,
    /// The first byte of the next header, if it was read to check for the end.
    first: Option<u8>,
}

impl<R: Read> Reader<R> {
    /// Starts at the beginning of `inner`.
    pub fn new(inner: R) -> Self {
        Reader {
            inner,
            offset: 0,
            left: 0,
            padding: 0,
            globals: Records::default(),
            ends_anywhere: false,
            first: None,
        }
    }

    /// Accepts an archive without an end mark: some builders of container images omit it, and the layer's digest shows whether bytes
    /// are missing.
    pub fn ends_anywhere(mut self) -> Self {
        self.ends_anywhere = true;
        self
    }

    fn damaged(&self, why: impl Into<String>) -> ImportError {
        ImportError::Archive {
            entry: format!("at byte {}", self.offset),
            why: why.into(),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.inner.read_exact(buffer).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("the archive ends too early; it was cut off"),
            _ => self.damaged(format!("the archive cannot be read: {e}")),
        })?;
        self.offset += buffer.len() as u64;
        Ok(())
    }

    fn at_end(&mut self) -> Result<bool> {
        let mut byte = Vec::with_capacity(1);
        (&mut self.inner)
            .take(1)
            .read_to_end(&mut byte)
            .map_err(|e| self.damaged(format!("the archive cannot be read: {e}")))?;
        self.first = byte.first().copied();
        self.offset += byte.len() as u64;
        Ok(byte.is_empty())
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        let got = io::copy(&mut (&mut self.inner).take(bytes), &mut io::sink())
            .map_err(|e| self.damaged(format!("the archive cannot be read: {e}")))?;
        self.offset += got;
        if got < bytes {
            return Err(self.damaged("the archive ends too early; it was cut off"));
        }
        Ok(())
    }

    /// Reads data of the current entry, up to the buffer's length; 0 at its end.
    pub fn data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = (buffer.len() as u64).min(self.left) as usize;
        self.fill(&mut buffer[..want])?;
        self.left -= want as u64;
        Ok(want)
    }

    fn extension(&mut self, size: u64, limit: u64) -> Result<Vec<u8>> {
        if size > limit {
            return Err(self.damaged(format!(
                "an extended header of {size} bytes; more than {limit} are not read"
            )));
        }
        // The buffer grows with the bytes that exist, not with the size in the header.
        let mut content = Vec::new();
        let got = (&mut self.inner)
            .take(size)
            .read_to_end(&mut content)
            .map_err(|e| self.damaged(format!("the archive cannot be read: {e}")))?;
        self.offset += got as u64;
        if (got as u64) < size {
            return Err(self.damaged("the archive ends too early; it was cut off"));
        }
        self.skip(size.next_multiple_of(BLOCK) - size)?;
        Ok(content)
    }

    /// The next entry; none after the last one.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        self.skip(self.left + self.padding)?;
        (self.left, self.padding) = (0, 0);
        let mut records = self.globals.clone();
        let (mut long_name, mut long_link) = (None, None);
        if self.ends_anywhere && self.at_end()? {
            return Ok(None);
        }
        loop {
            let mut block = [0; BLOCK as usize];
            match self.first.take() {
                Some(first) => {
                    block[0] = first;
                    self.fill(&mut block[1..])?;
                }
                None => self.fill(&mut block)?,
            }
            if block.iter().all(|b| *b == 0) {
                self.drain()?;
                return Ok(None);
            }
            let header = tar::Header::from_byte_slice(&block).clone();
            if !checksum_fits(&header) {
                return Err(self.damaged("this is not a tar header; the archive is damaged, or is not a tar archive"));
            }
            let size = header.entry_size().map_err(|e| self.damaged(e.to_string()))?;
            match block[156] {
                b'x' | b'X' => {
                    let text = self.extension(size, LARGEST_RECORDS)?;
                    records.add(&text).map_err(|e| self.damaged(e))?;
                }
                b'g' => {
                    let text = self.extension(size, LARGEST_RECORDS)?;
                    let mut globals = std::mem::take(&mut self.globals);
                    globals.add(&text).map_err(|e| self.damaged(e))?;
                    records.add(&text).map_err(|e| self.damaged(e))?;
                    self.globals = globals;
                }
                b'L' => long_name = Some(until_nul(self.extension(size, LARGEST_NAME)?)),
                b'K' => long_link = Some(until_nul(self.extension(size, LARGEST_NAME)?)),
                // The label of a volume is skipped.
                b'V' => self.skip(
                    size.checked_next_multiple_of(BLOCK)
                        .ok_or_else(|| self.damaged("its size"))?,
                )?,
                _ => return self.entry(&header, &records, long_name, long_link).map(Some),
            }
        }
    }

    /// Reads to the end of the file, because the checksum of a compressed archive is only checked there. Padding is at most a record,
    /// 10 KiB by default (GNU tar's --blocking-factor).
    fn drain(&mut self) -> Result<()> {
        let got = io::copy(&mut (&mut self.inner).take(LARGEST_PADDING), &mut io::sink())
            .map_err(|e| self.damaged(format!("the archive is damaged: {e}")))?;
        if got == LARGEST_PADDING {
            return Err(self.damaged(format!("more than {LARGEST_PADDING} bytes follow the archive's end")));
        }
        Ok(())
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        records: &Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let plain_name = || long_name.unwrap_or_else(|| header.path_bytes().into_owned());
        let path = records.get("GNU.sparse.name").or(records.get("path"));
        let path = path.map_or_else(plain_name, <[u8]>::to_vec);
        let shown = show_name(&path);
        let wrong = |why: String| ImportError::Archive {
            entry: shown.clone(),
            why,
        };
        let field = |e: io::Error| wrong(e.to_string());
        let number = |key: &str, plain: io::Result<u64>| match records.number(key) {
            Ok(Some(number)) => Ok(number),
            Ok(None) => plain.map_err(field),
            Err(why) => Err(wrong(why)),
        };
        let size = number("size", header.entry_size())?;
        let plain_link = || long_link.or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
        let link = records
            .get("linkpath")
            .map(<[u8]>::to_vec)
            .or_else(plain_link)
            .unwrap_or_default();
        let flag = header.as_bytes()[156];
        let kind = match flag {
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Node(FileType::Directory, 0, 0),
            0 | b'0' | b'7' | b'S' => Kind::Node(FileType::RegularFile, 0, 0),
            b'1' => Kind::HardLink,
            b'2' => Kind::Node(FileType::Symlink, 0, 0),
            b'3' | b'4' => {
                let part = |key, plain: io::Result<Option<u32>>| {
                    let value = number(key, plain.map(|v| u64::from(v.unwrap_or(0))))?;
                    u32::try_from(value).map_err(|_| wrong("its device number is out of range".to_owned()))
                };
                let kind = if flag == b'3' {
                    FileType::CharacterDevice
                } else {
                    FileType::BlockDevice
                };
                let major = part("SCHILY.devmajor", header.device_major())?;
                let minor = part("SCHILY.devminor", header.device_minor())?;
                // mknod(2) supports 12 and 20 bits (linux/kdev_t.h).
                if major >= 1 << 12 || minor >= 1 << 20 {
                    return Err(wrong(format!("its device number {major}:{minor} is out of range")));
                }
                Kind::Node(kind, major, minor)
            }
            b'5' | b'D' => Kind::Node(FileType::Directory, 0, 0),
            b'6' => Kind::Node(FileType::Fifo, 0, 0),
            b'M' => {
                return Err(wrong(
                    "is part of an archive of several volumes; join them first".to_owned(),
                ));
            }
            other => {
                return Err(wrong(format!(
                    "is of unknown type '{}'",
                    (other as char).escape_default()
                )));
            }
        };
        let id = |key, plain| {
            let value = number(key, plain)?;
            let valid = u32::try_from(value).ok().filter(|v| *v != u32::MAX);
            valid.ok_or_else(|| wrong(format!("{key} {value} is out of range")))
        };
        let mtime = match records.get("mtime") {
            Some(text) => pax::time(text).ok_or_else(|| wrong("its mtime is not a time".to_owned()))?,
            None => (header.mtime().map_err(field)? as i64, 0),
        };
        let mut xattrs = Vec::new();
        for (name, value) in records.xattrs() {
            let name = CString::new(name).map_err(|_| wrong("an attribute's name contains NUL".to_owned()))?;
            xattrs.push((name, value.to_vec()));
        }
        let meta = Meta {
            mode: header.mode().map_err(field)? & 0o7777,
            uid: id("uid", header.uid())?,
            gid: id("gid", header.gid())?,
            mtime,
            xattrs,
        };
        // Links and so on have no data, whatever their size says. Directories of type D have data, which is skipped.
        self.left = match flag {
            b'1'..=b'6' => 0,
            _ => size,
        };
        self.padding = self
            .left
            .checked_next_multiple_of(BLOCK)
            .ok_or_else(|| wrong("its size overflows".into()))?
            - self.left;
        let data = self.sparse(header, records, kind).map_err(wrong)?;
        Ok(Entry {
            text_acl: records
                .get("SCHILY.acl.access")
                .or(records.get("SCHILY.acl.default"))
                .is_some(),
            has_flags: records.get("SCHILY.fflags").is_some(),
            path,
            link,
            kind,
            meta,
            data,
        })
    }

    fn sparse(
        &mut self,
        header: &tar::Header,
        records: &Records,
        kind: Kind,
    ) -> std::result::Result<SparseMap, String> {
        if kind != Kind::Node(FileType::RegularFile, 0, 0) {
            return Ok(SparseMap::default());
        }
        let map = if header.as_bytes()[156] == b'S' {
            self.old_sparse(header)?
        } else if records.get("GNU.sparse.major") == Some(b"1") {
            let size = records
                .number("GNU.sparse.realsize")?
                .ok_or("it is sparse, but its size is missing")?;
            let limited = (&mut self.inner).take(self.left);
            let (map, taken) = SparseMap::read(limited, size)?;
            self.offset += taken;
            self.left -= taken;
            map
        } else if let Some(map) = SparseMap::from_records(records)? {
            map
        } else {
            SparseMap {
                size: self.left,
                segments: vec![(0, self.left)],
            }
        };
        map.check(self.left)
    }

    /// The map of GNU tar's old format: four segments in the header, 21 in each block that follows.
    fn old_sparse(&mut self, header: &tar::Header) -> std::result::Result<SparseMap, String> {
        let gnu = header
            .as_gnu()
            .ok_or("it is a sparse file of GNU tar with another tar's header")?;
        let mut map = SparseMap {
            size: gnu.real_size().map_err(|e| e.to_string())?,
            segments: Vec::new(),
        };
        let mut add = |list: &[tar::GnuSparseHeader]| {
            for segment in list.iter().filter(|s| !s.is_empty()) {
                let offset = segment.offset().map_err(|e| e.to_string())?;
                map.segments
                    .push((offset, segment.length().map_err(|e| e.to_string())?));
            }
            match map.segments.len() > pax::MOST_SEGMENTS {
                true => Err("it has too many holes".to_owned()),
                false => Ok(()),
            }
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.fill(block.as_mut_bytes()).map_err(|e| e.to_string())?;
            add(block.sparse())?;
            more = block.is_extended();
        }
        Ok(map)
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Offset and size of the current entry's data in the archive. Continues after it without reading it. `inner` was at its start when
    /// this reader was made.
    pub fn pass(&mut self) -> Result<(u64, u64)> {
        let place = (self.offset, self.left);
        // Neither exceeds the size of a file: both were computed from bytes that were read, and from one header.
        self.offset = self.offset.saturating_add(self.left).saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        self.inner
            .seek(io::SeekFrom::Start(self.offset))
            .map_err(|e| self.damaged(format!("the archive cannot be read: {e}")))?;
        Ok(place)
    }
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|b| *b == 0) {
        name.truncate(end);
    }
    name
}

/// Checks the header's checksum: the sum of its bytes, with the checksum itself as spaces (POSIX.1-2024, pax, "ustar").
fn checksum_fits(header: &tar::Header) -> bool {
    let block = header.as_bytes();
    let others = block[..148].iter().chain(&block[156..]);
    let sum = others.map(|b| u32::from(*b)).sum::<u32>() + 8 * u32::from(b' ');
    header.cksum().is_ok_and(|written| written == sum)
}
