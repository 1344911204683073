//! Orders for one boot on machines: a shell in RAM with the disk untouched, the disk's own system, memtest86+, and one partition made again. The
//! boot after each is as usual.

use super::GIB2;
use std::{fs, time::Duration};
use testbed::{
    Cluster, Firmware, Node, Result, Site,
    disk::Slice,
    ssh::{SshKey, log_in_without_key},
};

#[test]
fn a_rescue_shell_is_on_the_console_and_by_ssh_and_the_next_boot_is_as_usual() -> Result {
    // Debian, because the small root has no sshd.
    let mut site = Site::without_var();
    let cluster = Cluster::prepare(site.clone())?;
    let key = SshKey::make(cluster.dir())?;
    site.default_profile().authorized_keys = Some(vec![key.public()?]);
    cluster.daemon.write_site(&site)?;
    cluster.start_daemon()?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    let disk = node.disk()?;
    // It is blank, so that a usual boot prepares it.
    disk.write(GIB2 / 2, b"in the middle of a blank disk")?;
    let before = disk.copy("before.raw")?;
    node.add()?;
    cluster.daemon.cli(&["node", "boot", "r01n01", "--once", "rescue"])?;

    node.power_on()?;
    node.wait_ready()?;
    node.wait_state("degraded")?;
    assert!(node.status("last_error")?.contains("runs rescue, by the order of"));
    node.wait_console("a shell in RAM on r01n01")?;
    assert_eq!(node.shell("id -un")?, "root");
    let init = node.shell("tr '\\0' ' ' < /proc/1/cmdline")?;
    assert_eq!(init, "/bin/sh /usr/lib/rackstrap/rescue");
    assert_eq!(node.shell("grep -c ^/dev/vda /proc/mounts || true")?, "0");
    // A terminal of its own: Ctrl-C ends a command, and not the shell.
    assert_eq!(node.shell("tty")?, "/dev/ttyS0");
    let command = "id -un; hostname; head -c 5 /dev/vda | wc -c";
    let said = key.log_in(&cluster.namespace, "10.5.1.1", command)?;
    assert_eq!(said.trim(), "root\nr01n01\n5");
    assert!(log_in_without_key(&cluster.namespace, "10.5.1.1", "true").is_err());
    disk.expect_same(&before)?;

    // ssh knows the node's key by what the server exports, under its name and its address, and takes no other key.
    let known = cluster.dir().join("known_hosts");
    let export = ["export", "known_hosts", "--output", &known.display().to_string()];
    cluster.daemon.cli(&export)?;
    let log_in = |name: &str| key.log_in_known(&cluster.namespace, &known, name, "10.5.1.1", "hostname");
    for name in ["r01n01", "10.5.1.1"] {
        assert_eq!(log_in(name)?.trim(), "r01n01");
    }
    fs::write(&known, format!("r01n01 {}\n", key.public()?))?;
    let refused = format!("{:#}", log_in("r01n01").expect_err("another key"));
    assert!(refused.contains("Host key verification failed"), "{refused}");

    node.pull_plug();
    node.power_on()?;
    assert!(node.wait_disk()?.contains("vda (prepared: "));
    node.pull_plug();
    assert!(disk.expect_same(&before).is_err());

    // One partition again, once.
    let prepared = disk.slices()?;
    let said = cluster
        .daemon
        .cli(&["node", "reprep", "r01n01", "--partition", "tmp", "--yes"])?;
    assert!(
        said.contains("the next boot makes the file system of tmp again"),
        "{said}"
    );
    let uuids = |slices: &[Slice]| -> Vec<(String, String)> {
        let all = slices.iter().map(|slice| (slice.name.clone(), slice.uuid.clone()));
        all.collect()
    };
    let mut before = uuids(&prepared);
    for again in [true, false] {
        node.power_on()?;
        assert!(node.wait_disk()?.contains("vda (kept: scratch v1)"));
        node.pull_plug();
        let now = uuids(&disk.slices()?);
        for (old, new) in before.iter().zip(&now) {
            assert_eq!(old == new, !(again && old.0 == "tmp"), "{old:?} and {new:?}");
        }
        before = now;
    }
    Ok(())
}

/// A boot sector that prints [`OWN_SYSTEM`] on the first serial line, and stops. QEMU's UART takes bytes without a pause.
const BOOT_SECTOR: [u8; 22] = [
    0xfa, // cli
    0x31, 0xc0, 0x8e, 0xd8, // ds = 0
    0xbe, 0x16, 0x7c, // si = the text behind this program, at 0x7c00 + 22
    0xac, // lodsb
    0x84, 0xc0, 0x74, 0x06, // at its end: stop
    0xba, 0xf8, 0x03, 0xee, // out of COM1
    0xeb, 0xf5, // the next byte
    0xf4, 0xeb, 0xfd, // hlt, again
];
const OWN_SYSTEM: &[u8] = b"the system on the disk runs\r\n\0";

/// Switches the node on for one boot by `order`.
fn boot_once(cluster: &Cluster, node: &Node<'_>, order: &str) -> Result {
    node.pull_plug();
    cluster.daemon.cli(&["node", "boot", node.name(), "--once", order])?;
    node.power_on()
}

/// Switches the node on, and waits until its loader has the script of the usual boot.
fn expect_usual(node: &Node<'_>) -> Result {
    node.pull_plug();
    node.power_on()?;
    let event = node.wait_event("a boot script", |event| event.step == "script")?;
    assert!(event.detail.contains("boots small@1"), "{event}");
    assert!(!event.detail.contains("order"), "{event}");
    Ok(())
}

#[test]
fn the_own_system_memtest_and_a_shell_run_for_one_boot() -> Result {
    let cluster = Cluster::start_small(Site::small())?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    let disk = node.disk()?;
    disk.write(0, &[&BOOT_SECTOR[..], OWN_SYSTEM].concat())?;
    disk.write(510, &[0x55, 0xaa])?;
    let before = disk.copy("before.raw")?;
    node.add()?;

    boot_once(&cluster, &node, "local")?;
    node.wait_console("the system on the disk runs")?;
    node.wait_state("unmanaged")?;
    expect_usual(&node)?;

    boot_once(&cluster, &node, "memtest")?;
    node.wait_console("Memtest86")?;
    node.wait_state("unmanaged")?;
    expect_usual(&node)?;

    // Another machine does the same with UEFI.
    let uefi = cluster.node("r01n02").firmware(Firmware::UefiRom);
    uefi.add()?;
    boot_once(&cluster, &uefi, "memtest")?;

    // The small root has no sshd: a shell on the console is all that the agent can see of the boot's end.
    boot_once(&cluster, &node, "shell")?;
    node.wait_ready()?;
    node.wait_state("degraded")?;
    assert!(node.status("last_error")?.contains("runs shell, by the order of"));
    // By these two the agent saw at once that somebody can log in.
    assert_eq!(node.shell("tty")?, "/dev/ttyS0");
    assert_eq!(
        node.shell("cut -d ' ' -f 4 /proc/$PPID/stat")?,
        "1",
        "the parent of its parent"
    );
    // Ctrl-C ends a command. The terminal echoes what is typed, so the word is typed in halves.
    node.console().send("echo it-'runs'; sleep 1000000\n")?;
    node.wait_console("it-runs")?;
    node.console().send("\x03")?;
    assert_eq!(node.shell("echo ended")?, "ended");
    assert_eq!(node.shell("grep -c ^/dev/vda /proc/mounts || true")?, "0");
    // A shell that ends starts again.
    let first = node.shell("echo $$")?;
    node.console().send("exit\n")?;
    node.wait_until("another shell", || {
        let now = node.console().shell("echo $$", Duration::from_secs(20))?;
        Ok((now != first).then_some(()))
    })?;
    // memtest86+ for UEFI needs a display. This machine has none, and memtest86+ says so.
    uefi.wait_console("efi_setup() failed")?;
    uefi.pull_plug();

    node.pull_plug();
    node.power_on()?;
    node.wait_ready()?;
    assert!(!node.shell("tr '\\0' ' ' < /proc/1/cmdline")?.contains("rescue"));
    disk.expect_same(&before)
}
