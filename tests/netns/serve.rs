//! The whole daemon without a virtual machine: ordinary clients in namespaces take each step of a boot.

use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
    thread,
    time::Duration,
};
use testbed::{Binaries, Cluster, Daemon, Namespace, Result, Site, played::argument, process::output, timeline::poll};

const MAC: &str = "52:54:00:00:01:01";

/// The result of udhcpc, as the environment of its script.
pub(super) fn udhcpc(client: &Namespace, cluster: &Cluster, more: &[&str]) -> Result<String> {
    let script = cluster.dir().join("udhcpc.sh");
    // Configuring the interface is the script's job, and so is printing the environment.
    let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip address flush dev $interface\n\
                ip address add $ip/$mask dev $interface\nenv\n";
    fs::write(&script, text)?;
    output(Command::new("chmod").arg("+x").arg(&script))?;
    let mut command = client.command("udhcpc");
    command.args([
        "-i", "eth0", "-f", "-n", "-q", "-t", "60", "-T", "1", "-O", "bootfile", "-s",
    ]);
    output(command.arg(&script).args(more))
}

pub(super) fn variable<'a>(environment: &'a str, name: &str) -> &'a str {
    let found = environment
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_default().trim_matches('\'')
}

/// Options that let curl ask from an agent's port, below 1024.
pub(super) const AS_AGENT: [&str; 2] = ["--local-port", "512-1023"];

/// Status and body of a `GET` or, with `body`, of a `POST`.
pub(super) fn curl(client: &Namespace, url: &str, token: &str, body: Option<&Value>) -> Result<(u16, String)> {
    let mut command = client.command("curl");
    command.args([
        "-sS",
        "-m",
        "30",
        "-w",
        "\n%{http_code}",
        "-H",
        &format!("Authorization: Bearer {token}"),
    ]);
    if url.contains("/v1/") {
        command.args(AS_AGENT);
    }
    if let Some(body) = body {
        command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
    }
    let text = output(command.arg(url))?;
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
    Ok((status.trim().parse()?, body.to_owned()))
}

fn steps(cluster: &Cluster) -> Result<Vec<String>> {
    let timeline = cluster.daemon.json(&["timeline", "r01n01"])?;
    let events = timeline["events"].as_array().cloned().unwrap_or_default();
    Ok(events
        .iter()
        .filter_map(|event| event["step"].as_str().map(str::to_owned))
        .collect())
}

#[test]
fn a_node_that_starts_a_system_of_its_own_disk_is_named_in_status() -> Result {
    let cluster = Cluster::start(Site::demo())?;
    cluster.daemon.cli(&["node", "add", "r01n01", "--hwaddr", MAC])?;
    let node = cluster.namespace.client(MAC)?;
    // Its firmware asks the network, and goes on to the disk without a kernel.
    udhcpc(&node, &cluster, &["-V", "PXEClient:Arch:00000:UNDI:002001"])?;
    assert_eq!(cluster.status("r01n01")?["last_error"], "");
    assert!(!steps(&cluster)?.contains(&"own-system".to_owned()));
    udhcpc(&node, &cluster, &["-x", "hostname:debian"])?;
    let named = poll(Duration::from_secs(60), || {
        let error = cluster.status("r01n01")?["last_error"].to_string();
        Ok(error
            .contains("runs a system that this server did not boot")
            .then_some(error))
    })?;
    let named = named.unwrap_or_default();
    assert!(
        named.contains("with the host name \\\"debian\\\", probably from its own disk"),
        "{named}"
    );
    cluster.daemon.stop()
}

#[test]
fn a_client_takes_each_step_of_a_boot_and_other_machines_cannot() -> Result {
    let cluster = Cluster::start(Site::demo())?;
    cluster.daemon.cli(&["node", "add", "r01n01", "--hwaddr", MAC])?;
    let node = cluster.namespace.client(MAC)?;
    let other = cluster.namespace.client("52:54:00:00:09:09")?;

    // As iPXE, by its user class (option 77).
    let got = udhcpc(&node, &cluster, &["-x", "77:69505845"])?;
    assert_eq!((variable(&got, "ip"), variable(&got, "mask")), ("10.5.1.1", "16"));
    let url = variable(&got, "boot_file");
    assert!(url.starts_with("http://10.5.0.1"), "{got}");

    let (status, script) = curl(&node, url, "", None)?;
    assert!(status == 200 && script.starts_with("#!ipxe"), "{status}: {script}");
    let (boot, token) = (argument(&script, "plan"), argument(&script, "token"));
    assert!(!boot.is_empty() && !token.is_empty(), "{script}");
    let base = "http://10.5.0.1";
    let image = cluster.daemon.state_dir().join("images/debian/1");
    for file in ["kernel", "initramfs"] {
        let fetched = cluster.dir().join(file);
        let mut command = node.command("curl");
        command
            .args(["-sS", "-f", "-m", "60", "-o"])
            .arg(&fetched)
            .arg(format!("{base}/boot/{boot}/{file}"));
        output(&mut command)?;
        assert!(
            fs::read(&fetched)? == fs::read(image.join(file))?,
            "{file} differs from the image's"
        );
    }

    let plan_url = format!("{base}/v1/plan/{boot}");
    let (status, plan) = curl(&node, &plan_url, token, None)?;
    let plan: Value = serde_json::from_str(&plan)?;
    assert_eq!(
        (status, plan["node"].as_str(), plan["image"].as_str()),
        (200, Some("r01n01"), Some("debian@1"))
    );
    // Without its token, and with it from another machine, the plan is refused.
    assert_eq!(curl(&node, &plan_url, "0", None)?.0, 403);
    let stranger = udhcpc(&other, &cluster, &[])?;
    assert!(variable(&stranger, "ip").starts_with("10.5.255."), "{stranger}");
    assert_eq!(curl(&other, &plan_url, token, None)?.0, 403);

    expect_nfs_for_the_node_only(&node, &other, &image.join("kernel"))?;

    let disk = json!({"status": {"state": "kept", "layout": "scratch v1"}, "device": "vda", "size": 1, "mounts": []});
    let hardware = json!({"cpus": 1, "memory_mib": 512, "vendor": "", "product": "", "serial": "", "hwaddrs": [MAC]});
    let request = json!({"token": token, "disk": disk, "hardware": hardware});
    let overlay_url = format!("{base}/v1/overlay/{boot}");
    let (status, overlay) = curl(&node, &overlay_url, "", Some(&request))?;
    assert!(status == 200 && overlay.contains("PRIVATE KEY"), "{status}: {overlay}");
    let (status, again) = curl(&node, &overlay_url, "", Some(&request))?;
    assert!(
        status == 409 && !again.contains("PRIVATE KEY"),
        "secrets went out twice: {status}: {again}"
    );

    let ready = json!({"token": token, "uptime_ms": 1234, "detail": "a test"});
    assert_eq!(
        curl(&node, &format!("{base}/v1/ready/{boot}"), "", Some(&ready))?.0,
        204
    );
    assert_eq!(cluster.status("r01n01")?["state"], "ready");
    let expected = [
        "dhcp discover",
        "dhcp request",
        "script",
        "kernel",
        "initramfs",
        "plan",
        "overlay",
        "ready",
    ];
    let seen = steps(&cluster)?;
    let mut order = seen.iter();
    for step in expected {
        assert!(
            order.any(|s| s == step),
            "{step} is missing, or not in its place, in {seen:?}"
        );
    }
    assert!(seen.iter().any(|step| step == "nfs mount"), "{seen:?}");

    // Long after it was acknowledged, the boot and the timeline survive kill -9.
    thread::sleep(Duration::from_secs(2));
    cluster.daemon.kill();
    cluster.start_daemon()?;
    assert_eq!(steps(&cluster)?, seen);
    assert_eq!(cluster.status("r01n01")?["state"], "ready");
    let beat = json!({"token": token, "uptime_ms": 2345, "trouble": ""});
    assert_eq!(
        curl(&node, &format!("{base}/v1/heartbeat/{boot}"), "", Some(&beat))?.0,
        204
    );
    cluster.daemon.stop()
}

/// libnfs' tools read the root from the node's address, and are refused from another one.
fn expect_nfs_for_the_node_only(node: &Namespace, other: &Namespace, kernel_of_image: &Path) -> Result {
    let url = |path: &str| format!("nfs://10.5.0.1/debian@1{path}?version=3&nfsport=2049&mountport=2049");
    let listing = output(node.command("nfs-ls").arg(url("")))?;
    for name in ["bin", "etc", "usr"] {
        assert!(listing.lines().any(|line| line.ends_with(name)), "{listing}");
    }
    // nfs-cat mounts the path up to the last slash, and follows this link to /boot.
    let kernel = node.command("nfs-cat").arg(url("/vmlinuz")).output()?.stdout;
    assert!(
        kernel == fs::read(kernel_of_image)?,
        "the kernel read by NFS, {} bytes, differs",
        kernel.len()
    );
    let refused = other.command("nfs-ls").arg(url("")).output()?;
    assert!(!refused.status.success(), "another machine mounted the node's root");
    Ok(())
}

#[test]
fn sighup_loads_a_valid_site_file_and_rejects_an_invalid_one() -> Result {
    let mut site = Site::demo();
    let cluster = Cluster::start(site.clone())?;
    let version = |cluster: &Cluster| -> Result<Option<u64>> {
        let layouts = cluster.daemon.json(&["layout", "list"])?;
        Ok(layouts[0]["version"].as_u64())
    };
    assert_eq!(version(&cluster)?, Some(1));
    site.scratch().version = 2;
    cluster.daemon.write_site(&site)?;
    cluster.daemon.hang_up()?;
    let changed = poll(Duration::from_secs(30), || {
        Ok((version(&cluster)? == Some(2)).then_some(()))
    })?;
    assert!(
        changed.is_some(),
        "SIGHUP changed nothing:\n{}",
        cluster.daemon.log_tail(10)
    );

    site.scratch().version = 3;
    site.scratch().partitions[0].size = "rest".to_owned();
    cluster.daemon.write_site(&site)?;
    cluster.daemon.hang_up()?;
    let said = poll(Duration::from_secs(30), || {
        Ok(cluster
            .daemon
            .log()
            .lines()
            .find(|line| line.contains("stays in use"))
            .map(str::to_owned))
    })?;
    assert!(
        said.is_some(),
        "the daemon says nothing about a bad file:\n{}",
        cluster.daemon.log_tail(10)
    );
    assert_eq!(version(&cluster)?, Some(2));
    cluster.daemon.stop()
}

#[test]
fn a_failed_start_is_reported_in_one_line() -> Result {
    let binaries = Binaries::get()?;
    let namespace = Namespace::with_bridge()?;
    let dir = tempfile::tempdir()?;
    let new = |name: &str| Daemon::new(&binaries, dir.path().join(name), &Site::demo(), &[]);
    let serve = |command: &mut Command, daemon: &Daemon| -> Result<String> {
        expect_one_line(&command.args(["serve", "--config"]).arg(daemon.config()).output()?)
    };

    // Another daemon has the ports; a daemon with the same state directory is refused too.
    let (first, second) = (new("first")?, new("second")?);
    first.start(&namespace)?;
    let line = serve(&mut namespace.command(&binaries.daemon), &second)?;
    assert!(line.contains("in use"), "{line}");
    let line = serve(&mut namespace.command(&binaries.daemon), &first)?;
    assert!(line.contains("first"), "{line}");
    first.stop()?;

    // A namespace without br0.
    let line = serve(&mut Namespace::empty()?.command(&binaries.daemon), &second)?;
    assert!(line.contains("br0"), "{line}");

    // Ports below 1024 need root. Other users may have no access to the checkout.
    let copy = dir.path().join("rackstrap");
    fs::copy(&binaries.daemon, &copy)?;
    output(Command::new("chown").args(["-R", "65534"]).arg(dir.path()))?;
    let mut command = namespace.command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy);
    let line = serve(&mut command, &second)?;
    assert!(line.contains("root"), "{line}");
    Ok(())
}

/// Checks for status 1 and one line on stderr that begins with the program's name.
fn expect_one_line(done: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("rackstrap: "), "{text}");
    Ok(text)
}

/// Firmware without a boot loader in rackstrap: it asks for ever, so the reason must be visible.
#[test]
fn firmware_without_a_loader_is_reported_everywhere() -> Result {
    let cluster = Cluster::start(Site::demo())?;
    cluster.daemon.cli(&["node", "add", "r01n01", "--hwaddr", MAC])?;
    let client = cluster.namespace.client(MAC)?;
    let unknown = "52:54:00:00:09:09";
    let waiting = cluster.namespace.client(unknown)?;
    // Only the vendor class names its architecture: 32-bit ARM.
    let class = ["-V", "PXEClient:Arch:00010:UNDI:003000"];
    for machine in [&client, &waiting] {
        let got = udhcpc(machine, &cluster, &class)?;
        assert_eq!(variable(&got, "bootfile"), "", "{got}");
    }
    let said = "no loader for arm-efi (10), ARM 32-bit UEFI: add [loader.NAME] with arch = [\"arm-efi\"]";
    for name in ["r01n01", unknown] {
        let row = poll(Duration::from_secs(60), || {
            let row = cluster.status(name)?;
            Ok(row["last_error"]
                .as_str()
                .unwrap_or_default()
                .contains(said)
                .then_some(row))
        })?;
        assert!(row.is_some(), "{}", cluster.status(name)?);
        for command in ["timeline", "explain"] {
            let text = cluster.daemon.cli(&[command, name])?;
            assert!(text.contains(said), "{command}: {text}");
        }
        // DISCOVER and REQUEST are one attempt.
        assert_eq!(no_loader_events(&cluster, name)?, 1);
    }
    let listed = cluster.daemon.cli(&["discover", "list", "--json"])?;
    assert!(listed.contains("no loader for arm-efi (10)"), "{listed}");
    let loaders = loaders(&cluster)?;
    assert_eq!(loaders.status.code(), Some(1), "{loaders:?}");
    let text = String::from_utf8_lossy(&loaders.stdout).into_owned();
    assert!(
        text.contains(said) && text.contains("r01n01") && text.contains(unknown),
        "{text}"
    );

    // The remedy that the message names.
    let own = cluster.dir().join("arm.efi");
    fs::write(&own, "an arm loader")?;
    let mut config = fs::read_to_string(cluster.daemon.config())?;
    config += &format!("\n[loader.own]\nfile = \"{}\"\narch = [\"arm-efi\"]\n", own.display());
    fs::write(cluster.daemon.config(), config)?;
    cluster.daemon.cli(&["reload"])?;
    for machine in [&client, &waiting] {
        let got = udhcpc(machine, &cluster, &class)?;
        assert_eq!(variable(&got, "bootfile"), "loader.own/arm.efi", "{got}");
        let url = format!("http://{}/loader/loader.own/arm.efi", variable(&got, "serverid"));
        assert_eq!(curl(machine, &url, "", None)?, (200, "an arm loader".to_owned()));
        let url = url.replace("arm.efi", "none.efi");
        assert_eq!(curl(machine, &url, "", None)?.0, 404);
    }
    for name in ["r01n01", unknown] {
        assert_eq!(no_loader_events(&cluster, name)?, 1, "none was added");
    }
    let explained = cluster.daemon.cli(&["explain", "r01n01"])?;
    assert!(
        explained.contains("which loads loader.own/arm.efi first: [loader.own] of the site file, for arm-efi")
            && explained.contains("vendor class PXEClient:Arch:00010:UNDI:003000"),
        "{explained}"
    );
    assert_eq!(cluster.status(unknown)?["last_error"], "");
    let loaders = self::loaders(&cluster)?;
    let text = String::from_utf8_lossy(&loaders.stdout).into_owned();
    assert!(loaders.status.success() && text.contains("arm.efi"), "{text}");
    let own = text.lines().find(|line| line.contains("own")).unwrap_or_default();
    assert!(own.contains("ready") && own.contains("r01n01"), "{text}");

    // UEFI that rackstrap can boot is explained too.
    udhcpc(&client, &cluster, &["-V", "PXEClient:Arch:00007:UNDI:003016"])?;
    let explained = cluster.daemon.cli(&["explain", "r01n01"])?;
    assert!(
        explained.contains("x64 UEFI (architecture 7, vendor class PXEClient:Arch:00007:UNDI:003016), which loads")
            && explained.contains("snponly.efi first, then iPXE's script by HTTP: the default loader"),
        "{explained}"
    );
    cluster.daemon.stop()
}

/// Rows of that kind on a timeline, with their repetitions.
fn no_loader_events(cluster: &Cluster, name: &str) -> Result<u64> {
    let text = cluster.daemon.cli(&["timeline", name, "--json"])?;
    let timeline: Value = serde_json::from_str(&text)?;
    let events = timeline["events"].as_array().cloned().unwrap_or_default();
    let ours = events.iter().filter(|event| event["step"] == "no-loader");
    Ok(ours.map(|event| event["count"].as_u64().unwrap_or(1)).sum())
}

/// `rackstrap loaders`, which ends with 1 if something is missing.
fn loaders(cluster: &Cluster) -> Result<Output> {
    let mut command = Command::new(&Binaries::get()?.daemon);
    Ok(command
        .arg("--config")
        .arg(cluster.daemon.config())
        .arg("loaders")
        .output()?)
}

/// An arm64 machine would load an amd64 kernel and hang without a message.
#[test]
fn a_machine_of_another_architecture_gets_no_kernel_and_an_explanation() -> Result {
    let cluster = Cluster::start(Site::demo())?;
    cluster.daemon.cli(&["node", "add", "r01n01", "--hwaddr", MAC])?;
    let node = cluster.namespace.client(MAC)?;
    // Firmware of arm64, then iPXE on it, by their options 60, 77 and 93.
    udhcpc(&node, &cluster, &["-V", "PXEClient:Arch:00011:UNDI:003016"])?;
    let got = udhcpc(&node, &cluster, &["-x", "77:69505845", "-x", "93:000b"])?;
    let (status, script) = curl(&node, variable(&got, "boot_file"), "", None)?;
    assert!(status == 200 && script.starts_with("#!ipxe"), "{status}: {script}");
    let said = "image debian@1 has no variant for arm64, and node r01n01 is an arm64 machine; it has amd64";
    assert!(
        script.contains(said) && !script.contains("/kernel") && argument(&script, "plan").is_empty(),
        "{script}"
    );
    let row = cluster.status("r01n01")?;
    assert!(row["last_error"].as_str().unwrap_or_default().contains(said), "{row}");
    for command in ["timeline", "explain"] {
        let text = cluster.daemon.cli(&[command, "r01n01"])?;
        assert!(text.contains(said), "{command}: {text}");
    }
    let explained = cluster.daemon.cli(&["explain", "r01n01"])?;
    assert!(
        explained.contains("rackstrap image import debian@1 --arch arm64 --from TREE")
            && explained.contains("arm64 UEFI"),
        "{explained}"
    );
    let images = cluster.daemon.cli(&["image", "list"])?;
    assert!(images.contains("ARCH") && images.contains("amd64"), "{images}");
    // A machine that can boot the image replaces it.
    let got = udhcpc(&node, &cluster, &["-x", "77:69505845", "-x", "93:0007"])?;
    let (_, script) = curl(&node, variable(&got, "boot_file"), "", None)?;
    assert!(
        script.contains("/kernel") && !argument(&script, "plan").is_empty(),
        "{script}"
    );
    // A daemon that never heard its firmware has iPXE's own word for it.
    cluster.daemon.stop()?;
    cluster.start_daemon()?;
    let got = udhcpc(&node, &cluster, &["-x", "77:69505845"])?;
    let url = variable(&got, "boot_file");
    assert!(url.ends_with("&arch=${buildarch}&tried=${tried}"), "{url}");
    // The loader on a disk counts its attempts in vain. Any other iPXE knows no such number, and other texts are none.
    for (built_for, boots, tried) in [("arm64", false, ""), ("x86_64", true, "5"), ("i386", true, "-7")] {
        let url = url.replace("${buildarch}", built_for).replace("${tried}", tried);
        let (_, script) = curl(&node, &url, "", None)?;
        assert_eq!(
            (script.contains("/kernel"), script.contains(said)),
            (boots, !boots),
            "{built_for}: {script}"
        );
    }
    let text = cluster.daemon.cli(&["timeline", "r01n01"])?;
    assert_eq!(text.matches("asked the network").count(), 1, "{text}");
    assert!(
        text.contains("the loader on its disk asked the network 5 times in vain"),
        "{text}"
    );
    let row = cluster.status("r01n01")?;
    assert_eq!(row["retries"]["script"], 5, "{row}");
    cluster.daemon.stop()
}
