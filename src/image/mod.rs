//! Images: root trees as immutable versions, each with its kernel and initramfs.
//!
//! `import` makes a version: [`tree`] copies directories, [`tar`] extracts archives, [`oci`] takes container images, [`inspect`] tells whether a node
//! could boot the tree, [`initramfs`] builds what it boots, [`versions`] numbers and seals it. [`load_catalog`] is what
//! the daemon reads.

mod catalog;
mod error;
mod import;
mod initramfs;
mod inspect;
mod manifest;
mod oci;
mod progress;
mod recipe;
mod release;
mod root;
mod tar;
mod tree;
mod versions;

pub use catalog::{Problem, load_catalog};
pub use error::{ImportError, show_bytes};
pub use import::{ImportRequest, import};
pub use manifest::{Catalog, ImageVersion, InitKind, Manifest};
pub use oci::{OciOptions, survey_documents};
pub use progress::{Progress, Quiet, Step};
pub use recipe::{Recipe, RecipeError};
pub use tar::{Survey, survey as survey_tar};
