//! The last phase: from the initramfs to the operating system.

use crate::{
    facts,
    fail::{Doing, Failure, Res},
    root::NEW_ROOT,
};
use rustix::mount::MountFlags;
use std::{
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

/// Moves the kernel's file systems into the new root. The overlay phase has moved /run already, because it needs it there.
pub fn move_mounts() -> Res<()> {
    for dir in ["/dev", "/proc", "/sys"] {
        let target = format!("{NEW_ROOT}{dir}");
        rustix::mount::mount_move(dir, target.as_str()).doing(|| format!("moving {dir} into the new root"))?;
    }
    Ok(())
}

/// Frees the RAM of the initramfs and makes the new root the root.
pub fn switch() -> Res<()> {
    let doing = || "switching to the new root".to_owned();
    rustix::process::chdir(NEW_ROOT).doing(doing)?;
    let device = fs::symlink_metadata("/").doing(doing)?.dev();
    clear(Path::new("/"), device);
    rustix::mount::mount_move(".", "/").doing(doing)?;
    rustix::process::chroot(".").doing(doing)?;
    rustix::process::chdir("/").doing(doing)
}

/// Deletes everything below `dir` that is on `device`. Files that cannot be deleted stay and only use RAM.
fn clear(dir: &Path, device: u64) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            // Another device means a mount: the image, the new root, /run.
            Ok(meta) if meta.is_dir() && meta.dev() == device => {
                clear(&path, device);
                let _ = fs::remove_dir(&path);
            }
            Ok(meta) if !meta.is_dir() && meta.dev() == device => {
                let _ = fs::remove_file(&path);
            }
            _ => {}
        }
    }
}

/// Starts the reporter for an init that cannot start it itself. It outlives this process as a child of PID 1.
pub fn start_reporter() -> Res<()> {
    let child = Command::new(facts::AGENT)
        // The command is called `voice`, see `main`.
        .args(["voice", "--wait-for-init"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child.map(|_| ()).doing(|| "starting the reporter".into())
}

/// Replaces this process by the operating system's init. Returns only if that fails.
pub fn exec(init: &str, arguments: &[String]) -> Failure {
    let console = fs::OpenOptions::new().read(true).write(true).open("/dev/console");
    let mut command = Command::new(init);
    command
        .args(arguments)
        .env_clear()
        .env("HOME", "/")
        .env("TERM", "linux");
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    if let Ok(console) = console {
        let copy = || console.try_clone().map(Stdio::from).unwrap_or_else(|_| Stdio::null());
        command.stdin(copy()).stdout(copy()).stderr(copy());
    }
    Failure::new(format!("starting {init}: {}", command.exec()))
}

/// Mounts the file systems that every later phase needs. Returns a summary.
pub fn early_mounts() -> Res<String> {
    let nosuid = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (dir, kind, flags, data) in [
        ("/proc", "proc", nosuid | MountFlags::NODEV, c""),
        ("/sys", "sysfs", nosuid | MountFlags::NODEV, c""),
        ("/dev", "devtmpfs", MountFlags::NOSUID, c"mode=0755"),
        // systemd keeps an existing /run with its content.
        (
            "/run",
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            c"mode=0755,size=20%",
        ),
    ] {
        fs::create_dir_all(dir).doing(|| format!("making {dir}"))?;
        match rustix::mount::mount(kind, dir, kind, flags, Some(data)) {
            // CONFIG_DEVTMPFS_MOUNT or an earlier attempt has mounted it.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(e) => return Err(Failure::new(format!("mounting {dir}: {e}"))),
        }
    }
    Ok("/proc, /sys, /dev, /run".into())
}
