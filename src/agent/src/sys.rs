//! System calls that no safe wrapper covers.
#![allow(unsafe_code)]

use crate::fail::{Doing, Failure, Res};
use rustix::{
    io::Errno,
    ioctl::{NoArg, Opcode, ioctl, opcode},
    mount::{MountFlags, MountPropagationFlags},
    thread::UnshareFlags,
};
use std::{
    ffi::CString,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::Command,
};

/// `BLKRRPART`, linux/fs.h: `_IO(0x12, 95)`.
const BLKRRPART: Opcode = opcode::none(0x12, 95);
/// `BLKFLSBUF`, linux/fs.h: `_IO(0x12, 97)`.
const BLKFLSBUF: Opcode = opcode::none(0x12, 97);

/// Makes the kernel read the partition table again; EBUSY if a partition is in use.
pub fn reread_partitions(disk: &File) -> io::Result<()> {
    // SAFETY: BLKRRPART takes no argument and touches no memory of ours.
    Ok(unsafe { ioctl(disk, NoArg::<BLKRRPART>::new()) }?)
}

/// Writes out and drops the device's page cache.
pub fn flush_buffers(disk: &File) -> io::Result<()> {
    // SAFETY: BLKFLSBUF takes no argument and touches no memory of ours.
    Ok(unsafe { ioctl(disk, NoArg::<BLKFLSBUF>::new()) }?)
}

/// Uses a device as swap space.
pub fn swap_on(device: &Path) -> io::Result<()> {
    let path = CString::new(device.as_os_str().as_bytes())?;
    // SAFETY: `path` is a C string that lives across the call, and the kernel only reads it.
    match unsafe { libc::swapon(path.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A command that runs inside `root` with its own mounts: the machine's /dev, /proc and /sys, and an empty /run and
/// /tmp. The mounts vanish with it.
pub fn command_in_root(root: &Path, program: &str) -> Res<Command> {
    let inside = |dir: &str| {
        CString::new(root.join(dir).as_os_str().as_bytes()).doing(|| format!("entering {}", root.display()))
    };
    let (dev, proc, sys, run, tmp) = (
        inside("dev")?,
        inside("proc")?,
        inside("sys")?,
        inside("run")?,
        inside("tmp")?,
    );
    let root = inside("")?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C");
    let enter = move || -> Result<(), Errno> {
        // SAFETY: the child has one thread; a new mount namespace shares no descriptors or memory rules with anybody.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", private)?;
        rustix::mount::mount_bind_recursive(c"/dev", dev.as_c_str())?;
        rustix::mount::mount_bind_recursive(c"/proc", proc.as_c_str())?;
        rustix::mount::mount_bind_recursive(c"/sys", sys.as_c_str())?;
        for dir in [&run, &tmp] {
            rustix::mount::mount(c"tmpfs", dir.as_c_str(), c"tmpfs", MountFlags::NODEV, c"size=64m")?;
        }
        rustix::process::chroot(root.as_c_str())?;
        rustix::process::chdir(c"/")
    };
    // SAFETY: between fork and exec the closure makes system calls on C strings made before, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || enter().map_err(io::Error::from));
    }
    Ok(command)
}

/// Restarts the machine at once; returns only if the kernel refuses.
pub fn restart() -> Failure {
    rustix::fs::sync();
    match rustix::system::reboot(rustix::system::RebootCommand::Restart) {
        Ok(()) => Failure::new("the machine did not restart"),
        Err(e) => Failure::new(format!("restarting the machine: {e}")),
    }
}
