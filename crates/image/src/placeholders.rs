//! Something is only mounted on something: files and directories that a tree lacks are made for as long as somebody is
//! in it, written down before, and removed by the last one who leaves or by whoever seals.

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

/// Beside `work.toml`: a line for each that was made.
const LIST: &str = "placeholders";
/// Directories that something is mounted on.
const DIRS: [&str; 5] = ["proc", "sys", "dev", "run", "tmp"];
/// Files that something is mounted on.
const FILES: [&str; 2] = ["etc/resolv.conf", "usr/sbin/policy-rc.d"];

/// Makes what the tree of the working copy `dir` lacks.
pub(crate) fn make_placeholders(dir: &Path) -> Result<()> {
    let root_path = dir.join("root");
    let root = open_dir(&root_path).doing(|| format!("opening {}", root_path.display()))?;
    for path in DIRS.iter().chain(&FILES) {
        // A tree without etc or usr/sbin needs nothing there.
        let Ok((parent, name)) = open_parent(root.as_fd(), path.as_bytes()) else {
            continue;
        };
        // A link is one also if it leads to nothing yet.
        if !matches!(statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)) {
            continue;
        }
        let mut list = listed(dir);
        list.insert((*path).to_owned());
        let text: String = list.iter().map(|path| format!("{path}\n")).collect();
        let doing = || format!("making {path} in the tree, to mount on");
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

/// Removes what was made, unless something is in it. Call it when nobody is in the working copy.
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
            Err(e) => return Err(e).doing(|| format!("removing {path}, which was only there to mount on")),
        }
    }
    std::fs::remove_file(dir.join(LIST)).doing(|| format!("removing {LIST}"))
}

/// What was made, as far as this could have made it.
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
    fn only_what_was_made_is_removed() {
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
    fn a_list_that_somebody_wrote_removes_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        fs::write(dir.path().join("root/etc/hostname"), "").unwrap();
        fs::write(dir.path().join("precious"), "").unwrap();
        fs::write(dir.path().join(LIST), "etc/hostname\n../precious\n\nproc\n").unwrap();
        remove_placeholders(dir.path()).unwrap();
        assert!(dir.path().join("precious").exists() && dir.path().join("root/etc/hostname").exists());
    }
}
