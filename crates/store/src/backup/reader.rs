//! Reads a backup row by row, without trusting its content.

use super::{
    BackupError, FORMAT, HEADER_LIMIT, Header, KEY_LIMIT, MAGIC, NAME_LIMIT, Row, SKIPPABLE, TOTAL_LIMIT, VALUE_LIMIT,
    WINDOW_LOG, key_on_line, trailer,
};
use crate::{SCHEMA, Table, error::key_text};
use rackstrap_base::text::quoted;
use serde::de::IgnoredAny;
use std::{
    io::{self, BufRead, BufReader, Read},
    str,
};

/// Longest line: a key may have two hex digits per byte.
const LINE_LIMIT: usize = 32 + 2 * KEY_LIMIT + VALUE_LIMIT;

/// A backup that is being read. Its rows are valid only after [`Reader::next_row`] has returned none, because the digest comes last.
pub struct Reader<R: BufRead> {
    header: Header,
    /// None after the end was read.
    lines: Option<BufReader<zstd::Decoder<'static, Hashing<R>>>>,
    total: u64,
    table: Option<Table>,
    /// Rows of the current table.
    rows: u64,
    key: Vec<u8>,
    line: Vec<u8>,
}

/// Computes the digest of the bytes that were read.
struct Hashing<R> {
    input: R,
    hasher: blake3::Hasher,
}

impl<R: BufRead> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Hashing<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // `amount` bytes are in the buffer already, so this reads nothing and cannot fail.
        if let Ok(buffer) = self.input.fill_buf() {
            self.hasher.update(&buffer[..amount.min(buffer.len())]);
        }
        self.input.consume(amount);
    }
}

fn failed(error: io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Cut,
        _ => BackupError::Io { what: "read", error },
    }
}

/// zstd reports faults of its frames with [`io::ErrorKind::Other`]; the file system does not use it.
fn unpacking_failed(error: io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::Other if error.raw_os_error().is_none() => BackupError::Damaged(error.to_string()),
        _ => failed(error),
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Errors of `input`; the file is not a backup, or is newer.
    pub fn new(input: R) -> Result<Self, BackupError> {
        let mut input = Hashing {
            input,
            hasher: blake3::Hasher::new(),
        };
        let header = read_header(&mut input)?;
        let mut decoder = zstd::Decoder::with_buffer(input).map_err(failed)?.single_frame();
        decoder.window_log_max(WINDOW_LOG).map_err(failed)?;
        Ok(Reader {
            header,
            lines: Some(BufReader::new(decoder)),
            total: 0,
            table: None,
            rows: 0,
            key: Vec::new(),
            line: Vec::new(),
        })
    }

    /// The header of the backup.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next row; none after all rows were read and the digest matches.
    ///
    /// # Errors
    /// Errors of the input, and faults of the backup. No row may be used then.
    pub fn next_row(&mut self) -> Result<Option<Row<'_>>, BackupError> {
        let Some(lines) = &mut self.lines else { return Ok(None) };
        self.line.clear();
        let limit = LINE_LIMIT as u64 + 1;
        let read = lines.take(limit).read_until(b'\n', &mut self.line);
        let length = read.map_err(unpacking_failed)? as u64;
        if length == 0 {
            self.end()?;
            return Ok(None);
        }
        self.total += length;
        if self.total > TOTAL_LIMIT {
            return Err(BackupError::TooMuch);
        }
        if self.line.pop() != Some(b'\n') {
            let what = match length < limit {
                true => "its last row is incomplete",
                false => "a row is too long",
            };
            return Err(BackupError::Damaged(what.into()));
        }
        let (table, value) = self.parse()?;
        Ok(Some(Row {
            table,
            key: &self.key,
            value: &self.line[value..],
        }))
    }

    /// Parses `line`: returns the table and the start of the value, and writes the key to `key`.
    fn parse(&mut self) -> Result<(Table, usize), BackupError> {
        let mut parts = self.line.splitn(3, |b| *b == b'\t');
        let (Some(name), Some(key), Some(value)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(BackupError::Damaged("a row is not a table, key and value".into()));
        };
        let table = Table::ALL.into_iter().find(|table| table.name().as_bytes() == name);
        let table = table.ok_or_else(|| {
            let name = quoted(&String::from_utf8_lossy(name), 64);
            BackupError::Damaged(format!("table '{name}' is unknown"))
        })?;
        let bytes = match key.strip_prefix(b"0x") {
            Some(digits) => hex::decode(digits).unwrap_or_default(),
            None => key.to_vec(),
        };
        if bytes.len() > KEY_LIMIT || key_on_line(&bytes).as_bytes() != key {
            return Err(BackupError::Damaged(format!("a key of {} is misspelt", table.name())));
        }
        if value.len() > VALUE_LIMIT || serde_json::from_slice::<IgnoredAny>(value).is_err() {
            return Err(damaged_row(table, &bytes, "its value is not JSON, or is too long"));
        }
        let value = self.line.len() - value.len();
        if self.table != Some(table) {
            let follows = self.table.is_none_or(|before| (before as usize) < table as usize);
            if !follows {
                return Err(BackupError::Damaged(format!("table {} is out of order", table.name())));
            }
            self.leave_table(table as usize)?;
            (self.table, self.rows) = (Some(table), 0);
        } else if bytes <= self.key {
            return Err(damaged_row(table, &bytes, "it is out of order, or a duplicate"));
        }
        self.rows += 1;
        if self.rows > self.header.count(table) {
            return Err(wrong_count(table));
        }
        self.key = bytes;
        Ok((table, value))
    }

    /// Checks that the current table and all before number `next` are complete.
    fn leave_table(&self, next: usize) -> Result<(), BackupError> {
        let present = self.table.map_or(0, |table| table as usize);
        let passed = Table::ALL
            .into_iter()
            .filter(|table| (present..next).contains(&(*table as usize)));
        for table in passed {
            let rows = if self.table == Some(table) { self.rows } else { 0 };
            if rows != self.header.count(table) {
                return Err(wrong_count(table));
            }
        }
        Ok(())
    }

    /// Checks the counts and the digest after the last row, and that nothing follows.
    fn end(&mut self) -> Result<(), BackupError> {
        self.leave_table(Table::ALL.len())?;
        let Some(lines) = self.lines.take() else { return Ok(()) };
        let Hashing { input, hasher } = lines.into_inner().finish();
        let expected = trailer(&hasher.finalize());
        let mut found = Vec::with_capacity(expected.len() + 1);
        let read = input.take(expected.len() as u64 + 1).read_to_end(&mut found);
        read.map_err(failed)?;
        if expected == found {
            return Ok(());
        }
        Err(match found.len().cmp(&expected.len()) {
            std::cmp::Ordering::Less => BackupError::Cut,
            std::cmp::Ordering::Equal => BackupError::Damaged("its digest does not match".into()),
            std::cmp::Ordering::Greater => BackupError::Damaged("more data follows its end".into()),
        })
    }
}

fn damaged_row(table: Table, key: &[u8], what: &str) -> BackupError {
    BackupError::Damaged(format!("{} {}: {what}", table.name(), key_text(key)))
}

fn wrong_count(table: Table) -> BackupError {
    BackupError::Damaged(format!(
        "{} does not have as many rows as its header says",
        table.name()
    ))
}

fn read_header(input: &mut impl Read) -> Result<Header, BackupError> {
    let mut start = [0; 8];
    // A shorter input is a cut backup only if it begins like one.
    let length = read_some(input, &mut start)?;
    if !SKIPPABLE.to_le_bytes().starts_with(&start[..length.min(4)]) {
        return Err(BackupError::Foreign);
    }
    if length < start.len() {
        return Err(BackupError::Cut);
    }
    let size = u32::from_le_bytes([start[4], start[5], start[6], start[7]]) as usize;
    if size > HEADER_LIMIT {
        return Err(BackupError::Foreign);
    }
    let mut text = vec![0; size];
    let length = read_some(input, &mut text)?;
    text.truncate(length);
    let begins = text.len().min(MAGIC.len());
    if text[..begins] != MAGIC.as_bytes()[..begins] {
        return Err(BackupError::Foreign);
    }
    if length < size {
        return Err(BackupError::Cut);
    }
    let damaged = |what: &str| BackupError::Damaged(format!("its header {what}"));
    let text = str::from_utf8(&text).map_err(|_| damaged("is not text"))?;
    let (first, rest) = text.split_once('\n').ok_or_else(|| damaged("has no second line"))?;
    let version = first.strip_prefix(MAGIC).ok_or(BackupError::Foreign)?;
    match version.parse::<u64>() {
        Ok(found) if found == u64::from(FORMAT) && version == FORMAT.to_string() => {}
        Ok(found) if found > u64::from(FORMAT) => return Err(BackupError::NewerFormat { found }),
        _ => return Err(damaged("has no format version")),
    }
    let json = rest.strip_suffix('\n').ok_or_else(|| damaged("is incomplete"))?;
    let header: Header = serde_json::from_str(json).map_err(|error| damaged(&format!("is misspelt: {error}")))?;
    // These names are shown to people on terminals.
    for name in [&header.cluster, &header.rackstrap] {
        if name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
            return Err(damaged("has an impossible name"));
        }
    }
    if header.schema > SCHEMA {
        return Err(BackupError::NewerSchema {
            found: header.schema,
            by: header.rackstrap,
            known: SCHEMA,
        });
    }
    if header.schema == 0 {
        return Err(damaged("claims schema version 0"));
    }
    match header
        .rows
        .keys()
        .find(|name| Table::ALL.iter().all(|table| table.name() != name.as_str()))
    {
        Some(_) => Err(damaged("counts rows of an unknown table")),
        None => Ok(header),
    }
}

/// Fills `buffer` with as many bytes as there are.
fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, BackupError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(filled)
}
