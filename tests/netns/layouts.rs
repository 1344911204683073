//! A restart with a new layout version: no node loses data before somebody said so.

use serde_json::json;
use testbed::{
    Cluster, Result, Site,
    played::{Node, no_hardware},
};

/// A boot as far as the agent's report; answers the layout version of its plan.
fn boot(node: &Node) -> Result<u64> {
    let boot = node.boot()?;
    let plan = boot.plan()?;
    let disk =
        json!({"status": {"state": "kept", "layout": "scratch"}, "device": "vda", "size": 20_u64 << 30, "mounts": []});
    boot.overlay(&disk, &no_hardware())?;
    Ok(plan["disk"]["layout"]["version"].as_u64().unwrap_or_default())
}

#[test]
fn a_restart_takes_over_no_layout_that_loses_data_before_it_is_confirmed() -> Result {
    let mut site = Site::demo();
    let cluster = Cluster::start(site.clone())?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    let nodes = [cluster.played("r01n01")?, cluster.played("r01n02")?];
    for node in &nodes {
        assert_eq!(boot(node)?, 1);
    }

    // The file has a new version, and the daemon is restarted, as it is by an upgrade or a reboot: twice, since what it knows
    // after the first one counts as well.
    site.scratch().version = 2;
    cluster.daemon.write_site(&site)?;
    let held = "layout scratch v2 would lose scratch v1, and this is not confirmed";
    for _ in 0..2 {
        cluster.daemon.stop()?;
        cluster.start_daemon()?;
        assert!(cluster.daemon.log_tail(20).contains(&format!("r01n[01-02]: {held}")));
        assert_eq!(boot(&nodes[0])?, 1, "it keeps what it has");
    }
    for question in [&["status"][..], &["explain", "r01n01"], &["node", "show", "r01n02"]] {
        let said = cli(question)?.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            said.contains(held) && said.contains("rackstrap reload --reprep"),
            "{question:?}: {said}"
        );
    }
    // It runs in another namespace than the daemon, and may find other things to warn of.
    let checked = cli(&["check"]).unwrap_or_else(|error| format!("{error:#}"));
    assert!(checked.contains(held), "{checked}");

    // A reload asks as before.
    let refused = format!("{:#}", cli(&["reload"]).unwrap_err());
    assert!(
        refused.contains("loses scratch v1") && refused.contains("reload --reprep"),
        "{refused}"
    );
    assert_eq!(boot(&nodes[0])?, 1);
    // One node that is named, and not the other.
    cli(&["node", "reprep", "r01n01", "--yes"])?;
    assert_eq!(boot(&nodes[0])?, 2);
    assert_eq!(boot(&nodes[1])?, 1);
    // All of them; and what was said once is not asked again after a restart.
    cli(&["reload", "--reprep"])?;
    cluster.daemon.stop()?;
    cluster.start_daemon()?;
    assert!(!cli(&["status"])?.contains("this is not confirmed"));
    assert_eq!(boot(&nodes[1])?, 2);
    Ok(())
}
