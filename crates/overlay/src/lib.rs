//! Overlays: the files that make a shared root the root of one node.
//!
//! A tree below `templates/`, at the top of the workspace, holds minijinja files (`*.j2`), files copied as they are, and an
//! `overlay.toml` with modes, owners and links. Trees are read and compiled once, at start and at
//! reload; rendering one node's files is pure.
//!
//! `renderer` is the daemon's interface: for a boot, and for `overlay render`. `mounts` is what `[[mount]]`
//! makes, and `node_users` (from `users`) what `[users]` makes, also for nodes that run; `task` notices changes of the
//! server's users; `check` renders every template before a node needs it.

mod check;
mod facts;
mod hostkeys;
mod listing;
mod mounts;
mod node_users;
mod problem;
mod render;
mod renderer;
mod rescue;
mod task;
mod tree;
pub mod users;

pub use check::{check, enforcing_selinux, lacking};
pub use listing::{ListedFile, ListedTree};
pub use node_users::UsersReport;
pub use render::Placed;
pub use renderer::{Preview, Renderer};
pub use task::watch_users;
pub use tree::{Templates, TreeError};
