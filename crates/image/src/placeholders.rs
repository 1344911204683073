//! A mount needs a mount point: missing files and directories of a tree are created while a process works in it. They are recorded
//! before, and removed by the last process that leaves, or by the seal.

use super::{
    error::{Doing, Result},
    locks::open_dir,
    tree::open_parent,
    versions::write_new,
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat, statat, unlinkat},
    io::Errno,
};
use std::{collections::BTreeSet, os::fd::AsFd, path::Path};

/// The file next to `work.toml` with one line for each placeholder.
const LIST: &str = "placeholders";
/// Directories that are mount points.
const DIRS: [&str; 5] = ["proc", "sys", "dev", "run", "tmp"];
/// Files that are mount points.
const FILES: [&str; 2] = ["etc/resolv.conf", "usr/sbin/policy-rc.d"];

/// Creates the placeholders that the tree of the working copy `dir` needs.
pub(crate) fn make_placeholders(dir: &Path) -> Result<()> {
    let root_path = dir.join("root");
    let root = open_dir(&root_path).doing(|| format!("opening {}", root_path.display()))?;
    for path in DIRS.iter().chain(&FILES) {
        // A tree without etc or usr/sbin needs nothing there.
        let Ok((parent, name)) = open_parent(root.as_fd(), path.as_bytes()) else {
            continue;
        };
        // A link counts even if its target does not exist yet.
        if !matches!(statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)) {
            continue;
        }
        let mut list = listed(dir);
        list.insert((*path).to_owned());
        let text: String = list.iter().map(|path| format!("{path}\n")).collect();
        let doing = || format!("making {path} in the tree as a mount point");
        let work = open_dir(dir).doing(doing)?;
        write_new(work.as_fd(), c"placeholders", text.as_bytes()).doing(doing)?;
        if DIRS.contains(path) {
            mkdirat(&parent, name, Mode::from_raw_mode(0o755)).doing(doing)?;
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            openat(&parent, name, flags, Mode::from_raw_mode(0o644)).doing(doing)?;
        }
    }
    Ok(())
}

/// Removes the placeholders, unless they have content. The caller knows that no process is in the working copy.
pub(crate) fn remove_placeholders(dir: &Path) -> Result<()> {
    let list = listed(dir);
    if list.is_empty() {
        return Ok(());
    }
    let root_path = dir.join("root");
    let root = open_dir(&root_path).doing(|| format!("opening {}", root_path.display()))?;
    for path in &list {
        let Ok((parent, name)) = open_parent(root.as_fd(), path.as_bytes()) else {
            continue;
        };
        let Ok(stat) = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let removed = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => unlinkat(&parent, name, AtFlags::REMOVEDIR),
            FileType::RegularFile if stat.st_size == 0 => unlinkat(&parent, name, AtFlags::empty()),
            _ => continue,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
            Err(e) => return Err(e).doing(|| format!("removing the mount point {path}")),
        }
    }
    std::fs::remove_file(dir.join(LIST)).doing(|| format!("removing {LIST}"))
}

/// The recorded placeholders, limited to paths that this module creates.
fn listed(dir: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(dir.join(LIST)).unwrap_or_default();
    let ours = text.lines().filter(|path| DIRS.contains(path) || FILES.contains(path));
    ours.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn only_placeholders_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        for path in ["etc", "usr/sbin", "proc", "tmp"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        symlink("/run/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        for _ in 0..2 {
            make_placeholders(dir.path()).unwrap();
        }
        assert_eq!(
            listed(dir.path()),
            ["dev", "run", "sys", "usr/sbin/policy-rc.d"].map(String::from).into()
        );
        assert!(root.join("dev").is_dir() && root.join("usr/sbin/policy-rc.d").is_file());
        assert!(root.join("etc/resolv.conf").is_symlink());
        fs::write(root.join("dev/file"), "of the image").unwrap();
        remove_placeholders(dir.path()).unwrap();
        remove_placeholders(dir.path()).unwrap();
        assert!(root.join("dev/file").exists() && root.join("proc").is_dir() && root.join("tmp").is_dir());
        assert!(!root.join("run").exists() && !root.join("usr/sbin/policy-rc.d").exists());
        assert!(!dir.path().join(LIST).exists());
    }

    #[test]
    fn a_forged_list_removes_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        fs::write(dir.path().join("root/etc/hostname"), "").unwrap();
        fs::write(dir.path().join("precious"), "").unwrap();
        fs::write(dir.path().join(LIST), "etc/hostname\n../precious\n\nproc\n").unwrap();
        remove_placeholders(dir.path()).unwrap();
        assert!(dir.path().join("precious").exists() && dir.path().join("root/etc/hostname").exists());
    }
}
