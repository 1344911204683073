//! A new version of the root: for some nodes first, then for all, and back; and versions that are no good.

use super::GIB2;
use std::{fs, path::Path, process::Command, time::Duration};
use testbed::{Cluster, Node, Result, Site, process::output};

/// Commands that copy or hash a whole tree.
const LONG: Duration = Duration::from_secs(300);

/// Packs `files` as the Debian package `name`, and returns where it is.
fn package(dir: &Path, name: &str, files: &[(&str, &str)]) -> Result<String> {
    let tree = dir.join(name);
    fs::create_dir_all(tree.join("DEBIAN"))?;
    let control = format!(
        "Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n"
    );
    fs::write(tree.join("DEBIAN/control"), control)?;
    for (path, text) in files {
        let path = tree.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap_or(&tree))?;
        fs::write(&path, text)?;
        output(Command::new("chmod").arg("755").arg(&path))?;
    }
    let file = dir.join(format!("{name}.deb"));
    output(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&file))?;
    Ok(file.display().to_string())
}

/// Seals a version of `parent` that has the package as well, and whatever `more` does in the working copy.
fn version_with(cluster: &Cluster, parent: &str, deb: &str, more: &str) -> Result {
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    cli(&["image", "clone", parent, "next"])?;
    let root = cluster.daemon.state_dir().join("images/.work/next/root");
    fs::copy(deb, root.join("root/new.deb"))?;
    let script = format!("dpkg -i /root/new.deb && rm /root/new.deb && {more}");
    cli(&["image", "exec", "next", "--", "sh", "-ec", &script])?;
    let agent = testbed::Binaries::get()?.agent.display().to_string();
    cli(&["image", "seal", "next", "--agent", &agent])?;
    Ok(())
}

fn runs(node: &Node<'_>) -> Result<String> {
    let says = node.shell("cat /etc/rackstrap-image")?;
    Ok(says.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Waits until the rollout's table says that of each of the nodes.
fn wait_for(cluster: &Cluster, what: &str, fits: impl Fn(&serde_json::Value) -> bool) -> Result {
    let mut last = serde_json::Value::Null;
    let found = testbed::timeline::poll(2 * LONG, || {
        last = cluster.daemon.json(&["rollout", "status"])?;
        Ok(fits(&last).then_some(()))
    })?;
    match found {
        Some(()) => Ok(()),
        None => anyhow::bail!("the rollout never came to {what}: {last:#}\n{}", cluster.daemon.log_tail(30)),
    }
}

/// The states of a rollout's nodes, by name.
fn states(status: &serde_json::Value) -> Vec<(String, String)> {
    let nodes = status["rollouts"][0]["nodes"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    nodes.iter().map(|node| (text(&node["node"]), text(&node["state"]))).collect()
}

#[test]
fn two_nodes_then_all_four_and_back_again() -> Result {
    let cluster = Cluster::start(Site::demo())?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    let deb = package(cluster.dir(), "rackstrap-hello", &[("/usr/bin/rackstrap-hello", "#!/bin/sh\necho hello\n")])?;
    version_with(&cluster, "debian@1", &deb, "true")?;
    let listed = cli(&["image", "diff", "debian@1", "debian@2", "--packages"])?;
    assert!(listed.contains("rackstrap-hello"), "{listed}");
    let mut nodes = Vec::new();
    for name in ["r01n01", "r01n02", "r01n03", "r01n04"] {
        let node = cluster.node(name).blank_disk(GIB2)?;
        node.power_on()?;
        nodes.push(node);
    }
    for node in &nodes {
        node.wait_ready()?;
    }
    // Sealed is not given: all run what was current.
    assert_eq!(runs(&nodes[0])?, "debian@1");

    cli(&["rollout", "start", "debian@2", "--nodes", "r01n[01-02]", "--reboot", "--max-down", "2"])?;
    wait_for(&cluster, "two nodes ready", |status| {
        states(status).iter().filter(|(_, state)| state == "ready").count() == 2
    })?;
    for node in &nodes[..2] {
        node.forget_login();
        assert_eq!(runs(node)?, "debian@2");
        assert_eq!(node.shell("rackstrap-hello")?, "hello");
    }
    for node in &nodes[2..] {
        assert_eq!(runs(node)?, "debian@1", "not given to it");
    }
    // What runs is not deleted, whatever is asked.
    let refused = format!("{:#}", cli(&["image", "delete", "debian@1"]).unwrap_err());
    assert!(refused.contains("in use") && refused.contains("r01n03"), "{refused}");

    cli(&["rollout", "promote", "--batch", "2", "--pause-between", "1s"])?;
    wait_for(&cluster, "all four ready", |status| {
        states(status).iter().filter(|(_, state)| state == "ready").count() == 4
    })?;
    for node in &nodes[2..] {
        node.forget_login();
        assert_eq!(runs(node)?, "debian@2");
    }
    let explained = cli(&["explain", "r01n04"])?;
    assert!(explained.contains("debian@2, the current version"), "{explained}");

    // And back in one command, at the next boots.
    cli(&["image", "rollback", "debian"])?;
    let node = &nodes[0];
    node.pull_plug();
    node.plug_in()?;
    node.wait_ready()?;
    assert_eq!(runs(node)?, "debian@1");
    Ok(())
}

#[test]
fn a_node_leaves_a_version_that_is_no_good_by_itself() -> Result {
    let mut site = Site::demo();
    site.default_profile().checks = Some(vec!["command /usr/local/bin/is-well".to_owned()]);
    site.checks_within_secs = 5;
    site.boots_before_going_back = Some(2);
    let cluster = Cluster::start(site)?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    let well = |exit: u8| format!("#!/bin/sh\nexit {exit}\n");
    // The root of the first one that is good, made from the demo's.
    let deb = package(cluster.dir(), "is-well", &[("/usr/local/bin/is-well", &well(0))])?;
    version_with(&cluster, "debian@1", &deb, "true")?;
    cli(&["image", "promote", "debian@2"])?;
    let panics = "printf '#!/bin/sh\\nmount -t proc proc /proc\\necho c > /proc/sysrq-trigger\\n' > /sbin/init.new && \
                  chmod 755 /sbin/init.new && mv /sbin/init.new /sbin/init";
    version_with(&cluster, "debian@2", &deb, panics)?;
    let ends = "printf '#!/bin/sh\\nexit 1\\n' > /sbin/init.new && chmod 755 /sbin/init.new && mv /sbin/init.new /sbin/init";
    version_with(&cluster, "debian@2", &deb, ends)?;
    let sick = package(cluster.dir(), "is-not-well", &[("/usr/local/bin/is-well-not", &well(1))])?;
    version_with(&cluster, "debian@2", &sick, "cp /usr/local/bin/is-well-not /usr/local/bin/is-well")?;

    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    node.power_on()?;
    node.wait_ready()?;
    assert_eq!(runs(&node)?, "debian@2");
    for (version, why) in [
        ("debian@3", "did not get ready in 2 boots"),
        ("debian@4", "did not get ready in 2 boots"),
        ("debian@5", "is-well"),
    ] {
        cli(&["rollout", "start", version, "--nodes", "r01n01", "--reboot"])?;
        wait_for(&cluster, "a node gone back", |status| {
            states(status).iter().any(|(_, state)| state == "gone-back")
        })?;
        let status = cli(&["rollout", "status"])?;
        assert!(status.contains("stopped by itself") && status.contains(why), "{version}: {status}");
        // It is up again on the one before, without a hand.
        node.wait_until("being well again", || {
            let row = cluster.status("r01n01")?;
            Ok((row["state"] == "ready" && row["image"] == "debian@2").then_some(()))
        })?;
        node.forget_login();
        assert_eq!(runs(&node)?, "debian@2");
        cli(&["rollout", "abort"])?;
    }
    Ok(())
}
