//! Nodes in the files of other programs: import and export.
//!
//! Text in, text out. The command line reads and writes the files.

pub mod export;
pub mod import;
