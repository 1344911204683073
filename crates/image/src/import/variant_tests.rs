//! Variants: trees for several architectures in one version. These tests need root, as imports do.

use super::{tests::*, *};
use crate::{
    Catalog, CloneRequest, SealRequest, Verdict, clone_version, collect_leftovers, delete_variant, delete_versions,
    gc_plan, load_catalog, progress::Quiet, rename_image, seal, verify,
};
use std::fs;

/// Another architecture than that of this machine, with its ELF number.
fn foreign() -> (Architecture, u16) {
    match Architecture::native() {
        Some(Architecture::Arm64) => (Architecture::Amd64, 62),
        _ => (Architecture::Arm64, 183),
    }
}

fn native() -> Architecture {
    Architecture::native().unwrap()
}

/// The program of a test, for the other architecture.
fn foreign_program() -> Vec<u8> {
    let mut program = static_program();
    program[18..20].copy_from_slice(&foreign().1.to_le_bytes());
    program
}

/// A bench with a second tree, `foreign`, and an agent for each architecture in `lib`.
fn bench() -> (Bench, ImportRequest, ImportRequest) {
    let bench = Bench::new();
    let tree = bench.path("foreign");
    fs::create_dir(&tree).unwrap();
    bootable(&tree);
    fs::write(tree.join("usr/lib/systemd/systemd"), foreign_program()).unwrap();
    let lib = bench.path("lib");
    fs::create_dir(&lib).unwrap();
    fs::write(lib.join("rackstrap-agent"), static_program()).unwrap();
    fs::write(lib.join(format!("rackstrap-agent-{}", foreign().0)), foreign_program()).unwrap();
    let first = ImportRequest {
        agents: Agents::Installed(vec![lib]),
        ..bench.request()
    };
    let second = ImportRequest {
        name: "test@1".to_owned(),
        source: tree,
        now: Timestamp(1_700_000_001_000),
        ..first.clone()
    };
    (bench, first, second)
}

fn catalog(request: &ImportRequest) -> Catalog {
    let (catalog, problems) = load_catalog(&request.images_dir);
    assert_eq!(problems, []);
    catalog
}

fn refused(request: &ImportRequest, says: &str) {
    let error = import(request, &mut Quiet).expect_err(says).to_string();
    assert!(error.contains(says), "{error}");
    assert_clean(&request.images_dir);
}

#[test]
fn a_version_has_a_variant_for_each_architecture() {
    let (_bench, first, second) = bench();
    let (other, _) = foreign();
    refused(&second, "test@1 does not exist");
    import(&first, &mut Quiet).unwrap();
    // Each of these would be a second tree for an architecture that the version has, or another one than was asked for.
    let again = ImportRequest {
        name: "test@1".to_owned(),
        ..first.clone()
    };
    refused(&again, &format!("test@1 has a variant for {} already", native()));
    let asked = ImportRequest {
        architecture: Some(native()),
        ..second.clone()
    };
    refused(
        &asked,
        &format!("the tree is for {other}, and --arch asks for {}", native()),
    );
    let no_agent = ImportRequest {
        agents: Agents::Installed(vec!["/nonexistent".into()]),
        ..second.clone()
    };
    refused(
        &no_agent,
        &format!("the agent for {other} does not exist at /nonexistent"),
    );
    refused(
        &ImportRequest {
            name: "test@x".to_owned(),
            ..second.clone()
        },
        "NAME@VERSION for a further variant",
    );

    assert_eq!(import(&second, &mut Quiet).unwrap().to_string(), "test@1");
    refused(&second, &format!("test@1 has a variant for {other} already"));
    let all = catalog(&second);
    assert_eq!(all.iter().count(), 1, "it is still one version");
    let version = all.newest("test").unwrap();
    assert_eq!(version.architectures(), format!("{}, {other}", native()));
    let variant = version.variant_for(Some(other)).unwrap();
    assert_eq!(variant.dir, second.images_dir.join(format!("test/1/{other}")));
    assert_eq!(variant.manifest.image, version.manifest.image);
    let initramfs = |version: &crate::ImageVersion| fs::read(version.dir.join("initramfs")).unwrap();
    assert_ne!(
        initramfs(version),
        initramfs(variant),
        "each has the agent of its architecture"
    );
    for variant in version.variants() {
        assert_eq!(verify(variant, &mut Quiet).unwrap(), Vec::<String>::new());
    }
    fs::write(variant.dir.join("root/usr/lib/systemd/systemd"), "x").unwrap();
    assert!(verify(variant, &mut Quiet).unwrap()[0].starts_with("root: digest"));
    assert_eq!(verify(version, &mut Quiet).unwrap(), Vec::<String>::new());
}

#[test]
fn an_archive_shows_its_architecture_only_when_it_is_unpacked() {
    let (bench, first, second) = bench();
    import(&first, &mut Quiet).unwrap();
    let archive = |tree: &str| {
        let archive = bench.path(&format!("{tree}.tar"));
        let mut tar = std::process::Command::new("tar");
        tar.arg("-cf").arg(&archive).arg("-C").arg(bench.path(tree)).arg(".");
        assert!(tar.status().unwrap().success());
        archive
    };
    let of_same = ImportRequest {
        source: archive("tree"),
        ..second.clone()
    };
    refused(&of_same, "has a variant for");
    let of_other = ImportRequest {
        source: archive("foreign"),
        ..second
    };
    import(&of_other, &mut Quiet).unwrap();
    assert!(
        catalog(&of_other)
            .newest("test")
            .unwrap()
            .variant_for(Some(foreign().0))
            .is_some()
    );
}

#[test]
fn a_variant_follows_its_version() {
    let (_bench, first, second) = bench();
    import(&first, &mut Quiet).unwrap();
    import(&second, &mut Quiet).unwrap();
    let images = &first.images_dir;
    rename_image(images, "test", "best", &mut || Ok(()), &mut Quiet).unwrap();
    let all = catalog(&first);
    let version = all.get(&"best@1".parse().unwrap()).unwrap();
    assert_eq!(version.variants().count(), 2);
    assert!(version.variants().all(|variant| variant.manifest.image.name == "best"));
    assert_eq!(
        gc_plan(&all, 0, &|_| None),
        [("best@1".parse().unwrap(), Verdict::Delete)]
    );
    delete_versions(images, &["best@1".parse().unwrap()], &mut || Ok(()), &mut Quiet).unwrap();
    assert_eq!(catalog(&first).iter().count(), 0);
    assert_clean(images);
    assert!(!images.join("best/1").exists());
}

#[test]
fn a_working_copy_of_a_variant_becomes_a_variant_again() {
    #[derive(Default)]
    struct Remarks(Vec<String>);
    impl Progress for Remarks {
        fn begin(&mut self, _: Step, _: Option<u64>) {}
        fn advance(&mut self, _: u64, _: u64) {}
        fn remark(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }
    let (_bench, first, second) = bench();
    let (other, _) = foreign();
    import(&first, &mut Quiet).unwrap();
    let clone = |name: &str, architecture| CloneRequest {
        images_dir: first.images_dir.clone(),
        parent: "test@1".parse().unwrap(),
        architecture,
        name: name.to_owned(),
        by: "root".to_owned(),
        now: Timestamp(2),
    };
    let error = clone_version(&clone("b", Some(other)), &mut Quiet)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("test@1 has no variant for {other}; it has {}", native())),
        "{error}"
    );
    import(&second, &mut Quiet).unwrap();
    clone_version(&clone("a", None), &mut Quiet).unwrap();
    clone_version(&clone("b", Some(other)), &mut Quiet).unwrap();
    let of = |work: &str, name: Option<&str>| SealRequest {
        images_dir: first.images_dir.clone(),
        work: work.to_owned(),
        name: name.map(str::to_owned),
        agents: first.agents.clone(),
        message: String::new(),
        by: "root".to_owned(),
        kernel: None,
        modules: Vec::new(),
        now: Timestamp(3),
    };
    let mut remarks = Remarks::default();
    assert_eq!(seal(&of("a", None), &mut remarks).unwrap().to_string(), "test@2");
    let missing = format!("test@1 also has a variant for {other}, and the new version has none yet");
    assert!(
        remarks.0.iter().any(|remark| remark.contains(&missing)),
        "{:?}",
        remarks.0
    );
    let error = seal(&of("b", Some("test@1")), &mut Quiet).unwrap_err().to_string();
    assert!(
        error.contains(&format!("test@1 has a variant for {other} already")),
        "{error}"
    );
    assert_eq!(
        seal(&of("b", Some("test@2")), &mut Quiet).unwrap().to_string(),
        "test@2"
    );
    let all = catalog(&first);
    assert_eq!(
        all.newest("test").unwrap().architectures(),
        format!("{}, {other}", native())
    );
    assert!(!first.images_dir.join(".work").exists());
}

#[test]
fn a_directory_that_only_looks_like_a_variant_is_reported() {
    let (_bench, first, second) = bench();
    import(&first, &mut Quiet).unwrap();
    import(&second, &mut Quiet).unwrap();
    let version = first.images_dir.join("test/1");
    let real = version.join(foreign().0.to_string());
    // A copy under another name, and a link.
    fs::rename(&real, version.join("riscv64")).unwrap();
    std::os::unix::fs::symlink("riscv64", &real).unwrap();
    let (catalog, problems) = load_catalog(&first.images_dir);
    assert_eq!(catalog.newest("test").unwrap().variants().count(), 1);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].path.ends_with("1/riscv64"));
    assert!(
        problems[0].what.contains(&format!("a tree for {}", foreign().0)),
        "{}",
        problems[0]
    );
    fs::remove_file(version.join("riscv64/kernel")).unwrap();
    let (_, problems) = load_catalog(&first.images_dir);
    assert!(problems[0].what.contains("kernel cannot be read"), "{}", problems[0]);
}

#[test]
fn a_variant_is_deleted_alone_and_the_one_with_which_the_version_was_made_is_not() {
    let (_bench, first, second) = bench();
    let (other, _) = foreign();
    let images = &first.images_dir;
    let image: ImageRef = "test@1".parse().unwrap();
    import(&first, &mut Quiet).unwrap();
    let mut free = || Ok(());
    let refused = |error: ImportError, says: &str| {
        let error = error.to_string();
        assert!(error.contains(says), "{error}");
        assert_clean(images);
    };
    let error = delete_variant(images, &image, other, &mut free, &mut Quiet).unwrap_err();
    refused(
        error,
        &format!("test@1 has no variant for {other}; it has {}", native()),
    );
    import(&second, &mut Quiet).unwrap();
    let error = delete_variant(images, &image, native(), &mut free, &mut Quiet).unwrap_err();
    refused(error, "cannot be deleted without the version");
    let error = delete_variant(images, &"test@7".parse().unwrap(), other, &mut free, &mut Quiet).unwrap_err();
    refused(error, "test@7 does not exist");

    // A node took it at the last moment, when it was already hidden.
    let names = || catalog(&first).get(&image).unwrap().architectures();
    let both = names();
    let mut late = || {
        assert_eq!(names(), native().to_string());
        Err("r01n01 boots it".to_owned())
    };
    let error = delete_variant(images, &image, other, &mut late, &mut Quiet).unwrap_err();
    refused(error, "r01n01 boots it");
    assert_eq!(names(), both);

    delete_variant(images, &image, other, &mut free, &mut Quiet).unwrap();
    assert_eq!(names(), native().to_string());
    assert_clean(images);
    assert_eq!(
        collect_leftovers(images, false, &mut Quiet).unwrap(),
        [""; 0].map(PathBuf::from)
    );
    // Its place is free again.
    import(&second, &mut Quiet).unwrap();
    assert_eq!(names(), both);
}

#[test]
fn a_version_has_variants_of_one_system() {
    let (bench, first, second) = bench();
    import(&first, &mut Quiet).unwrap();
    // FreeBSD has no agent, so that its variants need none.
    let (native_elf, foreign_elf) = match native() {
        Architecture::Arm64 => (183, 62),
        _ => (62, 183),
    };
    let bsd = crate::freebsd::tests::tree();
    fs::write(
        bsd.path().join("boot/kernel/kernel"),
        crate::freebsd::tests::kernel(foreign_elf),
    )
    .unwrap();
    let of = |name: &str, source: PathBuf| ImportRequest {
        name: name.to_owned(),
        source,
        ..second.clone()
    };
    refused(
        &of("test@1", bsd.path().to_owned()),
        "test@1 is Linux, and the tree is FreeBSD: all variants of a version are of one system",
    );
    // An archive shows its system only when it is unpacked.
    let archive = bench.path("bsd.tar");
    let mut tar = std::process::Command::new("tar");
    tar.arg("-cf").arg(&archive).arg("-C").arg(bsd.path()).arg(".");
    assert!(tar.status().unwrap().success());
    refused(&of("test@1", archive), "test@1 is Linux, and the tree is FreeBSD");

    import(&of("bsd", bsd.path().to_owned()), &mut Quiet).unwrap();
    let linux = ImportRequest {
        name: "bsd@1".to_owned(),
        ..first.clone()
    };
    refused(&linux, "bsd@1 is FreeBSD, and the tree is Linux");
    fs::write(
        bsd.path().join("boot/kernel/kernel"),
        crate::freebsd::tests::kernel(native_elf),
    )
    .unwrap();
    import(&of("bsd@1", bsd.path().to_owned()), &mut Quiet).unwrap();
    assert_eq!(
        catalog(&first).newest("bsd").unwrap().architectures(),
        format!("{}, {}", foreign().0, native())
    );
}
