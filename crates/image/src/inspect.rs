//! Finds out what a tree consists of, and whether a node can boot it.

use super::{
    InitKind,
    initramfs::{self, Modprobe, ModuleIndex, ROOT_NEEDS, elf},
    kernel::{own_architectures, own_release},
    release,
    root::RootDir,
    selinux::{enforces_selinux, selinux_remark},
};
use rackstrap_base::{arch::Architecture, text::one_line};
use rustix::fs::FileType;
use std::path::{Path, PathBuf};

/// A tree that can boot a node.
#[derive(Debug)]
pub struct Inspection {
    /// The kernel's file, relative to the tree.
    pub kernel: PathBuf,
    /// Its release.
    pub release: String,
    /// Machine, as `uname -m` names it.
    pub arch: String,
    /// The program that runs as PID 1.
    pub init: InitKind,
    /// `PRETTY_NAME` of os-release; empty without one.
    pub os: String,
    /// The indexes of that release's modules.
    pub index: ModuleIndex,
    /// The tree's configuration of modules.
    pub modprobe: Modprobe,
    /// Remarks about deficiencies that do not prevent a boot.
    pub remarks: Vec<String>,
}

/// Inspects a tree. The error lists everything that is missing, each with a remedy.
pub fn inspect(tree: &RootDir, wanted_release: Option<&str>) -> Result<Inspection, Vec<String>> {
    let mut problems = Vec::new();
    let init = find_init(tree).map_err(|p| problems.push(p)).ok();
    let kernel = find_kernel(tree, wanted_release).map_err(|p| problems.push(p)).ok();
    let modprobe = Modprobe::read(tree);
    let index = kernel.as_ref().and_then(|kernel| {
        let index = initramfs::read_index(tree, &kernel.release, &modprobe).map_err(|e| {
            let release = &kernel.release;
            problems.push(format!(
                "/lib/modules/{release}/modules.dep cannot be read ({e}); run `depmod -a {release}` in the tree"
            ));
        });
        index.ok()
    });
    if let (Some(kernel), Some(index)) = (&kernel, &index) {
        let missing: Vec<String> = ROOT_NEEDS
            .iter()
            .filter(|(name, _)| !index.has(name))
            .map(|(name, what)| format!("{name} ({what})"))
            .collect();
        if !missing.is_empty() {
            problems.push(format!(
                "kernel {} has no {}, neither as module nor built in; install a full kernel package \
                 (Debian: linux-image-amd64, Fedora and its derivatives: kernel-modules) or one built with \
                 CONFIG_NFS_V3 and CONFIG_OVERLAY_FS",
                kernel.release,
                missing.join(", no ")
            ));
        }
    }
    let programs = init.as_ref().and_then(|init| find_machine(tree, &init.path));
    let of_kernel = kernel
        .as_ref()
        .map_or(&[][..], |kernel| own_architectures(tree, &kernel.path));
    if let (Some(kernel), Some(programs)) = (&kernel, programs.and_then(Architecture::of_machine))
        && let [first, ..] = of_kernel
        && !of_kernel.iter().any(|kernel| programs.runs_on(*kernel))
    {
        problems.push(format!(
            "the kernel /{} is for {first}, and the tree's programs are for {programs}; install the kernel of {programs}",
            kernel.path.display()
        ));
    }
    let (Some(init), Some(kernel), Some(index), true) = (init, kernel, index, problems.is_empty()) else {
        return Err(problems);
    };
    let arch = programs.or_else(|| of_kernel.first().map(|kernel| kernel.machine()));
    Ok(Inspection {
        remarks: remarks(tree, arch),
        kernel: kernel.path,
        release: kernel.release,
        arch: arch.unwrap_or(std::env::consts::ARCH).to_owned(),
        init: init.kind,
        os: os_name(tree),
        index,
        modprobe,
    })
}

struct Init {
    path: PathBuf,
    kind: InitKind,
}

fn find_init(tree: &RootDir) -> Result<Init, String> {
    let advice = "install systemd-sysv (Debian), systemd (Fedora and its derivatives) or another init";
    let (path, mode) = match tree.resolve("sbin/init") {
        Ok(found) => found,
        Err(_) => return Err(format!("no init: /sbin/init leads to nothing; {advice}")),
    };
    let shown = path.display();
    if !is_file(mode) {
        return Err(format!(
            "no init: /sbin/init leads to /{shown}, which is not a program; {advice}"
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

fn is_file(mode: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::RegularFile
}

struct Kernel {
    path: PathBuf,
    release: String,
    /// The part of the file's name after `vmlinuz-`: the release, or a flavour (`lts`).
    label: String,
}

/// Beginnings of kernels' names in `/boot`.
const KERNELS: [&str; 6] = ["vmlinuz", "vmlinux", "bzImage", "zImage", "Image", "kernel"];

/// Finds the newest kernel that has modules: in `/boot` (`vmlinuz-RELEASE`, `vmlinuz-FLAVOUR`, …), `/lib/modules/RELEASE/vmlinuz`
/// (Fedora, Arch), or behind `/vmlinuz` and `/boot/vmlinuz`. The release in the kernel's file counts; without one, its name does.
fn find_kernel(tree: &RootDir, wanted: Option<&str>) -> Result<Kernel, String> {
    let with_modules = tree
        .list("lib/modules")
        .map_err(|e| format!("/lib/modules cannot be read: {e}"))?;
    let with_modules: Vec<&str> = with_modules.iter().filter_map(|name| name.to_str()).collect();
    let mut found: Vec<Kernel> = Vec::new();
    for name in tree.list("boot").map_err(|e| format!("/boot cannot be read: {e}"))? {
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = KERNELS.iter().find_map(|kernel| name.strip_prefix(kernel)) else {
            continue;
        };
        let label = rest.strip_prefix('-').unwrap_or_default();
        let path = Path::new("boot").join(name);
        // A link `vmlinuz` is followed below.
        if name.ends_with(".old") || name == "vmlinuz" {
            continue;
        }
        let own = own_release(tree, &path).filter(|own| label.is_empty() || with_modules.contains(&own.as_str()));
        let named = (!label.is_empty()).then(|| label.to_owned());
        let is_file = |path: &Path| tree.resolve(path).is_ok_and(|(_, mode)| is_file(mode));
        if let Some(release) = own.or_else(|| named.filter(|_| is_file(&path))) {
            found.push(Kernel {
                path,
                release,
                label: label.to_owned(),
            });
        }
    }
    for release in &with_modules {
        for file in ["vmlinuz", "vmlinux"] {
            let path = Path::new("lib/modules").join(release).join(file);
            if tree.exists(&path) {
                found.push(Kernel {
                    path,
                    release: (*release).to_owned(),
                    label: (*release).to_owned(),
                });
            }
        }
    }
    for link in ["vmlinuz", "boot/vmlinuz"] {
        if let (Ok((path, _)), Some(release)) = (tree.resolve(link), own_release(tree, Path::new(link))) {
            let label = release.clone();
            found.push(Kernel { path, release, label });
        }
    }
    let names = |found: &[Kernel]| -> String {
        let names = found.iter().map(|k| format!("{} (/{})", k.release, k.path.display()));
        names.collect::<Vec<_>>().join(", ")
    };
    let there = names(&found);
    found.retain(|k| wanted.is_none_or(|w| w == k.release || w == k.label));
    if found.is_empty() {
        return Err(match (wanted, there.is_empty()) {
            (Some(wanted), false) => format!("no kernel {wanted}; the tree has {there}"),
            _ => "no kernel: /boot/vmlinuz-* does not exist; install linux-image-amd64 (Debian), kernel (Fedora and its derivatives)"
                .to_owned(),
        });
    }
    let (all, first) = (names(&found), found[0].release.clone());
    found.retain(|k| with_modules.contains(&k.release.as_str()));
    // The sort is stable: of one release, the file that is named after it wins, then the first place in the list above.
    found.sort_by(|a, b| {
        let by_release = release::compare(&b.release, &a.release);
        by_release.then_with(|| (b.label == b.release).cmp(&(a.label == a.release)))
    });
    let Some(kernel) = found.into_iter().next() else {
        return Err(format!(
            "no modules for kernel {all}: /lib/modules/{first} does not exist; install the kernel's whole package"
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

/// The machine of the init's program, or else of the shell's.
pub(crate) fn find_machine(tree: &RootDir, init: &Path) -> Option<&'static str> {
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
    one_line(value, 200)
}

fn remarks(tree: &RootDir, arch: Option<&str>) -> Vec<String> {
    let mut remarks = Vec::new();
    if enforces_selinux(tree) {
        remarks.push(selinux_remark("the tree"));
    }
    if arch.is_none() {
        remarks.push(format!(
            "the machine of /sbin/init, /bin/sh and the kernel is unknown; assuming {}",
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
            remarks.push(format!(
                "no {tool}: a layout that needs it cannot be prepared; install {package}"
            ));
        }
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::{
        super::kernel::tests::{arm64 as other_kernel, x86 as kernel_that_says},
        *,
    };
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
    fn a_debian_with_merged_usr_is_inspected() {
        let tree = tree();
        let seen = look(tree.path()).unwrap();
        assert_eq!(seen.release, "6.1.0-40-amd64");
        assert_eq!(seen.kernel, Path::new("boot/vmlinuz-6.1.0-40-amd64"));
        assert_eq!(seen.init, InitKind::Systemd);
        assert_eq!(seen.os, "Debian GNU/Linux 12");
        assert_eq!(seen.arch, std::env::consts::ARCH);
        assert_eq!(seen.remarks.len(), 3);
        let older = inspect(&RootDir::open(tree.path()).unwrap(), Some("6.1.0-9-amd64")).unwrap();
        assert_eq!(older.release, "6.1.0-9-amd64");
    }

    #[test]
    fn a_kernel_of_another_architecture_than_the_programs_is_refused() {
        let tree = tree();
        let kernel = tree.path().join("boot/vmlinuz-6.1.0-40-amd64");
        fs::write(&kernel, other_kernel("6.1.0-40-amd64")).unwrap();
        let problem = look(tree.path()).unwrap_err().join("; ");
        assert!(
            problem.contains("the kernel /boot/vmlinuz-6.1.0-40-amd64 is for arm64")
                && problem.contains("programs are for amd64; install the kernel of amd64"),
            "{problem}"
        );
        // If the programs show no machine, the kernel does.
        fs::write(tree.path().join("usr/lib/systemd/systemd"), "#!/bin/sh\n").unwrap();
        assert_eq!(look(tree.path()).unwrap().arch, "aarch64");
        fs::write(&kernel, kernel_that_says("6.1.0-40-amd64")).unwrap();
        assert_eq!(look(tree.path()).unwrap().arch, "x86_64");
    }

    #[test]
    fn a_kernel_without_modules_is_skipped() {
        let tree = tree();
        fs::write(tree.path().join("boot/vmlinuz-6.12.0-1-amd64"), "kernel").unwrap();
        assert_eq!(look(tree.path()).unwrap().release, "6.1.0-40-amd64");
    }

    #[test]
    fn kernels_next_to_their_modules_and_behind_links_are_found() {
        let tree = tree();
        add_kernel(tree.path(), "6.5.6-300.fc39.x86_64");
        fs::rename(
            tree.path().join("boot/vmlinuz-6.5.6-300.fc39.x86_64"),
            tree.path().join("lib/modules/6.5.6-300.fc39.x86_64/vmlinuz"),
        )
        .unwrap();
        assert_eq!(look(tree.path()).unwrap().release, "6.5.6-300.fc39.x86_64");
        add_kernel(tree.path(), "6.9.0");
        fs::write(tree.path().join("usr/kernel"), kernel_that_says("6.9.0")).unwrap();
        fs::remove_file(tree.path().join("boot/vmlinuz-6.9.0")).unwrap();
        symlink("/usr/kernel", tree.path().join("vmlinuz")).unwrap();
        let seen = look(tree.path()).unwrap();
        assert_eq!(
            (seen.release.as_str(), seen.kernel.as_path()),
            ("6.9.0", Path::new("usr/kernel"))
        );
    }

    #[test]
    fn a_kernel_that_is_named_after_its_flavour_is_found() {
        let tree = tree();
        let boot = |name: &str| tree.path().join("boot").join(name);
        add_kernel(tree.path(), "6.12.9-0-lts");
        fs::remove_file(boot("vmlinuz-6.12.9-0-lts")).unwrap();
        fs::write(boot("vmlinuz-lts"), kernel_that_says("6.12.9-0-lts")).unwrap();
        fs::write(boot("vmlinuz-lts.old"), kernel_that_says("6.12.9-0-lts")).unwrap();
        // Kernels without modules are skipped, and so are files that are not kernels.
        fs::write(boot("vmlinuz-virt"), kernel_that_says("6.13.0-virt")).unwrap();
        fs::create_dir(boot("kernel")).unwrap();
        let look_for = |wanted| inspect(&RootDir::open(tree.path()).unwrap(), wanted);
        for wanted in [None, Some("lts"), Some("6.12.9-0-lts")] {
            let seen = look_for(wanted).unwrap();
            assert_eq!(
                (seen.release.as_str(), seen.kernel.as_path()),
                ("6.12.9-0-lts", Path::new("boot/vmlinuz-lts")),
                "{wanted:?}"
            );
        }
        let problem = look_for(Some("virt")).unwrap_err().remove(0);
        assert!(
            problem.contains("no modules for kernel virt (/boot/vmlinuz-virt)"),
            "{problem}"
        );
        let problem = look_for(Some("5.10")).unwrap_err().remove(0);
        assert!(problem.contains("6.12.9-0-lts (/boot/vmlinuz-lts)"), "{problem}");
        // A rescue kernel has the same release and another name; the file that is named after the release is chosen.
        fs::write(boot("vmlinuz-0-rescue-4f2a"), kernel_that_says("6.12.9-0-lts")).unwrap();
        fs::write(boot("vmlinuz-6.12.9-0-lts"), kernel_that_says("6.12.9-0-lts")).unwrap();
        assert_eq!(look_for(None).unwrap().kernel, Path::new("boot/vmlinuz-6.12.9-0-lts"));
        // The release in the file counts, not the one in the name.
        fs::remove_file(boot("vmlinuz-6.12.9-0-lts")).unwrap();
        fs::remove_file(boot("vmlinuz-0-rescue-4f2a")).unwrap();
        fs::rename(boot("vmlinuz-lts"), boot("vmlinuz-6.1.0-9-amd64")).unwrap();
        assert_eq!(look_for(None).unwrap().release, "6.12.9-0-lts");
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
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
    fn unusable_inits_and_kernels_are_refused() {
        let tree = tree();
        let init = tree.path().join("usr/sbin/init");
        fs::remove_file(&init).unwrap();
        fs::write(&init, "#!/bin/sh\n").unwrap();
        assert!(look(tree.path()).unwrap_err()[0].contains("not executable"));
        fs::remove_file(&init).unwrap();
        symlink("/etc", &init).unwrap();
        assert!(look(tree.path()).unwrap_err()[0].contains("not a program"));
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
