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
