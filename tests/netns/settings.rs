//! Settings of a node that runs: what `status` says until its next boot, what is refused, and the host keys in exports.

use serde_json::json;
use testbed::{
    Cluster, Result, Site,
    played::{Boot, no_disk, no_hardware},
};

fn up(boot: &Boot) -> Result {
    boot.plan()?;
    boot.overlay(&no_disk(), &no_hardware())?;
    boot.ready(&json!([]))
}

#[test]
fn a_running_node_has_new_settings_at_its_next_boot_and_status_says_so() -> Result {
    let cluster = Cluster::start(Site::demo())?;
    let machine = cluster.played("r01n01")?;
    up(&machine.boot_into_kernel()?)?;
    let set = |more: &[&str]| cluster.daemon.cli(&[&["node"], more].concat());
    let remark = || -> Result<String> {
        let row = cluster.status("r01n01")?;
        Ok(row["remark"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(remark()?, "");
    set(&["set", "r01n01", "kernel-args+=hugepages=64"])?;
    assert_eq!(remark()?, "new settings at its next boot");
    assert!(
        cluster
            .daemon
            .cli(&["status", "--wide"])?
            .contains("new settings at its next boot")
    );
    // Back at what it booted with.
    set(&["unset", "r01n01", "kernel-args"])?;
    assert_eq!(remark()?, "");
    set(&["set", "r01n01", "vars.pdu=pdu2"])?;
    assert_eq!(remark()?, "new settings at its next boot");
    up(&machine.boot_into_kernel()?)?;
    assert_eq!(remark()?, "");

    // Its root depends on its address.
    let refused = format!("{:#}", set(&["set", "r01n01", "ipaddr=10.5.200.9"]).unwrap_err());
    assert!(
        refused.contains("runs from its root") && refused.contains("change it with --running"),
        "{refused}"
    );
    set(&["set", "r01n01", "ipaddr=10.5.200.9", "--running"])?;
    assert_eq!(remark()?, "new settings at its next boot");
    let back = set(&["unset", "r01n01", "ipaddr", "--running"])?;
    assert!(back.contains("address 10.5.200.9 -> 10.5.1.1"), "{back}");

    // The server made its host keys at its first boot, and knows none of a node that never booted.
    cluster
        .daemon
        .cli(&["node", "add", "r01n02", "--hwaddr", "52:54:00:00:01:02"])?;
    let known = cluster.daemon.cli(&["export", "known_hosts"])?;
    for kind in ["ssh-ed25519 AAAA", "ecdsa-sha2-nistp256 AAAA"] {
        assert!(known.contains(&format!("r01n01,10.5.1.1 {kind}")), "{known}");
    }
    assert!(
        known.contains("\n# r01n02: its host keys are made when it boots for the first time\n"),
        "{known}"
    );
    Ok(())
}
