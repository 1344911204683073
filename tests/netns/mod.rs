//! Real clients against the engines, on loopback and in namespaces that the tests make themselves.

mod dhcp;
mod http;
mod nfs;
mod racking;
mod serve;
mod tftp;
