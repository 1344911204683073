//! Tests of the boot window, of the boot that a running system claims, and of when NFS by UDP is needed.

use super::*;
use crate::{serve::Shared, testkit};
use rackstrap_registries::testing::add;
use rackstrap_wire::testing::plan;
use std::{fs, path::Path};
use testbed::image::fake;

/// A version of FreeBSD below `images`.
fn version(images: &Path, image: &str) {
    fake(images, image, 5).unwrap();
    let manifest = images.join(image.replace('@', "/")).join("manifest.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(manifest, format!("{text}system = \"freebsd\"\n")).unwrap();
}

/// A daemon with the node r01n01, those versions of FreeBSD, and `more` of a site file.
fn daemon(dir: &Path, versions: &[&str], more: &str) -> Shared {
    versions.iter().for_each(|image| version(&dir.join("images"), image));
    let shared = testkit::daemon(dir, more);
    shared.nodes.change(&[add("r01n01")], "test", Timestamp::now()).unwrap();
    shared
}

async fn pin(freebsd: &FreeBsd, image: &str) -> Arc<Boot> {
    let mut plan = plan("r01n01").image(image).pinned()("");
    plan.disk = None;
    let boot = freebsd.pinning.open(plan, true, false, None, None).await;
    boot.unwrap()
}

#[tokio::test]
async fn the_first_mount_closes_the_window_and_its_boot_is_the_one_that_is_claimed() {
    let dir = tempfile::tempdir().unwrap();
    let freebsd = daemon(dir.path(), &["freebsd@1"], "").freebsd();
    let windows = &freebsd.pinning.windows;
    let is_open = || windows.is_open("r01n01", Timestamp::now());
    let mounts = |port: u16| freebsd.mounts("r01n01", ([10, 5, 1, 1], port).into(), "freebsd@1");
    assert!(freebsd.running("r01n01").is_none());

    windows.open("r01n01", Timestamp::now(), false);
    let first = pin(&freebsd, "freebsd@1").await;
    assert!(!mounts(40_000) && is_open(), "a user's port");
    assert!(!mounts(900) && !is_open(), "the loader's mount, the first one");
    windows.open("r01n01", Timestamp::now(), false);
    assert!(mounts(900) && !is_open(), "a further mount");

    // A boot that was requested later, of which no root was mounted, is not that of the system.
    let later = pin(&freebsd, "freebsd@1").await;
    assert_eq!(freebsd.running("r01n01").unwrap().plan.id, first.plan.id);
    // The next boot of the machine.
    windows.open("r01n01", Timestamp::now(), false);
    assert!(!mounts(900) && !is_open());
    assert_eq!(freebsd.running("r01n01").unwrap().plan.id, later.plan.id);

    // After a restart of the daemon no mount is known, and no window is open.
    freebsd.mounted.0.lock().unwrap().clear();
    assert_eq!(freebsd.running("r01n01").unwrap().plan.id, later.plan.id);
}

#[tokio::test]
async fn a_mount_of_another_export_leaves_the_window_open() {
    let dir = tempfile::tempdir().unwrap();
    let freebsd = daemon(dir.path(), &["freebsd@1", "freebsd@2"], "").freebsd();
    let windows = &freebsd.pinning.windows;
    windows.open("r01n01", Timestamp::now(), false);
    pin(&freebsd, "freebsd@2").await;
    assert!(!freebsd.mounts("r01n01", ([10, 5, 1, 1], 900).into(), "freebsd@1"));
    assert!(windows.is_open("r01n01", Timestamp::now()));
}

#[tokio::test]
async fn every_image_of_a_profile_counts_for_nfs_by_udp() {
    for (image, wanted) in [("alpha", true), ("beta", true), ("beta@1", true), ("debian", false)] {
        let dir = tempfile::tempdir().unwrap();
        let profiles = format!("[profile.a]\nimage = \"debian\"\n[profile.b]\nimage = \"{image}\"\n");
        let shared = daemon(dir.path(), &["alpha@1", "beta@1"], &profiles);
        assert_eq!(shared.freebsd().is_wanted(), wanted, "{image}");
    }
}

#[tokio::test]
async fn a_boot_of_the_second_image_needs_nfs_by_udp() {
    let dir = tempfile::tempdir().unwrap();
    let freebsd = daemon(dir.path(), &["alpha@1", "beta@1"], "").freebsd();
    assert!(!freebsd.is_wanted());
    pin(&freebsd, "beta@1").await;
    assert!(freebsd.is_wanted());
}
