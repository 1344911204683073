//! A machine with arm64. Its firmware loads GRUB, which asks for ever while the image has no variant for it, and boots as soon as there is
//! one. A second machine starts the program on its disk, which pauses and sends it to the network.

use anyhow::Context;
use rackstrap_loaders::Esps;
use rackstrap_wire::ESP_LENGTH;
use std::fs;
use testbed::{Binaries, BootOrder, Cluster, Disk, Firmware, Result, Site, binaries, foreign, image::Kernel, small};

#[test]
fn a_machine_with_arm64_boots_the_variant_for_it_and_the_program_on_a_disk_sends_one_to_the_network() -> Result {
    let mut say = |line: &str| eprintln!("{line}");
    let arm64_agent = binaries::arm64_agent(&mut say)?;
    let trees = [small::tree(Kernel::Cloud, &mut say)?, small::arm64(&mut say)?];
    let [amd64, arm64] = trees.map(|tree| tree.display().to_string());
    // A loader is served only from directories that no other user can write to.
    let loaders = tempfile::tempdir()?;
    let grub = loaders.path().join("grubnetaa64.efi.signed");
    let package = foreign::unpacked("arm64-grub", &["grub-efi-arm64-signed"], "", &mut say)?;
    fs::copy(
        package.join("usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed"),
        &grub,
    )
    .context("copying GRUB")?;

    let mut site = Site::small();
    let default = site.default_profile();
    default.image = Some("pair".to_owned());
    default.layout = None;
    default.console = Some("ttyAMA0,115200".to_owned());
    site.more = format!(
        "[loader.arm64]\nfile = \"{}\"\narch = [\"arm64-efi\"]\n",
        grub.display()
    );
    let binaries = Binaries::get()?;
    let cluster = Cluster::with_images(&binaries, &site, Vec::new())?;
    let import = |arguments: &[&str], agent: &str| {
        cluster
            .daemon
            .cli(&[&["image", "import"], arguments, &["--agent", agent]].concat())
    };
    let agent = binaries.agent.display().to_string();
    import(&["pair", "--from", &amd64], &agent)?;
    cluster.start_daemon()?;

    // UEFI reads a file system on a disk without a table, too. No iPXE for arm64 has its place there, so the program is alone on it.
    let disk = Disk::blank(&loaders.path().join("esp.raw"), ESP_LENGTH)?;
    disk.write(
        0,
        &Esps::build(|_| None)
            .bytes("aarch64-512")
            .context("no program for arm64")?,
    )?;
    let second = cluster
        .node("r01n02")
        .firmware(Firmware::UefiArm64)
        .boot_order(BootOrder::DiskFirst);
    second.insert_disk(Some(disk));
    second.power_on()?;
    // Its pause of minutes polls the clock.
    second.nice(19)?;

    let node = cluster.node("r01n01").firmware(Firmware::UefiArm64);
    node.power_on()?;
    let loader = node.wait_event("GRUB by TFTP", |event| event.step == "tftp")?;
    assert!(loader.detail.contains("grubnetaa64.efi.signed"), "{loader}");
    let refusal = node.wait_event("its refusal", |event| event.step == "script" && event.level == "error")?;
    let remedy = "rackstrap image import pair@1 --arch arm64 --from TREE";
    assert!(
        refusal.detail.contains("pair@1 has no variant for arm64") && refusal.detail.contains(remedy),
        "{refusal}"
    );
    assert!(node.status("last_error")?.contains(remedy));
    node.wait_console("nothing to boot")?;

    // GRUB asks again by itself.
    import(
        &["pair@1", "--arch", "arm64", "--from", &arm64],
        &arm64_agent.display().to_string(),
    )?;
    let script = node.wait_event("a script that boots", |event| {
        event.step == "script" && event.detail.starts_with("boots")
    })?;
    assert!(script.detail.contains("pair@1/arm64"), "{script}");
    node.wait_event("the agent's first request", |event| event.step == "agent plan")?;
    node.wait_ready()?;
    assert_eq!(node.shell("uname -m")?, "aarch64");
    let explained = cluster.daemon.cli(&["explain", "r01n01"])?;
    assert!(
        explained.contains("its variant arm64 for an arm64 machine"),
        "{explained}"
    );
    node.pull_plug();

    second.nice(0)?;
    for said in [
        "rackstrap: this disk asks the network.",
        "rackstrap: network boot failed, trying again in ",
        "rackstrap: resetting the machine after 1 round in vain.",
    ] {
        second.wait_console(said)?;
    }
    // BootNext puts the network before the disk for one boot.
    second.wait_event("GRUB by TFTP", |event| event.step == "tftp")?;
    Ok(())
}
