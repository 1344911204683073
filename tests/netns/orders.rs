//! Orders for one boot, from the command to the boots of nodes that only send packets.

use super::serve::{udhcpc, variable};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::fs;
use testbed::{
    Binaries, Cluster, Result, Site,
    image::fake,
    played::{self, no_disk, no_hardware},
};

const FLASH: &str = "#!ipxe\necho {{ node }} flashes its firmware with {{ boot }}\n";

/// A daemon with two versions of an image, memtest86+ and a boot script of the site.
fn cluster() -> Result<Cluster> {
    let binaries = Binaries::without_agent(env!("CARGO_BIN_EXE_rackstrap"));
    let mut site = Site::demo();
    site.default_profile().templates = None;
    let cluster = Cluster::with_images(&binaries, &site, Vec::new())?;
    let dir = cluster.daemon.state_dir();
    for image in ["debian@1", "debian@2"] {
        fake(&dir.join("images"), image, 0)?;
    }
    let (scripts, loaders) = (dir.join("scripts"), dir.join("loaders"));
    fs::create_dir_all(&scripts)?;
    fs::create_dir_all(&loaders)?;
    fs::write(scripts.join("flash.ipxe.j2"), FLASH)?;
    for file in ["memtest86+x64.bin", "memtest86+x64.efi"] {
        fs::write(loaders.join(file), file)?;
    }
    let config = cluster.daemon.config();
    let text = fs::read_to_string(&config)?;
    let more = format!(
        "[server]\nbootscripts-dir = {scripts:?}\nloader-dirs = [{loaders:?}, \"/usr/lib/ipxe\"]\n",
        loaders = loaders
    );
    fs::write(&config, text.replace("[server]\n", &more))?;
    cluster.start_daemon()?;
    cluster.daemon.cli(&["image", "promote", "debian@1"])?;
    Ok(cluster)
}

/// The script that iPXE gets in a new attempt; `failed` is the step that failed before.
fn script(node: &played::Node, failed: Option<&str>) -> Result<String> {
    if failed.is_none() {
        node.dhcp()?;
    }
    let failed = failed.map(|step| format!("&failed={step}")).unwrap_or_default();
    let path = format!("/ipxe?mac={}{failed}", node.machine.mac());
    let (status, script) = node.ask("GET", &path, "", None)?;
    ensure!(status == 200, "{status}: {script}");
    Ok(script)
}

fn expect(text: &str, has: &str) {
    assert!(text.contains(has), "no {has:?} in:\n{text}");
}

/// What the node's timeline says of its orders.
fn told(cluster: &Cluster, node: &str) -> Result<Vec<String>> {
    let answer = cluster.daemon.json(&["timeline", node])?;
    let events = answer["events"].as_array().context("events")?.iter();
    let orders = events.filter(|event| event["step"] == "order");
    Ok(orders
        .map(|event| event["detail"].as_str().unwrap_or_default().to_owned())
        .collect())
}

#[test]
fn an_order_is_for_one_boot_and_the_next_one_is_as_usual() -> Result {
    let cluster = cluster()?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    let node = cluster.played("r01n01")?;
    let said = cli(&["node", "boot", "r01n01", "--once", "image=debian@2"])?;
    expect(
        &said,
        "r01n01: the next boot boots debian@2; the one after it is as usual",
    );
    for command in [["status", "r01n01"], ["explain", "r01n01"]] {
        expect(&cli(&command)?, "image=debian@2");
    }
    expect(
        &cli(&["node", "show", "r01n01"])?,
        "image=debian@2 at its next boot (by ",
    );
    expect(&cli(&["node", "boot", "--list"])?, "waits for the next boot");
    for question in [
        &["explain", "r01n01"][..],
        &["node", "show", "r01n01"],
        &["status", "r01n01"],
    ] {
        let text = cluster.daemon.json(question)?.to_string();
        expect(&text, "\"once\":\"image=debian@2\"");
    }

    // Every attempt before the agent has the files is the same boot, also over a restart of the daemon.
    let first = node.boot()?;
    assert_eq!(first.plan()?["image"], "debian@2");
    cluster.daemon.stop()?;
    cluster.start_daemon()?;
    let mut second = node.boot()?;
    second.take_kernel()?;
    assert_eq!(
        (second.plan()?["image"].clone(), second.version.as_str()),
        (json!("debian@2"), "debian@2")
    );
    second.overlay(&no_disk(), &no_hardware())?;
    second.ready(&json!([]))?;
    assert_eq!(cluster.daemon.json(&["node", "boot", "--list"])?["orders"], json!([]));
    assert_eq!(cluster.status("r01n01")?["image"], "debian@2");
    assert_eq!(node.boot()?.plan()?["image"], "debian@1");
    let told = told(&cluster, "r01n01")?;
    expect(&told[0], "image=debian@2: the next boot boots debian@2 (ordered by ");
    expect(&told[1], "used: this boot boots debian@2 (ordered by ");
    assert_eq!(told.len(), 2, "{told:?}");

    // The boot says nothing about the versions that the node boots usually.
    let rollouts = cli(&["explain", "r01n01"])?;
    assert!(!rollouts.contains("rolled back"), "{rollouts}");
    cluster.daemon.stop()
}

#[test]
fn a_shell_has_no_disk_and_no_checks_and_the_node_is_degraded_meanwhile() -> Result {
    let cluster = cluster()?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    let node = cluster.played("r01n01")?;
    let usual = node.boot()?;
    assert_eq!(usual.plan()?["disk"]["layout"]["name"], "scratch");
    usual.overlay(&no_disk(), &no_hardware())?;
    usual.ready(&json!([]))?;
    usual.heartbeat()?;
    let said = cli(&["node", "boot", "r01n01", "--once", "rescue"])?;
    expect(
        &said,
        "r01n01 runs now, and the order waits for the next boot: rackstrap node restart 'r01n01'",
    );
    expect(&said, "debian@1 has neither sshd nor dropbear");

    for (ssh, order) in [("ssh=yes\n", "rescue"), ("ssh=no\n", "shell")] {
        cli(&["node", "boot", "r01n01", "--once", order])?;
        let boot = node.boot()?;
        let plan = boot.plan()?;
        assert_eq!((&plan["disk"], &plan["init"]), (&Value::Null, &json!("/bin/sh")));
        let overlay: Value = serde_json::from_str(&boot.overlay(&no_disk(), &no_hardware())?)?;
        let files = overlay["files"].as_array().context("files")?;
        let init = files.iter().find(|file| file["path"] == "/usr/lib/rackstrap/rescue");
        let text = init.context("no file for the shell")?["content"]["text"].as_str();
        expect(text.context("no text")?, ssh);
        boot.ready(&json!([]))?;
        boot.heartbeat()?;
        let status = cluster.status("r01n01")?;
        assert_eq!(status["state"], "degraded");
        expect(
            status["last_error"].as_str().unwrap_or_default(),
            &format!("runs {order}, by the order of "),
        );
    }
    let boot = node.boot()?;
    assert_eq!(boot.plan()?["disk"]["layout"]["name"], "scratch");
    boot.overlay(&no_disk(), &no_hardware())?;
    boot.ready(&json!([]))?;
    assert_eq!(cluster.status("r01n01")?["state"], "ready");
    cluster.daemon.stop()
}

#[test]
fn a_loader_starts_what_reports_nothing_and_asks_again_only_if_it_failed() -> Result {
    let cluster = cluster()?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    let node = cluster.played("r01n01")?;
    for (order, has) in [
        ("memtest", "set file memtest86+x64.bin"),
        ("local", "sanboot --no-describe --drive 0x80"),
        ("script:flash.ipxe.j2", "r01n01 flashes its firmware with "),
    ] {
        cli(&["node", "boot", "r01n01", "--once", order])?;
        expect(&script(&node, None)?, has);
        assert_eq!(cluster.status("r01n01")?["state"], "unmanaged", "{order}");
        expect(&script(&node, Some("boot"))?, has);
        expect(&script(&node, None)?, "boots debian@1");
    }
    let (status, file) = node.ask("GET", "/loader/memtest86+x64.efi", "", None)?;
    assert_eq!((status, file.as_str()), (200, "memtest86+x64.efi"));

    // A setting is for all boots.
    cli(&["node", "set", "r01n01", "boot=local"])?;
    for _ in 0..2 {
        expect(&script(&node, None)?, "sanboot");
    }
    expect(
        &cli(&["explain", "r01n01"])?,
        "boot = \"local\": its loader starts the system on its own disk",
    );
    cli(&["node", "boot", "r01n01", "--once", "image=debian@2"])?;
    expect(&script(&node, None)?, "boots debian@2");
    cli(&["node", "boot", "r01n01", "--cancel"])?;
    expect(&script(&node, None)?, "sanboot");
    cluster.daemon.stop()
}

#[test]
fn an_order_that_cannot_be_carried_out_is_refused_by_name() -> Result {
    let cluster = cluster()?;
    let refused = |arguments: &[&str], says: &str| {
        let error = format!("{:#}", cluster.daemon.cli(arguments).expect_err(says));
        expect(&error, says);
    };
    let node = cluster.played("r01n01")?;
    cluster
        .daemon
        .cli(&["node", "add", "r01n02", "--hwaddr", "52:54:00:00:01:02"])?;
    let board = cluster.namespace.client("52:54:00:00:01:02")?;
    let got = udhcpc(&board, &cluster, &["-V", "PXEClient:Arch:00011:UNDI:003016"])?;
    assert_eq!(variable(&got, "ip"), "10.5.1.2");
    for (order, says) in [
        (
            "disk",
            "write rescue, shell, local, memtest, script:FILE or image=NAME@VERSION",
        ),
        ("image=debian@9", "image=debian@9: image debian@9 does not exist"),
        ("script:other.ipxe.j2", "the site has no boot script other.ipxe.j2"),
    ] {
        refused(&["node", "boot", "r01n01", "--once", order], says);
    }
    refused(
        &["node", "boot", "r01n[01-02]", "--once", "memtest"],
        "r01n02: memtest: memtest86+ is for x86-64 only, and r01n02 is an arm64 machine",
    );
    assert_eq!(
        cluster.daemon.json(&["node", "boot", "--list"])?["orders"],
        json!([]),
        "all or none"
    );
    let nothing = cluster.daemon.cli(&["node", "boot", "r01n01", "--cancel"])?;
    expect(&nothing, "r01n01: no order waits");

    // What the server had when the order was given may be gone when the node boots: then it boots as usual.
    cluster
        .daemon
        .cli(&["node", "boot", "r01n01", "--once", "image=debian@2"])?;
    cluster.daemon.cli(&["image", "delete", "debian@2"])?;
    expect(&cluster.daemon.cli(&["explain", "r01n01"])?, "does not exist");
    assert_eq!(node.boot()?.plan()?["image"], "debian@1");
    let told = told(&cluster, "r01n01")?;
    expect(told.last().context("nothing told")?, "the node boots as usual");
    cluster.daemon.stop()
}
