//! Reads configuration that is spread over directories, like kmod: modprobe.d(5) and depmod.d(5).

use crate::root::RootDir;
use std::collections::BTreeMap;

/// Directories of kmod, highest priority first: a file hides files of the same name in later directories.
const PLACES: [&str; 5] = ["etc", "run", "usr/local/lib", "usr/lib", "lib"];
/// Largest configuration file that is read. The largest one of Debian has 2 KiB.
const LARGEST: u64 = 1 << 20;
/// Most files that are read.
const MOST: usize = 4096;

/// The lines of all files of `DIR.d`, in the order of kmod: the file's path, and the line without comments, with continuations
/// joined.
///
/// A file that cannot be read is skipped: a link to `/dev/null` or to nothing is the usual way to disable one.
pub(super) fn lines(tree: &RootDir, dir: &str) -> Vec<(String, String)> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for place in PLACES {
        let folder = format!("{place}/{dir}.d");
        for name in tree.list(&folder).unwrap_or_default() {
            let Some(name) = name.to_str() else { continue };
            let is_ours = name.ends_with(".conf") || name.ends_with(".alias");
            if is_ours && !name.starts_with('.') && files.len() < MOST {
                let path = format!("{folder}/{name}");
                files.entry(name.to_owned()).or_insert(path);
            }
        }
    }
    let mut all = Vec::new();
    for path in files.into_values() {
        let text = tree.read(&path, LARGEST).unwrap_or_default();
        all.extend(joined(&text).into_iter().map(|line| (format!("/{path}"), line)));
    }
    all
}

/// The lines of one file, without comments, with continuations joined.
pub(super) fn joined(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text).replace("\\\n", "");
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink, path::Path};

    #[test]
    fn files_are_sorted_by_name_and_the_strongest_directory_wins() {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("usr/lib/modprobe.d/10-vendor.conf", "options a vendor=1\n");
        write("usr/lib/modprobe.d/20-both.conf", "options b hidden=1\n");
        write("usr/lib/modprobe.d/30-masked.conf", "blacklist c\n");
        write(
            "etc/modprobe.d/20-both.conf",
            "# comment\n\noptions b \\\n  x=1 \\\n  y=2\n",
        );
        write("etc/modprobe.d/99-last.conf", "options d last=1");
        write("etc/modprobe.d/backup.conf~", "options e no=1\n");
        write("etc/modprobe.d/.hidden.conf", "options e no=1\n");
        write("run/modprobe.d/00-run.conf", "options f run=1\n");
        symlink("/dev/null", tree.path().join("etc/modprobe.d/30-masked.conf")).unwrap();
        let root = RootDir::open(Path::new(tree.path())).unwrap();
        let lines: Vec<String> = lines(&root, "modprobe").into_iter().map(|(_, line)| line).collect();
        assert_eq!(
            lines,
            [
                "options f run=1",
                "options a vendor=1",
                "options b   x=1   y=2",
                "options d last=1"
            ]
        );
    }
}
