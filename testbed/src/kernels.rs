//! Trees with the kernels of several releases of Debian and with firmware for real hardware, to build initramfs from. No machine boots
//! them.

use crate::{Result, image, process::output};
use anyhow::{Context, bail};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12: modules are not compressed, and the kernel is in `/boot`.
    Bookworm,
    /// Debian 13: modules are compressed with xz.
    Trixie,
    /// Debian's development release: the kernel is in `/usr/lib/modules/RELEASE`, in several packages.
    Sid,
}

impl Suite {
    /// Its name in the archive.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Bookworm => "bookworm",
            Suite::Trixie => "trixie",
            Suite::Sid => "sid",
        }
    }

    /// Packages with firmware of network cards.
    fn firmware(self) -> &'static [&'static str] {
        match self {
            Suite::Bookworm => &["firmware-realtek", "firmware-bnx2x", "firmware-misc-nonfree"],
            // The files of Intel's cards have a package of their own.
            Suite::Trixie | Suite::Sid => &["firmware-realtek", "firmware-bnx2x", "firmware-intel-misc"],
        }
    }
}

/// The keys of all releases.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Groups of drivers that no initramfs has: half of all modules' bytes.
const LEFT_OUT: [&str; 7] = [
    "*/kernel/sound",
    "*/kernel/drivers/gpu",
    "*/kernel/drivers/iio",
    "*/kernel/drivers/media",
    "*/kernel/drivers/net/wireless",
    "*/kernel/drivers/staging",
    "*/kernel/net/wireless",
];

/// The tree of a release, made now if it is not in the cache: a download of 100 MB, and half a minute.
///
/// # Errors
/// The archive cannot be reached, or a package cannot be unpacked.
pub fn tree(suite: Suite, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let name = suite.name();
    let depends = format!("{name}{:?}{LEFT_OUT:?}", suite.firmware());
    image::tree(&format!("kernels-{name}"), &depends, |part| {
        say(&format!("unpacking the kernel and firmware of Debian {name}"));
        let work = tempfile::tempdir()?;
        let debs = download(suite, work.path())?;
        unpack(part, &debs).with_context(|| format!("unpacking the kernel of Debian {name}"))
    })
}

/// Downloads the packages into `work`, with an apt that has only this release's lists. Returns their files.
fn download(suite: Suite, work: &Path) -> Result<Vec<PathBuf>> {
    for dir in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(work.join(dir))?;
    }
    let source = format!(
        "deb [signed-by={KEYRING}] http://deb.debian.org/debian {} main non-free-firmware\n",
        suite.name()
    );
    fs::write(work.join("sources.list"), source)?;
    let dir = work.display();
    let apt = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(work);
        for option in [
            format!("Dir::State::Lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            format!("Dir::Etc::SourceList={dir}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    };
    output(apt("apt-get").args(["update", "-q"]))?;
    let depends = output(apt("apt-cache").args([
        "depends",
        "--recurse",
        "--no-recommends",
        "--no-suggests",
        "--no-conflicts",
        "--no-breaks",
        "--no-replaces",
        "--no-enhances",
        "linux-image-amd64",
    ]))?;
    let mut packages: Vec<&str> = depends.lines().filter(|name| is_of_the_kernel(name)).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        bail!("linux-image-amd64 of {} depends on no kernel:\n{depends}", suite.name());
    }
    packages.extend(suite.firmware());
    output(apt("apt-get").args(["download", "-q"]).args(&packages))?;
    let files = fs::read_dir(work)?.map(|entry| Ok(entry?.path()));
    let files = files.collect::<Result<Vec<PathBuf>>>()?;
    let debs: Vec<PathBuf> = files
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "deb"))
        .collect();
    if debs.len() < packages.len() {
        bail!("apt-get downloaded {debs:?} instead of {packages:?}");
    }
    Ok(debs)
}

/// True for a package that has a part of a kernel: `linux-image-6.1.0-56-amd64`. Their number differs by release.
fn is_of_the_kernel(package: &str) -> bool {
    let kinds = ["linux-image-", "linux-modules-", "linux-binary-", "linux-base-"];
    let rest = kinds.iter().find_map(|kind| package.strip_prefix(kind));
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Makes a tree of the packages that passes as bootable. Its init is busybox.
fn unpack(part: &Path, debs: &[PathBuf]) -> Result {
    for dir in ["boot", "usr/lib", "usr/sbin"] {
        fs::create_dir_all(part.join(dir))?;
    }
    symlink("usr/lib", part.join("lib"))?;
    symlink("usr/sbin", part.join("sbin"))?;
    fs::copy("/bin/busybox", part.join("usr/sbin/init")).context("copying busybox")?;
    for deb in debs {
        let mut tar = Command::new("tar");
        // The packages of Debian 12 have their files in /lib, which is a link here.
        tar.args(["-x", "--keep-directory-symlink", "--exclude=./usr/share", "-C"])
            .arg(part);
        tar.args(LEFT_OUT.map(|path| format!("--exclude={path}")));
        let mut unpacked = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(deb)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .context("running dpkg-deb")?;
        tar.stdin(unpacked.stdout.take().context("no output of dpkg-deb")?);
        let done = output(&mut tar);
        if !unpacked.wait()?.success() {
            bail!("dpkg-deb cannot read {}", deb.display());
        }
        done?;
    }
    for release in fs::read_dir(part.join("usr/lib/modules"))? {
        output(Command::new("depmod").arg("-b").arg(part).arg(release?.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_kernel_are_told_from_other_packages() {
        for package in ["linux-image-6.1.0-56-amd64", "linux-modules-7.2.13+deb14-amd64"] {
            assert!(is_of_the_kernel(package), "{package}");
        }
        for package in [
            "linux-image-amd64",
            "linux-base",
            "linux-base-amd64",
            "  Depends: kmod",
            "kmod",
        ] {
            assert!(!is_of_the_kernel(package), "{package}");
        }
    }
}
