//! The nodes of the cluster, the records of their disks, and the decision on each boot.
//!
//! Everything here is pure. Registries of the program store it, and protocols ask [`decide::decide`].

pub mod bmc;
pub mod decide;
pub mod disks;
pub mod inventory;
pub mod orders;
pub mod testing;
