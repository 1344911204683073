//! A root that is up in seconds: Debian's kernel and its tools for disks, and busybox for all else. It is for tests that are not about
//! the operating system, because a full Debian takes most of a minute to start in an emulated machine.

use crate::{
    Result, foreign,
    image::{self, Kernel},
    process::output,
};
use anyhow::{Context, bail};
use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// The inittab of busybox, with a shell on the serial line. getty shows the agent that the system is up; without one the agent would wait
/// for two minutes.
const INITTAB: &str = "::sysinit:/etc/init.d/rcS\nttyS0::respawn:/bin/sh\ntty1::respawn:/bin/getty 38400 tty1\n";
/// The last line looks like a prompt, for which tests wait before they type.
const RC: &str = "#!/bin/sh
grep -q ' /sys ' /proc/mounts || mount -t sysfs sysfs /sys
hostname -F /etc/hostname
echo \"root@$(hostname)\" > /dev/console
";
/// Programs that the agent needs to prepare disks, and that tests use to inspect them, as in Debian. dpkg and its helpers are for tests
/// that upgrade packages.
const PROGRAMS: [&str; 13] = [
    "usr/bin/dpkg",
    "usr/bin/dpkg-deb",
    "usr/bin/dpkg-query",
    "usr/bin/dpkg-split",
    "usr/bin/findmnt",
    "usr/bin/tar",
    "usr/sbin/ldconfig",
    "usr/sbin/e2fsck",
    "usr/sbin/mkfs.ext4",
    "usr/sbin/mkfs.xfs",
    "usr/sbin/mkswap",
    "usr/sbin/wipefs",
    "usr/sbin/xfs_repair",
];
/// The only one of them that needs no library.
const STATIC: &str = "usr/sbin/ldconfig";
/// Directories of a root, and those that a layout puts on disks.
const FOLDERS: [&str; 14] = [
    "bin",
    "dev",
    "etc/init.d",
    "lib",
    "lib64",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/sbin",
    "var",
];

/// Drivers below `kernel/drivers` for hardware that no machine of the tests has. With them the initramfs of the kernel for all hardware
/// would be three times as large, and an emulated machine would need some seconds more to fetch and unpack it.
const ABSENT_HARDWARE: [&str; 20] = [
    "ata",
    "bluetooth",
    "firewire",
    "gpu",
    "hwmon",
    "iio",
    "infiniband",
    "md",
    "media",
    "message",
    "mfd",
    "mtd",
    "scsi",
    "staging",
    "target",
    "thunderbolt",
    "usb",
    "video",
    "net/usb",
    "net/wireless",
];
/// Drivers in those directories that stay: dm-crypt, SATA, and SCSI as far as QEMU has it.
const PRESENT_HARDWARE: [&str; 9] = [
    "ata/ahci.ko",
    "ata/libahci.ko",
    "ata/libata.ko",
    "md/dm-crypt.ko",
    "md/dm-mod.ko",
    "scsi/scsi_common.ko",
    "scsi/scsi_mod.ko",
    "scsi/sd_mod.ko",
    "scsi/virtio_scsi.ko",
];
/// The vendors of network cards whose drivers stay.
const NETWORK_CARDS: [&str; 2] = ["intel", "realtek"];

/// The tree, made now if it is not in the cache.
pub fn tree(kernel: Kernel, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let debian = kernel.debian(say)?;
    let depends = format!(
        "{}{INITTAB}{RC}{PROGRAMS:?}{FOLDERS:?}{ABSENT_HARDWARE:?}{PRESENT_HARDWARE:?}{NETWORK_CARDS:?}",
        debian.display()
    );
    image::tree("small", &depends, |part| make(part, &debian))
}

/// The same for arm64, without the programs: Debian's kernel for virtual machines and its busybox for that architecture.
pub fn arm64(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let packages = foreign::unpacked(
        "arm64-packages",
        &["linux-image-cloud-arm64", "busybox-static"],
        "",
        say,
    )?;
    // QEMU's machine has a PL011 as its serial line.
    let inittab = INITTAB.replace("ttyS0", "ttyAMA0");
    let recipe = format!(
        "{}{inittab}{RC}{FOLDERS:?}{ABSENT_HARDWARE:?}{PRESENT_HARDWARE:?}",
        packages.display()
    );
    image::tree("small-arm64", &recipe, |part| {
        for folder in FOLDERS {
            fs::create_dir_all(part.join(folder))?;
        }
        for (from, to) in [("boot", "boot"), ("lib/modules", "lib/modules")] {
            let mut copy = Command::new("cp");
            output(
                copy.args(["-a", "--reflink=auto"])
                    .arg(packages.join(from))
                    .arg(part.join(to)),
            )?;
        }
        skeleton(part, &packages.join("bin/busybox"), &inittab, RC)?;
        thin_out(part)
    })
}

/// Removes the drivers of [`ABSENT_HARDWARE`] except [`PRESENT_HARDWARE`], and those of other network cards.
fn thin_out(part: &Path) -> Result {
    for entry in fs::read_dir(part.join("lib/modules"))? {
        let modules = entry?;
        let drivers = modules.path().join("kernel/drivers");
        let mut kept = Vec::new();
        for name in PRESENT_HARDWARE {
            match fs::read(drivers.join(name)) {
                Ok(content) => kept.push((drivers.join(name), content)),
                // The kernel for virtual machines has some of them built in, and others not at all.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("reading the driver {name}")),
            }
        }
        for name in ABSENT_HARDWARE {
            image::remove(&drivers.join(name))?;
        }
        for (path, content) in kept {
            fs::create_dir_all(path.parent().context("a driver without a directory")?)?;
            fs::write(path, content)?;
        }
        let ethernet = drivers.join("net/ethernet");
        if ethernet.is_dir() {
            for vendor in fs::read_dir(&ethernet)? {
                let vendor = vendor?;
                if !NETWORK_CARDS.iter().any(|name| vendor.file_name() == *name) {
                    image::remove(&vendor.path())?;
                }
            }
        }
        output(Command::new("depmod").arg("-b").arg(part).arg(modules.file_name()))?;
    }
    Ok(())
}

fn make(part: &Path, debian: &Path) -> Result {
    busybox(part, debian, INITTAB, RC)?;
    thin_out(part)?;
    for file in with_libraries(debian)? {
        let to = part.join(&file);
        let folder = to.parent().context("a file without a directory")?;
        fs::create_dir_all(folder)?;
        let from = debian.join(&file);
        fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    // This is a database of dpkg without packages.
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log"] {
        fs::create_dir_all(part.join(folder))?;
    }
    fs::write(part.join("var/lib/dpkg/status"), "")?;
    Ok(())
}

/// Fills `part` with Debian's kernel and its modules, and with busybox as init, which uses `inittab` and runs `rc` first.
pub fn busybox(part: &Path, debian: &Path, inittab: &str, rc: &str) -> Result {
    for folder in FOLDERS {
        fs::create_dir_all(part.join(folder))?;
    }
    for (from, to) in [("boot", "boot"), ("usr/lib/modules", "lib/modules")] {
        output(
            Command::new("cp")
                .args(["-a", "--reflink=auto"])
                .arg(debian.join(from))
                .arg(part.join(to)),
        )?;
    }
    skeleton(part, Path::new("/bin/busybox"), inittab, rc)
}

/// The part of [`busybox`] that is not of Debian's tree, with this `busybox`. It may be for another machine, so it does not run: its names
/// are those of this machine's, which is of the same release.
fn skeleton(part: &Path, busybox: &Path, inittab: &str, rc: &str) -> Result {
    fs::copy(busybox, part.join("bin/busybox")).context("copying busybox")?;
    for name in output(Command::new("/bin/busybox").arg("--list"))?.lines() {
        let link = part.join("bin").join(name);
        if name != "busybox" {
            symlink("busybox", &link).with_context(|| format!("linking {}", link.display()))?;
        }
    }
    symlink("bin", part.join("sbin"))?;
    fs::write(part.join("etc/inittab"), inittab)?;
    fs::write(part.join("etc/passwd"), "root::0:0:root:/root:/bin/sh\n")?;
    fs::write(part.join("etc/os-release"), "PRETTY_NAME=\"busybox\"\nID=busybox\n")?;
    let file = part.join("etc/init.d/rcS");
    fs::write(&file, rc)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The programs with the libraries that they need, relative to the root.
fn with_libraries(debian: &Path) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    for program in PROGRAMS {
        files.insert(program.to_owned());
        if program == STATIC {
            continue;
        }
        let said = output(Command::new("chroot").arg(debian).args(["ldd", &format!("/{program}")]))?;
        let libraries = said.split_whitespace().filter_map(|word| word.strip_prefix('/'));
        let before = files.len();
        files.extend(libraries.map(str::to_owned));
        if files.len() == before && !said.contains('/') {
            bail!("ldd names no library of {program}: {said}");
        }
    }
    Ok(files)
}
