//! A new version of the root, for some nodes first and then for all; a rollback; and versions that do not work.

use super::GIB2;
use std::{fs, path::Path, process::Command, time::Duration};
use testbed::{Cluster, Node, Result, Site, process::output};

/// Timeout of commands that copy or hash a whole tree.
const LONG: Duration = Duration::from_secs(300);

/// The state of a node's /var: the installed version of the package, and the package's file there.
fn var(node: &Node<'_>) -> Result<String> {
    let package = "dpkg-query -W -f '${Version}' rackstrap-hello 2> /dev/null || echo none";
    let state = "cat /var/lib/rackstrap-hello/state 2> /dev/null || echo none";
    Ok(format!("{} {}", node.shell(package)?, node.shell(state)?))
}

/// Packs `files` as the Debian package `name`, and returns its path.
fn package(dir: &Path, name: &str, version: &str, files: &[(&str, &str)]) -> Result<String> {
    let tree = dir.join(format!("{name}-{version}"));
    fs::create_dir_all(tree.join("DEBIAN"))?;
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n"
    );
    fs::write(tree.join("DEBIAN/control"), control)?;
    for (path, text) in files {
        let path = tree.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap_or(&tree))?;
        fs::write(&path, text)?;
        output(Command::new("chmod").arg("755").arg(&path))?;
    }
    let file = dir.join(format!("{name}-{version}.deb"));
    output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .arg(&tree)
            .arg(&file),
    )?;
    Ok(file.display().to_string())
}

/// Seals a version of `parent` after running `script` in its working copy, with `deb` as `/root/new.deb`.
fn version_with(cluster: &Cluster, parent: &str, deb: Option<&str>, script: &str) -> Result {
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    cli(&["image", "clone", parent, "next"])?;
    if let Some(deb) = deb {
        let root = cluster.daemon.state_dir().join("images/.work/next/root");
        fs::copy(deb, root.join("root/new.deb"))?;
    }
    cli(&["image", "exec", "next", "--", "sh", "-ec", script])?;
    let agent = testbed::Binaries::get()?.agent.display().to_string();
    cli(&["image", "seal", "next", "--agent", &agent])?;
    Ok(())
}

fn runs(node: &Node<'_>) -> Result<String> {
    let says = node.shell("cat /etc/rackstrap-image")?;
    Ok(says.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Waits until the rollout's status fulfils the condition.
fn wait_for(cluster: &Cluster, what: &str, fits: impl Fn(&serde_json::Value) -> bool) -> Result {
    let mut last = serde_json::Value::Null;
    let found = testbed::timeline::poll(2 * LONG, || {
        last = cluster.daemon.json(&["rollout", "status"])?;
        Ok(fits(&last).then_some(()))
    })?;
    match found {
        Some(()) => Ok(()),
        None => anyhow::bail!(
            "the rollout never came to {what}: {last:#}\n{}",
            cluster.daemon.log_tail(30)
        ),
    }
}

/// The states of a rollout's nodes, by name.
fn states(status: &serde_json::Value) -> Vec<(String, String)> {
    let nodes = status[0]["nodes"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    nodes
        .iter()
        .map(|node| (text(&node["node"]), text(&node["state"])))
        .collect()
}

/// Switches the node off and on again.
fn power_cycle(node: &Node<'_>) -> Result {
    node.pull_plug();
    node.plug_in()
}

#[test]
fn two_nodes_then_all_four_and_back_again() -> Result {
    let cluster = Cluster::start_small(Site::small())?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    let deb = package(
        cluster.dir(),
        "rackstrap-hello",
        "1.0",
        &[
            ("/usr/bin/rackstrap-hello", "#!/bin/sh\necho hello\n"),
            ("/var/lib/rackstrap-hello/state", "first"),
        ],
    )?;
    version_with(
        &cluster,
        "small@1",
        Some(&deb),
        "dpkg -i /root/new.deb && rm /root/new.deb",
    )?;
    let listed = cli(&["image", "diff", "small@1", "small@2", "--packages"])?;
    assert!(listed.contains("rackstrap-hello"), "{listed}");
    let node = |name: &str| cluster.node(name).blank_disk(GIB2);
    let (first, second) = (node("r01n01")?, node("r01n02")?);
    let (third, fourth) = (node("r01n03")?, node("r01n04")?);
    for node in [&first, &third, &fourth] {
        node.power_on()?;
    }
    for node in [&first, &third, &fourth] {
        node.wait_ready()?;
        // Sealing a version gives it to no node: all run the current one.
        assert_eq!(runs(node)?, "small@1");
    }
    assert_eq!(var(&first)?, "none none");

    // The rollout starts while the second node is between its script and its plan. It continues with the version of its script.
    second.power_on()?;
    second.wait_event("its script", |event| event.step == "script")?;
    cli(&["rollout", "start", "small@2", "--nodes", "r01n[01-02]"])?;
    second.wait_ready()?;
    assert_eq!(
        runs(&second)?,
        "small@1",
        "the boot is not pinned to the version of its start"
    );
    for node in [&first, &second] {
        power_cycle(node)?;
    }
    for node in [&first, &second] {
        node.wait_ready()?;
        assert_eq!(runs(node)?, "small@2");
        assert_eq!(node.shell("rackstrap-hello")?, "hello");
        // The disks were prepared with the first version.
        assert_eq!(var(node)?, "1.0 first");
    }
    first.shell("echo mine > /var/lib/rackstrap-hello/own; sync")?;
    wait_for(&cluster, "two nodes ready", |status| {
        states(status).iter().filter(|(_, state)| state == "ready").count() == 2
    })?;
    assert_eq!(runs(&third)?, "small@1", "a node outside of the canary has the version");
    // A version that nodes run cannot be deleted.
    let Err(refused) = cli(&["image", "delete", "small@1"]) else {
        panic!("a version that two nodes run was deleted");
    };
    let refused = format!("{refused:#}");
    assert!(refused.contains("in use") && refused.contains("r01n03"), "{refused}");

    cli(&["rollout", "promote", "--batch", "2", "--pause-between", "1s"])?;
    wait_for(&cluster, "a batch of the other two", |status| states(status).len() == 4)?;
    for node in [&third, &fourth] {
        power_cycle(node)?;
    }
    for node in [&third, &fourth] {
        node.wait_ready()?;
        assert_eq!(runs(node)?, "small@2");
    }
    wait_for(&cluster, "its end", |status| status[0]["stage"] == "done")?;
    let explained = cli(&["explain", "r01n04"])?;
    assert!(explained.contains("small@2, the current version"), "{explained}");

    // A second upgrade: /var is updated, and keeps the node's own files.
    let files = [("/var/lib/rackstrap-hello/state", "second")];
    let deb = package(cluster.dir(), "rackstrap-hello", "2.0", &files)?;
    version_with(
        &cluster,
        "small@2",
        Some(&deb),
        "dpkg -i /root/new.deb && rm /root/new.deb",
    )?;
    cli(&["image", "promote", "small@3"])?;
    power_cycle(&first)?;
    first.wait_ready()?;
    assert_eq!(
        (runs(&first)?.as_str(), var(&first)?.as_str()),
        ("small@3", "2.0 second")
    );

    // A rollback takes effect at the next boots.
    cli(&["image", "rollback", "small"])?;
    cli(&["image", "promote", "small@1"])?;
    power_cycle(&first)?;
    first.wait_ready()?;
    assert_eq!(
        (runs(&first)?.as_str(), var(&first)?.as_str()),
        ("small@1", "none none")
    );
    assert_eq!(first.shell("cat /var/lib/rackstrap-hello/own")?, "mine");
    assert_eq!(runs(&second)?, "small@2", "the version changed before the next boot");
    Ok(())
}

/// Shell commands that install `script` as `/sbin/init` of a root.
fn init(script: &str) -> String {
    format!(
        "printf '#!/bin/sh\\n{script}\\n' > /sbin/init.new && chmod 755 /sbin/init.new && mv /sbin/init.new /sbin/init"
    )
}

#[test]
fn a_node_rolls_back_versions_that_do_not_work() -> Result {
    let mut site = Site::small();
    site.default_profile().checks = Some(vec!["command /bin/test ! -e /etc/sick".to_owned()]);
    site.checks_within_secs = 5;
    site.boots_before_going_back = Some(1);
    let cluster = Cluster::start_small(site)?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    let panics = init("mount -t proc proc /proc; echo c > /proc/sysrq-trigger");
    version_with(&cluster, "small@1", None, &panics)?;
    version_with(&cluster, "small@1", None, &init("exit 1"))?;
    // The last version also lacks a driver for a device of the machines.
    let sick =
        "touch /etc/sick && rm /lib/modules/*/kernel/drivers/char/hw_random/virtio-rng.ko && depmod $(ls /lib/modules)";
    version_with(&cluster, "small@1", None, sick)?;

    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    node.power_on()?;
    node.wait_ready()?;
    for (version, why) in [
        ("small@2", "did not get ready in a boot"),
        ("small@3", "did not get ready in a boot"),
        (
            "small@4",
            "check failed: command /bin/test ! -e /etc/sick ended with exit status 1",
        ),
    ] {
        let start = [
            "rollout",
            "start",
            version,
            "--nodes",
            "r01n01",
            "--reboot",
            "--max-failures",
            "0",
        ];
        let begun = cluster.daemon.json(&start)?;
        let warnings = begun["warnings"].as_array().cloned().unwrap_or_default();
        let warnings: Vec<&str> = warnings.iter().filter_map(|warning| warning.as_str()).collect();
        let lacks = warnings
            .iter()
            .any(|warning| warning.contains("module virtio_rng") && warning.contains("r01n01"));
        assert_eq!(
            (lacks, warnings.is_empty()),
            (version == "small@4", version != "small@4"),
            "{warnings:?}"
        );
        wait_for(&cluster, "a node that rolled back", |status| {
            states(status).iter().any(|(_, state)| state == "gone-back")
        })?;
        let status = cli(&["rollout", "status"])?;
        assert!(
            status.contains("stopped by itself") && status.contains(why),
            "{version}: {status}"
        );
        // The node is up again with the earlier version, without help.
        node.wait_until("being ready again", || {
            let row = cluster.status("r01n01")?;
            Ok((row["state"] == "ready" && row["image"] == "small@1").then_some(()))
        })?;
        node.has_restarted();
        assert_eq!(runs(&node)?, "small@1");
        cli(&["rollout", "abort"])?;
    }

    // Now only the node needs the version that it runs.
    cli(&["image", "promote", "small@2"])?;
    let collected = cli(&["image", "gc", "--keep", "1", "--yes"])?;
    let stays = collected.lines().find(|line| line.starts_with("small@1 stays"));
    assert!(
        stays.is_some_and(|line| line.contains("r01n01")) && collected.contains("deleted small@3"),
        "{collected}"
    );
    node.shell("echo 3 > /proc/sys/vm/drop_caches; cat /usr/bin/* > /dev/null")?;
    Ok(())
}
