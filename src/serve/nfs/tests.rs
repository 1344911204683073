//! Tests that exports follow the images.

use super::*;
use crate::{
    config::parse,
    serve::{open, reload::Reloader},
    testkit::add,
};
use rackstrap_base::warnings::SiteWarnings;
use rackstrap_wire::testing::plan;
use std::{fs, path::Path};

fn site(state: &Path) -> String {
    format!(
        r#"
[cluster]
name = "lab"
node-name = "r{{rack:02}}n{{slot:02}}"
node-address = "10.5.{{rack}}.{{slot}}"
reserved = ["10.5.0.0/24"]

[server]
state-dir = "{}"

[[subnet]]
network = "10.5.0.0/16"
interface = "eth1"
server = "10.5.0.1"
"#,
        state.display()
    )
}

/// The smallest version that `image import` could leave.
fn make_version(images: &Path, image: &str, created: u64) {
    let (name, version) = image.split_once('@').unwrap();
    let dir = images.join(name).join(version);
    fs::create_dir_all(dir.join("root")).unwrap();
    for part in ["kernel", "initramfs", "root/file"] {
        fs::write(dir.join(part), created.to_string()).unwrap();
    }
    let manifest = format!(
        "image = \"{image}\"\ncreated = {created}\nsource = \"x\"\nkernel-release = \"6\"\narch = \"x86_64\"\ninit = \"systemd\"\n\
         files = 1\nbytes = 2\n"
    );
    fs::write(dir.join("manifest.toml"), manifest).unwrap();
}

#[tokio::test]
async fn exports_of_deleted_or_replaced_versions_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    make_version(&images, "debian@1", 5);
    make_version(&images, "rocky@1", 6);
    let parsed = parse(&site(dir.path()), Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
    let shared = open(parsed.0, SiteWarnings::default()).unwrap();
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
    make_version(&images, "rocky@1", 7);
    reloader.rescan_images().unwrap();
    assert!(kept.upgrade().is_none());
    assert_eq!(mount("rocky@1").unwrap().name(), "rocky@1");
}
