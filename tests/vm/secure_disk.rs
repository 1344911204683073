//! A machine with Secure Boot whose firmware boots from the disk: shim and GRUB on the partition that the layout asks for.

use super::{GIB2, secure_boot::LOADER};
use testbed::{BootOrder, Cluster, Firmware, Result, Site};

#[test]
fn a_prepared_disk_with_secure_boot_asks_the_network_until_a_daemon_answers() -> Result {
    let mut site = Site::small();
    site.more = LOADER.to_owned();
    for layout in site.layouts.values_mut() {
        layout.esp = Some("16MiB".to_owned());
    }
    let cluster = Cluster::start_small(site)?;
    let first = cluster.node("r01n01").firmware(Firmware::SecureBoot).blank_disk(GIB2)?;
    first.power_on()?;
    first.wait_ready()?;
    first.wait_event("the partition's content", |event| {
        event.detail.contains("the network loader for UEFI was written")
    })?;
    first.pull_plug();
    let disk = first.disk()?;
    let slices = disk.slices()?;
    let seen: Vec<(&str, &str)> = slices.iter().map(|s| (s.name.as_str(), s.fs.as_str())).collect();
    assert_eq!(
        seen[1..],
        [("esp", "vfat"), ("swap", "swap"), ("tmp", "ext4"), ("var", "ext4")],
        "no partition in the gap, because firmware would start that one"
    );
    assert_eq!(slices[1].size >> 20, 16);

    let second = cluster
        .node("r01n02")
        .firmware(Firmware::SecureBoot)
        .boot_order(BootOrder::DiskFirst);
    second.insert_disk(Some(disk.copy("second.raw")?));
    second.add()?;
    cluster.daemon.stop()?;
    second.plug_in()?;
    for pause in ["2 s (round 1)", "4 s (round 2)"] {
        second.wait_console(&format!("rackstrap: network boot failed, trying again in {pause}"))?;
    }
    cluster.start_daemon()?;
    second.wait_ready()?;
    let by_disk = second.wait_event("the boot by the disk's GRUB", |event| {
        event.step == "script" && event.detail.contains("by GRUB on the disk")
    })?;
    assert_eq!(by_disk.level, "ok");
    second.wait_event("its rounds in vain", |event| {
        event.detail.contains("the loader on its disk asked the network")
    })?;
    assert_eq!(second.status("disk")?, "/tmp and /var on vda (kept: scratch v1)");
    // Prepared once: what the disk has is what this server has.
    let explained = cluster.daemon.cli(&["explain", "r01n02"])?;
    assert!(explained.contains("shim and GRUB on the disk"), "{explained}");
    Ok(())
}
