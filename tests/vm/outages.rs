//! Faults of the network at each step of a boot, and panics: each ends at `ready`, or is read on the timeline.

use std::{thread, time::Duration};
use testbed::{Cluster, Firmware, Node, Result, Site, timeline::Event};

/// How long a switch port is down.
const OUTAGE: Duration = Duration::from_secs(20);
/// Slows down what the daemon sends by HTTP, so that files of a few MB are still on their way when a test reacts.
const SLOW: &str = "add table inet slow; add chain inet slow out { type filter hook output priority 0 ; }; \
                    add rule inet slow out tcp sport 80 limit rate over 1 mbytes/second burst 64 kbytes drop";
/// Blocks requests by HTTP. NFS works.
const BLOCKED: &str = "add table inet blocked; add chain inet blocked in { type filter hook input priority 0 ; }; \
                       add rule inet blocked in tcp dport 80 drop";
/// Loses a fifth of all packets, in both directions.
const LOSSY: &str = "add table inet lossy; add chain inet lossy in { type filter hook input priority 0 ; }; \
                     add chain inet lossy out { type filter hook output priority 0 ; }; \
                     add rule inet lossy in numgen random mod 100 < 20 drop; \
                     add rule inet lossy out numgen random mod 100 < 20 drop";

#[test]
fn a_switch_port_that_fails_during_any_step_and_a_download_that_stalls_delay_a_boot_and_do_not_end_it() -> Result {
    let cluster = Cluster::start_small(without_layout())?;
    let node = cluster.node("r01n01").firmware(Firmware::Uefi);
    let network = &cluster.namespace;
    network.nft(SLOW)?;
    node.power_on()?;

    // TFTP: firmware has its address and asks for the loader.
    node.wait_event("an address", |event| event.step == "dhcp request")?;
    interrupt(&node)?;
    node.wait_event("the script", |event| event.step == "script")?;
    interrupt(&node)?;
    node.wait_event("the kernel", whole("kernel"))?;

    // The connection stays open and nothing comes: without a limit of time, iPXE waits for ever.
    cluster.daemon.freeze()?;
    let stalled = node.wait_console("failed, asking again in");
    cluster.daemon.thaw()?;
    stalled?;
    let retry = node.wait_event("the next request for a script", |event| {
        event.step.starts_with("retry ")
    })?;
    assert!(retry.detail.contains("connection timed out (iPXE error 4c"), "{retry}");

    // The daemon may have sent the file of the boot before into its socket after the client was gone.
    let next = node.wait_event("the next script", |event| {
        event.step == "script" && event.at >= retry.at
    })?;
    node.wait_event("the initramfs", |event| {
        event.boot == next.boot && whole("initramfs")(event)
    })?;
    // What was sent may still be on its way to iPXE.
    node.wait_console("Linux version")?;
    network.nft(BLOCKED)?;
    node.wait_console("rackstrap: plan: attempt 1 failed")?;
    unblock_by_an_outage(&node, &cluster)?;
    node.wait_event("the plan", |event| event.step == "plan" && event.level == "ok")?;
    network.nft(BLOCKED)?;
    node.wait_console("rackstrap: overlay: attempt 1 failed")?;
    unblock_by_an_outage(&node, &cluster)?;

    node.wait_ready()?;
    assert_eq!(node.status("state")?, "ready");
    let row = cluster.status("r01n01")?;
    for step in ["plan", "overlay"] {
        assert!(row["retries"][step].as_u64() >= Some(1), "{row}");
    }
    Ok(())
}

#[test]
fn a_node_boots_with_a_fifth_of_all_packets_lost_and_its_panics_are_read_on_its_timeline() -> Result {
    let cluster = Cluster::start_small(without_layout())?;
    let node = cluster.node("r01n01").crash_store();
    cluster.namespace.nft(LOSSY)?;
    node.power_on()?;
    node.wait_ready()?;
    cluster.namespace.nft("delete table inet lossy")?;

    // This command never returns, because the kernel panics at once.
    node.begin_command("dmesg -n 7; echo c > /proc/sysrq-trigger")?;
    let panic = "Kernel panic - not syncing: sysrq triggered crash";
    let by_network = node.wait_event("the panic by UDP", |event| event.step == "panic")?;
    assert_eq!(by_network.detail, panic);
    // The next boot finds it in the machine's own store.
    let stored = node.wait_event("the panic from the store", |event| {
        event.step == "panic" && event.detail.starts_with("before the restart: ")
    })?;
    assert_eq!(stored.detail, format!("before the restart: {panic}"));
    assert!(cluster.daemon.cli(&["timeline", "r01n01"])?.contains(panic));
    node.wait_until("the second boot", || {
        let ready = node.events()?.iter().filter(|event| event.step == "ready").count();
        Ok((ready == 2).then_some(()))
    })?;
    assert_eq!(node.status("state")?, "ready");
    assert_eq!(
        node.shell("mount -t pstore pstore /mnt 2> /dev/null; ls /sys/fs/pstore /mnt | grep -c dmesg || true")?,
        "0"
    );
    Ok(())
}

/// These nodes have no disk.
fn without_layout() -> Site {
    let mut site = Site::small();
    site.default_profile().layout = None;
    site
}

/// A file was sent to its end.
fn whole(step: &'static str) -> impl Fn(&Event) -> bool {
    move |event| event.step == step && event.level == "ok"
}

/// The switch port is down for a while.
fn interrupt(node: &Node<'_>) -> Result {
    node.cable(false)?;
    thread::sleep(OUTAGE);
    node.cable(true)
}

/// Exchanges a blocked port for a switch port that is down for a while. The cable is pulled first: between the two the step could succeed.
fn unblock_by_an_outage(node: &Node<'_>, cluster: &Cluster) -> Result {
    node.cable(false)?;
    cluster.namespace.nft("delete table inet blocked")?;
    thread::sleep(OUTAGE);
    node.cable(true)
}
