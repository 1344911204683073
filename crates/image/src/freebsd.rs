//! FreeBSD trees: they are recognised, inspected, and get the program with which a node reports to the server.
//!
//! FreeBSD boots without an initramfs and without the agent. Its loader (`/boot/pxeboot` for a BIOS, `/boot/loader.efi` for UEFI) reads
//! the kernel by NFS, and the kernel mounts the same export as its root. The loaders are copied next to the tree, so that they are served
//! like a kernel of Linux.

use super::{
    error::{Doing, ImportError},
    initramfs::elf,
    root::RootDir,
};
use rackstrap_base::{arch::Architecture, text::one_line};
use rackstrap_catalog::{EFI_LOADER, FREEBSD_LOADERS, PXE_LOADER};
use std::{
    io::{self, Read},
    path::Path,
};

/// The kernel that the loader reads unless `/boot/loader.conf` names another one.
const KERNEL: &str = "boot/kernel/kernel";
/// ELFOSABI_FREEBSD (sys/sys/elf_common.h of FreeBSD), at `e_ident[7]`.
const ELF_OSABI_FREEBSD: u8 = 9;
/// Largest boot loader in bytes. Those of FreeBSD 14 have less than 700 KiB; TFTP keeps them in memory.
const LARGEST_LOADER: u64 = 8 << 20;
/// This many bytes of a kernel are searched for its release. Kernels of FreeBSD 14 have less than 40 MiB.
const SEARCHED: u64 = 128 << 20;

/// Files that report to the server, with their modes. They are below `/usr/local`, which no memory file system of diskless(8) covers.
const REPORTERS: [(&str, u32, &str); 3] = [
    (
        "usr/local/libexec/rackstrap-report",
        0o555,
        include_str!("../freebsd/rackstrap-report"),
    ),
    (
        "usr/local/etc/rc.d/rackstrap",
        0o555,
        include_str!("../freebsd/rackstrap"),
    ),
    (
        "usr/local/etc/rc.d/rackstrap_login",
        0o555,
        include_str!("../freebsd/rackstrap_login"),
    ),
];

/// What a FreeBSD tree consists of.
#[derive(Debug)]
pub struct FreeBsd {
    /// Release of its kernel, `14.1-RELEASE-p5`.
    pub release: String,
    /// Machine, as `uname -m` of Linux names it.
    pub arch: String,
    /// Its boot loaders, by their names in `/boot`; at least one.
    pub loaders: Vec<&'static str>,
    /// Remarks about deficiencies that do not prevent a boot.
    pub remarks: Vec<String>,
}

/// True if the tree is FreeBSD's.
pub fn is_freebsd(tree: &RootDir) -> bool {
    tree.exists("bin/freebsd-version") || head(tree, KERNEL).is_some_and(|head| is_freebsd_elf(&head))
}

fn head(tree: &RootDir, path: &str) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    tree.open_file(path).ok()?.take(64).read_to_end(&mut head).ok()?;
    Some(head)
}

fn is_freebsd_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF") && head.get(7) == Some(&ELF_OSABI_FREEBSD)
}

/// Inspects a FreeBSD tree. The error lists everything that is missing, each with a remedy.
pub fn inspect(tree: &RootDir) -> Result<FreeBsd, Vec<String>> {
    let mut problems = Vec::new();
    let extract = "extract base.txz and kernel.txz of one release of FreeBSD into the tree";
    let kernel = head(tree, KERNEL);
    let arch = kernel.as_deref().and_then(elf::machine);
    match &kernel {
        None => problems.push(format!(
            "no kernel: /{KERNEL} does not exist or cannot be read; {extract}"
        )),
        Some(head) if !is_freebsd_elf(head) => {
            problems.push(format!("/{KERNEL} is not a kernel of FreeBSD; {extract}"));
        }
        Some(_) if arch.is_none() => problems.push(format!("the machine of /{KERNEL} is unknown; {extract}")),
        Some(_) => {}
    }
    match tree.resolve("sbin/init") {
        Ok((_, mode)) if mode & 0o170_000 == 0o100_000 && mode & 0o111 != 0 => {}
        Ok(_) => problems.push(format!("no init: /sbin/init is not a program; {extract}")),
        Err(_) => problems.push(format!("no init: /sbin/init leads to nothing; {extract}")),
    }
    let mut loaders = Vec::new();
    for name in FREEBSD_LOADERS {
        let path = Path::new("boot").join(name);
        if !tree.exists(&path) {
            continue;
        }
        match tree.read(&path, LARGEST_LOADER) {
            Ok(content) if name == EFI_LOADER && !content.starts_with(b"MZ") => {
                problems.push(format!("/boot/{name} is not an EFI program; {extract}"));
            }
            Ok(content) if content.is_empty() => problems.push(format!("/boot/{name} is empty; {extract}")),
            Ok(_) => loaders.push(name),
            Err(e) => problems.push(format!("/boot/{name} cannot be read: {e}; {extract}")),
        }
    }
    if loaders.is_empty() && problems.is_empty() {
        problems.push(format!(
            "no boot loader: neither /boot/{PXE_LOADER} (BIOS) nor /boot/{EFI_LOADER} (UEFI) exists; {extract}"
        ));
    }
    let (Some(arch), true) = (arch, problems.is_empty()) else {
        return Err(problems);
    };
    Ok(FreeBsd {
        release: release(tree).unwrap_or_default(),
        arch: arch.to_owned(),
        remarks: remarks(tree, arch, &loaders),
        loaders,
    })
}

/// The release in the kernel's file, or else the one in `freebsd-version`, which both name it as freebsd-version(1) prints it.
fn release(tree: &RootDir) -> Option<String> {
    const MARK: &[u8] = b"@(#)FreeBSD ";
    let mut file = tree.open_file(KERNEL).ok()?.take(SEARCHED);
    let (mut window, mut chunk) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut chunk).ok()?;
        if read == 0 {
            break;
        }
        window.extend_from_slice(&chunk[..read]);
        // The release has at most 100 bytes, and must not be cut by the end of a chunk.
        let found = window.windows(MARK.len()).position(|bytes| bytes == MARK);
        if let Some(at) = found.filter(|at| at + 128 <= window.len()) {
            return word(&window[at + MARK.len()..]);
        }
        let kept = window.len().saturating_sub(256);
        window.drain(..kept);
    }
    if let Some(at) = window.windows(MARK.len()).position(|bytes| bytes == MARK) {
        return word(&window[at + MARK.len()..]);
    }
    let text = tree.read("bin/freebsd-version", 64 << 10).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.strip_prefix("USERLAND_VERSION="))?;
    word(line.trim_matches(['"', '\'']).as_bytes())
}

/// The text up to the first space or NUL; none if it is empty.
fn word(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().take(100).position(|b| !b.is_ascii_graphic());
    let word = &bytes[..end.unwrap_or(bytes.len().min(100))];
    (!word.is_empty()).then(|| one_line(&String::from_utf8_lossy(word), 100))
}

fn remarks(tree: &RootDir, arch: &str, loaders: &[&str]) -> Vec<String> {
    let mut remarks = Vec::new();
    let has_bios = matches!(
        Architecture::of_machine(arch),
        Some(Architecture::Amd64 | Architecture::I386)
    );
    for (name, firmware, exists) in [(PXE_LOADER, "a BIOS", has_bios), (EFI_LOADER, "UEFI", true)] {
        if exists && !loaders.contains(&name) {
            remarks.push(format!(
                "no /boot/{name}: machines with {firmware} cannot boot this image"
            ));
        }
    }
    if !tree.exists("conf/base/etc") && !tree.exists("conf/default/etc") {
        remarks.push(
            "no /conf/base/etc: the root is read-only, so nodes cannot change files in /etc; see diskless(8) of FreeBSD".to_owned(),
        );
    }
    remarks
}

/// Copies the boot loaders next to the tree, to `dir`.
pub fn copy_loaders(tree: &RootDir, seen: &FreeBsd, dir: &Path) -> Result<(), ImportError> {
    for name in &seen.loaders {
        let doing = || format!("copying /boot/{name}");
        let mut from = tree.open_file(Path::new("boot").join(name)).doing(doing)?;
        let mut to = std::fs::File::create_new(dir.join(name)).doing(doing)?;
        io::copy(&mut from, &mut to).doing(doing)?;
    }
    Ok(())
}

/// Adds the files that report to the server, and returns a remark for each that is not added. Files of the same name in the tree stay as
/// they are.
pub fn add_reporters(tree: &RootDir) -> Vec<String> {
    let mut remarks = Vec::new();
    for (path, mode, content) in REPORTERS {
        match tree.create(Path::new(path), mode, content.as_bytes()) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match tree.read(path, 1 << 20) {
                Ok(own) if own == content.as_bytes() => {}
                _ => remarks.push(format!(
                    "/{path} exists and differs from this release's; it stays as it is (remove it before the import to get this release's)"
                )),
            },
            Err(e) => remarks.push(format!(
                "/{path} cannot be added ({e}): nodes of this image do not report that they are ready"
            )),
        }
    }
    remarks
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// A kernel's first bytes: 64-bit, little-endian, FreeBSD, of that machine (`e_machine`).
    pub(crate) fn kernel(machine: u8) -> Vec<u8> {
        let mut kernel = b"\x7fELF\x02\x01\x01\x09".to_vec();
        kernel.resize(64, 0);
        kernel[18] = machine;
        kernel.resize((1 << 20) - 6, 0);
        kernel.extend(b"@(#)FreeBSD 14.1-RELEASE-p5 releng/14.1-n267718 GENERIC\0");
        kernel
    }

    pub(crate) fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let at = |path: &str| tree.path().join(path);
        for dir in ["boot/kernel", "sbin", "bin", "conf/base/etc"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        fs::write(
            at("bin/freebsd-version"),
            "#!/bin/sh\nUSERLAND_VERSION=\"14.1-RELEASE-p6\"\n",
        )
        .unwrap();
        fs::write(at("boot/kernel/kernel"), kernel(62)).unwrap();
        fs::write(at("boot/pxeboot"), "pxeboot").unwrap();
        fs::write(at("boot/loader.efi"), "MZ...").unwrap();
        // An executable file: of this machine, which does not matter here.
        fs::copy(std::env::current_exe().unwrap(), at("sbin/init")).unwrap();
        tree
    }

    fn look(tree: &Path) -> Result<FreeBsd, Vec<String>> {
        inspect(&RootDir::open(tree).unwrap())
    }

    #[test]
    fn a_tree_is_recognised_by_its_program_or_its_kernel() {
        let tree = tree();
        let recognised = || is_freebsd(&RootDir::open(tree.path()).unwrap());
        assert!(recognised());
        fs::remove_file(tree.path().join("bin/freebsd-version")).unwrap();
        assert!(recognised());
        // A kernel of Linux has OSABI 0.
        let mut linux = kernel(62);
        linux[7] = 0;
        fs::write(tree.path().join("boot/kernel/kernel"), linux).unwrap();
        assert!(!recognised());
    }

    #[test]
    fn a_whole_tree_is_inspected() {
        let tree = tree();
        let seen = look(tree.path()).unwrap();
        assert_eq!(
            seen.release, "14.1-RELEASE-p5",
            "the kernel's, across the end of a chunk"
        );
        assert_eq!(seen.arch, "x86_64");
        assert_eq!(seen.loaders, ["pxeboot", "loader.efi"]);
        assert!(seen.remarks.is_empty(), "{:?}", seen.remarks);
        fs::remove_file(tree.path().join("boot/pxeboot")).unwrap();
        let seen = look(tree.path()).unwrap();
        assert!(seen.remarks[0].contains("machines with a BIOS"), "{:?}", seen.remarks);
        fs::write(tree.path().join("boot/kernel/kernel"), &kernel(183)[..64]).unwrap();
        fs::remove_dir_all(tree.path().join("conf")).unwrap();
        let seen = look(tree.path()).unwrap();
        assert_eq!(
            (seen.arch.as_str(), seen.release.as_str()),
            ("aarch64", "14.1-RELEASE-p6")
        );
        assert_eq!(
            seen.remarks.len(),
            1,
            "machines with arm64 have no BIOS: {:?}",
            seen.remarks
        );
        assert!(seen.remarks[0].contains("/conf/base/etc"), "{:?}", seen.remarks);
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let tree = tree();
        fs::remove_file(tree.path().join("boot/kernel/kernel")).unwrap();
        fs::remove_file(tree.path().join("sbin/init")).unwrap();
        fs::write(tree.path().join("boot/loader.efi"), "\x7fELF").unwrap();
        let problems = look(tree.path()).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("no kernel: /boot/kernel/kernel does not exist"));
        assert!(problems[1].starts_with("no init"), "{problems:?}");
        assert!(problems[2].starts_with("/boot/loader.efi is not an EFI program"));
        assert!(problems.iter().all(|problem| problem.contains("kernel.txz")));
    }

    #[test]
    fn the_server_knows_the_boot_before_users_log_in_and_hears_ready_after_that() {
        let line = |file: &str, keyword: &str| {
            let (_, _, text) = REPORTERS.iter().find(|(path, _, _)| path.ends_with(file)).unwrap();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("# {keyword}: ")));
            line.unwrap_or_default()
        };
        assert_eq!(
            (line("/rackstrap", "REQUIRE"), line("/rackstrap", "BEFORE")),
            ("NETWORKING", "LOGIN")
        );
        assert_eq!(line("/rackstrap_login", "REQUIRE"), "LOGIN rackstrap");
        assert_eq!(line("/rackstrap_login", "BEFORE"), "");
    }

    #[test]
    fn reporters_are_added_inside_the_tree_and_never_replace_files() {
        let outside = tempfile::tempdir().unwrap();
        let tree = tree();
        let root = RootDir::open(tree.path()).unwrap();
        assert!(add_reporters(&root).is_empty());
        let script = tree.path().join("usr/local/etc/rc.d/rackstrap");
        use std::os::unix::fs::{MetadataExt, symlink};
        assert_eq!(fs::metadata(&script).unwrap().mode() & 0o7777, 0o555);
        assert!(add_reporters(&root).is_empty(), "the same files");
        fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
        assert!(add_reporters(&root)[0].contains("it stays as it is"));
        assert_eq!(fs::read_to_string(&script).unwrap(), "#!/bin/sh\nexit 0\n");
        // A link out of the tree leads into it.
        fs::remove_dir_all(tree.path().join("usr")).unwrap();
        symlink(outside.path(), tree.path().join("usr")).unwrap();
        let remarks = add_reporters(&root);
        assert_eq!(remarks.len(), REPORTERS.len(), "{remarks:?}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
