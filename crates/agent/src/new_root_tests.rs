//! Disks that are full, read-only or damaged by their users; file systems in RAM stand for the disk's.

use super::*;
use crate::testdisk::Mounted;
use rackstrap_wire::FileSystem;
use rustix::mount::{UnmountFlags, unmount};
use std::fs;

/// A directory for roots, and file systems with their mount points.
struct Node {
    // Fields drop in order, so the disks are unmounted before the directory is removed.
    disks: Vec<Mounted>,
    partitions: Vec<MountedPartition>,
    dir: tempfile::TempDir,
}

impl Node {
    fn new(mounts: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let partition = |(name, mount): &(&str, &str)| MountedPartition {
            name: (*name).into(),
            device: format!("/dev/{name}"),
            fs: FileSystem::Ext4,
            uuid: String::new(),
            mount: Some((*mount).into()),
            options: String::new(),
            size: 0,
            encrypted: false,
        };
        let disks = mounts.iter().map(|(name, _)| {
            let at = dir.path().join("disk").join(name);
            fs::create_dir_all(&at).unwrap();
            Mounted::tmpfs(&at, "size=64k,mode=0755")
        });
        Node {
            disks: disks.collect(),
            partitions: mounts.iter().map(partition).collect(),
            dir,
        }
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.dir.path().join("disk").join(name)
    }

    fn root(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Builds a root. Returns the summary of file systems left out, and the number of attempts.
    fn build(&self, files: &[OverlayFile]) -> Res<(String, u32)> {
        let mut begun = 0;
        let root = self.root("");
        let mut fresh = || {
            begun += 1;
            while unmount(&root, UnmountFlags::DETACH).is_ok() {}
            std::mem::forget(Mounted::tmpfs(&root, "size=1m,mode=0755"));
            // This directory is the image's.
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
            fs::create_dir(root.join("var/srv")).unwrap();
            std::os::unix::fs::symlink("/var/srv", root.join("srv")).unwrap();
            Tree::open(&root)
        };
        let list = ImageList {
            owned: vec![b"var/lib/dpkg"],
            ..ImageList::default()
        };
        let parts = Parts {
            list: &list,
            partitions: &self.partitions,
            disk: &self.dir.path().join("disk"),
            files,
        };
        let own = |out: &[LeftOut<'_>]| Ok(vec![(file("/etc/own", ""), describe_left_out(out).into_bytes())]);
        let built = build(&parts, &mut fresh, &own)?;
        let said = describe_left_out(&built.left_out);
        assert_eq!(fs::read_to_string(self.root("etc/own")).unwrap(), said);
        Ok((said, begun))
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root(path)).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        while unmount(self.root(""), UnmountFlags::DETACH).is_ok() {}
    }
}

fn file(path: &str, text: &str) -> OverlayFile {
    OverlayFile {
        path: path.into(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        content: OverlayContent::Text(text.into()),
    }
}

fn directory(path: &str) -> OverlayFile {
    OverlayFile {
        content: OverlayContent::Directory,
        ..file(path, "")
    }
}

/// A name for the damage, and a function that does it.
type Spoilt<'a> = (&'a str, &'a dyn Fn(&Node));

const FSTAB: &str =
    "# disk\n/dev/var /var ext4 defaults,nofail 0 0\n/dev/tmp /tmp ext4 defaults,nofail 0 0\nx:/h /home nfs ro 0 0\n";

#[test]
fn files_are_written_to_healthy_disks() {
    let node = Node::new(&[("vartmp", "/var/tmp"), ("var", "/var")]);
    let files = [
        file("/var/lib/key", "secret"),
        file("/etc/fstab", FSTAB),
        directory("/var/tmp/x"),
    ];
    assert_eq!(node.build(&files), Ok((String::new(), 1)));
    assert_eq!(fs::read_to_string(node.disk("var").join("lib/key")).unwrap(), "secret");
    assert!(node.disk("vartmp").join("x").is_dir());
    assert_eq!(node.read("/etc/fstab"), FSTAB);
    // The image's own directory is mounted above the disk's.
    fs::write(node.root("/var/lib/dpkg/status"), "").unwrap();
    assert!(!node.disk("var").join("lib/dpkg/status").exists());
}

#[test]
fn a_full_disk_is_left_out_and_its_files_are_in_ram() {
    let node = Node::new(&[("var", "/var"), ("tmp", "/tmp")]);
    fs::write(node.disk("var").join("big"), vec![1; 65 << 10]).unwrap_err();
    let files = [
        file("/var/lib/key", "secret"),
        file("/tmp/other", "there"),
        file("/etc/fstab", FSTAB),
    ];
    let (said, begun) = node.build(&files).unwrap();
    assert!(
        said.starts_with("/var is in RAM and not on /dev/var: ") && said.contains("No space left"),
        "{said}"
    );
    assert_eq!(begun, 2);
    assert_eq!(node.read("/var/lib/key"), "secret");
    assert!(!node.root("/var/big").exists(), "the disk is not mounted");
    assert_eq!(fs::read_to_string(node.disk("tmp").join("other")).unwrap(), "there");
    // Init does not mount it above the files.
    let fstab = node.read("/etc/fstab");
    let active: Vec<&str> = fstab.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        active,
        ["/dev/tmp /tmp ext4 defaults,nofail 0 0", "x:/h /home nfs ro 0 0"],
        "{fstab}"
    );
    assert!(fstab.contains("# /dev/var /var ext4"), "{fstab}");
}

#[test]
fn the_root_is_built_whatever_the_disk_holds() {
    let spoilt: [Spoilt<'_>; 6] = [
        ("read-only", &|node| node.disks[0].read_only()),
        ("a file where a mount needs a directory", &|node| {
            fs::create_dir(node.disk("var").join("lib")).unwrap();
            fs::write(node.disk("var").join("lib/data"), "a user's").unwrap();
        }),
        ("a directory in the place of a file", &|node| {
            fs::create_dir_all(node.disk("var").join("lib/key")).unwrap();
        }),
        ("a user's link", &|node| {
            std::os::unix::fs::symlink("/etc", node.disk("var").join("lib")).unwrap();
            std::os::unix::fs::lchown(node.disk("var").join("lib"), Some(1000), None).unwrap();
        }),
        ("a file where another disk is mounted", &|node| {
            fs::write(node.disk("var").join("tmp"), "").unwrap();
        }),
        ("a file where the image's directory is mounted", &|node| {
            fs::create_dir(node.disk("var").join("lib")).unwrap();
            fs::write(node.disk("var").join("lib/dpkg"), "").unwrap();
        }),
    ];
    let files = [file("/var/lib/key", "secret"), directory("/var/lib/data/deep")];
    for (what, spoil) in spoilt {
        let node = Node::new(&[("var", "/var"), ("vartmp", "/var/tmp")]);
        spoil(&node);
        let (said, begun) = node.build(&files).unwrap();
        assert!(said.starts_with("/var is in RAM"), "{what}: {said}");
        assert!(!said.contains("/var/tmp is in RAM"), "{what}: {said}");
        assert_eq!(begun, 2, "{what}");
        assert_eq!(node.read("/var/lib/key"), "secret", "{what}");
        assert!(node.root("/var/lib/data/deep").is_dir(), "{what}");
    }
    // Several faults at once are handled too.
    let node = Node::new(&[("var", "/var"), ("vartmp", "/var/tmp")]);
    node.disks.iter().for_each(Mounted::read_only);
    let (said, _) = node
        .build(&[file("/var/lib/key", "secret"), file("/var/tmp/x", "")])
        .unwrap();
    assert!(
        said.contains("/var is in RAM") && said.contains("/var/tmp is in RAM"),
        "{said}"
    );
}

#[test]
fn links_of_the_image_are_resolved_to_their_file_system() {
    let node = Node::new(&[("tmp", "/tmp"), ("var", "/var")]);
    let (said, _) = node.build(&[directory("/srv/data")]).unwrap();
    assert!(said.starts_with("/var is in RAM") && !said.contains("/tmp"), "{said}");
    assert!(node.root("/var/srv/data").is_dir());
}

#[test]
fn a_failure_in_ram_leaves_no_disk_out() {
    let node = Node::new(&[("var", "/var")]);
    let big = file("/etc/big", &"x".repeat(2 << 20));
    let failure = node.build(&[big]).unwrap_err();
    assert!(failure.to_string().contains("No space left"), "{failure}");
    // The image's directory above the disk's is in RAM too.
    let big = file("/var/lib/dpkg/big", &"x".repeat(2 << 20));
    assert!(node.build(&[big]).is_err());
}
