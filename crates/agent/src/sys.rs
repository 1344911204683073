//! System calls without a safe wrapper.
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

/// `BLKPG`, linux/blkpg.h: `_IO(0x12, 105)`.
const BLKPG: libc::c_ulong = 0x1269;
/// `BLKPG_ADD_PARTITION`.
const BLKPG_ADD_PARTITION: libc::c_int = 1;

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct BlkpgPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    devname: [u8; 64],
    volname: [u8; 64],
}

/// `struct blkpg_ioctl_arg` of linux/blkpg.h.
#[repr(C)]
struct BlkpgArgument {
    op: libc::c_int,
    flags: libc::c_int,
    datalen: libc::c_int,
    data: *mut BlkpgPartition,
}

/// Adds a partition (in bytes) to the kernel's table, for kernels that cannot read our kind of table.
pub fn add_partition(disk: &File, number: u32, start: u64, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let signed = |n: u64| i64::try_from(n).map_err(io::Error::other);
    let mut partition = BlkpgPartition {
        start: signed(start)?,
        length: signed(len)?,
        number: number as libc::c_int,
        devname: [0; 64],
        volname: [0; 64],
    };
    let mut argument = BlkpgArgument {
        op: BLKPG_ADD_PARTITION,
        flags: 0,
        datalen: size_of::<BlkpgPartition>() as libc::c_int,
        data: &mut partition,
    };
    // SAFETY: both structures have the layout of linux/blkpg.h and live across the call, which only reads them.
    match unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG as _, &mut argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `BLKDISCARD`, linux/fs.h: `_IO(0x12, 119)`.
const BLKDISCARD: libc::c_ulong = 0x1277;

/// Tells a block device that `length` bytes from `start` are not needed any more (TRIM). Both are multiples of its sectors.
pub fn discard(device: &File, start: u64, length: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let range = [start, length];
    // SAFETY: the call reads two numbers of 64 bits, which live across it.
    match unsafe { libc::ioctl(device.as_raw_fd(), BLKDISCARD as _, range.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes of `struct dm_ioctl`, linux/dm-ioctl.h, with which each message to the device mapper begins.
pub const DEVICE_MAPPER_HEADER: usize = 312;

/// Sends the device mapper a message, linux/dm-ioctl.h: `_IOWR(0xfd, number, struct dm_ioctl)`. The kernel writes its answer over it.
pub fn device_mapper(control: &File, number: u8, message: &mut [u8]) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let size = message
        .get(12..16)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_ne_bytes);
    if message.len() < DEVICE_MAPPER_HEADER || size.map(|size| size as usize) != Some(message.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let request = 0xc138_fd00 | libc::c_ulong::from(number);
    // SAFETY: the kernel reads and writes as many bytes as the field at 12 says, which are all of `message` as was checked, and it lives
    // across the call. It copies the header without regard to its alignment.
    match unsafe { libc::ioctl(control.as_raw_fd(), request as _, message.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts a key into the keyring of this process, which the kernel uses and no process can read (type `logon`, keyrings(7)). Returns its number.
pub fn add_logon_key(description: &str, key: &[u8]) -> io::Result<i32> {
    /// `KEY_SPEC_PROCESS_KEYRING`
    const PROCESS: libc::c_long = -2;
    let description = CString::new(description)?;
    // SAFETY: add_key(2) reads two C strings and `key.len()` bytes, which live across the call.
    let number = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"logon".as_ptr(),
            description.as_ptr(),
            key.as_ptr(),
            key.len(),
            PROCESS,
        )
    };
    match i32::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Removes a key from all keyrings.
pub fn invalidate_key(number: i32) -> io::Result<()> {
    /// `KEYCTL_INVALIDATE`
    const INVALIDATE: libc::c_long = 21;
    // SAFETY: this operation of keyctl(2) takes a number and touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_keyctl, INVALIDATE, libc::c_long::from(number)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `WDIOC_SETTIMEOUT`, linux/watchdog.h: `_IOWR('W', 6, int)`.
const WDIOC_SETTIMEOUT: libc::c_ulong = 0xc004_5706;

/// Sets after how many seconds without a sign of life a watchdog resets the machine. Drivers round it.
pub fn set_watchdog_timeout(watchdog: &File, seconds: u16) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut seconds = libc::c_int::from(seconds);
    // SAFETY: the call reads and writes one int, which lives across it.
    match unsafe { libc::ioctl(watchdog.as_raw_fd(), WDIOC_SETTIMEOUT as _, &mut seconds) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Uses a device as swap space.
pub fn swap_on(device: &Path, flags: libc::c_int) -> io::Result<()> {
    let path = CString::new(device.as_os_str().as_bytes())?;
    // SAFETY: `path` is a C string that lives across the call, and the kernel only reads it.
    match unsafe { libc::swapon(path.as_ptr(), flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A command that runs inside `root` with its own mounts: the machine's /dev, /proc and /sys, and an empty /run and /tmp. The
/// mounts disappear when it ends.
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
        // SAFETY: the child has one thread; a new mount namespace shares no descriptors or memory rules with other processes.
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

/// Restarts the machine at once. Returns only if the kernel refuses.
pub fn restart() -> Failure {
    rustix::fs::sync();
    match rustix::system::reboot(rustix::system::RebootCommand::Restart) {
        Ok(()) => Failure::new("the machine did not restart"),
        Err(e) => Failure::new(format!("restarting the machine: {e}")),
    }
}

/// Gives the calling thread and its children a mount namespace of their own, and keeps later mounts out of all others.
#[cfg(test)]
pub fn unshare_mounts() {
    // SAFETY: the thread shares no descriptors by this call; its working directory and root stay what they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}
