//! Boot loaders (`undionly.kpxe`, `snponly.efi`): read once, shared by all transfers.

use crate::disk_loader;
use bytes::Bytes;
use rackstrap_base::text::cut;
use rackstrap_wire::DiskLoader;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Largest file that counts as a boot loader, in bytes. GRUB's largest is 5 MB.
const MAX_LOADER: u64 = 32 << 20;

/// The target of Debian's link `/usr/lib/ipxe/ipxe.lkrn`.
const DEBIAN_LKRN: &str = "/boot/ipxe.lkrn";

/// All boot loaders by name.
#[derive(Debug, Default)]
pub struct Loaders {
    files: BTreeMap<String, Bytes>,
    dirs: Vec<PathBuf>,
    disk: Option<(DiskLoader, Bytes)>,
}

/// The loader does not exist.
#[derive(Debug, thiserror::Error)]
#[error("boot loader '{name}' does not exist in {dirs}")]
pub struct NoLoader {
    name: String,
    dirs: String,
}

impl Loaders {
    /// Reads all files of `dirs`. If two have the same name, the one in the earlier directory wins. Directories that do not
    /// exist are left out, because /usr/lib/ipxe is not installed where no firmware needs it.
    pub fn load(dirs: &[PathBuf]) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for dir in dirs {
            let entries = match std::fs::read_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            let top = dir.canonicalize()?;
            for entry in entries {
                let path = entry?.path();
                let Some(name) = path.file_name().and_then(|n| n.to_str()).map(str::to_owned) else {
                    continue;
                };
                if !files.contains_key(&name) && is_loader(&top, &path) {
                    files.insert(name, Bytes::from(std::fs::read(&path)?));
                }
            }
        }
        let disk = files.get(disk_loader::IPXE).and_then(|ipxe| disk_loader::build(ipxe));
        Ok(Loaders {
            files,
            dirs: dirs.to_vec(),
            disk,
        })
    }

    /// The network loader that disks carry for BIOS, made of `ipxe.lkrn`; none if that is missing or not usable.
    pub fn disk(&self) -> Option<&(DiskLoader, Bytes)> {
        self.disk.as_ref()
    }

    /// The loader with that name.
    pub fn get(&self, name: &str) -> Result<Bytes, NoLoader> {
        self.files.get(name).cloned().ok_or_else(|| {
            let dirs: Vec<String> = self.dirs.iter().map(|d| d.display().to_string()).collect();
            NoLoader {
                name: cut(name, 100).to_owned(),
                dirs: dirs.join(", "),
            }
        })
    }
}

/// Whether the path is a regular file of a fitting size that is reached without leaving the directory. A FIFO would block the
/// daemon, and a link out of the directory would publish other files.
fn is_loader(top: &Path, path: &Path) -> bool {
    let Ok(real) = path.canonicalize() else { return false };
    let fits = |m: std::fs::Metadata| m.is_file() && m.len() <= MAX_LOADER;
    // Debian's package keeps this file in /boot, with a link to it.
    let inside = real.starts_with(top) || real == Path::new(DEBIAN_LKRN);
    inside && real.metadata().is_ok_and(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_files_that_stay_inside_are_loaders_and_the_first_directory_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        std::fs::create_dir_all(&first).unwrap();
        std::fs::create_dir_all(second.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::write(first.join("a.efi"), "first").unwrap();
        std::fs::write(second.join("a.efi"), "second").unwrap();
        symlink("a.efi", second.join("b.efi")).unwrap();
        symlink("../secret", second.join("c.efi")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            second.join("fifo"),
            rustix::fs::FileType::Fifo,
            0o644.into(),
            0,
        )
        .unwrap();
        let loaders = Loaders::load(&[first, second, dir.path().join("absent")]).unwrap();
        assert_eq!(loaders.get("a.efi").unwrap(), "first");
        assert_eq!(loaders.get("b.efi").unwrap(), "second");
        for name in ["c.efi", "fifo", "sub", "../secret"] {
            assert!(loaders.get(name).is_err(), "{name}");
        }
    }
}
