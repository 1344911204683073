//! A node always boots again in the end: after a kernel panic, and if a rack is switched on before its server, in any boot order of the
//! firmware. SeaBIOS has its default setting: it stops for ever at "No bootable device". OVMF starts the program on the disk.

use super::{GIB2, LOADER_ON_GPT};
use anyhow::Context;
use testbed::{BootOrder, Cluster, Firmware, Nic, Node, Result, Site};

/// The message of the boot sector, and of the program for UEFI.
const SECTOR: &str = "rackstrap: this disk asks the network.";
/// The message of the program for UEFI before it resets the machine.
const RESET: &str = "rackstrap: resetting the machine after ";

#[test]
fn a_prepared_node_comes_back_after_a_panic_and_in_every_boot_order_after_a_daemon_that_was_away_for_minutes() -> Result
{
    let cluster = Cluster::start_small(Site::small())?;
    let first = cluster.node("r01n01").warm_resets().blank_disk(GIB2)?;
    first.power_on()?;
    first.wait_ready()?;
    assert_eq!(first.disk()?.read(LOADER_ON_GPT, 4)?, *b"RKSB");

    // This command never returns, because the kernel panics at once.
    first.begin_command("echo c > /proc/sysrq-trigger")?;
    first.wait_console("Kernel panic - not syncing: sysrq triggered crash")?;
    first.wait_until("being ready again", || {
        let boots = first.events()?.iter().filter(|event| event.step == "ready").count();
        Ok((boots == 2).then_some(()))
    })?;
    assert_eq!(first.status("disk")?, "/tmp and /var on vda (kept: scratch v1)");
    first.pull_plug();

    let second = cluster.node("r01n02").warm_resets().boot_order(BootOrder::DiskFirst);
    second.insert_disk(Some(first.disk()?.copy("second.raw")?));
    let third = cluster.node("r01n03").warm_resets().boot_order(BootOrder::DiskAlone);
    third.insert_disk(Some(first.disk()?.copy("third.raw")?));
    // With virtio-net, Debian 12's iPXE hangs in OVMF as it returns to the program on the disk (it loops in `efi_snp_poll`), and the firmware's
    // watchdog resets the machine five minutes later.
    let fourth = cluster
        .node("r01n04")
        .firmware(Firmware::Uefi)
        .nic(Nic::Vmxnet3)
        .boot_order(BootOrder::DiskFirst);
    fourth.insert_disk(Some(first.disk()?.copy("fourth.raw")?));
    let nodes = [first, second, third, fourth];
    for node in &nodes {
        node.add()?;
    }
    cluster.daemon.stop()?;

    for node in &nodes {
        node.plug_in()?;
        // Loaders poll without pause, so they get a low priority and leave the processors to other tests.
        node.nice(19)?;
    }
    for node in &nodes {
        // The loader tries in vain for four to five minutes, and then resets the machine.
        node.wait_until("the loader's reset", || Ok((sectors(node) > 1).then_some(())))?;
    }
    for node in &nodes {
        node.nice(0)?;
    }
    cluster.start_daemon()?;
    for node in &nodes {
        node.wait_ready()?;
        assert_eq!(node.status("state")?, "ready");
        assert_eq!(node.status("disk")?, "/tmp and /var on vda (kept: scratch v1)");
    }
    // The program for UEFI counts its rounds before a reset in a variable of the firmware, which the agent reports.
    let uefi = &nodes[3];
    let text = uefi.console().text();
    let (_, last) = text.rsplit_once(RESET).context("the program reset nothing")?;
    let rounds = last.split(' ').next().unwrap_or_default();
    let told = format!("the disk asked the network {rounds} times in vain before its last reset");
    let events = uefi.events()?;
    assert!(
        events.iter().any(|event| event.detail.contains(&told)),
        "{told}: {events:#?}"
    );
    Ok(())
}

/// Number of times that the boot sector, or the program for UEFI, has run since the machine was switched on.
fn sectors(node: &Node) -> usize {
    node.console().text().matches(SECTOR).count()
}
