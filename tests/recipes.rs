//! A real Debian from a recipe, and what its packages run during the installation.

use crate::daemon::rackstrap;
use std::fs;
use testbed::{Binaries, Result, Site};

/// The kernel's package requests an initramfs, which would take minutes and be deleted. The directory in which
/// initramfs-tools keeps a checksum of each initramfs shows that none was made.
#[test]
fn no_initramfs_is_made_while_a_recipes_packages_are_installed() -> Result {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("site.toml");
    fs::write(&config, Site::demo().to_toml(dir.path())?)?;
    let recipe = dir.path().join("recipe.toml");
    // The smallest kernel of Debian. The tree stays incomplete: the last command of the recipe fails on purpose.
    fs::write(
        &recipe,
        r#"suite = "bookworm"
packages = ["linux-image-cloud-amd64", "initramfs-tools"]
run = [
    "test -x /usr/sbin/update-initramfs && test -x /etc/kernel/postinst.d/initramfs-tools",
    "echo kernels: $(ls /boot | grep -c vmlinuz-)",
    "echo made: $(find /boot -name 'initrd*') $(find /var/lib/initramfs-tools -type f) end",
    "exit 7",
]
"#,
    )?;
    let import = rackstrap(&config)
        .args(["image", "import", "small", "--from"])
        .arg(&recipe)
        .arg("--agent")
        .arg(Binaries::get()?.agent)
        .output()?;
    let said = String::from_utf8_lossy(&import.stderr);
    assert_eq!(import.status.code(), Some(1), "{said}");
    assert!(said.contains("\n  kernels: 1\n"), "{said}");
    assert!(said.contains("\n  made: end\n"), "{said}");
    Ok(())
}
