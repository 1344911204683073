//! Makes trees from recipes by running mmdebstrap or dnf in mount and PID namespaces of their own.

use super::{
    error::{Doing, ImportError, Result},
    progress::Progress,
    recipe::{Dnf, Recipe},
    root::RootDir,
    rpm,
};
use rackstrap_base::arch::Architecture;
use std::{
    collections::VecDeque,
    fs,
    io::{self, BufRead},
    path::Path,
    process::{Command, Stdio},
};

/// Lines of output that are shown when a program failed.
const LAST_WORDS: usize = 15;

/// With this, a kernel's package builds no initramfs (/etc/kernel/postinst.d/initramfs-tools). That would take minutes, and no node
/// would use it, because imports and seals build one of their own.
pub(super) const NO_INITRAMFS: (&str, &str) = ("INITRD", "No");

/// Macros for rpm, in a file in the home directory. The database goes where Enterprise Linux and rpm itself expect it (Debian's rpm
/// has it below the home directory), and nothing is created in mounted file systems.
const MACROS: &str = "%_dbpath /var/lib/rpm\n%_netsharedpath /proc:/sys:/dev\n";

/// Mounts the file systems that packages' scripts need into the tree `$1`. dnf, unlike mmdebstrap, mounts nothing.
const MOUNT: &str = r#"
root=$1
shift
mkdir -p "$root/proc" "$root/sys" "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
umask 0
while read -r name minor; do mknod "$root/dev/$name" c 1 "$minor"; done <<NODES
null 3
zero 5
full 7
random 8
urandom 9
NODES
mknod "$root/dev/tty" c 5 0
ln -s /proc/self/fd "$root/dev/fd"
umask 022
"#;

/// Replaces $1 and $2 by a directory and a name that it has both on this machine and in the tree. dnf resolves some names on
/// this machine and others in the tree.
const BIND: &str = r#"
test -d "$root/tmp" || mkdir -m 1777 "$root/tmp"
mkdir "$root$2"
mount --bind "$1" "$2"
mount --bind "$1" "$root$2"
shift 2
"#;

/// Executes its arguments.
const RUN: &str = r#"exec "$@" >&2"#;

/// Fails if the program of the recipe is not installed.
pub(super) fn expect_program(recipe: &Recipe) -> Result<()> {
    let program = recipe.program();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
        return Ok(());
    }
    let packages = match recipe {
        Recipe::Debian(_) => "mmdebstrap",
        Recipe::Dnf(_) => "dnf rpm",
    };
    Err(ImportError::Request(format!(
        "{program} is not installed, and this recipe needs it: apt install {packages}"
    )))
}

/// Makes the tree in `target`, an empty directory. The caller removes `scratch` after the import.
pub(super) fn bootstrap(
    recipe: &Recipe,
    architecture: Option<Architecture>,
    target: &Path,
    scratch: &Path,
    progress: &mut dyn Progress,
) -> Result<()> {
    match recipe {
        Recipe::Debian(recipe) => {
            let mut mmdebstrap = contained(&[RUN]);
            mmdebstrap
                .arg("mmdebstrap")
                .args(recipe.args(architecture, target, None));
            let (key, value) = NO_INITRAMFS;
            mmdebstrap.env(key, value);
            run(mmdebstrap, "mmdebstrap", progress)
        }
        Recipe::Dnf(recipe) => dnf(recipe, architecture, target, &scratch.join("dnf"), progress),
    }
}

fn dnf(
    recipe: &Dnf,
    architecture: Option<Architecture>,
    target: &Path,
    scratch: &Path,
    progress: &mut dyn Progress,
) -> Result<()> {
    let doing = || format!("writing dnf's configuration to {}", scratch.display());
    for dir in ["repos", "vars", "log", "cache"] {
        fs::create_dir_all(scratch.join(dir)).doing(doing)?;
    }
    fs::write(scratch.join("dnf.conf"), recipe.config()).doing(doing)?;
    fs::write(scratch.join(".rpmmacros"), MACROS).doing(doing)?;
    make_no_initramfs(target)?;
    // Downloads may be large and are stored next to the image. Here is only a name.
    let name = tempfile::Builder::new().prefix("rackstrap-dnf-").tempdir_in("/tmp");
    let name = name.doing(|| "making a directory in /tmp")?;
    let mut command = contained(&[MOUNT, BIND, RUN]);
    command.arg(target).arg(scratch).arg(name.path());
    command
        .arg("dnf")
        .args(recipe.args(architecture, target, name.path()))
        .env("HOME", scratch);
    run(command, "dnf", progress)?;
    for line in &recipe.run {
        let mut command = contained(&[MOUNT, RUN]);
        command
            .arg(target)
            .arg("chroot")
            .arg(target)
            .args(["/bin/sh", "-ec", line]);
        command.env("HOME", "/root");
        run(command, &format!("`{line}` in the tree"), progress)?;
    }
    let left = target.join(name.path().strip_prefix("/").unwrap_or(name.path()));
    fs::remove_dir(&left).doing(|| format!("removing {}", left.display()))?;
    let tree = RootDir::open(target).doing(|| format!("opening {}", target.display()))?;
    rpm::move_database(&tree)?;
    fs::remove_dir_all(scratch).doing(|| format!("removing {}", scratch.display()))
}

/// Keeps the kernel's package from building an initramfs, now and at upgrades: dracut would need minutes, and nodes boot the
/// initramfs of the import. A plugin in /etc replaces the one with the same name in /usr/lib (kernel-install(8)).
fn make_no_initramfs(target: &Path) -> Result<()> {
    let plugins = target.join("etc/kernel/install.d");
    let doing = || format!("making {}", plugins.display());
    fs::create_dir_all(&plugins).doing(doing)?;
    std::os::unix::fs::symlink("/dev/null", plugins.join("50-dracut.install")).doing(doing)
}

/// A shell that executes `scripts` with further arguments. It has a mount namespace, so that no mount stays behind, and is PID 1 of
/// a PID namespace, whose processes all end with it.
fn contained(scripts: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
        ])
        .args(["--kill-child", "sh", "-ec", &scripts.concat(), "sh"])
        .env("LC_ALL", "C.UTF-8")
        // Otherwise systemd-tmpfiles makes subvolumes in a tree that is a subvolume of btrfs.
        .env("SYSTEMD_TMPFILES_FORCE_SUBVOL", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn run(mut command: Command, what: &str, progress: &mut dyn Progress) -> Result<()> {
    let mut child = match command.spawn() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(ImportError::Request(
                "setpriv is not installed, and recipes need it: apt install util-linux".to_owned(),
            ));
        }
        other => other.doing(|| format!("starting {what}"))?,
    };
    let mut tail = VecDeque::new();
    if let Some(stderr) = child.stderr.take() {
        for line in io::BufReader::new(stderr).split(b'\n').map_while(io::Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            // mmdebstrap's lines begin with I: for information, W: for warnings and E: for errors.
            progress.doing(line.trim_start_matches("I: "));
            if tail.len() == LAST_WORDS {
                tail.pop_front();
            }
            tail.push_back(line);
        }
    }
    let status = child.wait().doing(|| format!("waiting for {what}"))?;
    if !status.success() {
        let said = Vec::from(tail).join("\n  ");
        return Err(ImportError::Request(format!(
            "{what} failed ({status}); its last output:\n  {said}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
