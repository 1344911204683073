//! Overlays: the files that make a shared root one particular node's.
//!
//! A tree below `templates/` holds minijinja files (`*.j2`), files copied as they are, and an
//! `overlay.toml` with modes, owners and links. Trees are read and compiled once, at start and at
//! reload; rendering one node's files is pure.
//!
//! `renderer` is what the daemon asks: for a boot, and for whoever wants to see what a node would get. `mounts` is what `[[mount]]`
//! makes, `crate::users` what `[users]` does, `check` tries every template before a node needs it.

mod check;
mod facts;
mod hostkeys;
mod listing;
mod mounts;
mod problem;
mod render;
mod renderer;
mod tree;

pub use check::{check, lacking};
pub use listing::{ListedFile, ListedTree};
pub use render::Placed;
pub use renderer::{Preview, Rendered, Renderer, UsersReport};
pub use tree::{Templates, TreeError};
