//! Which files may be served as boot loaders: everybody on the network can read them, and machines run them.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use std::{
    ffi::OsString,
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

/// Largest file that counts as a boot loader, in bytes. GRUB's largest is 5 MB.
const MAX_LOADER: u64 = 32 << 20;
/// As many links as a file is reached through at most. Debian's packages need one.
const MOST_LINKS: usize = 8;

/// Directories of packages with boot loaders: of iPXE (Debian, Ubuntu; Fedora, Enterprise Linux, Arch), shim, GRUB, SYSLINUX and
/// systemd-boot. Links of root may lead here.
const PACKAGE_DIRS: [&str; 9] = [
    "/usr/lib/ipxe",
    "/usr/share/ipxe",
    "/usr/lib/shim",
    "/usr/lib/grub",
    "/usr/lib/syslinux",
    "/usr/lib/SYSLINUX.EFI",
    "/usr/lib/PXELINUX",
    "/usr/share/syslinux",
    "/usr/lib/systemd/boot/efi",
];

/// Directories below [`PACKAGE_DIRS`] in which a file that the site file names without a path is searched for, after `loader-dirs`.
pub const FURTHER_DIRS: [&str; 13] = [
    "/usr/share/ipxe/x86_64",
    "/usr/lib/shim",
    "/usr/lib/grub/x86_64-efi-signed",
    "/usr/lib/grub/arm64-efi-signed",
    "/usr/lib/PXELINUX",
    "/usr/lib/SYSLINUX.EFI/efi64",
    "/usr/lib/syslinux",
    "/usr/lib/syslinux/modules/bios",
    "/usr/lib/syslinux/bios",
    "/usr/lib/syslinux/efi64",
    "/usr/share/syslinux",
    "/usr/share/syslinux/efi64",
    "/usr/lib/systemd/boot/efi",
];

/// The same for the default loaders that are not iPXE.
pub const DEFAULT_DIRS: [&str; 1] = ["/usr/lib/grub/arm64-efi-signed"];

/// The directory of memtest86+ in Debian. No other file of it is served.
pub const MEMTEST_DIR: &str = "/boot";
/// Whether a package of boot loaders brought this file, by the directory in which it was found.
pub fn is_of_package(path: &Path) -> bool {
    PACKAGE_DIRS.iter().any(|dir| path.starts_with(dir))
}

/// Why a file is not served.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The file, or what its link leads to, cannot be read.
    #[error("reading it: {0}")]
    Io(#[from] io::Error),
    /// A directory, a FIFO or a device. A FIFO would block the daemon.
    #[error("it is not a regular file")]
    NotAFile,
    /// Its size is not that of a boot loader.
    #[error("it has {0} bytes, and a boot loader has at most {MAX_LOADER}")]
    TooLarge(u64),
    /// It has no byte, as after an interrupted copy.
    #[error("it is empty")]
    Empty,
    /// The file or a link to it is not root's, so another user decides which program machines run.
    #[error("{path} belongs to the user with id {uid}, not to root")]
    NotRoots {
        /// The file or link.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Other users than root can put another file, or a link, in the place of this one.
    #[error("users other than root can change {path}, a directory on the way to it")]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// Other users than root can change the file.
    #[error("users other than root can write to it (mode {0:04o})")]
    Writable(u32),
    /// Only root or its group can read the file: TFTP and HTTP would publish it.
    #[error("not all users of this server may read it (mode {0:04o}), and everybody on the network could")]
    Secret(u32),
    /// A link out of the directory, to a file of no package with boot loaders.
    #[error("it is a link to {0}, which is not in a directory of boot loaders")]
    LeadsOut(PathBuf),
    /// More links than any package has; perhaps a circle.
    #[error("it is a link to a link, more than {MOST_LINKS} times")]
    TooManyLinks,
}

/// Whose files and which directories are trusted.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Root's user id, except in tests.
    pub owner: u32,
    /// Directories that links may lead to.
    pub dirs: Vec<PathBuf>,
    /// Beginnings of paths of single files that links may lead to.
    pub files: Vec<PathBuf>,
}

impl Default for Trust {
    fn default() -> Self {
        Trust {
            owner: 0,
            dirs: PACKAGE_DIRS.map(PathBuf::from).to_vec(),
            // Debian's package keeps ipxe.efi and ipxe.lkrn in /boot, with links to them in /usr/lib/ipxe. The rest of /boot is not public.
            files: ["/boot/ipxe.efi", "/boot/ipxe.lkrn"].map(PathBuf::from).to_vec(),
        }
    }
}

impl Trust {
    /// Reads `path` in the loader directory `top`; both begin with the canonical path of that directory. Every regular file below
    /// this directory is a loader, whatever its owner, because the administrator named the directory. Links that lead out of it are followed
    /// only if root owns them, and only to files of packages that root owns.
    pub fn read_below(&self, top: &Path, path: &Path) -> Result<Vec<u8>, Refused> {
        let real = path.canonicalize()?;
        match real.starts_with(top) {
            true => read(&real, |_| Ok(())),
            false => {
                let target = self.follow(path, Some(top))?;
                self.inside(&target, None)?;
                self.read_public(&target)
            }
        }
    }

    /// Reads a file that the site file names by its absolute path. It may be anywhere that root alone can change, but a link leads only into
    /// its own directory or to a package.
    pub fn read_path(&self, path: &Path) -> Result<Vec<u8>, Refused> {
        let target = self.follow(path, None)?;
        let home = path.parent().and_then(|dir| dir.canonicalize().ok());
        self.inside(&target, home.as_deref())?;
        let bytes = self.read_public(&target)?;
        // Other files of a loader directory may be empty: not all of them are programs.
        if bytes.is_empty() {
            Err(Refused::Empty)
        } else {
            Ok(bytes)
        }
    }

    /// Follows the links of `path`, an absolute path, and returns the file. Root must own every link, also links to directories. Only root
    /// may be able to write to the directories of the links and of the file. Directories below `top` are exempt.
    fn follow(&self, path: &Path, top: Option<&Path>) -> Result<PathBuf, Refused> {
        let given = |dir: &Path| top.is_some_and(|top| dir.starts_with(top));
        let mut rest = names(path);
        let mut now = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                now.pop();
                continue;
            }
            let here = now.join(&name);
            let metadata = here.symlink_metadata()?;
            if !metadata.is_symlink() {
                now = here;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(Refused::TooManyLinks);
            }
            self.owned(&here, &metadata)?;
            if !given(&now) {
                self.directories(&now)?;
            }
            let target = here.read_link()?;
            if target.is_absolute() {
                now = PathBuf::from("/");
            }
            rest.extend(names(&target));
        }
        let dir = now.parent().ok_or(Refused::NotAFile)?;
        if !given(dir) {
            self.directories(dir)?;
        }
        Ok(now)
    }

    /// Refuses a directory (canonical) if it, or one above it, can be changed by other users than root.
    fn directories(&self, dir: &Path) -> Result<(), Refused> {
        for dir in dir.ancestors() {
            let metadata = dir.symlink_metadata()?;
            let (uid, mode) = (metadata.uid(), metadata.mode());
            // In a directory with the sticky bit, such as /tmp, others can add names, but cannot exchange those of root.
            let shared = mode & 0o022 != 0 && mode & 0o1000 == 0;
            if shared || (uid != 0 && uid != self.owner) {
                return Err(Refused::Directory { path: dir.to_owned() });
            }
        }
        Ok(())
    }

    fn inside(&self, target: &Path, home: Option<&Path>) -> Result<(), Refused> {
        let known = home.is_some_and(|home| target.parent() == Some(home))
            || self.dirs.iter().any(|dir| target.starts_with(dir))
            || self.files.iter().any(|file| target == file);
        if known {
            Ok(())
        } else {
            Err(Refused::LeadsOut(target.to_owned()))
        }
    }

    fn owned(&self, path: &Path, metadata: &Metadata) -> Result<(), Refused> {
        match metadata.uid() == self.owner {
            true => Ok(()),
            false => Err(Refused::NotRoots {
                path: path.to_owned(),
                uid: metadata.uid(),
            }),
        }
    }

    fn read_public(&self, path: &Path) -> Result<Vec<u8>, Refused> {
        read(path, |metadata| {
            self.owned(path, metadata)?;
            let mode = metadata.mode() & 0o7777;
            match () {
                () if mode & 0o022 != 0 => Err(Refused::Writable(mode)),
                () if mode & 0o004 == 0 => Err(Refused::Secret(mode)),
                () => Ok(()),
            }
        })
    }
}

/// The names of a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// Reads a file by its canonical path. What `allowed` sees is the file that is read, also if it is replaced meanwhile.
fn read(path: &Path, allowed: impl FnOnce(&Metadata) -> Result<(), Refused>) -> Result<Vec<u8>, Refused> {
    // Without NONBLOCK, opening a FIFO waits for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    // A user may have exchanged a directory for a link since the path was looked at.
    let opened = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let file = File::from(opened.map_err(io::Error::from)?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Refused::NotAFile);
    }
    if metadata.len() > MAX_LOADER {
        return Err(Refused::TooLarge(metadata.len()));
    }
    allowed(&metadata)?;
    let mut bytes = Vec::new();
    file.take(MAX_LOADER).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt, chown, lchown, symlink},
    };

    struct Rig {
        dir: tempfile::TempDir,
        trust: Trust,
    }

    /// `top` is the loader directory, `package` a trusted one, `other` neither.
    fn rig() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in ["top", "package", "other"] {
            fs::create_dir(root.join(name)).unwrap();
            mode(&root.join(name), 0o755);
            file(&root.join(name).join("x.efi"), 0o644);
        }
        file(&root.join("single.efi"), 0o644);
        let trust = Trust {
            owner: rustix::process::geteuid().as_raw(),
            dirs: vec![root.join("package")],
            files: vec![root.join("single.efi")],
        };
        Rig { dir, trust }
    }

    fn file(path: &Path, bits: u32) {
        fs::write(path, path.file_name().unwrap().as_encoded_bytes()).unwrap();
        mode(path, bits);
    }

    fn mode(path: &Path, bits: u32) {
        fs::set_permissions(path, Permissions::from_mode(bits)).unwrap();
    }

    impl Rig {
        fn at(&self, path: &str) -> PathBuf {
            self.dir.path().canonicalize().unwrap().join(path)
        }

        fn below(&self, name: &str) -> Result<Vec<u8>, String> {
            self.trust
                .read_below(&self.at("top"), &self.at("top").join(name))
                .map_err(|e| e.to_string().replace(self.at("").to_str().unwrap(), ""))
        }

        fn path(&self, name: &str) -> Result<Vec<u8>, String> {
            self.trust
                .read_path(&self.at(name))
                .map_err(|e| e.to_string().replace(self.at("").to_str().unwrap(), ""))
        }
    }

    #[test]
    fn roots_links_lead_to_packages_only() {
        let rig = rig();
        for (name, target, good) in [
            ("inside", "x.efi", true),
            ("package", "../package/x.efi", true),
            ("single", "../single.efi", true),
            ("again", "package", true),
            ("other", "../other/x.efi", false),
            ("gone", "../package/gone", false),
            ("loop", "loop", false),
            ("dir", "../package", false),
        ] {
            symlink(target, rig.at("top").join(name)).unwrap();
            assert_eq!(rig.below(name).is_ok(), good, "{name}: {:?}", rig.below(name));
        }
        assert_eq!(
            rig.below("other").unwrap_err(),
            "it is a link to other/x.efi, which is not in a directory of boot loaders"
        );
        // A link that leads through another directory's link.
        symlink(rig.at("top/other"), rig.at("package/loop")).unwrap();
        symlink("../package/loop", rig.at("top/around")).unwrap();
        assert!(rig.below("around").unwrap_err().contains("link to other/x.efi"));
    }

    #[test]
    fn a_link_of_another_user_is_not_followed_out_of_the_directory() {
        let mut rig = rig();
        symlink("../package/x.efi", rig.at("top/link")).unwrap();
        rig.trust.owner += 1;
        let refused = rig.below("link").unwrap_err();
        assert!(refused.starts_with("top/link belongs to the user with id"), "{refused}");
        assert!(
            rig.below("x.efi").is_ok(),
            "files in the directory may belong to anybody"
        );
        assert!(
            rig.path("package/x.efi")
                .unwrap_err()
                .contains("package/x.efi belongs to")
        );
    }

    #[test]
    fn an_empty_file_that_the_site_file_names_is_refused() {
        let rig = rig();
        fs::write(rig.at("other/empty.efi"), "").unwrap();
        mode(&rig.at("other/empty.efi"), 0o644);
        assert_eq!(rig.path("other/empty.efi").unwrap_err(), "it is empty");
        fs::write(rig.at("top/empty.efi"), "").unwrap();
        assert_eq!(rig.below("empty.efi").unwrap(), b"");
    }

    #[test]
    fn a_directory_that_is_exchanged_for_a_link_is_not_entered() {
        let rig = rig();
        symlink("../other", rig.at("top/d")).unwrap();
        assert!(rig.below("d/x.efi").unwrap_err().contains("link to other/x.efi"));
        // The path was canonical when it was looked at.
        let late = read(&rig.at("top/d/x.efi"), |_| Ok(()));
        assert!(matches!(late, Err(Refused::Io(_))), "{late:?}");
    }

    #[test]
    fn directories_and_links_to_them_are_roots_outside_of_the_loader_directories() {
        // Only root can give directories away.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let rig = rig();
        let (alice, boot) = (rig.at("alice"), rig.at("alice/boot"));
        fs::create_dir(&alice).unwrap();
        mode(&alice, 0o755);
        file(&alice.join("own.efi"), 0o644);
        symlink("../other", &boot).unwrap();
        let both = || [rig.path("alice/boot/x.efi"), rig.path("alice/own.efi")];
        let cannot = "users other than root can change alice, a directory on the way to it";
        assert!(both().iter().all(Result::is_ok), "{:?}", both());
        lchown(&boot, Some(65534), None).unwrap();
        let refused = rig.path("alice/boot/x.efi").unwrap_err();
        assert_eq!(refused, "alice/boot belongs to the user with id 65534, not to root");
        lchown(&boot, Some(0), None).unwrap();
        chown(&alice, Some(65534), None).unwrap();
        assert_eq!(both().map(Result::unwrap_err), [cannot; 2]);
        chown(&alice, Some(0), None).unwrap();
        for bits in [0o775, 0o757] {
            mode(&alice, bits);
            assert_eq!(both().map(Result::unwrap_err), [cannot; 2], "{bits:o}");
        }
        mode(&alice, 0o1777);
        assert!(both().iter().all(Result::is_ok), "{:?}", both());
        // The way of a link out of a loader directory counts, too; that directory itself does not.
        symlink("../alice/link", rig.at("top/link")).unwrap();
        symlink("../package/x.efi", rig.at("alice/link")).unwrap();
        chown(rig.at("top"), Some(65534), None).unwrap();
        assert!(rig.below("link").is_ok());
        chown(&alice, Some(65534), None).unwrap();
        assert_eq!(rig.below("link").unwrap_err(), cannot);
    }

    #[test]
    fn a_file_with_a_path_is_public_and_only_root_can_change_it() {
        let rig = rig();
        assert_eq!(rig.path("other/x.efi").unwrap(), b"x.efi", "anywhere");
        for (mode, says) in [
            (0o664, "users other than root can write to it (mode 0664)"),
            (0o646, "users other than root can write to it (mode 0646)"),
            (
                0o640,
                "not all users of this server may read it (mode 0640), and everybody on the network could",
            ),
        ] {
            file(&rig.at("other/odd"), mode);
            assert_eq!(rig.path("other/odd").unwrap_err(), says);
            // The same behind a link.
            file(&rig.at("package/odd"), mode);
            let _ = symlink("../package/odd", rig.at("top/odd"));
            assert_eq!(rig.below("odd").unwrap_err(), says);
        }
        symlink("x.efi", rig.at("other/next-to-it")).unwrap();
        symlink("../other/x.efi", rig.at("package/out")).unwrap();
        assert!(rig.path("other/next-to-it").is_ok());
        assert!(
            rig.path("package/out")
                .unwrap_err()
                .contains("is a link to other/x.efi")
        );
        assert_eq!(rig.path("other").unwrap_err(), "it is not a regular file");
        assert!(rig.path("other/none").unwrap_err().contains("No such file"));
        assert!(matches!(rig.trust.read_path(Path::new("/")), Err(Refused::NotAFile)));
    }

    #[test]
    fn a_fifo_blocks_nothing_and_a_huge_file_is_refused() {
        let rig = rig();
        let fifo = rig.at("top/fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
        assert_eq!(rig.below("fifo").unwrap_err(), "it is not a regular file");
        File::create(rig.at("top/huge"))
            .unwrap()
            .set_len(MAX_LOADER + 1)
            .unwrap();
        assert!(rig.below("huge").unwrap_err().contains("a boot loader has at most"));
    }
}
