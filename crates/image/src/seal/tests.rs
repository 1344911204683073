//! Working copies: made, changed, sealed, deleted, and interrupted. These tests need root, as images do.

use super::*;
use crate::{
    CloneRequest, Cloned, ImportRequest, PackageKind, Quiet, WorkingCopy, clone_version, delete_working_copy, import,
    import::tests::{Bench, Mounted, assert_clean},
    load_catalog, packages_of,
    tree::{disk::Disk, nasty},
    verify, working_copies,
};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

const STATUS: &str = "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5\n\n\
    Package: gone\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n";

fn set_packages(root: &Path, text: &str) {
    fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
    fs::write(root.join("var/lib/dpkg/status"), text).unwrap();
}

fn clone_request(import: &ImportRequest) -> CloneRequest {
    CloneRequest {
        images_dir: import.images_dir.clone(),
        parent: "test@1".parse().unwrap(),
        architecture: None,
        name: "test-work".into(),
        by: "eve".into(),
        now: Timestamp(2),
    }
}

fn seal_request(import: &ImportRequest) -> SealRequest {
    SealRequest {
        images_dir: import.images_dir.clone(),
        work: "test-work".into(),
        name: None,
        agents: import.agents.clone(),
        message: "sealed".into(),
        by: "adam".into(),
        kernel: None,
        modules: vec![],
        now: Timestamp(3),
    }
}

/// A bench with version 1, and a working copy of it.
fn with_copy() -> (Bench, ImportRequest, WorkingCopy) {
    let bench = Bench::new();
    set_packages(&bench.path("tree"), STATUS);
    let request = bench.request();
    import(&request, &mut Quiet).unwrap();
    let copy = clone_version(&clone_request(&request), &mut Quiet).unwrap().copy;
    (bench, request, copy)
}

fn names(images: &Path) -> Vec<String> {
    let (catalog, problems) = load_catalog(images);
    assert!(problems.is_empty(), "{problems:?}");
    let versions = catalog.iter().map(|v| v.manifest.image.to_string());
    let (copies, problems) = working_copies(images);
    assert!(problems.is_empty(), "{problems:?}");
    versions.chain(copies.into_iter().map(|copy| copy.name)).collect()
}

#[test]
fn a_changed_copy_becomes_the_next_version() {
    let bench = Bench::new();
    fs::create_dir(bench.path("tree/nasty")).unwrap();
    nasty::make(&bench.path("tree/nasty"), true);
    set_packages(&bench.path("tree"), STATUS);
    let mut request = bench.request();
    request.modules = vec!["virtio_net".into()];
    import(&request, &mut Quiet).unwrap();
    let copy = clone_version(&clone_request(&request), &mut Quiet).unwrap().copy;
    let images = &request.images_dir;
    nasty::assert_same(&images.join("test/1/root"), &copy.root());
    assert_eq!(names(images), ["test@1", "test-work"]);
    set_packages(
        &copy.root(),
        &STATUS.replace("Version: 5", "Version: 6").replace("gone", "new"),
    );
    fs::write(copy.root().join("etc/motd"), "changed").unwrap();
    let inode = rustix::fs::stat(copy.root().join("etc/motd")).unwrap().st_ino;
    assert_eq!(seal(&seal_request(&request), &mut Quiet).unwrap().to_string(), "test@2");
    assert_eq!(names(images), ["test@1", "test@2"]);
    assert_clean(images);
    let (catalog, _) = load_catalog(images);
    let (first, second) = (catalog.iter().next().unwrap(), catalog.newest("test").unwrap());
    let m = &second.manifest;
    assert_eq!(m.parent, Some("test@1".parse().unwrap()));
    assert_eq!(
        (m.by.as_str(), m.message.as_str(), m.work.as_str()),
        ("adam", "sealed", "test-work")
    );
    assert_eq!(m.modules, ["virtio_net"]);
    let counts = m.packages.unwrap();
    assert_eq!((counts.kind, counts.installed), (PackageKind::Dpkg, 2));
    assert_eq!((counts.added, counts.removed, counts.changed), (1, 1, 1));
    assert_eq!(packages_of(&second.dir).changes.len(), 3);
    assert_ne!(m.digest, first.manifest.digest);
    // The tree was moved, not copied.
    assert_eq!(
        rustix::fs::stat(second.dir.join("root/etc/motd")).unwrap().st_ino,
        inode
    );
    assert_eq!(fs::read_dir(&second.dir).unwrap().count(), 5);
    for version in [first, second] {
        assert_eq!(verify(version, &mut Quiet).unwrap(), Vec::<String>::new());
    }
    let again = seal(&seal_request(&request), &mut Quiet).unwrap_err().to_string();
    assert!(again.contains("sealed as test@2"), "{again}");
    for path in ["tree", "state"] {
        let name = CString::new(path).unwrap();
        crate::tree::remove_tree(open_dir(bench.dir.path()).unwrap().as_fd(), &name).unwrap();
    }
}

#[test]
fn a_version_that_was_tampered_with_is_reported() {
    let (_bench, request, _copy) = with_copy();
    let (catalog, _) = load_catalog(&request.images_dir);
    let version = catalog.newest("test").unwrap();
    fs::write(version.dir.join("root/etc/os-release"), "PRETTY_NAME='Best OS'\n").unwrap();
    fs::write(version.dir.join("initramfs"), "x").unwrap();
    let wrong = verify(version, &mut Quiet).unwrap();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(
        wrong[0].contains("as many files and bytes") && wrong[1].starts_with("initramfs: "),
        "{wrong:?}"
    );
}

#[test]
fn a_copy_in_use_is_neither_sealed_nor_deleted() {
    let (_bench, request, copy) = with_copy();
    let open = lock_copy(&request.images_dir, "test-work", true, "x").unwrap();
    let also = lock_copy(&request.images_dir, "test-work", true, "x").unwrap();
    assert_eq!(copy.users(), [std::process::id()]);
    let pid = format!("pid {}", std::process::id());
    let errors = [
        seal(&seal_request(&request), &mut Quiet).unwrap_err().to_string(),
        delete_working_copy(&request.images_dir, "test-work", &mut Quiet)
            .unwrap_err()
            .to_string(),
    ];
    for error in errors {
        assert!(
            error.contains("while a process works in it") && error.contains(&pid),
            "{error}"
        );
    }
    drop((open, also));
    assert!(copy.users().is_empty());
    delete_working_copy(&request.images_dir, "test-work", &mut Quiet).unwrap();
    assert_eq!(names(&request.images_dir), ["test@1"]);
    assert!(!request.images_dir.join(WORK).exists());
    let error = seal(&seal_request(&request), &mut Quiet).unwrap_err().to_string();
    assert!(
        error.contains("working copy test-work does not exist; make one with"),
        "{error}"
    );
}

#[test]
fn a_copy_that_cannot_boot_is_not_sealed() {
    let (_bench, request, copy) = with_copy();
    let before = nasty::look(&copy.dir);
    fs::rename(copy.root().join("usr/sbin/init"), copy.root().join("usr/sbin/was-init")).unwrap();
    let error = seal(&seal_request(&request), &mut Quiet).unwrap_err();
    assert!(error.to_string().contains("no init"), "{error}");
    fs::rename(copy.root().join("usr/sbin/was-init"), copy.root().join("usr/sbin/init")).unwrap();
    let elsewhere = SealRequest {
        name: Some("other".into()),
        modules: vec!["absent".into()],
        ..seal_request(&request)
    };
    assert!(
        seal(&elsewhere, &mut Quiet)
            .unwrap_err()
            .to_string()
            .contains("no module absent")
    );
    assert_eq!(nasty::look(&copy.dir).len(), before.len());
    assert!(!request.images_dir.join("other").exists());
    let elsewhere = SealRequest {
        modules: vec![],
        ..elsewhere
    };
    assert_eq!(seal(&elsewhere, &mut Quiet).unwrap().to_string(), "other@1");
}

#[test]
fn wrong_names_are_refused() {
    let (_bench, request, _copy) = with_copy();
    let clone = |name: &str, parent: &str| {
        let request = CloneRequest {
            name: name.into(),
            parent: parent.parse().unwrap(),
            architecture: None,
            ..clone_request(&request)
        };
        clone_version(&request, &mut Quiet).unwrap_err().to_string()
    };
    assert!(clone("test-work", "test@1").contains("working copy test-work exists already"));
    assert!(clone("test", "test@1").contains("test is an image"));
    assert!(clone("../x", "test@1").contains("not a name for an image"));
    assert!(clone("x", "test@2").contains("image test@2 does not exist"));
    assert_clean(&request.images_dir);
}

#[test]
fn a_full_disk_leaves_nothing_half_made() {
    let bench = Bench::new();
    for i in 0..8 {
        fs::write(bench.path("tree").join(format!("file{i}")), vec![i as u8; 200_000]).unwrap();
    }
    let (mut clones, mut seals) = (0, 0);
    // The sizes start at a disk that holds little more than the version, and end at one that holds all.
    for kib in (2100..4600).step_by(90) {
        let mounted = Mounted::new(bench.path("state"), &format!("size={kib}k"));
        let request = bench.request();
        match import(&request, &mut Quiet) {
            Err(error) => {
                assert!(
                    error.is_full() && error.to_string().contains("not enough room"),
                    "{error}"
                );
                assert_clean(&request.images_dir);
                assert!(names(&request.images_dir).is_empty());
                continue;
            }
            Ok(image) => assert_eq!(image.version, 1),
        }
        let free = || rustix::fs::statvfs(bench.path("state")).unwrap().f_bfree;
        let before = free();
        let Ok(Cloned { copy, .. }) = clone_version(&clone_request(&request), &mut Quiet).inspect_err(|error| {
            assert!(error.to_string().contains("more needed"), "{error}");
            assert_clean(&request.images_dir);
            assert_eq!((names(&request.images_dir), free()), (vec!["test@1".into()], before));
        }) else {
            clones += 1;
            continue;
        };
        let (files, before) = (nasty::look(&copy.dir), free());
        if let Err(error) = seal(&seal_request(&request), &mut Quiet) {
            seals += 1;
            assert!(error.is_full() && error.to_string().contains("more needed"), "{error}");
            assert_eq!((nasty::look(&copy.dir), free()), (files, before));
            assert_eq!(names(&request.images_dir), ["test@1", "test-work"]);
        } else {
            assert_eq!(names(&request.images_dir), ["test@1", "test@2"]);
        }
        drop(mounted);
    }
    assert!(clones > 3 && seals > 0, "{clones} {seals}");
}

/// Kills its own process at the nth call; of files only every eighth counts.
struct KillAt(u64, u64);

impl KillAt {
    fn step(&mut self) {
        self.0 -= 1;
        if self.0 == 0 {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

impl Progress for KillAt {
    fn begin(&mut self, _step: Step, _bytes: Option<u64>) {
        self.step();
    }
    fn advance(&mut self, files: u64, _bytes: u64) {
        self.1 += files;
        if files > 0 && self.1.is_multiple_of(8) {
            self.step();
        }
    }
    fn remark(&mut self, _text: &str) {}
    fn reached(&mut self, _point: &'static str) {
        self.step();
    }
}

/// The process that [`killed_at_every_step`] kills.
#[test]
#[ignore = "only run by another test, as the process that is killed"]
fn as_a_process() {
    let Ok(told) = std::env::var("RACKSTRAP_TEST_KILL") else {
        return;
    };
    let (what, rest) = told.split_once(' ').unwrap();
    let (step, dir) = rest.split_once(' ').unwrap();
    let base = Path::new(dir);
    let request = ImportRequest {
        images_dir: base.join("state/images"),
        source: base.join("tree"),
        oci: Default::default(),
        architecture: None,
        agents: Agents::Named(base.join("agent")),
        name: "test".into(),
        message: String::new(),
        by: String::new(),
        kernel: None,
        modules: vec![],
        now: Timestamp(1),
    };
    let mut kill = KillAt(step.parse().unwrap(), 0);
    match what {
        "import" => drop(import(&request, &mut kill).unwrap()),
        "clone" => drop(clone_version(&clone_request(&request), &mut kill).unwrap()),
        "seal" => drop(seal(&seal_request(&request), &mut kill).unwrap()),
        "delete" => delete_working_copy(&request.images_dir, "test-work", &mut kill).unwrap(),
        other => panic!("{other}"),
    }
}

/// Runs `what` and kills it at `step`. Returns true if it ended before.
fn run_and_kill(what: &str, step: u64, bench: &Bench) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "seal::tests::as_a_process", "--ignored"])
        .env(
            "RACKSTRAP_TEST_KILL",
            format!("{what} {step} {}", bench.dir.path().display()),
        )
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let killed = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
    assert!(killed || output.status.success(), "{output:?}");
    !killed
}

#[test]
fn killed_at_every_step() {
    let bench = Bench::new();
    // The file system is in memory: this is about killed processes, and each step syncs its file system.
    let _mounted = Mounted::new(bench.path("state"), "size=100m");
    kill_at_every_step(&bench);
}

#[test]
fn killed_at_every_step_where_trees_are_subvolumes() {
    let bench = Bench::new();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let _disk = Disk::btrfs(bench.path("state"), memory.path().join("disk"));
    kill_at_every_step(&bench);
}

fn kill_at_every_step(bench: &Bench) {
    let request = bench.request();
    let images = &request.images_dir;
    let fresh = || {
        let _ = fs::remove_dir_all(images);
    };
    for what in ["import", "clone", "seal", "delete"] {
        let mut steps = 0;
        let (mut before, mut after) = (0, 0);
        loop {
            steps += 1;
            fresh();
            if what != "import" {
                import(&request, &mut Quiet).unwrap();
            }
            if matches!(what, "seal" | "delete") {
                clone_version(&clone_request(&request), &mut Quiet).unwrap();
            }
            let ended = run_and_kill(what, steps, bench);
            // All earlier versions and copies are there, and the new one is complete or missing.
            let now = names(images);
            let (done, undone): (&[&str], &[&str]) = match what {
                "import" => (&["test@1"], &[]),
                "clone" => (&["test@1", "test-work"], &["test@1"]),
                "seal" => (&["test@1", "test@2"], &["test@1", "test-work"]),
                _ => (&["test@1"], &["test@1", "test-work"]),
            };
            let is_done = now == done;
            assert!(is_done || now == undone, "{what} {steps}: {now:?}");
            (before, after) = if is_done {
                (before, after + 1)
            } else {
                (before + 1, after)
            };
            let (catalog, _) = load_catalog(images);
            for version in catalog.iter() {
                assert_eq!(
                    verify(version, &mut Quiet).unwrap(),
                    Vec::<String>::new(),
                    "{what} {steps}"
                );
            }
            // The operation succeeds afterwards.
            if !is_done {
                match what {
                    "import" => drop(import(&request, &mut Quiet).unwrap()),
                    "clone" => drop(clone_version(&clone_request(&request), &mut Quiet).unwrap()),
                    "seal" => drop(seal(&seal_request(&request), &mut Quiet).unwrap()),
                    _ => delete_working_copy(images, "test-work", &mut Quiet).unwrap(),
                }
                assert_eq!(names(images), done, "{what} {steps}");
            }
            import(&request, &mut Quiet).unwrap();
            assert_clean(images);
            if ended {
                break;
            }
        }
        assert!(
            steps > 2 && before + after == steps && after > 0,
            "{what}: {steps} {before} {after}"
        );
    }
}
