//! Applies the image's list ([`ImageList`]) to the new root: capabilities, which NFSv3 does not transfer, and directories that belong to
//! the image even if a disk is mounted above them.
//!
//! A package database says what is installed in the root. The root is the image with a layer in RAM, so the database must be that of
//! image and layer, whatever copy of it a disk holds below /var. The root's own directory is mounted there. So the database always is
//! the booted version's, and a package that is installed on the running node disappears together with its entry.

use crate::{
    fail::{Doing, Failure, Res},
    overlay::Tree,
};
use rackstrap_wire::ImageList;
use rustix::fs::XattrFlags;
use std::os::fd::{AsRawFd, OwnedFd};

/// Path of the list in the initramfs. An image that was sealed without one has an empty list.
pub const LIST: &str = "/rackstrap/image.list";

/// True if `path`, relative to the root, is below the mount point `mount`.
fn is_below(path: &[u8], mount: &str) -> bool {
    let mount = mount.trim_start_matches('/').as_bytes();
    path.strip_prefix(mount).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Gives the files of the root their capabilities. Returns their number and the first failure. Files below `mounts` are on a disk and have
/// them already. The kernel copies each file to the layer in RAM for this.
pub fn give_capabilities(list: &ImageList<'_>, tree: &Tree, mounts: &[&str]) -> (usize, Option<String>) {
    let (mut given, mut problem) = (0, None);
    for (path, value) in &list.capabilities {
        if mounts.iter().any(|mount| is_below(path, mount)) {
            continue;
        }
        let done = tree.file(path).and_then(|file| {
            // A descriptor opened with O_PATH does not accept attributes itself.
            let name = format!("/proc/self/fd/{}", file.as_raw_fd());
            Ok(rustix::fs::setxattr(
                name.as_str(),
                "security.capability",
                value,
                XattrFlags::empty(),
            )?)
        });
        match done {
            Ok(()) => given += 1,
            Err(e) if problem.is_none() => {
                problem = Some(format!(
                    "/{} did not get its capabilities: {e}",
                    String::from_utf8_lossy(path)
                ));
            }
            Err(_) => {}
        }
    }
    (given, problem)
}

/// Directories of the image that a disk would hide, opened before the disks are mounted.
pub struct Owned(Vec<(String, OwnedFd)>);

impl Owned {
    /// Opens them in the new root, before anything is mounted there.
    pub fn open(list: &ImageList<'_>, tree: &Tree, mounts: &[&str]) -> Self {
        let hidden = list
            .owned
            .iter()
            .filter(|path| mounts.iter().any(|mount| is_below(path, mount)));
        let open = hidden.filter_map(|path| {
            let path = format!("/{}", std::str::from_utf8(path).ok()?);
            let directory = tree.directory(&path).ok()?;
            Some((path, directory))
        });
        Owned(open.collect())
    }

    /// Mounts them at their places, above the disks. An error contains the path.
    pub fn mount(&self, tree: &Tree) -> Result<(), (String, Failure)> {
        let one = |path: &str, directory: &OwnedFd| -> Res<()> {
            let place = tree.directory(path)?;
            let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
            rustix::mount::mount_bind(name(directory).as_str(), name(&place).as_str())
                .doing(|| format!("mounting the image's {path} above the disk's"))
        };
        for (path, directory) in &self.0 {
            one(path, directory).map_err(|failure| (path.clone(), failure))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "image_files_tests.rs"]
mod tests;
