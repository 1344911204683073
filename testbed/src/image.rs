//! Root images: trees that mmdebstrap makes from a recipe, imported by the program under test.
//!
//! Both are cached below `target/testbed`. The name of a tree depends on its recipe, and that of an imported image on its tree and on the
//! binaries of daemon and agent, so a change of any of them makes a new one.

use crate::{Binaries, Result, Site, paths, process, small};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hasher},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Units of Debian that no test needs: file systems for kernel debugging, modules of screens and EFI, the screen itself, and daily jobs.
const UNUSED_UNITS: [&str; 24] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "getty@tty1.service",
    "kmod-static-nodes.service",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
];

/// The content of `images/*.toml`: the tree of a Debian for mmdebstrap.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// Release, `bookworm`.
    pub suite: String,
    /// mmdebstrap's variant; `minbase` by default.
    #[serde(default = "minbase")]
    pub variant: String,
    /// Archive areas.
    #[serde(default)]
    pub components: Vec<String>,
    /// Packages in addition to the variant's.
    pub packages: Vec<String>,
    /// Shell commands run inside the tree at the end, in order.
    #[serde(default)]
    pub run: Vec<String>,
}

/// Debian's kernel for virtual machines, packed with LZ4: unpacked in half a second, with a quarter of the modules.
const CLOUD_KERNEL: &str = "linux-image-cloud-amd64";

/// The kernel of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// The kernel for virtual machines. It has no drivers for AHCI, SD cards and Intel's network cards.
    Cloud,
    /// The kernel for all hardware, as in `images/debian.toml`.
    Whole,
}

impl Kernel {
    fn label(self, name: &str) -> String {
        match self {
            Kernel::Cloud => name.to_owned(),
            Kernel::Whole => format!("{name}-whole"),
        }
    }

    /// The Debian of the demo and the tests with this kernel. Both are made from one tree with both kernels and share its files by hard
    /// links, so the second one needs neither a download nor space.
    pub fn debian(self, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let both = Recipe::debian()?.with_packages(&[CLOUD_KERNEL]).tree(say)?;
        let name = self.label("debian");
        tree(
            &name,
            &format!("{}, with a link to its kernel", both.display()),
            |part| {
                process::output(Command::new("cp").arg("-al").arg(&both).arg(part))?;
                for dir in ["boot", "usr/lib/modules"] {
                    for entry in fs::read_dir(part.join(dir))? {
                        let entry = entry?;
                        if entry.file_name().to_string_lossy().contains("-cloud-") != (self == Kernel::Cloud) {
                            remove(&entry.path())?;
                        }
                    }
                }
                // These links lead to the newest kernel, which may be the one that was removed.
                for link in ["vmlinuz", "vmlinuz.old"] {
                    remove(&part.join(link))?;
                }
                for entry in fs::read_dir(part.join("boot"))? {
                    let name = entry?.file_name();
                    if name.to_string_lossy().starts_with("vmlinuz-") {
                        std::os::unix::fs::symlink(Path::new("boot").join(name), part.join("vmlinuz"))?;
                    }
                }
                Ok(())
            },
        )
    }
}

fn minbase() -> String {
    "minbase".to_owned()
}

impl Recipe {
    /// Reads a recipe.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading the recipe {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("in the recipe {}", path.display()))
    }

    /// `images/debian.toml` without units that no test needs, which take a fifth of the start of systemd in an emulated machine.
    fn debian() -> Result<Self> {
        let recipe = Recipe::read(&paths::repo_root().join("images/debian.toml"))?;
        Ok(recipe.with_command(&format!("systemctl mask --quiet {}", UNUSED_UNITS.join(" "))))
    }

    /// The same recipe with more packages.
    pub fn with_packages(mut self, packages: &[&str]) -> Self {
        self.packages.extend(packages.iter().map(|p| (*p).to_owned()));
        self
    }

    /// The same recipe with another command at the end.
    pub fn with_command(mut self, command: &str) -> Self {
        self.run.push(command.to_owned());
        self
    }

    /// The tree of this recipe, made now if it is not in the cache: half a minute, and a download.
    pub fn tree(&self, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let key = key(&[Part::Text(&serde_json::to_string(self)?)])?;
        make_once("trees", &key, |part| {
            say(&format!(
                "making a root tree: mmdebstrap {}, {} packages",
                self.suite,
                self.packages.len()
            ));
            let components = if self.components.is_empty() {
                "main".to_owned()
            } else {
                self.components.join(",")
            };
            process::output(
                Command::new("mmdebstrap")
                    .arg("--quiet")
                    .arg(format!("--variant={}", self.variant))
                    .arg(format!("--components={components}"))
                    .arg(format!("--include={}", self.packages.join(",")))
                    .arg(&self.suite)
                    .arg(part)
                    // As in an import, the kernel's package must not build an initramfs, because no node uses it.
                    .env("INITRD", "No"),
            )
            .context("making a Debian tree")?;
            for command in &self.run {
                process::output(Command::new("chroot").arg(part).args(["/bin/sh", "-ec", command]))
                    .with_context(|| format!("running {command:?} of the recipe"))?;
            }
            Ok(())
        })
    }
}

/// The Debian with the kernel for virtual machines and with more packages, after these commands. This takes a third of the time of a new tree.
pub fn more_debian(name: &str, packages: &[&str], commands: &[&str], say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let base = Kernel::Cloud.debian(say)?;
    let recipe = format!("{}{packages:?}{commands:?}", base.display());
    tree(name, &recipe, |part| {
        say(&format!("adding {} packages to {}", packages.len(), base.display()));
        // A copy and no links, because packages' scripts write into files.
        process::output(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&base).arg(part))?;
        fs::copy("/etc/resolv.conf", part.join("etc/resolv.conf")).context("copying resolv.conf")?;
        let policy = part.join("usr/sbin/policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))?;
        let install = format!(
            "apt-get -qq update && apt-get -qq -y --no-install-recommends install {} > /dev/null && apt-get clean && \
             rm -rf /var/lib/apt/lists/*",
            packages.join(" ")
        );
        for command in [&[install.as_str()], commands].concat() {
            // In a PID namespace of its own, so that no process of a package outlives the command.
            process::output(
                Command::new("unshare")
                    .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
                    .arg(format!("--root={}", part.display()))
                    .args(["/bin/sh", "-ec", command])
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            )
            .with_context(|| format!("running {command:?} in the tree {name}"))?;
        }
        remove(&policy)?;
        remove(&part.join("etc/resolv.conf"))
    })
}

/// A tree made by other means, cached under `name` until `recipe`, which describes all that it depends on, changes.
pub fn tree(name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result) -> Result<PathBuf> {
    make_once("trees", &format!("{name}-{}", key(&[Part::Text(recipe)])?), make)
}

/// Writes a version below `images` that boots nothing: all that the daemon reads of one, with a kernel that says which version it is.
/// `created` tells two trees of one version apart.
pub fn fake(images: &Path, image: &str, created: u64) -> Result {
    let (name, version) = image.split_once('@').context("NAME@VERSION")?;
    let dir = images.join(name).join(version);
    fs::create_dir_all(dir.join("root"))?;
    fs::write(dir.join("kernel"), image)?;
    fs::write(dir.join("initramfs"), "none")?;
    fs::write(dir.join("root/file"), created.to_string())?;
    let manifest = format!(
        "image = \"{image}\"\ncreated = {created}\nsource = \"a test\"\nkernel-release = \"6.1.0\"\narch = \"x86_64\"\n\
         init = \"systemd\"\nfiles = 1\nbytes = 1\nwire = 4\n"
    );
    Ok(fs::write(dir.join("manifest.toml"), manifest)?)
}

/// An imported image in the cache, which is not removed while this exists.
#[derive(Debug)]
pub struct Image {
    /// Its name, `debian`.
    pub name: String,
    /// `images/NAME` of the state directory that it was imported into.
    pub dir: PathBuf,
    _in_use: File,
}

impl Image {
    /// Version 1 of `debian`, the Debian of the demo and of tests about it.
    pub fn debian(binaries: &Binaries, kernel: Kernel, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let tree = kernel.debian(say)?;
        Image::import_as(binaries, &kernel.label("debian"), "debian", &tree, say)
    }

    /// Version 1 of `small`, a root that is up in seconds.
    pub fn small(binaries: &Binaries, kernel: Kernel, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let tree = small::tree(kernel, say)?;
        Image::import_as(binaries, &kernel.label("small"), "small", &tree, say)
    }

    /// Version 1 of `name`, made from `tree` by `rackstrap image import`. A tree is identified by its path: use a new one for other contents.
    pub fn import(binaries: &Binaries, name: &str, tree: &Path, say: &mut dyn FnMut(&str)) -> Result<Self> {
        Image::import_as(binaries, name, name, tree, say)
    }

    /// Like [`Image::import`], cached as `label`: each label has one import.
    fn import_as(binaries: &Binaries, label: &str, name: &str, tree: &Path, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let parts = [
            Part::Text(&tree.to_string_lossy()),
            Part::File(&binaries.daemon),
            Part::File(&binaries.agent),
        ];
        let key = format!("{label}-{}", key(&parts)?);
        let state = make_once("images", &key, |part| {
            say(&format!("importing {name} from {}", tree.display()));
            remove_unused(label, &key)?;
            fs::create_dir(part)?;
            let config = part.join("rackstrap.toml");
            fs::write(&config, Site::demo().to_toml(part)?)?;
            process::output(
                Command::new(&binaries.daemon)
                    .arg("--config")
                    .arg(&config)
                    .args(["image", "import", name, "--from"])
                    .arg(tree)
                    .arg("--agent")
                    .arg(&binaries.agent),
            )?;
            Ok(())
        })?;
        let dir = state.join("images").join(name);
        if !dir.is_dir() {
            bail!(
                "rackstrap image import {name} succeeded, but {} does not exist",
                dir.display()
            );
        }
        let in_use = lock_file("images", &key)?;
        in_use
            .lock_shared()
            .with_context(|| format!("locking the image {key}"))?;
        Ok(Image {
            name: name.to_owned(),
            dir,
            _in_use: in_use,
        })
    }

    /// Links it into a state directory, because a sealed version never changes. Further versions belong to the state directory.
    pub fn link_into(&self, state_dir: &Path) -> Result {
        let versions = state_dir.join("images").join(&self.name);
        fs::create_dir_all(&versions)?;
        let link = versions.join("1");
        std::os::unix::fs::symlink(self.dir.join("1"), &link).with_context(|| format!("linking {}", link.display()))
    }
}

/// A dependency of a cached directory.
enum Part<'a> {
    Text(&'a str),
    File(&'a Path),
}

/// 16 hex digits that change with any of the parts. `DefaultHasher::new` has fixed keys. A new toolchain may change it, which costs one
/// more build.
fn key(parts: &[Part]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        match part {
            Part::Text(text) => hasher.write(text.as_bytes()),
            Part::File(path) => {
                hasher.write(&fs::read(path).with_context(|| format!("reading {}", path.display()))?);
            }
        }
        hasher.write_u8(0xff);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// `target/testbed/KIND/KEY`, made by `make` under another name and then renamed, by one process at a time.
fn make_once(kind: &str, key: &str, make: impl FnOnce(&Path) -> Result) -> Result<PathBuf> {
    let base = paths::cache_dir()?.join(kind);
    fs::create_dir_all(&base)?;
    let done = base.join(key);
    if done.is_dir() {
        return Ok(done);
    }
    let lock = lock_file(kind, "making")?;
    lock.lock()
        .with_context(|| format!("waiting for another process that makes {kind}"))?;
    if done.is_dir() {
        return Ok(done);
    }
    let part = base.join(format!("{key}.part"));
    remove_tree(&part)?;
    if let Err(error) = make(&part) {
        remove_tree(&part)?;
        return Err(error);
    }
    fs::rename(&part, &done).with_context(|| format!("moving {} into place", part.display()))?;
    Ok(done)
}

/// Removes imports of `label` with another key that no process uses.
fn remove_unused(label: &str, key: &str) -> Result {
    let base = paths::cache_dir()?.join("images");
    for entry in fs::read_dir(&base)?.flatten() {
        let Ok(old) = entry.file_name().into_string() else {
            continue;
        };
        let same_label = old
            .rsplit_once('-')
            .is_some_and(|(n, hash)| n == label && hash.len() == 16);
        if same_label && old != key && lock_file("images", &old)?.try_lock().is_ok() {
            remove_tree(&entry.path())?;
            let _ = fs::remove_file(base.join(format!("{old}.lock")));
        }
    }
    Ok(())
}

fn lock_file(kind: &str, key: &str) -> Result<File> {
    let path = paths::cache_dir()?.join(kind).join(format!("{key}.lock"));
    File::create(&path).with_context(|| format!("opening {}", path.display()))
}

/// Removes a file, a link or a tree if it exists.
pub(crate) fn remove(path: &Path) -> Result {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => remove_tree(path),
        Ok(_) => fs::remove_file(path).with_context(|| format!("removing {}", path.display())),
        Err(_) => Ok(()),
    }
}

fn remove_tree(path: &Path) -> Result {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_read_strictly() {
        let text = "suite = 'bookworm'\nvariant = 'minbase'\npackages = ['systemd-sysv']\n";
        let recipe: Recipe = toml::from_str(text).unwrap();
        assert_eq!(
            recipe.with_packages(&["ifupdown"]).packages,
            ["systemd-sysv", "ifupdown"]
        );
        assert!(toml::from_str::<Recipe>(&format!("{text}pakages = []\n")).is_err());
    }

    #[test]
    fn keys_change_with_the_contents() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let of = |text| key(&[Part::Text(text), Part::File(file.path())]).unwrap();
        let before = of("a");
        assert_eq!(before, of("a"));
        assert_ne!(before, of("b"));
        fs::write(file.path(), "other").unwrap();
        assert_ne!(before, of("a"));
    }
}
