//! Extracts a root tree from an archive: ustar, pax and GNU tar, plain or compressed.
//!
//! The `tar` crate decodes headers. Extensions are read here, because that crate reads them without a limit and does not support pax
//! sparse files, and its extraction keeps neither all kinds of extended attributes nor devices.

mod extract;
mod layers;
mod members;
mod pax;
mod reader;
mod sparse;
mod stream;

pub(crate) use extract::extract;
pub(crate) use layers::Layers;
pub(crate) use members::{Member, members};

/// Decompresses `packed`. The first bytes show the compression.
pub(crate) fn decompress<'a>(packed: impl std::io::BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    stream::decompress(packed)
}

use super::error::Result;
use std::io::Read;

/// The size of an archive's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Files, directories, links and the like.
    pub entries: u64,
    /// Bytes of file content in the archive, without holes.
    pub stored: u64,
}

/// Reads an uncompressed archive to its end like an import, but writes nothing.
///
/// # Errors
/// It is damaged, cut off, or contains headers that an import refuses.
pub fn survey(archive: impl Read) -> Result<Survey> {
    let mut reader = reader::Reader::new(archive);
    let mut survey = Survey::default();
    let mut buffer = vec![0; 64 << 10];
    while reader.next()?.is_some() {
        survey.entries += 1;
        loop {
            let got = reader.data(&mut buffer)?;
            survey.stored += got as u64;
            if got == 0 {
                break;
            }
        }
    }
    Ok(survey)
}

#[cfg(test)]
mod tests;
