//! Writes a backup row by row.

use super::{
    BackupError, FORMAT, HEADER_LIMIT, Header, KEY_LIMIT, LEVEL, MAGIC, Row, TOTAL_LIMIT, VALUE_LIMIT, frame,
    key_on_line, trailer,
};
use crate::{Table, error::key_text};
use std::{collections::BTreeMap, io, io::Write};

/// A backup that is being written. Without [`Writer::finish`] the file counts as cut.
pub struct Writer<W: Write> {
    encoder: zstd::Encoder<'static, Hashing<W>>,
    promised: BTreeMap<String, u64>,
    written: BTreeMap<String, u64>,
    total: u64,
    line: Vec<u8>,
}

/// Computes the digest of the bytes that were written.
struct Hashing<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn bad_row(table: Table, key: &[u8], what: impl Into<String>) -> BackupError {
    BackupError::Row {
        table: table.name(),
        key: key_text(key),
        what: what.into(),
    }
}

fn failed(error: io::Error) -> BackupError {
    BackupError::Io { what: "write", error }
}

impl<W: Write> Writer<W> {
    /// Starts a backup with `header`, which contains the number of rows.
    ///
    /// # Errors
    /// Errors of `out`.
    pub fn new(out: W, header: &Header) -> Result<Self, BackupError> {
        let json = serde_json::to_string(header).map_err(|error| failed(error.into()))?;
        let text = format!("{MAGIC}{FORMAT}\n{json}\n");
        if text.len() > HEADER_LIMIT {
            return Err(BackupError::Damaged(format!("a header of {} bytes", text.len())));
        }
        let mut out = Hashing {
            out,
            hasher: blake3::Hasher::new(),
        };
        out.write_all(&frame(text.as_bytes())).map_err(failed)?;
        Ok(Writer {
            encoder: zstd::Encoder::new(out, LEVEL).map_err(failed)?,
            promised: header.rows.clone(),
            written: BTreeMap::new(),
            total: 0,
            line: Vec::new(),
        })
    }

    /// Writes a row. Tables must be in the order of [`crate::Table::ALL`], keys ascending.
    ///
    /// # Errors
    /// Errors of `out`, and a row that a reader would refuse.
    pub fn row(&mut self, row: Row<'_>) -> Result<(), BackupError> {
        let Row { table, key, value } = row;
        if key.len() > KEY_LIMIT || value.len() > VALUE_LIMIT {
            let what = format!(
                "a key of {} and a value of {} bytes are too long",
                key.len(),
                value.len()
            );
            return Err(bad_row(table, key, what));
        }
        // JSON has line breaks only between tokens, and the store writes none there.
        if value.contains(&b'\n') {
            return Err(bad_row(table, key, "its value has a line break"));
        }
        self.line.clear();
        for part in [
            table.name().as_bytes(),
            b"\t",
            key_on_line(key).as_bytes(),
            b"\t",
            value,
            b"\n",
        ] {
            self.line.extend_from_slice(part);
        }
        self.total += self.line.len() as u64;
        if self.total > TOTAL_LIMIT {
            return Err(BackupError::TooMuch);
        }
        *self.written.entry(table.name().to_owned()).or_default() += 1;
        self.encoder.write_all(&self.line).map_err(failed)
    }

    /// Writes the end, and returns `out`.
    ///
    /// # Errors
    /// Errors of `out`, and another number of rows than in the header.
    pub fn finish(self) -> Result<W, BackupError> {
        let promised = self.promised.into_iter().filter(|(_, rows)| *rows > 0);
        if !promised.eq(self.written) {
            return Err(BackupError::Damaged(
                "the number of rows differs from its header".into(),
            ));
        }
        let Hashing { mut out, hasher } = self.encoder.finish().map_err(failed)?;
        let written = out.write_all(&trailer(&hasher.finalize()));
        written.and_then(|()| out.flush()).map_err(failed)?;
        Ok(out)
    }
}
