//! One integration binary.

#[path = "netns/nfs.rs"]
mod netns_nfs;
