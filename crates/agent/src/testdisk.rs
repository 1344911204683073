//! File systems for tests that need the parts of a disk without a disk.

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount};
use std::{
    ffi::CString,
    path::{Path, PathBuf},
};

/// A tmpfs that is mounted until this is dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts a tmpfs on a directory.
    pub fn tmpfs(at: &Path, options: &str) -> Self {
        let options = CString::new(options).unwrap();
        mount("disk", at, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        mount_change(at, MountPropagationFlags::PRIVATE).unwrap();
        Mounted(at.to_owned())
    }

    /// Makes it read-only.
    pub fn read_only(&self) {
        mount_remount(&self.0, MountFlags::RDONLY, "").unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
