//! cli.
pub mod image;
