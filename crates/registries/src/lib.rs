//! What the daemon knows and keeps: nodes, their boots, timelines, unknown machines, restarts and rollouts; and what it does by
//! itself when they change.
//!
//! Each registry has its rows in the store and answers from memory. No engine is known here: the program passes on what
//! machines ask for and report.

pub mod boots;
pub mod discovery;
pub mod hooks;
pub mod nodes;
mod observed;
mod registries;
pub mod restart;
pub mod rollout;
pub mod testing;
pub mod timeline;

pub use observed::setting as image_setting;
pub use registries::{LOGGED_EFFECTS, Registries};
