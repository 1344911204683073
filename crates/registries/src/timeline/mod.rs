//! What happened to each machine, from its first DISCOVER to `ready`.
//!
//! Each part that serves a machine records in the [`Recorder`] what happened. The state of a node ([`Standing`]) and the
//! summary of a boot ([`BootSummary`]) follow from these events only.

mod event;
mod follow;
mod kind;
mod machines;
mod node_status;
mod pace;
mod recorder;
mod retries;
mod rows;
mod standing;
mod summary;
mod task;

#[cfg(test)]
mod kind_tests;
#[cfg(test)]
mod node_status_tests;
#[cfg(test)]
mod overdue_tests;
#[cfg(test)]
mod tests;

#[cfg(test)]
use event::DETAIL_LIMIT;
pub use event::{Event, NodeState, Sender, Subject};
pub(crate) use follow::Follow;
pub use follow::dropped_order;
pub use kind::{DhcpMessage, EventKind};
pub use node_status::NodeStatus;
use pace::{BootPace, BootStage};
pub use rackstrap_base::level::Level;
pub use recorder::Recorder;
pub use retries::{LoaderStep, Retries, RetryCounts};
pub use standing::Standing;
pub use summary::{BootSummary, StepTime, summarise};
pub use task::watch_over;
