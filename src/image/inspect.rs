//! What a tree is made of, and whether a node could boot it.

use super::{
    InitKind,
    initramfs::{self, ModuleIndex, elf},
    release,
    root::RootDir,
    selinux::{enforces_selinux, selinux_note},
};
use rustix::fs::FileType;
use std::path::{Path, PathBuf};

/// A tree that can boot a node.
#[derive(Debug)]
pub struct Inspection {
    /// The kernel's file, relative to the tree.
    pub kernel: PathBuf,
    /// Its release.
    pub release: String,
    /// Machine, as `uname -m`.
    pub arch: String,
    /// What runs as PID 1.
    pub init: InitKind,
    /// `PRETTY_NAME` of os-release, empty without.
    pub os: String,
    /// Modules of that release.
    pub index: ModuleIndex,
    /// What is not as good as it could be.
    pub notes: Vec<String>,
}

/// Modules without which no root can be mounted, and what each is for.
const NEEDED: &[(&str, &str)] = &[
    ("sunrpc", "remote procedure calls, below NFS"),
    ("nfs", "the NFS client"),
    ("nfsv3", "version 3 of the NFS client"),
    ("overlay", "the writable layer above the root"),
];

/// Looks at a tree. The error holds everything that is missing, with what to do about each.
pub fn inspect(tree: &RootDir, wanted_release: Option<&str>) -> Result<Inspection, Vec<String>> {
    let mut problems = Vec::new();
    let init = find_init(tree).map_err(|p| problems.push(p)).ok();
    let kernel = find_kernel(tree, wanted_release).map_err(|p| problems.push(p)).ok();
    let index = kernel.as_ref().and_then(|kernel| {
        let index = initramfs::read_index(tree, &kernel.release).map_err(|e| {
            let release = &kernel.release;
            problems.push(format!(
                "/lib/modules/{release}/modules.dep cannot be read ({e}); run `depmod -a {release}` in the tree"
            ));
        });
        index.ok()
    });
    if let (Some(kernel), Some(index)) = (&kernel, &index) {
        let missing: Vec<String> = NEEDED
            .iter()
            .filter(|(name, _)| !index.has(name))
            .map(|(name, what)| format!("{name} ({what})"))
            .collect();
        if !missing.is_empty() {
            problems.push(format!(
                "kernel {} has no {}, neither as module nor built in; install a full kernel package \
                 (Debian: linux-image-amd64, Fedora and its kin: kernel-modules) or one built with \
                 CONFIG_NFS_V3 and CONFIG_OVERLAY_FS",
                kernel.release,
                missing.join(", no ")
            ));
        }
    }
    let (Some(init), Some(kernel), Some(index), true) = (init, kernel, index, problems.is_empty()) else {
        return Err(problems);
    };
    let arch = find_machine(tree, &init.path);
    Ok(Inspection {
        notes: notes(tree, arch),
        kernel: kernel.path,
        release: kernel.release,
        arch: arch.unwrap_or(std::env::consts::ARCH).to_owned(),
        init: init.kind,
        os: os_name(tree),
        index,
    })
}

struct Init {
    path: PathBuf,
    kind: InitKind,
}

fn find_init(tree: &RootDir) -> Result<Init, String> {
    let advice = "install systemd-sysv (Debian), systemd (Fedora and its kin) or another init";
    let (path, mode) = match tree.resolve("sbin/init") {
        Ok(found) => found,
        Err(_) => return Err(format!("no init: /sbin/init leads to nothing; {advice}")),
    };
    let shown = path.display();
    if FileType::from_raw_mode(mode) != FileType::RegularFile {
        return Err(format!(
            "no init: /sbin/init leads to /{shown}, which is no program; {advice}"
        ));
    }
    if mode & 0o111 == 0 {
        return Err(format!(
            "no init: /{shown} is not executable (mode {:04o}); {advice}",
            mode & 0o7777
        ));
    }
    let kind = match path.file_name() {
        Some(name) if name == "systemd" => InitKind::Systemd,
        _ => InitKind::Other,
    };
    Ok(Init { path, kind })
}

struct Kernel {
    path: PathBuf,
    release: String,
}

/// The newest kernel that has modules: `/boot/vmlinuz-RELEASE` (Debian, openSUSE, Fedora), `/boot/vmlinux-RELEASE`,
/// `/lib/modules/RELEASE/vmlinuz` (Fedora, Arch), or what `/vmlinuz` and `/boot/vmlinuz` lead to, if the kernel itself
/// says its release.
fn find_kernel(tree: &RootDir, wanted: Option<&str>) -> Result<Kernel, String> {
    let mut found: Vec<Kernel> = Vec::new();
    for name in tree.list("boot").map_err(|e| format!("/boot cannot be read: {e}"))? {
        let Some(name) = name.to_str() else { continue };
        let release = ["vmlinuz-", "vmlinux-", "Image-"]
            .iter()
            .find_map(|p| name.strip_prefix(p));
        if let Some(release) = release.filter(|r| !r.is_empty() && !r.ends_with(".old")) {
            found.push(Kernel {
                path: Path::new("boot").join(name),
                release: release.to_owned(),
            });
        }
    }
    let with_modules = tree
        .list("lib/modules")
        .map_err(|e| format!("/lib/modules cannot be read: {e}"))?;
    let with_modules: Vec<&str> = with_modules.iter().filter_map(|name| name.to_str()).collect();
    for release in &with_modules {
        for file in ["vmlinuz", "vmlinux"] {
            let path = Path::new("lib/modules").join(release).join(file);
            if tree.exists(&path) {
                found.push(Kernel {
                    path,
                    release: (*release).to_owned(),
                });
            }
        }
    }
    for link in ["vmlinuz", "boot/vmlinuz"] {
        if let (Ok((path, _)), Some(release)) = (tree.resolve(link), own_release(tree, link)) {
            found.push(Kernel { path, release });
        }
    }
    found.retain(|k| wanted.is_none_or(|w| w == k.release));
    if found.is_empty() {
        return Err(match wanted {
            Some(wanted) => format!("no kernel {wanted}: there is no /boot/vmlinuz-{wanted}"),
            None => {
                "no kernel: there is no /boot/vmlinuz-*; install linux-image-amd64 (Debian), kernel (Fedora and its \
                     kin)"
                    .to_owned()
            }
        });
    }
    let all: Vec<String> = found.iter().map(|k| k.release.clone()).collect();
    found.retain(|k| with_modules.contains(&k.release.as_str()));
    // A stable sort: of one release the first place listed above wins.
    found.sort_by(|a, b| release::compare(&b.release, &a.release));
    let Some(kernel) = found.into_iter().next() else {
        return Err(format!(
            "no modules for kernel {}: there is no /lib/modules/{}; install the kernel's whole package",
            all.join(", "),
            all[0]
        ));
    };
    match tree.open_file(&kernel.path).and_then(|f| f.metadata()) {
        Ok(data) if data.len() > 0 => Ok(kernel),
        Ok(_) => Err(format!(
            "the kernel /{} is empty; install its package again",
            kernel.path.display()
        )),
        Err(e) => Err(format!("the kernel /{} cannot be read: {e}", kernel.path.display())),
    }
}

/// The release that an x86 kernel's boot header points at (Documentation/arch/x86/boot.rst, `kernel_version`).
fn own_release(tree: &RootDir, path: &str) -> Option<String> {
    use std::os::unix::fs::FileExt;
    let file = tree.open_file(path).ok()?;
    let mut header = [0; 0x210];
    file.read_exact_at(&mut header, 0).ok()?;
    if &header[0x202..0x206] != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes([header[0x20e], header[0x20f]]);
    let mut text = [0; 128];
    let got = file.read_at(&mut text, u64::from(offset) + 0x200).ok()?;
    let release = text[..got].split(|b| matches!(b, b' ' | 0)).next()?;
    let plain = !release.is_empty() && !release.contains(&b'/') && release != b".." && release != b".";
    plain.then(|| String::from_utf8(release.to_vec()).ok())?
}

/// The machine that init, or else the shell, is a program for.
fn find_machine(tree: &RootDir, init: &Path) -> Option<&'static str> {
    use std::io::Read;
    [init, Path::new("bin/sh"), Path::new("usr/bin/env")]
        .into_iter()
        .find_map(|path| {
            let mut head = Vec::new();
            tree.open_file(path).ok()?.take(64).read_to_end(&mut head).ok()?;
            elf::machine(&head)
        })
}

/// `PRETTY_NAME` of os-release(5).
fn os_name(tree: &RootDir) -> String {
    let text = ["etc/os-release", "usr/lib/os-release"]
        .iter()
        .find_map(|path| tree.read(path, 64 << 10).ok())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or_default();
    let value = value.trim().trim_matches(['"', '\'']);
    value.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn notes(tree: &RootDir, arch: Option<&str>) -> Vec<String> {
    let mut notes = Vec::new();
    if enforces_selinux(tree) {
        notes.push(selinux_note("the tree"));
    }
    if arch.is_none() {
        notes.push(format!(
            "neither /sbin/init nor /bin/sh says which machine it is for; taken as {}",
            std::env::consts::ARCH
        ));
    }
    for (tool, package) in [
        ("mkfs.ext4", "e2fsprogs"),
        ("mkfs.xfs", "xfsprogs"),
        ("mkswap", "util-linux"),
    ] {
        let there = ["sbin", "usr/sbin", "bin", "usr/bin"]
            .iter()
            .any(|dir| tree.exists(Path::new(dir).join(tool)));
        if !there {
            notes.push(format!(
                "no {tool}: a layout that needs it cannot be prepared; install {package}"
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let at = |p: &str| tree.path().join(p);
        for dir in ["boot", "usr/lib/systemd", "usr/sbin", "etc"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        symlink("usr/lib", at("lib")).unwrap();
        symlink("usr/sbin", at("sbin")).unwrap();
        symlink("/lib/systemd/systemd", at("usr/sbin/init")).unwrap();
        fs::copy(std::env::current_exe().unwrap(), at("usr/lib/systemd/systemd")).unwrap();
        fs::write(at("etc/os-release"), "ID=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n").unwrap();
        for release in ["6.1.0-9-amd64", "6.1.0-40-amd64"] {
            add_kernel(tree.path(), release);
        }
        tree
    }

    fn add_kernel(tree: &Path, release: &str) {
        let dir = tree.join("usr/lib/modules").join(release);
        fs::create_dir_all(&dir).unwrap();
        fs::write(
            dir.join("modules.dep"),
            "kernel/fs/nfs/nfs.ko:\nkernel/fs/nfs/nfsv3.ko:\n",
        )
        .unwrap();
        fs::write(
            dir.join("modules.builtin"),
            "kernel/fs/overlayfs/overlay.ko\nkernel/net/sunrpc/sunrpc.ko\n",
        )
        .unwrap();
        fs::write(tree.join("boot").join(format!("vmlinuz-{release}")), "kernel").unwrap();
    }

    fn look(tree: &Path) -> Result<Inspection, Vec<String>> {
        inspect(&RootDir::open(tree).unwrap(), None)
    }

    #[test]
    fn a_usr_merged_debian() {
        let tree = tree();
        let seen = look(tree.path()).unwrap();
        assert_eq!(seen.release, "6.1.0-40-amd64");
        assert_eq!(seen.kernel, Path::new("boot/vmlinuz-6.1.0-40-amd64"));
        assert_eq!(seen.init, InitKind::Systemd);
        assert_eq!(seen.os, "Debian GNU/Linux 12");
        assert_eq!(seen.arch, std::env::consts::ARCH);
        assert_eq!(seen.notes.len(), 3);
        let older = inspect(&RootDir::open(tree.path()).unwrap(), Some("6.1.0-9-amd64")).unwrap();
        assert_eq!(older.release, "6.1.0-9-amd64");
    }

    #[test]
    fn a_kernel_without_modules_is_passed_over() {
        let tree = tree();
        fs::write(tree.path().join("boot/vmlinuz-6.12.0-1-amd64"), "kernel").unwrap();
        assert_eq!(look(tree.path()).unwrap().release, "6.1.0-40-amd64");
    }

    #[test]
    fn kernels_beside_their_modules_and_behind_links() {
        let tree = tree();
        add_kernel(tree.path(), "6.5.6-300.fc39.x86_64");
        fs::rename(
            tree.path().join("boot/vmlinuz-6.5.6-300.fc39.x86_64"),
            tree.path().join("lib/modules/6.5.6-300.fc39.x86_64/vmlinuz"),
        )
        .unwrap();
        assert_eq!(look(tree.path()).unwrap().release, "6.5.6-300.fc39.x86_64");
        add_kernel(tree.path(), "6.9.0");
        let mut kernel = vec![0; 0x400];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20f] = 1; // text at 0x300
        kernel[0x300..0x30e].copy_from_slice(b"6.9.0 (me) #1\0");
        fs::write(tree.path().join("usr/kernel"), kernel).unwrap();
        fs::remove_file(tree.path().join("boot/vmlinuz-6.9.0")).unwrap();
        symlink("/usr/kernel", tree.path().join("vmlinuz")).unwrap();
        let seen = look(tree.path()).unwrap();
        assert_eq!(
            (seen.release.as_str(), seen.kernel.as_path()),
            ("6.9.0", Path::new("usr/kernel"))
        );
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let tree = tree();
        fs::remove_file(tree.path().join("usr/sbin/init")).unwrap();
        fs::write(tree.path().join("lib/modules/6.1.0-40-amd64/modules.dep"), "").unwrap();
        let problems = look(tree.path()).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("/sbin/init") && problems[0].contains("systemd-sysv"));
        assert!(problems[1].contains("no nfs (") && problems[1].contains("no nfsv3 ("));
        assert!(!problems[1].contains("overlay (") && problems[1].contains("linux-image-amd64"));

        let empty = tempfile::tempdir().unwrap();
        let problems = look(empty.path()).unwrap_err();
        assert_eq!(problems.len(), 2);
        assert!(problems[1].contains("no kernel") && problems[1].contains("linux-image-amd64"));
    }

    #[test]
    fn odd_inits_and_kernels() {
        let tree = tree();
        let init = tree.path().join("usr/sbin/init");
        fs::remove_file(&init).unwrap();
        fs::write(&init, "#!/bin/sh\n").unwrap();
        assert!(look(tree.path()).unwrap_err()[0].contains("not executable"));
        fs::remove_file(&init).unwrap();
        symlink("/etc", &init).unwrap();
        assert!(look(tree.path()).unwrap_err()[0].contains("no program"));
        fs::remove_file(&init).unwrap();
        symlink("../lib/systemd/../systemd/systemd", &init).unwrap();
        fs::write(tree.path().join("boot/vmlinuz-6.1.0-40-amd64"), "").unwrap();
        assert!(look(tree.path()).unwrap_err()[0].contains("empty"));
        fs::remove_file(tree.path().join("lib/modules/6.1.0-9-amd64/modules.dep")).unwrap();
        let root = RootDir::open(tree.path()).unwrap();
        assert!(inspect(&root, Some("6.1.0-9-amd64")).unwrap_err()[0].contains("depmod -a 6.1.0-9-amd64"));
        assert!(inspect(&root, Some("7")).unwrap_err()[0].contains("no kernel 7"));
    }
}
