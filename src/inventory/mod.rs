//! Nodes in the files of other programs: import and export.

pub mod export;
pub mod import;
