//! Tests that exports follow the images.

use super::*;
use crate::{serve::reload::Reloader, testkit};
use rackstrap_registries::testing::add;
use rackstrap_wire::testing::plan;
use std::fs;
use testbed::image::fake;

#[tokio::test]
async fn exports_of_deleted_or_replaced_versions_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    fake(&images, "debian@1", 5).unwrap();
    fake(&images, "rocky@1", 6).unwrap();
    let shared = testkit::daemon(dir.path(), "");
    shared.nodes.change(&[add("r01n01")], "test", Timestamp::now()).unwrap();
    for image in ["debian@1", "rocky@1"] {
        let boot = shared
            .boots
            .open(Timestamp::now(), plan("r01n01").image(image).pinned());
        boot.await.unwrap();
    }
    let exports = Arc::new(ImageExports::new(shared.clone()));
    let reloader = Reloader::new("/site.toml".into(), shared, exports.clone());
    let peer = "10.5.1.1:700".parse().unwrap();
    let mount = |image: &str| exports.mount(peer, format!("/{image}").as_bytes());
    let open = |image: &str| Arc::downgrade(&mount(image).unwrap());

    let (deleted, kept) = (open("debian@1"), open("rocky@1"));
    reloader.rescan_images().unwrap();
    assert!(deleted.upgrade().is_some() && kept.upgrade().is_some());
    // The steps of `image delete`: the directory is moved out of sight, the daemon reads the images again, and then the files
    // are removed.
    fs::rename(images.join("debian/1"), images.join("debian/.deleted-1")).unwrap();
    reloader.rescan_images().unwrap();
    assert!(deleted.upgrade().is_none(), "its files could not be freed");
    assert!(
        kept.upgrade()
            .is_some_and(|kept| Arc::ptr_eq(&kept, &mount("rocky@1").unwrap()))
    );
    assert_eq!(mount("debian@1").unwrap_err(), Refusal::NoSuchExport);

    // Another tree gets the name and number; the export is closed without a request for it.
    fs::rename(images.join("rocky"), images.join("old")).unwrap();
    fake(&images, "rocky@1", 7).unwrap();
    reloader.rescan_images().unwrap();
    assert!(kept.upgrade().is_none());
    assert_eq!(mount("rocky@1").unwrap().name(), "rocky@1");
}

#[tokio::test]
async fn a_node_mounts_the_variant_of_its_boot_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    fake(&images, "debian@1", 5).unwrap();
    // The same files as a further variant, which was sealed for another machine.
    let variant = images.join("debian/1/arm64");
    fake(&images, "debian@9", 6).unwrap();
    fs::rename(images.join("debian/9"), &variant).unwrap();
    let manifest = fs::read_to_string(variant.join("manifest.toml")).unwrap();
    let manifest = manifest.replace("debian@9", "debian@1").replace("x86_64", "aarch64");
    fs::write(variant.join("manifest.toml"), manifest).unwrap();
    let shared = testkit::daemon(dir.path(), "");
    shared.nodes.change(&[add("r01n01")], "test", Timestamp::now()).unwrap();
    let mut told = plan("r01n01").build();
    told.variant = "arm64".to_owned();
    let boot = shared.boots.open(Timestamp::now(), move |_| told);
    boot.await.unwrap();
    let exports = ImageExports::new(shared);
    let peer = "10.5.1.1:700".parse().unwrap();
    let mount = |path: &str| exports.mount(peer, path.as_bytes());
    let root = mount("/debian@1/arm64").unwrap();
    assert_eq!(root.name(), "debian@1/arm64");
    assert_eq!(exports.list(peer), [b"/debian@1/arm64".to_vec()]);
    let found = exports.by_id(peer, export_id("debian@1/arm64")).unwrap();
    assert!(Arc::ptr_eq(&root, &found), "a file handle leads to the same tree");
    for other in ["/debian@1", "/debian@1/amd64"] {
        assert!(matches!(mount(other), Err(Refusal::NotYours(_))), "{other}");
    }
    assert!(exports.by_id(peer, export_id("debian@1")).is_err());
    for wrong in ["/debian@1/", "/debian@1/arm64/../arm64", "//", "/debian@1/arm64/"] {
        assert!(mount(wrong).is_err(), "{wrong}");
    }
}
