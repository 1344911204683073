//! Images: root trees as immutable versions, each with its kernel and initramfs.

mod manifest;

pub use manifest::{Catalog, ImageVersion, InitKind, Manifest};
