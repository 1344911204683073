//! A root whose init is not systemd, whose drivers are in the vendors' directories, and whose kernel is named after its flavour.

use std::{fs, path::Path, process::Command};
use testbed::{
    Cluster, Node, Result, Site,
    binaries::Binaries,
    image::{self, Image, Kernel},
    process::output,
    small::busybox,
};

/// The inittab of busybox. The test waits for the message, which looks like a prompt.
const INITTAB: &str = "::sysinit:/etc/init.d/rcS\nttyS0::respawn:/bin/sh\n";
const RC: &str =
    "#!/bin/sh\nhostname -F /etc/hostname\necho \"busybox init is up\"\necho \"root@$(hostname)\" > /dev/console\n";

/// An administrator's settings for drivers: an option, a soft dependency, and a blacklist.
const MODPROBE: &str = "options virtio_net napi_tx=0\nsoftdep virtio_net pre: dummy\nblacklist ahci\n";

#[test]
fn a_root_with_busybox_as_init_boots() -> Result {
    let mut say = |line: &str| eprintln!("testbed: {line}");
    let binaries = Binaries::get()?;
    let debian = Kernel::Whole.debian(&mut say)?;
    let depends = format!("{}{INITTAB}{RC}{MODPROBE}updates", debian.display());
    let tree = image::tree("busybox", &depends, |part| {
        busybox(part, &debian, INITTAB, RC)?;
        rearrange(part)
    })?;
    let image = Image::import(&binaries, "busybox", &tree, &mut say)?;
    let mut site = Site::demo();
    site.default_profile().image = Some("busybox".to_owned());
    site.default_profile().layout = None;
    let cluster = Cluster::with_images(&binaries, &site, vec![image])?;
    cluster.start_daemon()?;
    let node = cluster.node("r01n01");
    node.power_on()?;
    node.wait_console("busybox init is up")?;
    node.wait_ready()?;
    node.wait_state("ready")?;
    assert_eq!(node.shell("hostname")?, "r01n01");
    assert_eq!(node.shell("readlink /proc/1/exe")?, "/bin/busybox");
    expect_drivers_as_the_image_has_them(&node)?;
    let root = node.shell("grep ' / ' /proc/mounts")?;
    assert!(root.starts_with("overlay ") || root.contains(" / overlay "), "{root}");
    // Its heartbeats continue.
    let heard = cluster.status("r01n01")?["heard"].as_u64();
    node.wait_until("another heartbeat", || {
        Ok((cluster.status("r01n01")?["heard"].as_u64() > heard).then_some(()))
    })
}

/// Checks that the image's settings for drivers were applied, wherever it keeps the drivers.
fn expect_drivers_as_the_image_has_them(node: &Node<'_>) -> Result {
    node.shell("grep -q ' /sys ' /proc/mounts || mount -t sysfs sysfs /sys")?;
    assert_eq!(
        node.shell("cat /sys/module/virtio_net/parameters/napi_tx")?,
        "N",
        "an option of modprobe.d was not applied"
    );
    assert_eq!(
        node.shell("ls /sys/module | grep -cx dummy")?,
        "1",
        "a soft dependency of modprobe.d was not loaded"
    );
    assert_eq!(
        node.shell("ls /sys/module | grep -cx ahci || true")?,
        "0",
        "the module is on the blacklist of modprobe.d, but was loaded"
    );
    Ok(())
}

/// Moves the card's driver to a vendor's directory, and names the kernel after its flavour. Both must be handled, or the node does not boot.
fn rearrange(part: &Path) -> Result {
    let release = output(Command::new("ls").arg(part.join("lib/modules")))?
        .trim()
        .to_owned();
    let modules = part.join("lib/modules").join(&release);
    fs::create_dir(modules.join("updates"))?;
    fs::rename(
        modules.join("kernel/drivers/net/virtio_net.ko"),
        modules.join("updates/virtio_net.ko"),
    )?;
    output(Command::new("depmod").arg("-b").arg(part).arg(&release))?;
    fs::rename(
        part.join(format!("boot/vmlinuz-{release}")),
        part.join("boot/vmlinuz-lts"),
    )?;
    fs::create_dir_all(part.join("etc/modprobe.d"))?;
    fs::write(part.join("etc/modprobe.d/site.conf"), MODPROBE)?;
    Ok(())
}
