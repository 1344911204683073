//! A node's `/var` over two upgrades and a rollback, with a database that rpm itself wrote. The steps are those of a boot, with
//! directories as image and disk.

use super::*;
use crate::disk::{refresh::ImageCopy, seed};
use rackstrap_wire::image_list::{self, Entry};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn run(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {said}{why}");
    said
}

fn rpm(root: &Path) -> Command {
    let mut command = Command::new("rpm");
    command.arg("--root").arg(root).args(["--dbpath", "/var/lib/rpm"]);
    command
}

/// A package with one file of state.
fn package(dir: &Path, version: u32) -> PathBuf {
    let spec = dir.join(format!("{version}.spec"));
    let text = format!(
        "Name: hello\nVersion: {version}\nRelease: 1\nSummary: a test\nLicense: none\nBuildArch: noarch\n%description\na test\n\
         %install\nmkdir -p %{{buildroot}}/var/lib/hello\necho {version} > %{{buildroot}}/var/lib/hello/state\n\
         %files\n/var/lib/hello\n"
    );
    fs::write(&spec, text).unwrap();
    let top = format!("_topdir {}", dir.display());
    run(Command::new("rpmbuild")
        .args(["-bb", "--quiet", "--define", &top])
        .arg(&spec));
    dir.join(format!("RPMS/noarch/hello-{version}-1.noarch.rpm"))
}

/// A version of the image: a tree and its list, as an import writes it.
fn version(dir: &Path, number: u32, package: Option<&Path>) -> (PathBuf, Vec<u8>) {
    let root = dir.join(format!("image-{number}"));
    fs::create_dir_all(root.join("var/lib")).unwrap();
    run(rpm(&root).arg("--initdb"));
    if let Some(package) = package {
        run(rpm(&root).args(["--install", "--nodeps", "--nosignature"]).arg(package));
    }
    let mut list = Vec::new();
    image_list::begin(&mut list);
    image_list::add_owned(&mut list, b"var/lib/rpm");
    let mut add = |path: &str, kind, content: &[u8]| {
        let mode = if kind == b'd' { 0o755 } else { 0o644 };
        let entry = Entry {
            path: path.as_bytes(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: content.len() as u64,
            crc: crc32fast::hash(content),
            sum: number.into(),
            target: b"",
        };
        image_list::add_entry(
            &mut list,
            &Entry {
                crc: if kind == b'd' { 0 } else { entry.crc },
                ..entry
            },
        );
    };
    add("var/lib", b'd', b"");
    if package.is_some() {
        add("var/lib/hello", b'd', b"");
        add("var/lib/hello/state", b'f', format!("{number}\n").as_bytes());
    }
    (root, list)
}

/// Boots a version. Returns what rpm lists as installed, and the package's file on the disk.
fn boot(dir: &Path, (image, list): &(PathBuf, Vec<u8>), prepare: bool) -> (String, String) {
    let (root, disk) = (dir.join("root"), dir.join("disk"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&disk).unwrap();
    let list = ImageList::parse(list).unwrap();
    let copy = ImageCopy {
        image: &image.join("var"),
        target: &disk,
        mount: "/var",
        mounts: &["/var"],
    };
    if prepare {
        seed::copy_tree(copy.image, &disk).unwrap();
        copy.record_seed(&list).unwrap();
    } else {
        copy.refresh(&list).unwrap();
    }
    mount_bind(image, &root).unwrap();
    // Mounts below must not appear in the image too.
    mount_change(&root, MountPropagationFlags::PRIVATE).unwrap();
    let tree = Tree::open(&root).unwrap();
    let owned = Owned::open(&list, &tree, &["/var"]);
    mount_bind(&disk, root.join("var")).unwrap();
    owned.mount(&tree).unwrap();
    let installed = run(rpm(&root).args(["--query", "--all", "--queryformat", "%{name}-%{version} "]));
    let state = fs::read_to_string(root.join("var/lib/hello/state")).unwrap_or_else(|_| "none".to_owned());
    drop((tree, owned));
    unmount(&root, UnmountFlags::DETACH).unwrap();
    (installed.trim().to_owned(), state.trim().to_owned())
}

#[test]
fn rpm_lists_the_booted_version_over_two_upgrades_and_a_rollback() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let versions = [
        version(dir, 1, None),
        version(dir, 2, Some(&package(dir, 2))),
        version(dir, 3, Some(&package(dir, 3))),
    ];
    let says = |number: usize, prepare| {
        let (installed, state) = boot(dir, &versions[number - 1], prepare);
        format!("{installed}: {state}")
    };
    assert_eq!(says(1, true), ": none");
    assert_eq!(says(2, false), "hello-2: 2");
    fs::write(dir.join("disk/lib/hello/own"), "the node's").unwrap();
    assert_eq!(says(3, false), "hello-3: 3");
    assert_eq!(says(1, false), ": none");
    assert_eq!(
        fs::read_to_string(dir.join("disk/lib/hello/own")).unwrap(),
        "the node's"
    );
}
