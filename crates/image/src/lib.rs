//! Images: root trees as immutable versions, each with its kernel and initramfs.
//!
//! [`import`] makes a version from a source outside, [`clone_version`] and [`seal()`] make one from another version. Both end in
//! `prepare` (`inspect` checks that a node can boot the tree, `initramfs` builds the initramfs, `digest` and `packages` describe the
//! tree) and in `versions`, which gives the version its number by one rename. `tree` copies directories, `tar` extracts archives,
//! `oci` reads container images. The daemon reads images with [`load_catalog`].

mod agents;
mod bootstrap;
mod catalog;
mod delete;
mod diff;
mod digest;
mod enter;
mod error;
mod foreign;
mod freebsd;
mod image_list;
mod import;
mod initramfs;
mod inspect;
mod kernel;
mod kernel_modules;
mod leftovers;
mod locks;
mod oci;
mod packages;
mod placeholders;
mod prepare;
mod progress;
mod recipe;
mod release;
mod root;
mod rpm;
mod seal;
mod selinux;
mod signature;
mod tar;
mod tree;
mod verify;
mod versions;
mod work;

pub use agents::Agents;
pub use catalog::{CatalogProblem, load_catalog, needs_root};
pub use delete::{
    Verdict, collect_leftovers, delete_variant, delete_versions, gc_plan, rename_image, variant_to_delete,
};
pub use diff::{Became, FileChange, diff_trees};
pub use enter::{EnterRequest, enter, run_inside};
pub use error::{ImportError, show_bytes};
pub use import::{ImportRequest, import};
pub use initramfs::{ModuleSurvey, ModuleTexts, survey_modules};
pub use kernel::release_of as kernel_release;
pub use kernel_modules::{KernelModules, missing_modules};
pub use locks::{Locked, show_pids};
pub use oci::{OciOptions, survey_documents};
pub use packages::{Package, PackageChange, Packages};
pub use prepare::{packages_installed, packages_of};
#[cfg(test)]
use progress::Quiet;
pub use progress::{Progress, Step};
pub use root::RootDir;
pub use seal::{SealRequest, seal};
pub use selinux::{permissive_args, selinux_remark};
pub use signature::{is_signed, kernel_is_signed};
pub use tar::{Survey, survey as survey_tar};
pub use verify::{keep_version, verify};
pub use versions::own_images;
pub use work::{
    CloneRequest, Cloned, Way, WorkInfo, WorkingCopy, clone_version, default_name, delete_working_copy,
    find_working_copy, working_copies,
};

use rackstrap_catalog::{Catalog, ImageVersion, InitKind, Manifest, PackageCounts, PackageKind};
