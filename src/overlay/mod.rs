//! Overlays: the files that make a shared root the root of one node.
//!
//! A tree below `templates/` holds minijinja files (`*.j2`), files copied as they are, and an
//! `overlay.toml` with modes, owners and links. Trees are read and compiled once, at start and at
//! reload; rendering one node's files is pure.
//!
//! `renderer` is the daemon's interface: for a boot, and for `overlay render`. `mounts` is what `[[mount]]`
//! makes, and `users` (with `crate::users`) what `[users]` makes, also for nodes that run; `task` notices changes of the
//! server's users; `check` renders every template before a node needs it.

mod check;
mod facts;
mod hostkeys;
mod listing;
mod mounts;
mod problem;
mod render;
mod renderer;
mod task;
mod tree;
mod users;

pub use check::{check, enforcing_selinux, lacking};
pub use listing::{ListedFile, ListedTree};
pub use render::Placed;
pub use renderer::{Preview, Renderer};
pub use task::watch_users;
pub use tree::{Templates, TreeError};
pub use users::UsersReport;
