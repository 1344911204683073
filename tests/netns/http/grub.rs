//! GRUB's scripts, by TFTP and HTTP: the same decision and pinning as iPXE's, also for a user of the node. GRUB's language is nearly the
//! shell's, so `grub/play.sh` runs the scripts as GRUB does, with GRUB's commands as functions.

use super::{BASE, Lab, PATIENCE, fetch, user::up};
use anyhow::{Context, ensure};
use std::{fs, path::Path};
use testbed::{Namespace, Result, process::output, timeline::poll};

const TFTP: &str = "tftp://10.5.0.1";

/// What curl gets by either protocol; an error if the server refuses.
fn get(from: &Namespace, url: &str) -> Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new()?;
    let mut command = from.command("curl");
    command
        .args(["-sS", "-f", "-m", "120", "--globoff", "-o"])
        .arg(file.path());
    output(command.arg(url))?;
    Ok(fs::read(file.path())?)
}

fn text(from: &Namespace, url: &str) -> Result<String> {
    Ok(String::from_utf8(get(from, url)?)?)
}

/// The steps of a timeline since its beginning, each with level and detail.
fn events(lab: &Lab, of: &str) -> Result<Vec<String>> {
    let timeline = lab.cluster.daemon.json(&["timeline", of])?;
    let events = timeline["events"].as_array().context("no events")?;
    let field = |event: &serde_json::Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    Ok(events
        .iter()
        .map(|event| {
            format!(
                "{} {} {}",
                field(event, "step"),
                field(event, "level"),
                field(event, "detail")
            )
        })
        .collect())
}

#[test]
fn grub_gets_its_script_its_kernel_and_its_initramfs_by_tftp_and_http() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    let mac = node.mac.replace('-', ":");
    for (index, at) in [TFTP, BASE].into_iter().enumerate() {
        let first = text(&node.namespace, &format!("{at}/grub/x86_64-efi/grub.cfg"))?;
        ensure!(
            first.contains("'(http,10.5.0.1)'") && first.contains("while true") && !first.contains("rackstrap.token"),
            "{first}"
        );
        let script = text(
            &node.namespace,
            &format!("{at}/grub/script/mac-{mac}/failed-/lockdown-y"),
        )?;
        let boot = script
            .split_once("/boot/")
            .and_then(|(_, rest)| rest.split_once("/kernel"))
            .with_context(|| script.clone())?
            .0;
        ensure!(script.contains("rackstrap.token="), "{script}");
        for file in ["kernel", "initramfs"] {
            let got = get(&node.namespace, &format!("{at}/boot/{boot}/{file}"))?;
            ensure!(
                got == fs::read(lab.image_file(file))?,
                "{file} by {at} has {} bytes",
                got.len()
            );
            let sent = format!("{file} ok sent");
            let recorded = poll(PATIENCE, || {
                let all = events(&lab, "r01n01")?;
                Ok((all.iter().filter(|line| **line == sent).count() > index).then_some(()))
            })?;
            ensure!(recorded.is_some(), "{:?}", events(&lab, "r01n01")?);
        }
        let of_address = text(&node.namespace, &format!("{at}/grub/script/mac-/failed-/lockdown-"))?;
        ensure!(of_address.contains("rackstrap.token="), "{of_address}");
        // Files that GRUB looks for and does without are no failures of the node.
        ensure!(get(&node.namespace, &format!("{at}/grub/x86_64-efi/command.lst")).is_err());
    }
    let row = lab.cluster.status("r01n01")?;
    assert_eq!(row["last_error"], "", "{row}");

    let failed = format!("{TFTP}/grub/script/mac-{mac}/failed-kernel/lockdown-y");
    text(&node.namespace, &failed)?;
    let row = lab.cluster.status("r01n01")?;
    let why = row["last_error"].as_str().unwrap_or_default();
    ensure!(why.contains("Secure Boot is on") && why.contains("mokutil"), "{row}");
    lab.cluster.daemon.stop()
}

#[test]
fn by_grubs_names_also_a_user_gets_no_token_and_no_machine_speaks_for_another() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    let mac = node.mac.replace('-', ":");
    let own = format!("grub/script/mac-{mac}/failed-/lockdown-");
    // A machine with a temporary address asks in the name of a node, and a node in that of another machine.
    let other = format!("grub/script/mac-{}/failed-kernel/lockdown-y", "52:54:00:00:09:09");
    for at in [TFTP, BASE] {
        let script = text(&lab.stranger, &format!("{at}/{own}"))?;
        ensure!(
            script.contains("this machine is r01n01 now") && script.contains("reboot"),
            "{script}"
        );
        let script = text(&node.namespace, &format!("{at}/{other}"))?;
        ensure!(script.contains("10.5.1.1 is not the address of"), "{script}");
        let waits = text(&lab.stranger, &format!("{at}/{other}"))?;
        ensure!(
            waits.contains("waiting to be racked") && waits.contains("set pause=") && !waits.contains("reboot"),
            "{waits}"
        );
        for script in [script, waits] {
            ensure!(!script.contains("rackstrap.token"), "{script}");
        }
    }
    let before = events(&lab, "r01n01")?;
    ensure!(!before.iter().any(|line| line.contains("did not load")), "{before:?}");

    for at in [TFTP, BASE] {
        ensure!(get(&lab.stranger, &format!("{at}/boot/{}/kernel", node.boot)).is_err());
    }

    // The files of the boot close the window: what follows comes from the running system.
    up(node)?;
    for at in [TFTP, BASE] {
        let script = text(&node.namespace, &format!("{at}/{own}"))?;
        ensure!(
            script.contains("has to ask DHCP") && !script.contains("rackstrap.token"),
            "{script}"
        );
    }
    for name in ["grub/script/mac-x/failed-/lockdown-", "grub/script", "grub/script/mac-"] {
        let (status, _, _) = fetch(&node.namespace, &format!("{BASE}/{name}"), &[])?;
        assert_eq!(status, 404, "{name}");
    }
    lab.cluster.daemon.stop()
}

/// Runs GRUB's first script in the machine until it has paused `pauses` times, and returns what GRUB did. The firmware refuses each kernel.
/// `http` is whether this GRUB has its module for HTTP.
fn played(lab: &Lab, http: bool, pauses: u8) -> Result<Vec<String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netns/http/grub/play.sh");
    let mut command = lab.node.namespace.command("bash");
    command.arg(script);
    command.args([if http { "y" } else { "" }, &pauses.to_string()]);
    command.args([lab.node.mac.replace('-', ":").as_str(), "10.5.0.1"]);
    Ok(output(&mut command)?.lines().map(str::to_owned).collect())
}

#[test]
fn after_a_refused_kernel_grub_asks_once_and_is_answered() -> Result {
    let lab = Lab::start()?;
    // Debian's signed GRUB of 2.06 lacks HTTP, and says that it loaded the module.
    let done = played(&lab, false, 3)?;
    ensure!(
        !done
            .iter()
            .any(|line| line.contains("no script from") || line.starts_with("http ")),
        "{done:#?}"
    );
    let count = |what: &str| done.iter().filter(|line| line.starts_with(what)).count();
    // One script and one kernel for each pause.
    assert_eq!(count("sleep"), 3, "{done:#?}");
    assert_eq!(count("tftp /grub/script/"), 3, "{done:#?}");
    assert_eq!(count("tftp /boot/"), 3, "{done:#?}");
    assert_eq!(count("tftp "), 6, "{done:#?}");
    let named = done
        .iter()
        .filter(|line| line.contains("/failed-kernel/lockdown-y/x86_64-efi"));
    assert_eq!(named.count(), 2, "{done:#?}");
    let row = lab.cluster.status("r01n01")?;
    let why = row["last_error"].as_str().unwrap_or_default();
    ensure!(why.contains("Secure Boot is on"), "{row}");

    // A GRUB with both takes them in turn for kernels, and never pauses for want of an answer either.
    let done = played(&lab, true, 4)?;
    ensure!(!done.iter().any(|line| line.contains("no script from")), "{done:#?}");
    let kernels: Vec<&str> = done
        .iter()
        .filter(|line| line.contains(" /boot/"))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(kernels, ["http", "tftp", "http", "tftp"], "{done:#?}");
    lab.cluster.daemon.stop()
}
