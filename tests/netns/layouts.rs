//! A restart of the daemon with a new layout version: no node loses data before an administrator confirmed it.

use serde_json::json;
use testbed::{
    Cluster, Result, Site,
    played::{Node, no_hardware},
};

/// Boots up to the agent's report; returns the layout version of the plan.
fn boot(node: &Node) -> Result<u64> {
    let boot = node.boot()?;
    let plan = boot.plan()?;
    let disk =
        json!({"status": {"state": "kept", "layout": "scratch"}, "device": "vda", "size": 20_u64 << 30, "mounts": []});
    boot.overlay(&disk, &no_hardware())?;
    Ok(plan["disk"]["layout"]["version"].as_u64().unwrap_or_default())
}

#[test]
fn a_restart_adopts_no_layout_that_loses_data_before_it_is_confirmed() -> Result {
    let mut site = Site::demo();
    let cluster = Cluster::start(site.clone())?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    let nodes = [cluster.played("r01n01")?, cluster.played("r01n02")?];
    for node in &nodes {
        assert_eq!(boot(node)?, 1);
    }

    // The file has a new version and the daemon is restarted, as by an upgrade or a reboot. It is restarted twice, as the
    // state after the first restart matters too.
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
    // It runs in another namespace than the daemon, and may have other warnings.
    let checked = cli(&["check"]).unwrap_or_else(|error| format!("{error:#}"));
    assert!(checked.contains(held), "{checked}");

    // A reload requires the confirmation as before.
    let refused = format!("{:#}", cli(&["reload"]).unwrap_err());
    assert!(
        refused.contains("loses scratch v1") && refused.contains("reload --reprep"),
        "{refused}"
    );
    assert_eq!(boot(&nodes[0])?, 1);
    // One node is confirmed, and the other is not.
    cli(&["node", "reprep", "r01n01", "--yes"])?;
    assert_eq!(boot(&nodes[0])?, 2);
    assert_eq!(boot(&nodes[1])?, 1);
    // All nodes are confirmed, and a restart requires no second confirmation.
    cli(&["reload", "--reprep"])?;
    cluster.daemon.stop()?;
    cluster.start_daemon()?;
    assert!(!cli(&["status"])?.contains("this is not confirmed"));
    assert_eq!(boot(&nodes[1])?, 2);
    Ok(())
}
