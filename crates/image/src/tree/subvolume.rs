//! Subvolumes of btrfs, which are copied and deleted as a whole (linux/btrfs.h, btrfs-subvolume(8)).
#![allow(unsafe_code)]

use rustix::{
    fs::{self as rfs, Mode, Stat, chmodat, fstat, fstatfs, mkdirat},
    io::{Errno, Result},
    ioctl::{Setter, Updater, ioctl, opcode},
};
use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// BTRFS_SUPER_MAGIC (linux/magic.h).
const MAGIC: u32 = 0x9123_683e;
/// BTRFS_FIRST_FREE_OBJECTID: the inode number of the root directory of every subvolume, and of nothing else.
const ROOT_INODE: u64 = 256;
/// BTRFS_IOCTL_MAGIC (linux/btrfs.h).
const GROUP: u8 = 0x94;

/// `struct btrfs_ioctl_vol_args`, 4,096 bytes.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`, 4,096 bytes.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_get_subvol_rootref_args`, 4,096 bytes.
#[repr(C)]
struct RootRefs {
    min_treeid: u64,
    refs: [[u64; 2]; 255],
    count: u8,
    align: [u8; 7],
}

const SUBVOL_CREATE: u32 = opcode::write::<VolArgs>(GROUP, 14);
const SNAP_DESTROY: u32 = opcode::write::<VolArgs>(GROUP, 15);
const SNAP_CREATE_V2: u32 = opcode::write::<VolArgsV2>(GROUP, 23);
const GET_SUBVOL_ROOTREF: u32 = opcode::read_write::<RootRefs>(GROUP, 61);

/// The name with its terminating NUL.
fn named<const N: usize>(name: &CStr) -> Result<[u8; N]> {
    let mut room = [0; N];
    let bytes = name.to_bytes();
    if bytes.len() >= N {
        return Err(Errno::NAMETOOLONG);
    }
    room[..bytes.len()].copy_from_slice(bytes);
    Ok(room)
}

/// True if the file is on btrfs.
pub(crate) fn on_btrfs(fd: BorrowedFd<'_>) -> bool {
    // The type of `f_type` differs between architectures; its lower half is the number.
    fstatfs(fd).is_ok_and(|stat| stat.f_type as u32 == MAGIC)
}

/// True for the status of a subvolume's root directory, on btrfs.
pub(crate) fn is_root(stat: &Stat) -> bool {
    stat.st_ino == ROOT_INODE && rfs::FileType::from_raw_mode(stat.st_mode) == rfs::FileType::Directory
}

/// True if the directory is the root of a subvolume.
pub(crate) fn is_subvolume(dir: BorrowedFd<'_>) -> bool {
    on_btrfs(dir) && fstat(dir).is_ok_and(|stat| is_root(&stat))
}

/// Makes the directory `name` for the root of a tree: a subvolume if the file system supports them, so that a copy of it is one
/// snapshot.
pub(crate) fn make_root(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    if on_btrfs(parent) && create(parent, name).is_ok() {
        return chmodat(parent, name, mode, rfs::AtFlags::empty());
    }
    mkdirat(parent, name, mode)
}

/// Makes an empty subvolume.
///
/// # Errors
/// ENOTTY and others if the file system has no subvolumes, EPERM if it is not allowed.
pub(crate) fn create(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let args = VolArgs {
        fd: 0,
        name: named(name)?,
    };
    // SAFETY: the kernel reads a `btrfs_ioctl_vol_args`, as the number says, and writes nothing.
    unsafe { ioctl(parent, Setter::<SUBVOL_CREATE, VolArgs>::new(args)) }
}

/// Makes `name` in `parent` a writable snapshot of the subvolume `from`.
///
/// # Errors
/// EINVAL if `from` is not a subvolume, EXDEV if it is on another file system.
pub(crate) fn snapshot(from: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let args = VolArgsV2 {
        fd: i64::from(from.as_raw_fd()),
        transid: 0,
        flags: 0,
        unused: [0; 4],
        name: named(name)?,
    };
    // SAFETY: the kernel reads a `btrfs_ioctl_vol_args_v2`, as the number says; `from` is open as long as the call lasts.
    // It would write `transid` only if a flag asked for it, and `Setter` owns what it points to.
    unsafe { ioctl(parent, Setter::<SNAP_CREATE_V2, VolArgsV2>::new(args)) }
}

/// Deletes the subvolume `name` with its content. The kernel frees its space later, in the background.
///
/// # Errors
/// EINVAL if it is not a subvolume, ENOTEMPTY if it contains another one, EPERM if it is not allowed.
pub(crate) fn destroy(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let args = VolArgs {
        fd: 0,
        name: named(name)?,
    };
    // SAFETY: the kernel reads a `btrfs_ioctl_vol_args`, as the number says, and writes nothing.
    unsafe { ioctl(parent, Setter::<SNAP_DESTROY, VolArgs>::new(args)) }
}

/// True if the subvolume contains other subvolumes, which would be empty directories in a snapshot.
///
/// # Errors
/// ENOTTY before Linux 4.18.
pub(crate) fn has_nested(subvolume: BorrowedFd<'_>) -> Result<bool> {
    let mut args = RootRefs {
        min_treeid: 0,
        refs: [[0; 2]; 255],
        count: 0,
        align: [0; 7],
    };
    // SAFETY: the kernel reads and writes a `btrfs_ioctl_get_subvol_rootref_args`, as the number says, all of whose bytes
    // are valid whatever they are.
    match unsafe {
        ioctl(
            subvolume.as_fd(),
            Updater::<GET_SUBVOL_ROOTREF, RootRefs>::new(&mut args),
        )
    } {
        // There are more than fit into the answer.
        Err(Errno::OVERFLOW) => Ok(true),
        other => other.map(|()| args.count > 0),
    }
}

// Sizes are part of the ioctls' numbers.
const _: () = assert!(size_of::<VolArgs>() == 4096 && size_of::<VolArgsV2>() == 4096 && size_of::<RootRefs>() == 4096);
