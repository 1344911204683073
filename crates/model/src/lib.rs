//! What is bolted in, and who gets what: the nodes, what is known of their disks, and the decision on each boot.
//!
//! Everything here is pure. Registries of the program put it on disk, and protocols ask [`decide::decide`].

pub mod decide;
pub mod disks;
pub mod inventory;
pub mod testing;
