//! Mounts for a command in a working copy, in a mount namespace that ends with its last process.

use crate::error::{Doing, Result};
use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
        mount_change, move_mount, open_tree, unmount,
    },
    process::{pivot_root, umask},
};
use std::{
    ffi::CStr,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

/// Character devices in /dev, the same as in containers (Linux, Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// A program that invoke-rc.d and deb-systemd-invoke run before they start a service: 101 is "forbidden" (Debian's policy-rc.d
/// specification).
const POLICY: &str = "#!/bin/sh\nexit 101\n";

/// Directory of the files that are mounted over the image's.
const OURS: &str = "/run/rackstrap";

/// Makes `root` the root directory of this process, and mounts what programs expect. The process already has namespaces of its
/// own.
pub(super) fn mount_all(root: &Path, resolver: &[u8]) -> Result<()> {
    // Later mounts must not be visible outside.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .doing(|| "separating the mounts from the host's")?;
    let shown = root.display();
    mount_bind(root, root).doing(|| format!("mounting {shown}"))?;
    let console = terminal();
    std::env::set_current_dir(root).doing(|| format!("entering {shown}"))?;
    // pivot_root stacks the old root above the new one, to which `.` still refers, and the next call removes the old one.
    pivot_root(".", ".").doing(|| format!("making {shown} the root"))?;
    unmount(".", UnmountFlags::DETACH).doing(|| "leaving the host's files")?;
    std::env::set_current_dir("/").doing(|| "entering the new root")?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    file_system("proc", "/proc", quiet, None)?;
    file_system("sysfs", "/sys", quiet | MountFlags::RDONLY, None)?;
    devices(console)?;
    let nodev = MountFlags::NOSUID | MountFlags::NODEV;
    file_system("tmpfs", "/run", nodev, Some(c"mode=0755"))?;
    file_system("tmpfs", "/tmp", nodev, Some(c"mode=1777"))?;
    directory("/run/lock", 0o1777)?;
    directory(OURS, 0o755)?;
    cover("/etc/resolv.conf", "resolv.conf", resolver, 0o644)?;
    if Path::new("/usr/sbin").is_dir() {
        cover("/usr/sbin/policy-rc.d", "policy-rc.d", POLICY.as_bytes(), 0o755)?;
    }
    Ok(())
}

fn file_system(kind: &str, at: &str, flags: MountFlags, options: Option<&CStr>) -> Result<()> {
    mount(kind, at, kind, flags, options).doing(|| format!("mounting {kind} on {at}"))
}

fn directory(path: &str, mode: u32) -> Result<()> {
    let doing = || format!("making {path}");
    fs::create_dir(path).doing(doing)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).doing(doing)
}

/// The terminal of this process, for /dev/console. Its own name does not exist inside, and ttyname(3) finds it there.
fn terminal() -> Option<std::os::fd::OwnedFd> {
    let stdio = (0..=2).map(|fd| format!("/proc/self/fd/{fd}"));
    let path = stdio
        .filter_map(|link| fs::read_link(link).ok())
        .find(|path| path.starts_with("/dev/pts") || path.starts_with("/dev/tty") && path != Path::new("/dev/tty"))?;
    // A failure is no error: kernels before 5.2 and terminals of other namespaces have no console.
    open_tree(
        CWD,
        &path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .ok()
}

fn devices(console: Option<std::os::fd::OwnedFd>) -> Result<()> {
    file_system("tmpfs", "/dev", MountFlags::NOSUID, Some(c"mode=0755,size=4m"))?;
    let before = umask(Mode::empty());
    for (name, major, minor) in DEVICES {
        let path = Path::new("/dev").join(name);
        mknodat(
            CWD,
            &path,
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            makedev(major, minor),
        )
        .doing(|| format!("making {}", path.display()))?;
    }
    umask(before);
    directory("/dev/pts", 0o755)?;
    directory("/dev/shm", 0o1777)?;
    // 5 is the group tty nearly everywhere. A new instance shows no terminal of the host.
    let options = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    file_system(
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(options),
    )?;
    let nodev = MountFlags::NOSUID | MountFlags::NODEV;
    file_system("tmpfs", "/dev/shm", nodev, Some(c"mode=1777"))?;
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, Path::new("/dev").join(name)).doing(|| format!("making /dev/{name}"))?;
    }
    if let Some(console) = console {
        fs::write("/dev/console", "").doing(|| "making /dev/console")?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(console, "", CWD, "/dev/console", flags).doing(|| "mounting the terminal on /dev/console")?;
    }
    Ok(())
}

/// Mounts a file over the image's `path`. It changes neither the image's file nor the host's: changes disappear with the
/// namespace.
fn cover(path: &str, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let ours = Path::new(OURS).join(name);
    let doing = || format!("mounting a file over {path}");
    fs::write(&ours, content).doing(doing)?;
    fs::set_permissions(&ours, fs::Permissions::from_mode(mode)).doing(doing)?;
    let Some(target) = follow(Path::new(path)) else {
        eprintln!("note: nothing is mounted over {path}, because it is a loop of links");
        return Ok(());
    };
    if fs::symlink_metadata(&target).is_err() {
        // Links of systemd-resolved and resolvconf lead to missing files in /run, which may be created here.
        let fills = target.starts_with("/run") || target.starts_with("/tmp");
        let made = target.parent().filter(|_| fills).map(fs::create_dir_all);
        if !matches!(made, Some(Ok(()))) {
            eprintln!(
                "note: nothing is mounted over {path}, because its target {} does not exist",
                target.display()
            );
            return Ok(());
        }
        fs::write(&target, "").doing(doing)?;
    }
    mount_bind(&ours, &target).doing(doing)
}

/// Resolves the links of `path`, even if the target does not exist; none for a loop.
fn follow(path: &Path) -> Option<PathBuf> {
    /// Most links, as in the kernel (path_resolution(7)).
    const MOST: usize = 40;
    let mut left = MOST;
    let mut done = PathBuf::from("/");
    let mut todo: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(next) = todo.pop() {
        let mut parts = next.components();
        let Some(first) = parts.next() else { continue };
        let rest = parts.as_path().to_owned();
        todo.push(rest);
        match first {
            Component::RootDir => done = PathBuf::from("/"),
            Component::ParentDir => drop(done.pop()),
            Component::Normal(name) => {
                let here = done.join(name);
                match fs::read_link(&here) {
                    Ok(target) => {
                        left = left.checked_sub(1)?;
                        todo.push(target);
                    }
                    // This is not a link, or does not exist.
                    Err(_) => done = here,
                }
            }
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_missing_files_are_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        fs::create_dir_all(at.join("etc")).unwrap();
        fs::create_dir_all(at.join("run")).unwrap();
        symlink("../run/systemd/resolve/stub.conf", at.join("etc/resolv.conf")).unwrap();
        symlink(at.join("etc/resolv.conf"), at.join("run/again")).unwrap();
        symlink("loop", at.join("loop")).unwrap();
        fs::write(at.join("plain"), "").unwrap();
        let wanted = at.join("run/systemd/resolve/stub.conf");
        assert_eq!(follow(&at.join("etc/resolv.conf")), Some(wanted.clone()));
        assert_eq!(follow(&at.join("run/again")), Some(wanted));
        assert_eq!(follow(&at.join("loop")), None);
        assert_eq!(follow(&at.join("./etc/../plain")), Some(at.join("plain")));
        assert_eq!(follow(Path::new("/../../x")), Some("/x".into()));
    }
}
