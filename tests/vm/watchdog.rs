//! An agent that hangs, and a kernel that hangs: the watchdog resets the machine, which then boots. It has the kernel for all hardware, because
//! the kernel for virtual machines has no driver for the watchdog.

use super::{GIB2, expect_scratch};
use testbed::{Cluster, Result, Site};

#[test]
fn a_machine_whose_agent_or_kernel_hangs_is_reset_by_its_watchdog_and_gets_ready() -> Result {
    let mut site = Site::small();
    // The agent stops for good while it prepares the disk, and counts as hung a minute later.
    site.default_profile().kernel_args = Some("rackstrap.hold=table rackstrap.hung-after=60".to_owned());
    let cluster = Cluster::start_small_whole(site)?;
    let node = cluster.node("r01n01").watchdog().blank_disk(GIB2)?;
    node.power_on()?;
    node.wait_event("the watchdog", |event| {
        event.detail.contains("/dev/watchdog resets the machine if it hangs")
    })?;
    node.wait_event("the agent that hangs", |event| {
        event.detail.contains("holding after table")
    })?;
    // The next boot does not hang, if there is one.
    cluster.daemon.write_site(&Site::small())?;
    cluster.daemon.cli(&["reload"])?;
    node.wait_ready()?;
    node.has_restarted();
    let boots = node.events()?;
    let plans = boots.iter().filter(|event| event.step == "plan").count();
    assert_eq!(plans, 2, "one boot that hung, and one after the reset: {boots:?}");
    // The agent has stopped it at the hand-over: the image decides about it.
    assert_eq!(
        node.shell("cat /sys/class/watchdog/watchdog0/state")?.trim(),
        "inactive"
    );
    node.pull_plug();
    expect_scratch(&node.disk()?)?;

    // A kernel that stops for good: with `panic=0` it does not restart after a panic. The agent waits, and counts as hung half an hour later.
    let mut hung = Site::small();
    hung.default_profile().kernel_args = Some("rackstrap.hold=table panic=0 unknown_nmi_panic".to_owned());
    cluster.daemon.write_site(&hung)?;
    cluster.daemon.cli(&["reload"])?;
    let node = cluster.node("r01n02").watchdog().blank_disk(GIB2)?;
    node.power_on()?;
    node.wait_event("the agent that waits", |event| {
        event.detail.contains("holding after table")
    })?;
    cluster.daemon.write_site(&Site::small())?;
    cluster.daemon.cli(&["reload"])?;
    node.interrupt()?;
    node.wait_console("end Kernel panic - not syncing: NMI")?;
    node.wait_ready()?;
    let text = node.console().text();
    assert!(!text.contains("Rebooting in"), "the kernel did not restart by itself");
    node.has_restarted();
    let boots = node.events()?;
    let plans = boots.iter().filter(|event| event.step == "plan").count();
    assert_eq!(
        plans, 2,
        "one boot whose kernel hung, and one after the reset: {boots:?}"
    );
    node.pull_plug();
    expect_scratch(&node.disk()?)?;
    Ok(())
}
