//! A restart of the daemon with a new layout version: no node loses data before an administrator confirmed it.

use super::serve::{argument, curl, udhcpc, variable};
use serde_json::{Value, json};
use testbed::{Cluster, Namespace, Result, Site};

const MACS: [&str; 2] = ["52:54:00:00:01:01", "52:54:00:00:01:02"];

/// Boots up to the agent's report; returns the layout version of the plan.
fn boot(cluster: &Cluster, node: &Namespace) -> Result<u64> {
    let got = udhcpc(node, cluster, &["-x", "77:69505845"])?;
    let (_, script) = curl(node, variable(&got, "boot_file"), "", None)?;
    let (boot, token) = (argument(&script, "plan"), argument(&script, "token"));
    let base = "http://10.5.0.1";
    let (status, plan) = curl(node, &format!("{base}/v1/plan/{boot}"), token, None)?;
    assert_eq!(status, 200, "{plan}");
    let plan: Value = serde_json::from_str(&plan)?;
    let layout = &plan["disk"]["layout"];
    let disk =
        json!({"status": {"state": "kept", "layout": "scratch"}, "device": "vda", "size": 20_u64 << 30, "mounts": []});
    let hardware = json!({"cpus": 1, "memory_mib": 512, "vendor": "", "product": "", "serial": "", "hwaddrs": []});
    let request = json!({"token": token, "disk": disk, "hardware": hardware});
    let (status, said) = curl(node, &format!("{base}/v1/overlay/{boot}"), "", Some(&request))?;
    assert_eq!(status, 200, "{said}");
    Ok(layout["version"].as_u64().unwrap_or_default())
}

#[test]
fn a_restart_adopts_no_layout_that_loses_data_before_it_is_confirmed() -> Result {
    let mut site = Site::demo();
    let cluster = Cluster::start(site.clone())?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    let mut nodes = Vec::new();
    for (number, mac) in MACS.iter().enumerate() {
        cli(&["node", "add", &format!("r01n{:02}", number + 1), "--hwaddr", mac])?;
        nodes.push(cluster.namespace.client(mac)?);
    }
    for node in &nodes {
        assert_eq!(boot(&cluster, node)?, 1);
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
        assert_eq!(boot(&cluster, &nodes[0])?, 1, "it keeps what it has");
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
    assert_eq!(boot(&cluster, &nodes[0])?, 1);
    // One node is confirmed, and the other is not.
    cli(&["node", "reprep", "r01n01", "--yes"])?;
    assert_eq!(boot(&cluster, &nodes[0])?, 2);
    assert_eq!(boot(&cluster, &nodes[1])?, 1);
    // All nodes are confirmed, and a restart requires no second confirmation.
    cli(&["reload", "--reprep"])?;
    cluster.daemon.stop()?;
    cluster.start_daemon()?;
    assert!(!cli(&["status"])?.contains("this is not confirmed"));
    assert_eq!(boot(&cluster, &nodes[1])?, 2);
    Ok(())
}
