//! Decompresses an archive. Its first bytes show the compression.

use crate::error::{Doing, ImportError, Result};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Memory limit for unpacking an .xz archive: `xz -9` needs 65 MiB, its largest dictionary more than 1.5 GiB.
const XZ_MEMORY: u64 = 256 << 20;

/// Counts the bytes read from a file, for the progress.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        self.read.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

/// An archive that is being read.
pub(super) struct Stream {
    /// Decompressed bytes.
    pub bytes: Box<dyn Read>,
    /// Number of bytes of the file that were read.
    pub position: Arc<AtomicU64>,
    /// Length of the file.
    pub len: u64,
}

/// Starts to read `file` from its current position, the beginning.
pub(super) fn open(file: File) -> Result<Stream> {
    let len = file.metadata().doing(|| READING)?.len();
    let position = Arc::new(AtomicU64::new(0));
    let counted = Counted {
        file,
        read: position.clone(),
    };
    let bytes = decompress(BufReader::with_capacity(1 << 18, counted))?;
    Ok(Stream { bytes, position, len })
}

const READING: &str = "reading the archive";

/// Decompresses `packed`.
pub(super) fn decompress<'a>(mut packed: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::with_capacity(6);
    (&mut packed).take(6).read_to_end(&mut magic).doing(|| READING)?;
    let plain = io::Cursor::new(magic.clone()).chain(packed);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(plain)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, xz2::stream::CONCATENATED)
                .map_err(io::Error::from)
                .doing(|| READING)?;
            Box::new(xz2::bufread::XzDecoder::new_stream(plain, stream))
        }
        // The library itself refuses windows above 128 MiB (ZSTD_WINDOWLOG_LIMIT_DEFAULT).
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(plain).doing(|| READING)?),
        [b'B', b'Z', b'h', ..] => {
            return Err(ImportError::Request(
                "bzip2 archives are not supported; use gzip, xz, zstd, or none".to_owned(),
            ));
        }
        _ => Box::new(plain),
    })
}
