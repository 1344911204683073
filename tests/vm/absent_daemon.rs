//! A rack that is switched on before its server.

use super::GIB2;
use std::{thread, time::Duration};
use testbed::{Cluster, Result, Site};

#[test]
fn a_node_comes_up_when_the_daemon_starts_a_minute_after_it() -> Result {
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
    Ok(())
}
