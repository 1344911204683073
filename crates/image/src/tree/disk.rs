//! File systems in files, for tests. They need root and loop devices.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
};

/// A mounted file system, unmounted when dropped.
pub(crate) struct Disk {
    at: PathBuf,
}

fn run(program: &str, args: &[&str], paths: &[&Path]) {
    let mut command = Command::new(program);
    command.args(args).args(paths);
    let output = command.output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

impl Disk {
    /// XFS with reflinks, little larger than the smallest size of mkfs.xfs.
    pub fn xfs(at: PathBuf, file: PathBuf) -> Self {
        Self::make(at, file, 400 << 20, "mkfs.xfs", &["-q", "-m", "reflink=1"])
    }

    /// btrfs with its default options.
    pub fn btrfs(at: PathBuf, file: PathBuf) -> Self {
        Self::make(at, file, 500 << 20, "mkfs.btrfs", &["-q", "-m", "single"])
    }

    fn make(at: PathBuf, file: PathBuf, size: u64, program: &str, args: &[&str]) -> Self {
        // Most of the file stays a hole.
        std::fs::File::create(&file).unwrap().set_len(size).unwrap();
        std::fs::create_dir_all(&at).unwrap();
        run(program, args, &[&file]);
        run("mount", &["-o", "loop"], &[&file, &at]);
        Disk { at }
    }

    /// Bytes in use, after all deleted space was freed.
    pub fn used(&self) -> u64 {
        run("sync", &["-f"], &[&self.at]);
        if super::subvolume::on_btrfs(std::fs::File::open(&self.at).unwrap().as_fd()) {
            run("btrfs", &["subvolume", "sync"], &[&self.at]);
            // btrfs frees space with the next transaction.
            run("sync", &["-f"], &[&self.at]);
        }
        let stat = rustix::fs::statvfs(&self.at).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}
