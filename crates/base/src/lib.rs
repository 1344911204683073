//! What the engines and the program share: each module is one small thing that knows no other part of rackstrap.

pub mod arch;
pub mod clock;
pub mod firmware;
pub mod inet;
pub mod link;
pub mod panics;
pub mod rare;
pub mod seats;
pub mod subnet;
pub mod warnings;
pub mod words;
