//! Imports of small trees that hold all that a node needs. These tests need root, as imports do.

use super::*;
use crate::{InitKind, Manifest, load_catalog, progress::Quiet, tree::nasty};
use std::{
    fs, io,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
};

/// A program for this machine without a dynamic loader: only an ELF header.
pub(crate) fn static_program() -> Vec<u8> {
    let mut elf = fs::read(std::env::current_exe().unwrap()).unwrap();
    elf.truncate(64);
    elf[32..64].fill(0);
    elf
}

const RELEASE: &str = "6.1.0-40-amd64";

/// Makes a bootable tree in the empty directory `at`.
pub(crate) fn bootable(at: &Path) {
    let p = |name: &str| at.join(name);
    let modules = format!("usr/lib/modules/{RELEASE}");
    for dir in ["boot", "usr/lib/systemd", "usr/sbin", "etc"] {
        fs::create_dir_all(p(dir)).unwrap();
    }
    symlink("usr/lib", p("lib")).unwrap();
    symlink("usr/sbin", p("sbin")).unwrap();
    symlink("/lib/systemd/systemd", p("usr/sbin/init")).unwrap();
    fs::write(p("usr/lib/systemd/systemd"), static_program()).unwrap();
    fs::set_permissions(
        p("usr/lib/systemd/systemd"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    fs::write(p("etc/os-release"), "PRETTY_NAME='Test OS'\n").unwrap();
    fs::write(p(&format!("boot/vmlinuz-{RELEASE}")), "the kernel").unwrap();
    fs::write(
        p(&format!("boot/config-{RELEASE}")),
        "CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n",
    )
    .unwrap();
    let mut dep = String::new();
    for path in [
        "kernel/net/sunrpc/sunrpc.ko",
        "kernel/fs/nfs/nfs.ko",
        "kernel/fs/nfs/nfsv3.ko",
        "kernel/fs/overlayfs/overlay.ko",
        "kernel/drivers/net/virtio_net.ko",
        "kernel/drivers/gpu/drm/huge.ko",
    ] {
        let file = p(&modules).join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, format!("module {path}").repeat(50)).unwrap();
        let needs = if path.contains("/nfs/") {
            " kernel/net/sunrpc/sunrpc.ko"
        } else {
            ""
        };
        dep.push_str(&format!("{path}:{needs}\n"));
    }
    fs::write(p(&modules).join("modules.dep"), dep).unwrap();
    fs::write(p(&modules).join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
}

/// A directory with a bootable `tree`, an `agent`, and a place for `state/images`.
pub(crate) struct Bench {
    pub dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("agent"), static_program()).unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        bootable(&dir.path().join("tree"));
        Bench { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn request(&self) -> ImportRequest {
        ImportRequest {
            images_dir: self.path("state/images"),
            name: "test".into(),
            source: self.path("tree"),
            oci: OciOptions::default(),
            architecture: None,
            agents: Agents::Named(self.path("agent")),
            message: "a remark".into(),
            by: "root".into(),
            kernel: None,
            modules: vec![],
            now: Timestamp(1_700_000_000_000),
        }
    }
}

/// Checks that nothing half made is left: only directories of versions and working copies.
pub(crate) fn assert_clean(images: &Path) {
    let Ok(names) = fs::read_dir(images) else { return };
    for name in names {
        let name = name.unwrap().path();
        let work = name.ends_with(".work");
        for entry in fs::read_dir(&name).unwrap() {
            let entry = entry.unwrap().file_name();
            if work && !entry.as_encoded_bytes().starts_with(b".") || entry == ".last" {
                continue;
            }
            assert!(
                entry.to_str().unwrap().parse::<u32>().is_ok(),
                "{} is left in {}",
                entry.display(),
                name.display()
            );
        }
    }
}

#[test]
fn a_directory_becomes_a_version() {
    let bench = Bench::new();
    fs::create_dir(bench.path("tree/nasty")).unwrap();
    nasty::make(&bench.path("tree/nasty"), true);
    let request = bench.request();
    assert_eq!(import(&request, &mut Quiet).unwrap().to_string(), "test@1");
    assert_eq!(import(&request, &mut Quiet).unwrap().to_string(), "test@2");
    let (catalog, problems) = load_catalog(&request.images_dir);
    assert!(problems.is_empty(), "{problems:?}");
    let first = &catalog.iter().next().unwrap();
    nasty::assert_same(&request.source, &first.dir.join("root"));
    let manifest = &first.manifest;
    assert_eq!(
        (manifest.kernel_release.as_str(), manifest.init),
        (RELEASE, InitKind::Systemd)
    );
    assert_eq!(
        (manifest.os.as_str(), manifest.message.as_str()),
        ("Test OS", "a remark")
    );
    assert_eq!(manifest.created, request.now);
    assert_eq!(manifest.files as usize, nasty::look(&request.source).len() - 1);
    assert_eq!(fs::read(first.dir.join("kernel")).unwrap(), b"the kernel");
    // The same tree gives the same initramfs, byte for byte.
    let second = catalog.newest("test").unwrap();
    let initramfs = fs::read(first.dir.join("initramfs")).unwrap();
    assert_eq!(initramfs, fs::read(second.dir.join("initramfs")).unwrap());
    assert_eq!(initramfs[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    assert_clean(&request.images_dir);
    for path in ["tree", "state"] {
        let name = std::ffi::CString::new(path).unwrap();
        crate::tree::remove_tree(RootDir::open(bench.dir.path()).unwrap().as_fd(), &name).unwrap();
    }
}

#[test]
fn an_archive_becomes_the_same_version() {
    let bench = Bench::new();
    let mut request = bench.request();
    import(&request, &mut Quiet).unwrap();
    request.source = bench.path("tree.tar.zst");
    let tar = Command::new("tar")
        .args(["--zstd", "--format=pax", "-cf"])
        .arg(&request.source)
        .arg("-C")
        .arg(bench.path("tree"))
        .arg(".")
        .status();
    assert!(tar.unwrap().success());
    import(&request, &mut Quiet).unwrap();
    let images = &request.images_dir;
    nasty::assert_same(&images.join("test/1/root"), &images.join("test/2/root"));
    let manifest = |n: &str| {
        let text = fs::read_to_string(images.join("test").join(n).join("manifest.toml")).unwrap();
        toml::from_str::<Manifest>(&text).unwrap()
    };
    assert_eq!(
        (manifest("1").files, manifest("1").bytes),
        (manifest("2").files, manifest("2").bytes)
    );
}

#[test]
fn a_tree_that_cannot_boot_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let request = bench.request();
    fs::remove_file(bench.path("tree/usr/sbin/init")).unwrap();
    fs::remove_file(bench.path("tree/boot").join(format!("vmlinuz-{RELEASE}"))).unwrap();
    let error = import(&request, &mut Quiet).unwrap_err().to_string();
    assert!(error.contains("no init") && error.contains("no kernel"), "{error}");
    // For an archive this is known only at the end.
    let archive = bench.path("tree.tar");
    assert!(
        Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(bench.path("tree"))
            .arg(".")
            .status()
            .unwrap()
            .success()
    );
    let from_archive = ImportRequest {
        source: archive,
        ..request.clone()
    };
    assert!(matches!(import(&from_archive, &mut Quiet), Err(ImportError::Refused(problems)) if problems.len() == 2));
    assert_clean(&request.images_dir);
    assert!(!request.images_dir.join("test").exists());
}

#[test]
fn wrong_requests_are_refused_with_their_reason() {
    let bench = Bench::new();
    let request = bench.request();
    type Change = Box<dyn Fn(&mut ImportRequest)>;
    let dynamic = std::env::current_exe().unwrap();
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|r| r.name = "Bad Name".into()), "not a name for an image"),
        (Box::new(|r| r.name = "..".into()), "not a name for an image"),
        (Box::new(|r| r.source = "/nonexistent".into()), "opening /nonexistent"),
        (
            Box::new(|r| r.source = "/dev/null".into()),
            "neither a directory nor a file",
        ),
        (
            Box::new(|r| r.agents = Agents::Named("/nonexistent".into())),
            "reading the agent /nonexistent",
        ),
        (
            Box::new(move |r| r.agents = Agents::Named(dynamic.clone())),
            "linked dynamically",
        ),
        (
            Box::new(|r| r.agents = Agents::Named("/etc/passwd".into())),
            "not a program",
        ),
        (Box::new(|r| r.kernel = Some("7.0".into())), "no kernel 7.0"),
        (Box::new(|r| r.modules = vec!["absent".into()]), "no module absent"),
    ];
    for (change, says) in cases {
        let mut wrong = request.clone();
        change(&mut wrong);
        let error = import(&wrong, &mut Quiet).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
        assert_clean(&request.images_dir);
    }
    let recipe = bench.path("wrong.toml");
    fs::write(&recipe, "suite = 'x'\npackage = []\n").unwrap();
    let wrong = ImportRequest {
        source: recipe,
        ..request
    };
    assert!(
        import(&wrong, &mut Quiet)
            .unwrap_err()
            .to_string()
            .contains("unknown field `package`")
    );
}

/// A file system in memory, unmounted when it is dropped.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub fn new(at: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(&at)
            .status();
        assert!(status.unwrap().success());
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_nothing_and_the_missing_space_is_reported() {
    let bench = Bench::new();
    for i in 0..20 {
        fs::write(bench.path("tree").join(format!("file{i}")), vec![i as u8; 1 << 20]).unwrap();
    }
    let _mounted = Mounted::new(bench.path("state"), "size=12m");
    let request = bench.request();
    let error = import(&request, &mut Quiet).unwrap_err();
    let ImportError::NoSpace {
        missing: Some(missing),
        free,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(
        missing > 5 << 20 && missing < 25 << 20 && free < 12 << 20,
        "{missing} {free}"
    );
    assert!(error.to_string().contains("MiB more needed"), "{error}");
    assert_clean(&request.images_dir);
    // The archive unpacks to more than fits; how much more is not known.
    let archive = bench.path("tree.tar.gz");
    assert!(
        Command::new("tar")
            .arg("-czf")
            .arg(&archive)
            .arg("-C")
            .arg(bench.path("tree"))
            .arg(".")
            .status()
            .unwrap()
            .success()
    );
    assert!(fs::metadata(&archive).unwrap().len() < 1 << 20);
    let from_archive = ImportRequest {
        source: archive,
        ..request.clone()
    };
    let error = import(&from_archive, &mut Quiet).unwrap_err();
    assert!(matches!(error, ImportError::NoSpace { missing: None, .. }), "{error}");
    assert_clean(&request.images_dir);
}

#[test]
fn a_lack_of_inodes_is_reported_as_such() {
    let bench = Bench::new();
    for i in 0..600 {
        fs::write(bench.path("tree").join(format!("file{i}")), b"").unwrap();
    }
    let _mounted = Mounted::new(bench.path("state"), "size=50m,nr_inodes=500");
    let request = bench.request();
    let error = import(&request, &mut Quiet).unwrap_err();
    assert!(error.to_string().contains("no inodes left"), "{error}");
    assert_clean(&request.images_dir);
}

/// The process of [`killed_imports_do_not_count`] that is killed in the middle of an import.
#[test]
#[ignore = "only run by another test, as the process that is killed"]
fn import_as_a_process() {
    let Ok(request) = std::env::var("RACKSTRAP_TEST_IMPORT") else {
        return;
    };
    let base = PathBuf::from(request);
    /// Reports when the copy is in the middle, and then never ends.
    struct Stuck(u64);
    impl Progress for Stuck {
        fn begin(&mut self, _step: Step, _bytes: Option<u64>) {}
        fn advance(&mut self, files: u64, _bytes: u64) {
            self.0 += files;
            if self.0 == 20 {
                println!("in the middle");
                loop {
                    std::thread::park();
                }
            }
        }
        fn remark(&mut self, _text: &str) {}
    }
    let request = ImportRequest {
        images_dir: base.join("state/images"),
        name: "test".into(),
        source: base.join("tree"),
        oci: OciOptions::default(),
        architecture: None,
        agents: Agents::Named(base.join("agent")),
        message: String::new(),
        by: String::new(),
        kernel: None,
        modules: vec![],
        now: Timestamp(1),
    };
    let _ = import(&request, &mut Stuck(0));
}

#[test]
fn killed_imports_do_not_count() {
    use std::io::BufRead;
    let bench = Bench::new();
    let request = bench.request();
    struct Killed(Child);
    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "import::tests::import_as_a_process",
            "--ignored",
            "--nocapture",
        ])
        .env("RACKSTRAP_TEST_IMPORT", bench.dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let lines = io::BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert!(
        lines
            .map_while(io::Result::ok)
            .any(|line| line.contains("in the middle"))
    );
    let incoming = || {
        let names = fs::read_dir(request.images_dir.join("test")).unwrap();
        names
            .map(|e| e.unwrap().file_name())
            .filter(|n| n.as_encoded_bytes().starts_with(b".incoming-"))
            .count()
    };
    assert_eq!(incoming(), 1);
    // An import next to one that is running succeeds.
    assert_eq!(import(&request, &mut Quiet).unwrap().version, 1);
    assert_eq!(incoming(), 1);
    drop(child);
    let (catalog, problems) = load_catalog(&request.images_dir);
    assert_eq!((catalog.iter().count(), problems.len()), (1, 0));
    assert_eq!(import(&request, &mut Quiet).unwrap().version, 2);
    assert_clean(&request.images_dir);
}

#[test]
#[ignore = "needs Debian's mirrors and a minute or two"]
fn the_shipped_recipe_becomes_a_version() {
    let bench = Bench::new();
    let mut request = bench.request();
    request.source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/debian.toml");
    assert_eq!(import(&request, &mut Quiet).unwrap().to_string(), "test@1");
    let (catalog, _) = load_catalog(&request.images_dir);
    let manifest = &catalog.newest("test").unwrap().manifest;
    assert_eq!(manifest.init, InitKind::Systemd);
    assert!(manifest.os.contains("bookworm"));
    println!("{} files, {} bytes", manifest.files, manifest.bytes);
}
