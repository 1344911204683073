//! Root trees on disk: copied whole, with everything that an operating system sees of a file.

mod copy;
mod data;
mod meta;
mod place;
mod remove;
mod space;

pub(crate) use copy::{Copied, copy_tree, count_tree};
pub(crate) use data::{DataCopier, write_extents};
pub(crate) use meta::{Meta, Notes, Target};
pub(crate) use place::{Id, open_dir, open_dir_as_root, open_parent};
pub(crate) use remove::remove_tree;
pub(crate) use space::SpaceGuard;

#[cfg(test)]
pub(crate) mod nasty;
#[cfg(test)]
mod tests;
