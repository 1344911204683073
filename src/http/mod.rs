//! HTTP: boot scripts, kernels and initramfs for loaders; plans, overlays and reports for agents.
//!
//! [`script`] renders what loaders get (pure); [`requests`] turns a request into an answer and a
//! timeline entry; [`task`] holds the sockets.

pub mod script;
