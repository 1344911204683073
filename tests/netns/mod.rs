//! Real clients against the engines, in network namespaces that each test makes and removes. Needs root.

pub mod dhcp;
