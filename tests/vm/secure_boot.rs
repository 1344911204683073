//! Secure Boot, enforced by OVMF with Microsoft's keys: shim, GRUB, its script, a signed kernel; and an unsigned one, which the machine refuses
//! and names.

use super::GIB2;
use std::{fs, process::Command};
use testbed::{Binaries, Cluster, Firmware, Result, Site, process::output};

/// Debian's signed loaders, straight from their packages.
pub const LOADER: &str =
    "[loader.secure]\nfile = \"shimx64.efi.signed\"\narch = [\"x86_64-efi\", \"x86_64-efi-http\"]\n";

#[test]
fn a_machine_with_secure_boot_gets_ready_and_an_unsigned_kernel_is_named() -> Result {
    let mut site = Site::small();
    site.more = LOADER.to_owned();
    // Two attempts with the unsigned kernel, so that its refusal is the last error for a while; then the version before it.
    site.boots_before_going_back = Some(2);
    let cluster = Cluster::start_small(site)?;
    let node = cluster.node("r01n01").firmware(Firmware::SecureBoot).blank_disk(GIB2)?;
    node.power_on()?;
    for file in ["shimx64.efi.signed", "grubx64.efi"] {
        let sent = format!("{file}: ");
        node.wait_event(file, |event| event.step == "tftp" && event.detail.starts_with(&sent))?;
    }
    node.wait_ready()?;
    // The agent has mounted it, and moved it to the new root with /sys.
    node.shell("grep -q efivarfs /proc/mounts || mount -t efivarfs efivarfs /sys/firmware/efi/efivars")?;
    // Four bytes of attributes come before the value.
    let variable =
        node.shell("od -An -tu1 < /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")?;
    assert_eq!(variable.split_whitespace().next_back(), Some("1"), "{variable}");
    let explained = cluster.daemon.cli(&["explain", "r01n01"])?;
    assert!(
        explained.contains("shimx64.efi.signed first, then grubx64.efi"),
        "{explained}"
    );
    node.pull_plug();

    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    cli(&["image", "clone", "small@1", "unsigned"])?;
    let boot = cluster.daemon.state_dir().join("images/.work/unsigned/root/boot");
    for entry in fs::read_dir(boot)? {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
            && !path.is_symlink()
        {
            output(Command::new("sbattach").arg("--remove").arg(&path))?;
        }
    }
    let agent = Binaries::get()?.agent.display().to_string();
    cli(&["image", "seal", "unsigned", "--agent", &agent])?;
    cli(&["rollout", "start", "small@2", "--nodes", "r01n01"])?;
    node.power_on()?;
    let refused = node.wait_event("the refusal of the kernel", |event| {
        event.step == "retry kernel" && event.detail.contains("not signed for Secure Boot")
    })?;
    assert_eq!(refused.level, "error");
    let why = node.status("last_error")?;
    assert!(
        why.contains("refused the kernel of small@2") && why.contains("linux-image-amd64"),
        "{why}"
    );
    node.wait_console("bad shim signature")?;
    node.wait_console("Secure Boot is on")?;
    // GRUB asks again by itself, and the version before is signed.
    node.wait_ready()?;
    assert_eq!(node.shell("cut -d' ' -f1 /etc/rackstrap-image")?, "small@1");
    Ok(())
}
