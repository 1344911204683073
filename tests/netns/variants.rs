//! Versions with variants: a rollout names nodes that the version has no variant for, and a variant is deleted alone.

use super::serve::{curl, udhcpc, variable};
use std::{fs, process::Command};
use testbed::{Binaries, Cluster, Result, Site, image::fake};

const MAC: &str = "52:54:00:00:01:01";

#[test]
fn a_rollout_names_a_missing_variant_and_a_variant_is_deleted_while_no_node_runs_it() -> Result {
    let binaries = Binaries::without_agent(env!("CARGO_BIN_EXE_rackstrap"));
    let mut site = Site::demo();
    site.default_profile().templates = None;
    let cluster = Cluster::with_images(&binaries, &site, Vec::new())?;
    let images = cluster.daemon.state_dir().join("images");
    for image in ["debian@1", "debian@2", "debian@3"] {
        fake(&images, image, 0)?;
    }
    for version in ["1", "3"] {
        let (dir, variant) = (
            images.join("debian").join(version),
            images.join("debian").join(version).join("arm64"),
        );
        fs::create_dir_all(variant.join("root"))?;
        for file in ["kernel", "initramfs"] {
            fs::copy(dir.join(file), variant.join(file))?;
        }
        let manifest = fs::read_to_string(dir.join("manifest.toml"))?;
        fs::write(variant.join("manifest.toml"), manifest.replace("x86_64", "aarch64"))?;
    }
    cluster.start_daemon()?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    let refused = |arguments: &[&str], says: &str| {
        let error = format!("{:#}", cli(arguments).expect_err(says));
        assert!(error.contains(says), "{error}");
    };
    cli(&["node", "add", "r01n01", "--hwaddr", MAC])?;
    // Firmware of arm64, then iPXE on it, by their options 60, 77 and 93.
    let node = cluster.namespace.client(MAC)?;
    udhcpc(&node, &cluster, &["-V", "PXEClient:Arch:00011:UNDI:003016"])?;
    let got = udhcpc(&node, &cluster, &["-x", "77:69505845", "-x", "93:000b"])?;
    let (_, script) = curl(&node, variable(&got, "boot_file"), "", None)?;
    assert!(script.contains("debian@3"), "{script}");

    // Warnings go to standard error.
    let mut command = Command::new(&binaries.daemon);
    command.arg("--config").arg(cluster.daemon.config());
    let started = command
        .args(["rollout", "start", "debian@2", "--nodes", "r01n01"])
        .output()?;
    let warned = String::from_utf8_lossy(&[started.stdout, started.stderr].concat()).replace('\n', " ");
    let says = "debian@2 has no variant for arm64, which r01n01 had at its last boot; nodes without a variant do not boot; add it with: \
                rackstrap image import debian@2 --arch arm64 --from TREE";
    assert!(warned.contains(says), "{warned}");

    refused(
        &["image", "delete", "debian@3", "--arch", "arm64"],
        "debian@3/arm64: r01n01 run it or are booting it",
    );
    refused(
        &["image", "delete", "debian@3", "--arch", "amd64"],
        "debian@3 was made with its tree for amd64",
    );
    refused(
        &["image", "delete", "debian@2", "--arch", "arm64"],
        "debian@2 has no variant for arm64; it has amd64",
    );
    let planned = cli(&["image", "delete", "debian@1", "--arch", "arm64", "--dry-run"])?;
    assert_eq!(planned.trim(), "would delete debian@1/arm64");
    let deleted = cli(&["image", "delete", "debian@1", "--arch", "arm64"])?;
    assert!(deleted.starts_with("deleted debian@1/arm64"), "{deleted}");
    assert!(!images.join("debian/1/arm64").exists() && images.join("debian/1/kernel").exists());
    assert!(images.join("debian/3/arm64/kernel").exists());
    cluster.daemon.stop()
}
