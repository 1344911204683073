//! Nothing leaves a node standing: not a rack that is switched on before its server, and not a kernel that dies.

use super::GIB2;
use std::{thread, time::Duration};
use testbed::{Cluster, Result, Site};

#[test]
fn a_node_comes_up_when_the_daemon_starts_a_minute_after_it_and_again_after_a_kernel_panic() -> Result {
    let cluster = Cluster::start(Site::demo())?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    node.add()?;
    cluster.daemon.stop()?;

    node.plug_in()?;
    thread::sleep(Duration::from_secs(60));
    node.check_alive()?;
    cluster.start_daemon()?;
    node.wait_ready()?;
    assert_eq!(node.status("state")?, "ready");

    // Never answered: the kernel is gone at once.
    node.begin_command("echo c > /proc/sysrq-trigger")?;
    node.wait_console("Kernel panic - not syncing: sysrq triggered crash")?;
    node.wait_until("being ready again", || {
        let boots = node.events()?.iter().filter(|event| event.step == "ready").count();
        Ok((boots == 2).then_some(()))
    })?;
    assert_eq!(node.status("disk")?, "/tmp and /var on vda (kept: scratch v1)");
    Ok(())
}
