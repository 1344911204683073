//! Upgrades, rollbacks, and power cuts at every step, with trees of images and of a node in directories.

use super::*;
use rackstrap_wire::image_list::add_capability;
use std::{
    collections::BTreeMap,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

/// A version of an image: its `/var`, and its list.
struct Image {
    dir: tempfile::TempDir,
    list: Vec<u8>,
}

/// Writes files below `root`: `dir/`, `link@target`, or a path with its content and mode.
fn fill(root: &Path, files: &[(&str, &str, u32)]) {
    for (path, content, mode) in files {
        if let Some(dir) = path.strip_suffix('/') {
            fs::create_dir_all(root.join(dir)).unwrap();
            fs::set_permissions(root.join(dir), fs::Permissions::from_mode(*mode)).unwrap();
        } else if let Some((link, target)) = path.split_once('@') {
            symlink(target, root.join(link)).unwrap();
        } else {
            fs::write(root.join(path), content).unwrap();
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
}

/// All paths below `root`, the deepest last, without those of the agent.
fn paths(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if name != own::NAME {
                found.push(name);
                if entry.file_type().unwrap().is_dir() {
                    todo.push(path);
                }
            }
        }
    }
    found.sort();
    found
}

impl Image {
    fn new(files: &[(&str, &str, u32)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let var = dir.path().join("var");
        fs::create_dir(&var).unwrap();
        fill(&var, files);
        let mut list = Vec::new();
        image_list::begin(&mut list);
        for name in paths(&var) {
            let path = var.join(&name);
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = letter(meta.mode());
            let content = match kind {
                b'f' => fs::read(&path).unwrap(),
                _ => Vec::new(),
            };
            let target = match kind {
                b'l' => fs::read_link(&path).unwrap().into_os_string(),
                _ => Default::default(),
            };
            let listed = format!("var/{name}");
            let entry = Entry {
                path: listed.as_bytes(),
                kind,
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
                size: content.len() as u64,
                crc: crc32fast::hash(&content),
                sum: u64::from(crc32fast::hash(&content)) << 1,
                target: target.as_bytes(),
            };
            image_list::add_entry(&mut list, &entry);
        }
        Image { dir, list }
    }

    fn var(&self) -> PathBuf {
        self.dir.path().join("var")
    }
}

/// A node's disk, mounted at /var.
struct Node(tempfile::TempDir);

impl Node {
    fn prepared(image: &Image) -> Self {
        let node = Node(tempfile::tempdir().unwrap());
        seed::copy_tree(&image.var(), node.0.path()).unwrap();
        node.copy(image, |copy, list| copy.record_seed(list)).unwrap();
        node
    }

    fn copy<T>(&self, image: &Image, work: impl FnOnce(&ImageCopy<'_>, &ImageList<'_>) -> T) -> T {
        let copy = ImageCopy {
            image: &image.var(),
            target: self.0.path(),
            mount: "/var",
            mounts: &["/var", "/var/scratch", "/tmp"],
        };
        work(&copy, &ImageList::parse(&image.list).unwrap())
    }

    fn boot(&self, image: &Image) -> Option<String> {
        self.copy(image, |copy, list| copy.refresh(list)).unwrap()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|e| format!("{path}: {e}"))
    }

    /// Kind with mode, and content, of every path.
    fn state(&self) -> BTreeMap<String, (u32, String)> {
        let state = paths(self.0.path()).into_iter().map(|path| {
            let meta = fs::symlink_metadata(self.at(&path)).unwrap();
            let content = match meta.file_type() {
                kind if kind.is_symlink() => fs::read_link(self.at(&path)).unwrap().display().to_string(),
                kind if kind.is_file() => self.read(&path),
                _ => String::new(),
            };
            (path, (meta.mode(), content))
        });
        state.collect()
    }
}

const V1: &[(&str, &str, u32)] = &[
    ("lib/", "", 0o755),
    ("lib/both/", "", 0o755),
    ("lib/both/conf", "one", 0o644),
    ("lib/both/changed", "one", 0o644),
    ("lib/both/deleted", "one", 0o644),
    ("lib/gone/", "", 0o755),
    ("lib/gone/file", "one", 0o644),
    ("lib/turns", "a file", 0o644),
    ("lib/turned/", "", 0o755),
    ("lib/link@/run/one", "", 0),
    ("log/", "", 0o755),
    ("log/setup.log", "one", 0o644),
    ("log/first.log", "one", 0o644),
];

const V2: &[(&str, &str, u32)] = &[
    ("lib/", "", 0o755),
    ("lib/both/", "", 0o750),
    ("lib/both/conf", "two", 0o600),
    ("lib/both/changed", "two", 0o644),
    ("lib/both/deleted", "two", 0o644),
    ("lib/new/", "", 0o2770),
    ("lib/new/deep/", "", 0o755),
    ("lib/new/deep/file", "two", 0o644),
    ("lib/turns/", "", 0o755),
    ("lib/turned", "a file", 0o644),
    ("lib/link@/run/two", "", 0),
    ("log/", "", 0o755),
    ("log/setup.log", "two", 0o644),
    ("log/first.log", "two", 0o644),
    ("scratch/", "", 0o755),
    ("scratch/hidden", "two", 0o644),
];

/// The state of a disk that was prepared with an image, without paths below other mount points.
fn as_prepared(image: &Image) -> BTreeMap<String, (u32, String)> {
    let mut state = Node::prepared(image).state();
    state.remove("scratch/hidden");
    state
}

#[test]
fn an_unchanged_copy_becomes_the_booted_version_in_both_directions() {
    let (one, two) = (Image::new(V1), Image::new(V2));
    let node = Node::prepared(&one);
    assert_eq!(node.boot(&one), None, "an unchanged disk is not written to");
    let said = node.boot(&two).unwrap();
    assert_eq!(said, "/var was updated from the image: 4 made, 9 replaced, 2 removed");
    assert_eq!(node.state(), as_prepared(&two));
    assert_eq!(node.boot(&two), None);
    node.boot(&one).unwrap();
    let mut want = as_prepared(&one);
    // This is the mount point of another file system.
    want.retain(|path, _| path != "scratch");
    assert_eq!(node.state(), want);
}

#[test]
fn changes_of_the_node_survive_two_upgrades_and_a_rollback() {
    let three: Vec<_> = V2
        .iter()
        .filter(|(path, ..)| !path.starts_with("lib/new/"))
        .copied()
        .chain([("lib/both/conf3", "three", 0o644)])
        .collect();
    let (one, two, three) = (Image::new(V1), Image::new(V2), Image::new(&three));
    let node = Node::prepared(&one);
    fs::write(node.at("lib/both/changed"), "the node's").unwrap();
    fs::remove_file(node.at("lib/both/deleted")).unwrap();
    fs::write(node.at("lib/gone/data"), "the node's").unwrap();
    fs::write(node.at("lib/turned/data"), "the node's").unwrap();
    fs::write(node.at("log/setup.log"), "the node's").unwrap();
    fs::create_dir(node.at("lib/mine")).unwrap();
    fs::write(node.at("lib/mine/data"), "the node's").unwrap();
    let check = |version: &str| {
        for path in [
            "lib/both/changed",
            "lib/gone/data",
            "lib/turned/data",
            "log/setup.log",
            "lib/mine/data",
        ] {
            assert_eq!(node.read(path), "the node's", "{version}: {path}");
        }
        assert!(!node.at("lib/both/deleted").exists(), "{version}");
    };

    let said = node.boot(&two).unwrap();
    check("second");
    assert!(
        said.ends_with(
            "; kept because the node changed them: /var/lib/both/changed, /var/lib/both/deleted, /var/lib/turned"
        ),
        "{said}"
    );
    assert_eq!(
        (node.read("lib/both/conf"), node.read("log/first.log")),
        ("two".into(), "two".into())
    );
    assert!(!node.at("lib/gone/file").exists(), "the image's own goes");
    fs::write(node.at("lib/new/deep/data"), "the node's").unwrap();

    node.boot(&three).unwrap();
    check("third");
    assert_eq!(node.read("lib/new/deep/data"), "the node's");
    assert_eq!(node.read("lib/both/conf3"), "three");
    assert!(!node.at("lib/new/deep/file").exists());

    node.boot(&one).unwrap();
    check("back to the first");
    assert_eq!(node.read("lib/new/deep/data"), "the node's");
    assert_eq!(
        (node.read("lib/both/conf"), node.read("lib/gone/file")),
        ("one".into(), "one".into())
    );
    assert!(!node.at("lib/both/conf3").exists());
    assert_eq!(node.read("lib/turns"), "a file");
}

#[test]
fn a_disk_without_a_list_gets_missing_files() {
    let (one, two) = (Image::new(V1), Image::new(V2));
    let node = Node(tempfile::tempdir().unwrap());
    seed::copy_tree(&one.var(), node.0.path()).unwrap();
    let said = node.boot(&two).unwrap();
    assert!(
        said.starts_with("/var was updated from the image: 4 made, 0 replaced, 0 removed; kept"),
        "{said}"
    );
    assert_eq!(node.read("lib/new/deep/file"), "two");
    assert_eq!(
        (node.read("lib/both/conf"), node.read("lib/gone/file")),
        ("one".into(), "one".into())
    );
    let new = fs::metadata(node.at("lib/new")).unwrap();
    assert_eq!(new.permissions().mode() & 0o7777, 0o2770);
    // A damaged list counts as no list.
    fs::write(node.at(".rackstrap/image"), "no list").unwrap();
    fs::remove_dir_all(node.at("lib/new")).unwrap();
    let said = node.boot(&two).unwrap();
    assert!(said.contains(" 3 made, 0 replaced, 0 removed"), "{said}");
    assert_eq!(node.boot(&two), None);
}

#[test]
fn a_list_of_another_mount_point_removes_nothing() {
    let (one, two) = (Image::new(V1), Image::new(V2));
    let node = Node::prepared(&one);
    let before = node.state();
    // The layout was edited: the disk of /opt is mounted at /var, and has files like those of the image's /var.
    let list = node.at(".rackstrap/image");
    let text = fs::read(&list).unwrap();
    let (mount, opt) = (&b"list 1\0\0o var\0\0"[..], &b"list 1\0\0o opt\0\0"[..]);
    fs::write(&list, [opt, text.strip_prefix(mount).unwrap()].concat()).unwrap();
    let said = node.boot(&two).unwrap();
    assert!(said.contains(" 0 replaced, 0 removed"), "{said}");
    let after = node.state();
    assert!(
        before.iter().all(|(path, state)| after.get(path) == Some(state)),
        "{said}"
    );
    assert_eq!(node.read("lib/new/deep/file"), "two");
    // From now on the list is of this directory.
    assert!(fs::read(&list).unwrap().starts_with(mount));
    node.boot(&one).unwrap();
    assert!(!node.at("lib/new/deep/file").exists());
}

#[test]
fn a_list_without_its_mount_point_is_accepted() {
    let (one, two) = (Image::new(V1), Image::new(V2));
    let node = Node::prepared(&one);
    let list = node.at(".rackstrap/image");
    let text = fs::read(&list).unwrap();
    let older = [b"list 1\0\0", text.strip_prefix(b"list 1\0\0o var\0\0").unwrap()].concat();
    fs::write(&list, &older).unwrap();
    assert_eq!(node.boot(&one), None, "the missing name is no reason to write");
    assert_eq!(fs::read(&list).unwrap(), text);
    fs::write(&list, &older).unwrap();
    let said = node.boot(&two).unwrap();
    assert_eq!(said, "/var was updated from the image: 4 made, 9 replaced, 2 removed");
    assert_eq!(node.state(), as_prepared(&two));
}

#[test]
fn links_of_the_node_are_not_followed() {
    let (one, two) = (Image::new(V1), Image::new(V2));
    let node = Node::prepared(&one);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("conf"), "one").unwrap();
    fs::rename(node.at("lib/both"), node.at("lib/moved")).unwrap();
    symlink(outside.path(), node.at("lib/both")).unwrap();
    symlink(outside.path(), node.at("lib/new")).unwrap();
    let said = node.boot(&two).unwrap();
    assert!(
        said.contains("/var/lib/both, ") && said.contains("/var/lib/new"),
        "{said}"
    );
    let mut names: Vec<_> = fs::read_dir(outside.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["conf"]);
    assert_eq!(fs::read(outside.path().join("conf")).unwrap(), b"one");
    assert_eq!(node.read("lib/moved/conf"), "one");
    // The list is not kept in a directory that a user made where all users may write.
    let node = Node(tempfile::tempdir().unwrap());
    fs::create_dir(node.at(own::NAME)).unwrap();
    // Opening this FIFO would never end.
    let list = node.at(own::NAME).join("image");
    rustix::fs::mknodat(rustix::fs::CWD, list, FileType::Fifo, Mode::RUSR, 0).unwrap();
    std::os::unix::fs::chown(node.at(own::NAME), Some(1000), None).unwrap();
    let refused = node.copy(&one, |copy, list| copy.refresh(list)).unwrap_err();
    assert!(refused.to_string().contains("not root's"), "{refused}");
    assert!(!node.at("lib").exists());
    // Where the image has nothing to keep, a user's object does no harm.
    let nothing = Image::new(&[]);
    assert_eq!(node.boot(&nothing), None);
}

#[test]
fn capabilities_come_with_the_files() {
    let one = Image::new(V1);
    let mut two = Image::new(V2);
    let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut list = b"list 1\0\0".to_vec();
    add_capability(&mut list, b"usr/bin/ping", &value);
    add_capability(&mut list, b"var/lib/both/conf", &value);
    list.extend(&two.list[8..]);
    two.list = list;
    let capability = |node: &Node| {
        let mut found = [0; 64];
        let len = rustix::fs::lgetxattr(node.at("lib/both/conf"), "security.capability", &mut found[..]);
        len.map(|len| found[..len].to_vec())
    };
    assert_eq!(capability(&Node::prepared(&two)), Ok(value.to_vec()));
    let node = Node::prepared(&one);
    assert!(capability(&node).is_err());
    node.boot(&two).unwrap();
    assert_eq!(capability(&node), Ok(value.to_vec()));
}

/// Copies a node with all its files.
fn copy_of(node: &Node) -> Node {
    let copy = Node(tempfile::tempdir().unwrap());
    seed::copy_tree(node.0.path(), copy.0.path()).unwrap();
    copy
}

#[test]
fn a_power_cut_at_any_step_does_not_change_the_end() {
    let (one, two) = (Image::new(V1), Image::new(V2));
    let before = Node::prepared(&one);
    fs::write(before.at("lib/both/changed"), "the node's").unwrap();
    fs::write(before.at("lib/gone/data"), "the node's").unwrap();
    let ends = |image: &Image| {
        let node = copy_of(&before);
        node.boot(image);
        node.state()
    };
    let (end_two, end_one) = (ends(&two), ends(&one));
    let mut cuts = 0;
    for cut in 0.. {
        let node = copy_of(&before);
        let done = node.copy(&two, |copy, list| cut_after(copy, list, cut));
        // The next boot, of either version, ends in the state that it has without a cut.
        let other = copy_of(&node);
        node.boot(&two);
        assert_eq!(node.state(), end_two, "cut {cut}, then the second");
        other.boot(&one);
        let mut state = other.state();
        state.retain(|path, _| path != "scratch");
        assert_eq!(state, end_one, "cut {cut}, then the first");
        other.boot(&two);
        assert_eq!(other.state(), end_two, "cut {cut}, then both");
        cuts += 1;
        if done {
            break;
        }
    }
    assert!(cuts > 15, "{cuts}");
}

/// Does the first `steps` steps of an upgrade in the order of [`ImageCopy::refresh`]. Returns true if these were all.
fn cut_after(copy: &ImageCopy<'_>, list: &ImageList<'_>, steps: usize) -> bool {
    let text = copy.wanted(list);
    let wanted = ImageList::parse(&text).unwrap();
    let own = copy.own().unwrap();
    let before = own.list().unwrap().unwrap();
    let known = ImageList::parse_all(&before).unwrap();
    let mut work = Work {
        copy,
        list,
        root: open(copy.target).unwrap(),
        stage: own.stage(),
        changes: Vec::new(),
        kept: Vec::new(),
    };
    work.compare(&known, &wanted).unwrap();
    work.fill_stage().unwrap();
    if steps == 0 {
        return false;
    }
    own.record(&[before.as_slice(), &text].concat()).unwrap();
    let mut left = steps - 1;
    let mut stays = Vec::new();
    for (number, change) in work
        .changes
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, change)| change.clears())
    {
        if left == 0 {
            return false;
        }
        left -= 1;
        if !work.clear_away(change).unwrap() {
            stays.push(number);
        }
    }
    for (number, change) in work.changes.iter().enumerate() {
        if change.want.is_none() || stays.contains(&number) {
            continue;
        }
        if left == 0 {
            return false;
        }
        left -= 1;
        work.bring(number, change).unwrap();
    }
    true
}
