//! Extracting a root tree from an archive: ustar, pax and GNU tar, plain or compressed.
//!
//! Headers are decoded by the `tar` crate; extensions are read here, as that crate reads them without a bound, knows
//! no pax sparse files, and its extraction keeps neither extended attributes of all kinds nor devices.

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

/// The bytes of `packed` without the compression that their first ones tell of.
pub(crate) fn decompress<'a>(packed: impl std::io::BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    stream::decompress(packed)
}

use super::error::Result;
use std::io::Read;

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Files, directories, links and the like.
    pub entries: u64,
    /// Bytes of file content in the archive; holes are not counted.
    pub stored: u64,
}

/// Reads an archive that is not compressed to its end, as an import does, and writes nothing.
///
/// # Errors
/// It is damaged, cut off, or holds what an import refuses by its headers alone.
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
