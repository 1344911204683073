//! dnf with a local repository. These tests need root, as images do, and the packages dnf, rpm and createrepo-c.

use crate::{
    CloneRequest, ImportRequest, PackageKind, Quiet, SealRequest, clone_version, import,
    import::tests::{Bench, assert_clean},
    load_catalog, packages_of, seal, verify,
};
use rackstrap_base::clock::Timestamp;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Builds a package of the files in `tree`, and returns its path.
fn package(dir: &Path, name: &str, version: &str, more: &str, tree: &Path) -> PathBuf {
    let spec = format!(
        "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: {name}\nLicense: none\nBuildArch: noarch\n\
         AutoReqProv: no\n{more}\n\
         %description\n%install\ncp -a {}/. %{{buildroot}}/\n%files\n/*\n",
        tree.display()
    );
    let file = dir.join(format!("{name}.spec"));
    fs::write(&file, spec).unwrap();
    let mut build = Command::new("rpmbuild");
    build.args(["-bb", "--quiet"]);
    for define in [
        format!("_topdir {}", dir.join("build").display()),
        format!("_rpmdir {}", dir.join("rpms").display()),
        "_binaries_in_noarch_packages_terminate_build 0".to_owned(),
        "__os_install_post %{nil}".to_owned(),
        "debug_package %{nil}".to_owned(),
    ] {
        build.args(["--define", &define]);
    }
    run(build.arg(&file));
    dir.join(format!("rpms/noarch/{name}-{version}-1.noarch.rpm"))
}

/// A tree with one file.
fn one(bench: &Bench, name: &str, content: &str) -> PathBuf {
    let at = bench.path(&format!("{name}-{content}"));
    fs::create_dir_all(at.join("usr/share")).unwrap();
    fs::write(at.join("usr/share").join(name), content).unwrap();
    at
}

fn recipe(bench: &Bench, packages: &str, run: &str) -> ImportRequest {
    let text = format!(
        "kind = 'dnf'\nreleasever = '9'\npackages = [{packages}]\nrun = [\"{run}\"]\n\
         [repo.local]\nbaseurl = 'file://{}'\ngpgcheck = false\n",
        bench.path("pkg/rpms").display()
    );
    let file = bench.path("recipe.toml");
    fs::write(&file, text).unwrap();
    ImportRequest {
        source: file,
        ..bench.request()
    }
}

/// A bench with a repository: a whole system in one package, and a small package. `macros` are those of the tree's own rpm.
fn repository(macros: &str) -> Bench {
    let bench = Bench::new();
    let tree = bench.path("tree");
    fs::create_dir_all(tree.join("usr/lib/rpm")).unwrap();
    fs::write(tree.join("usr/lib/rpm/macros"), macros).unwrap();
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::copy("/bin/busybox", tree.join("bin/sh")).unwrap();
    fs::create_dir(bench.path("pkg")).unwrap();
    // Like a kernel's package, it lists the plugins that it would execute.
    let scripts = "%post -p /bin/sh\nreadlink /etc/kernel/install.d/50-dracut.install > /plugin\n";
    package(&bench.path("pkg"), "system", "9", scripts, &tree);
    package(&bench.path("pkg"), "hello", "1", "", &one(&bench, "hello", "old"));
    run(Command::new("createrepo_c").arg("--quiet").arg(bench.path("pkg/rpms")));
    bench
}

#[test]
fn dnf_makes_a_tree_and_packages_are_listed() {
    let bench = repository("%_dbpath %{_usr}/lib/sysimage/rpm\n");
    // Scripts have the mounts that they need, and their exit codes count.
    let script = "test -e /proc/self/stat; echo x > /dev/null; test -r /sys/kernel; echo made > /etc/made";
    let request = recipe(&bench, "'system', 'hello'", script);
    assert_eq!(import(&request, &mut Quiet).unwrap().to_string(), "test@1");
    let images = &request.images_dir;
    let root = images.join("test/1/root");
    assert_eq!(fs::read_to_string(root.join("etc/made")).unwrap(), "made\n");
    let plugin = fs::read_to_string(root.join("plugin")).unwrap();
    assert_eq!(plugin, "/dev/null\n", "a kernel's package makes an initramfs");
    // The tree's own rpm expects its database there.
    assert!(root.join("usr/lib/sysimage/rpm/rpmdb.sqlite").is_file() && root.join("var/lib/rpm").is_symlink());
    assert!(!root.join("root/.rpmdb").exists() && !images.join("test/1/dnf").exists());
    assert_eq!(fs::read_dir(root.join("dev")).unwrap().count(), 0);
    let (catalog, problems) = load_catalog(images);
    assert!(problems.is_empty(), "{problems:?}");
    let first = catalog.newest("test").unwrap();
    let packages = packages_of(&first.dir);
    let shown: Vec<String> = packages
        .installed
        .iter()
        .map(|p| format!("{} {} {}", p.name, p.arch, p.version))
        .collect();
    assert_eq!(packages.kind, PackageKind::Rpm);
    assert_eq!(shown, ["hello noarch 1-1", "system noarch 9-1"]);
    // Listing the packages did not change the tree.
    assert_eq!(verify(first, &mut Quiet).unwrap(), Vec::<String>::new());

    let pkg = bench.path("pkg");
    let newer = package(&pkg, "hello", "2", "Epoch: 1", &one(&bench, "hello", "new"));
    let extra = package(&pkg, "extra", "7", "", &one(&bench, "extra", "x"));
    let clone = CloneRequest {
        images_dir: images.clone(),
        parent: "test@1".parse().unwrap(),
        architecture: None,
        name: "work".into(),
        by: String::new(),
        now: Timestamp(2),
    };
    let copy = clone_version(&clone, &mut Quiet).unwrap().copy;
    let mut upgrade = Command::new("rpm");
    upgrade.arg("--root").arg(copy.root());
    upgrade.args(["--dbpath", "/usr/lib/sysimage/rpm", "--upgrade", "--nodeps"]);
    run(upgrade.args([&newer, &extra]));
    let request = SealRequest {
        images_dir: images.clone(),
        work: "work".into(),
        name: None,
        agents: request.agents.clone(),
        message: String::new(),
        by: String::new(),
        kernel: None,
        modules: vec![],
        now: Timestamp(3),
    };
    assert_eq!(seal(&request, &mut Quiet).unwrap().to_string(), "test@2");
    let (catalog, _) = load_catalog(images);
    let second = catalog.newest("test").unwrap();
    let counts = second.manifest.packages.unwrap();
    assert_eq!((counts.kind, counts.installed), (PackageKind::Rpm, 3));
    assert_eq!((counts.added, counts.removed, counts.changed), (1, 0, 1));
    let changes: Vec<_> = packages_of(&second.dir)
        .changes
        .into_iter()
        .map(|c| (c.name, c.before, c.after))
        .collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        changes,
        [
            ("extra".to_owned(), None, text("7-1")),
            ("hello".to_owned(), text("1-1"), text("1:2-1"))
        ]
    );
    assert_eq!(verify(second, &mut Quiet).unwrap(), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(images.to_str().unwrap()), "{mounts}");
}

#[test]
fn a_failure_of_dnf_is_reported_and_leaves_nothing() {
    let bench = repository("%_dbpath %{_var}/lib/rpm\n");
    for (packages, script, says) in [
        ("'system', 'absent'", "true", "absent"),
        ("'system'", "echo no luck; exit 3", "no luck"),
        // This tree cannot boot.
        ("'hello'", "true", "failed"),
    ] {
        let request = recipe(&bench, packages, script);
        let error = import(&request, &mut Quiet).unwrap_err().to_string();
        assert!(error.contains(says), "{packages} {script}: {error}");
        assert_clean(&request.images_dir);
    }
    let request = recipe(&bench, "'system'", "true");
    import(&request, &mut Quiet).unwrap();
    let root = request.images_dir.join("test/1/root");
    assert!(root.join("var/lib/rpm/rpmdb.sqlite").is_file() && !root.join("var/lib/rpm").is_symlink());
}
