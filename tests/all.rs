//! One integration binary: `netns` has real clients against the daemon in namespaces, `vm` has virtual machines.

mod vm;
