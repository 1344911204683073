//! Messages of nodes' kernels by UDP (netconsole): the lines around a panic go to the node's timeline, all others are dropped.
//!
//! [`lines`] decides (pure), [`task`] has the socket. There is no authentication. What is accepted comes from the address of a node, and
//! from a port that only root of that node can use.

pub mod lines;
pub mod task;
