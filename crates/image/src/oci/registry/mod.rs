//! Images in registries (OCI distribution specification 1.1; Docker's token authentication).

mod auth;
mod client;
mod credentials;
mod download;
mod reference;

pub(super) use client::Registry;
pub(crate) use reference::Reference;

#[cfg(test)]
mod tests;
