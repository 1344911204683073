//! Overlays: the files that make a shared root one particular node's.
//!
//! A tree below `templates/` holds minijinja files (`*.j2`), files copied as they are, and an
//! `overlay.toml` with modes, owners and links. Trees are read and compiled once, at start and at
//! reload; rendering one node's files is pure.

mod render;
mod tree;

pub use render::{Facts, KeyPair, NodeFacts, PeerNode, SshKeys, render};
pub use tree::{Templates, TreeError};
