//! Extracting a root tree from an archive: ustar, pax and GNU tar, plain or compressed.
//!
//! Headers are decoded by the `tar` crate; extensions are read here, as that crate reads them without a bound, knows
//! no pax sparse files, and its extraction keeps neither extended attributes of all kinds nor devices.

mod extract;
mod pax;
mod reader;
mod sparse;
mod stream;

pub(crate) use extract::extract;

#[cfg(test)]
mod tests;
