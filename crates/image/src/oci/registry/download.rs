//! Downloads a blob as a stream, over several connections if some break.

use super::client::{ATTEMPTS, Registry, pause};
use crate::oci::Digest;
use std::io::{self, Read};

/// Most broken connections for one blob.
const MOST_BREAKS: u32 = 100;
/// Bytes after which a broken connection does not count as a failure in a row.
const GOOD: u64 = 1 << 20;

/// Reads a blob, and continues after a broken connection.
pub(super) struct Download<'a> {
    registry: &'a mut Registry,
    digest: Digest,
    size: u64,
    at: u64,
    body: Option<Box<dyn Read>>,
    /// Failures in a row, and the offset of the last one.
    failures: u32,
    failed_at: u64,
    breaks: u32,
    /// Why the download was abandoned.
    dead: Option<String>,
}

impl<'a> Download<'a> {
    pub fn new(registry: &'a mut Registry, digest: Digest, size: u64) -> Self {
        Download {
            registry,
            digest,
            size,
            at: 0,
            body: None,
            failures: 0,
            failed_at: 0,
            breaks: 0,
            dead: None,
        }
    }

    fn connect(&mut self) -> io::Result<Box<dyn Read>> {
        let (mut body, begins_there) = self
            .registry
            .open_blob(&self.digest, self.at, self.size)
            .map_err(|e| io::Error::other(e.to_string()))?;
        if !begins_there && self.at > 0 {
            // The server does not support ranges. The digest shows whether the bytes are the same this time.
            let skipped = io::copy(&mut (&mut body).take(self.at), &mut io::sink())?;
            if skipped < self.at {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(body)
    }

    fn attempt(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let body = self.connect()?;
                self.body.insert(body)
            }
        };
        match body.read(buffer)? {
            0 if self.at < self.size => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the connection ended after {} of {} bytes", self.at, self.size),
            )),
            got => Ok(got),
        }
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(why) = &self.dead {
            return Err(io::Error::other(why.clone()));
        }
        if self.at == self.size || buffer.is_empty() {
            return Ok(0);
        }
        let want = buffer.len().min((self.size - self.at).try_into().unwrap_or(usize::MAX));
        loop {
            // `Registry::get` has already retried the failures that it returns.
            let connected = self.body.is_some();
            let error = match self.attempt(&mut buffer[..want]) {
                Ok(got) => {
                    self.at += got as u64;
                    return Ok(got);
                }
                Err(e) => e,
            };
            let refused = !connected && error.kind() == io::ErrorKind::Other;
            self.body = None;
            self.breaks += 1;
            self.failures = if self.at - self.failed_at >= GOOD {
                1
            } else {
                self.failures + 1
            };
            self.failed_at = self.at;
            if refused || self.failures >= ATTEMPTS || self.breaks >= MOST_BREAKS {
                let why = match refused {
                    true => error.to_string(),
                    false => format!("the download broke {} times, the last time: {error}", self.breaks),
                };
                self.dead = Some(why.clone());
                return Err(io::Error::other(why));
            }
            self.registry.remarks.push(format!(
                "the download of {} broke at {} of {} bytes and was continued: {error}",
                self.digest.short(),
                self.at,
                self.size
            ));
            std::thread::sleep(pause(self.failures));
        }
    }
}
