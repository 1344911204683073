//! The Debian packages for the demo and the tests, installed if they are missing.

use crate::{Result, process};
use anyhow::{Context, bail, ensure};
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

/// Packages for the demo.
pub const DEMO: &[&str] = &[
    // The virtual machines: QEMU, the PXE ROMs of its network cards, the loaders that the daemon serves.
    "qemu-system-x86",
    "ipxe-qemu",
    "ipxe",
    // The root image.
    "mmdebstrap",
    // The network namespace with its bridge, and the program that enters it.
    "iproute2",
    "util-linux",
];

/// Packages for builds for arm64 on amd64: Debian's newer compiler, the only one for which Debian has a standard library of another
/// architecture, and the C compiler and library for that one. `rustup target add` brings the same where it may download.
pub const CROSS_ARM64: &[&str] = &["rustc-web", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];

/// Further packages for the tests.
const TESTS: &[&str] = &[
    "ovmf",
    // A machine with arm64; its agent is compiled with CROSS_ARM64.
    "qemu-system-arm",
    "qemu-efi-aarch64",
    // Secure Boot: the loaders that are signed, and what removes a kernel's signature.
    "shim-signed",
    "grub-efi-amd64-signed",
    "sbsigntool",
    // Firmware of boards, and another loader for a BIOS.
    "u-boot-qemu",
    "pxelinux",
    "syslinux-common",
    // Started by an order for one boot.
    "memtest86+",
    // Trees with another init than systemd, and of another distribution.
    "busybox-static",
    "dnf",
    "rpm",
    "createrepo-c",
    // Turns off the checksum offload that veth pairs claim to have.
    "ethtool",
    // Loses packets, and blocks a port.
    "nftables",
    // Replaces rackstrap in the test of the testbed itself.
    "dnsmasq-base",
    "openssh-client",
    // Tools other than ours, to inspect disks from outside.
    "fdisk",
    "e2fsprogs",
    "xfsprogs",
    "btrfs-progs",
    "gdisk",
    // Real clients for the protocol tests.
    "curl",
    // FreeBSD's nc(1) is this one.
    "netcat-openbsd",
    "bind9-dnsutils",
    "tftp-hpa",
    "atftp",
    "libnfs-utils",
    "isc-dhcp-client",
    "udhcpc",
    // Other DHCP servers, for which exports are written.
    "isc-dhcp-server",
    "kea-dhcp4-server",
    "systemd",
    // BMCs, and another program that switches power by them.
    "openipmi",
    "ipmitool",
    // A registry of container images, and certificates for it.
    "docker-registry",
    "openssl",
    // The scheduler for which exports are written, and another program that reads them.
    "slurmctld",
    "slurmd",
    "slurm-client",
    "genders",
    "ansible-core",
    // The command that the documentation gives for inventories of Kea.
    "jq",
    // Kernel modules and archives of the initramfs.
    "kmod",
    "cpio",
    "zstd",
    "xz-utils",
    // A terminal for the tests of live displays.
    "tmux",
];

/// Those of them with a service of the same name. Debian's packages enable it, so that it would start at the machine's next boot: two of them
/// are DHCP servers.
const SERVICES: [&str; 5] = [
    "docker-registry",
    "isc-dhcp-server",
    "kea-dhcp4-server",
    "slurmctld",
    "slurmd",
];

/// Installs the missing packages for all tests, see [`ensure_these`].
pub fn ensure(say: &mut dyn FnMut(&str)) -> Result<Vec<String>> {
    ensure_these(&[DEMO, TESTS].concat(), say)
}

/// Installs the missing packages and prints their names. Returns the installed ones: none on a second run.
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
    // On a fresh machine the package lists may be missing or old, so a failure is retried once with new ones.
    if let Err(first) = install(&missing) {
        say("refreshing the package lists (apt-get update)");
        apt(&["update", "-q"]).with_context(|| format!("after: {first:#}"))?;
        install(&missing)?;
    }
    Ok(missing)
}

/// Upgrades these packages, whose installed versions are too old, by new package lists.
pub fn upgrade(names: &[&str], say: &mut dyn FnMut(&str)) -> Result {
    ensure!(
        rustix::process::geteuid().is_root(),
        "these Debian packages are too old: {}; run as root, or upgrade them first",
        names.join(" ")
    );
    say(&format!("upgrading {}", names.join(" ")));
    apt(&["update", "-q"])?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    install(&names)
}

/// The packages of `names` that dpkg does not list as installed.
pub fn missing(names: &[&str]) -> Result<Vec<String>> {
    // dpkg-query fails if any name is unknown, but still prints the others, so only its output counts.
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
    without_services(|| apt(&arguments))?;
    disable(&services(names))
}

/// The services of these packages. One that was installed before belongs to the machine, and is not among them.
fn services(installed: &[String]) -> Vec<&'static str> {
    let new = |service: &&str| installed.iter().any(|name| name == service);
    SERVICES.into_iter().filter(new).collect()
}

/// Keeps services from starting at the machine's next boot.
fn disable(services: &[&str]) -> Result {
    for service in services {
        // Without systemd (in a container), Debian's links of runlevels remain.
        let mut command = match Path::new("/usr/bin/systemctl").exists() {
            true => Command::new("systemctl"),
            false => Command::new("update-rc.d"),
        };
        match command.get_program() == "systemctl" {
            true => command.args(["disable", "--quiet", service]),
            false => command.args([service, "disable"]),
        };
        process::output(&mut command).with_context(|| format!("disabling the service {service}"))?;
    }
    Ok(())
}

/// What invoke-rc.d(8) and deb-systemd-invoke ask before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// 101: not allowed.
const NO_SERVICES: &str = "#!/bin/sh\n# Of rackstrap's test bed, only while it installs packages.\nexit 101\n";

/// Runs `work` while packages start no services: a DHCP server must not run on the developer's network. A policy that the machine has
/// already stays as it is.
fn without_services(work: impl FnOnce() -> Result) -> Result {
    // One of ours is there if a run was killed.
    let ours = match fs::read_to_string(POLICY) {
        Ok(text) => text == NO_SERVICES,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !ours {
        return work();
    }
    fs::write(POLICY, NO_SERVICES).with_context(|| format!("writing {POLICY}"))?;
    let done = fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {POLICY} executable"))
        .and_then(|()| work());
    fs::remove_file(POLICY).with_context(|| format!("removing {POLICY}"))?;
    done
}

fn apt(arguments: &[&str]) -> Result {
    std::io::stderr().flush().ok();
    // Wait for the lock if another process of ours or a timer of Debian has it.
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
    fn only_services_of_new_packages_are_disabled() {
        assert!(SERVICES.iter().all(|name| TESTS.contains(name)));
        let new = ["kea-dhcp4-server", "curl"].map(str::to_owned);
        assert_eq!(services(&new), ["kea-dhcp4-server"]);
        assert!(services(&[]).is_empty());
    }

    #[test]
    fn installed_packages_are_told_from_missing_ones() {
        let missing = missing(&["dpkg", "no-such-package-anywhere"]).unwrap();
        assert_eq!(missing, ["no-such-package-anywhere"]);
    }
}
