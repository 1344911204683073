//! Virtual machines that boot from a daemon in a namespace. `cargo xtask test --fast` leaves these out.
//!
//! One file a scenario. A boot takes most of a minute in software emulation, so a scenario follows one node
//! through everything that belongs together.

mod rig;
