//! The Debian packages that the demo and the tests run, installed where they are missing.

use crate::{Result, process};
use anyhow::{Context, bail};
use std::{io::Write, process::Command};

/// What the demo runs.
pub const DEMO: &[&str] = &[
    // The virtual machines: QEMU, the PXE ROMs of its network cards, the loaders that we serve.
    "qemu-system-x86",
    "ipxe-qemu",
    "ipxe",
    // The root image.
    "mmdebstrap",
    // The network namespace with its bridge, and who enters it.
    "iproute2",
    "util-linux",
];

/// What the tests run beyond that.
const TESTS: &[&str] = &[
    "ovmf",
    // Trees with another init than systemd, and of another distribution.
    "busybox-static",
    "dnf",
    "rpm",
    "createrepo-c",
    // Turns off the checksum offload that veth pairs pretend to have.
    "ethtool",
    // Stands in for rackstrap in the test of the testbed itself.
    "dnsmasq-base",
    "openssh-client",
    // Disks, looked at from outside with other tools than our own.
    "fdisk",
    "e2fsprogs",
    "xfsprogs",
    "btrfs-progs",
    "gdisk",
    // Real clients for the protocol tests.
    "curl",
    "bind9-dnsutils",
    "tftp-hpa",
    "atftp",
    "libnfs-utils",
    "isc-dhcp-client",
    "udhcpc",
    "systemd",
    // A registry of container images, and certificates for it.
    "docker-registry",
    "openssl",
    // The scheduler that exports are written for, and another reader of them.
    "slurmctld",
    "slurmd",
    "slurm-client",
    "genders",
    // The command that is advised for inventories of Kea.
    "jq",
    // Kernel modules and archives of the initramfs.
    "kmod",
    "cpio",
    "zstd",
    "xz-utils",
    // A terminal for the tests of what people watch.
    "tmux",
];

/// Installs what of the packages for all tests is missing, see [`ensure_these`].
pub fn ensure(say: &mut dyn FnMut(&str)) -> Result<Vec<String>> {
    ensure_these(&[DEMO, TESTS].concat(), say)
}

/// Installs what is missing, saying what. Returns the names that it installed: none on a second run.
pub fn ensure_these(names: &[&str], say: &mut dyn FnMut(&str)) -> Result<Vec<String>> {
    let missing = missing(names)?;
    if missing.is_empty() {
        return Ok(missing);
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "these Debian packages are missing: {}; run as root, or install them first",
            missing.join(" ")
        );
    }
    say(&format!("installing {}", missing.join(" ")));
    // A fresh machine's package lists may be absent or old: one more try with new ones.
    if let Err(first) = install(&missing) {
        say("refreshing the package lists (apt-get update)");
        apt(&["update", "-q"]).with_context(|| format!("after: {first:#}"))?;
        install(&missing)?;
    }
    Ok(missing)
}

/// Those of `names` that dpkg does not have as installed.
pub fn missing(names: &[&str]) -> Result<Vec<String>> {
    // dpkg-query fails when any name is unknown, and still prints the others: only its text counts.
    let done = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(names)
        .output()
        .context("running dpkg-query; the demo and the tests set themselves up on Debian 12")?;
    let installed = String::from_utf8_lossy(&done.stdout).into_owned();
    Ok(names
        .iter()
        .filter(|name| !installed.lines().any(|line| line == format!("{name} installed")))
        .map(|name| (*name).to_owned())
        .collect())
}

fn install(names: &[String]) -> Result {
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    arguments.extend(names.iter().map(String::as_str));
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> Result {
    std::io::stderr().flush().ok();
    // Two of us at once, or Debian's own timers: wait for the lock instead of failing.
    process::output(
        Command::new("apt-get")
            .args(["-o", "DPkg::Lock::Timeout=300"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_installed_from_missing() {
        let missing = missing(&["dpkg", "no-such-package-anywhere"]).unwrap();
        assert_eq!(missing, ["no-such-package-anywhere"]);
    }
}
