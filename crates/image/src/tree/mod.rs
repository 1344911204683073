//! Root trees on disk, copied completely, with everything that an operating system sees of a file.

mod copy;
mod data;
mod flatten;
mod meta;
mod place;
mod remove;
mod space;
mod subvolume;
mod walk;

pub(crate) use copy::{Copied, copy_tree, count_tree};
pub(crate) use data::{DataCopier, write_extents};
pub(crate) use flatten::flatten;
pub(crate) use meta::{Meta, Remarks, Target, may_be_lost};
pub(crate) use place::{Id, open_dir, open_dir_as_root, open_parent, other_names};
pub(crate) use remove::{remove_tree, remove_tree_watched};
pub(crate) use space::SpaceGuard;
pub(crate) use subvolume::{has_nested, is_subvolume, make_root, snapshot};
pub(crate) use walk::{Entry, Walk, changing, reading, walk_order};

#[cfg(test)]
pub(crate) mod disk;
#[cfg(test)]
pub(crate) mod nasty;
#[cfg(test)]
mod tests;
