//! System calls that rustix does not have: file handles (name_to_handle_at(2), open_by_handle_at(2)) and mount_setattr(2).
#![allow(unsafe_code)]

use super::handle::{FileId, MAX_FILE_ID, Source};
use rustix::{
    fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    fs::OFlags,
    io::Errno,
};

/// `struct file_handle` with room for the largest handle that fits into an NFSv3 handle.
#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    data: [u8; MAX_FILE_ID],
}

/// `struct mount_attr` (linux/mount.h), version 0.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_NOEXEC: u64 = 0x8;
const MOUNT_ATTR_ATIME: u64 = 0x70;
const MOUNT_ATTR_NOATIME: u64 = 0x10;

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The kernel's handle of an open file.
///
/// # Errors
/// EOPNOTSUPP if the file system has no handles, or none that fit into an NFSv3 handle.
pub fn file_id(fd: BorrowedFd<'_>) -> rustix::io::Result<FileId> {
    let mut raw = RawHandle {
        bytes: MAX_FILE_ID as u32,
        kind: 0,
        data: [0; MAX_FILE_ID],
    };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: the path is a C string; `raw.bytes` is the size of `raw.data`, which is all that the kernel writes there; `mount_id` is an
    // int that outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            fd.as_raw_fd(),
            c"".as_ptr(),
            &raw mut raw,
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if done < 0 {
        return Err(match last_error() {
            Errno::OVERFLOW => Errno::OPNOTSUPP,
            other => other,
        });
    }
    let kind = u8::try_from(raw.kind).map_err(|_| Errno::OPNOTSUPP)?;
    raw.data
        .get(..raw.bytes as usize)
        .and_then(|bytes| FileId::new(Source::Kernel, kind, bytes))
        .ok_or(Errno::OPNOTSUPP)
}

/// Opens the file of a kernel handle on the file system of `mount`, which must not be an `O_PATH` descriptor.
/// Needs CAP_DAC_READ_SEARCH.
///
/// # Errors
/// ESTALE if the file no longer exists or never did.
pub fn open_by_id(mount: BorrowedFd<'_>, id: &FileId, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut raw = RawHandle {
        bytes: id.bytes().len() as u32,
        kind: i32::from(id.kind()),
        data: [0; MAX_FILE_ID],
    };
    raw.data[..id.bytes().len()].copy_from_slice(id.bytes());
    // SAFETY: `raw` is a file_handle whose `bytes` does not exceed its data; the kernel only reads it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut raw,
            flags.bits() as libc::c_int,
        )
    };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and no other code owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes a private mount read-only, without programs and devices that can be used. Access times do not change.
///
/// # Errors
/// ENOSYS before Linux 5.12, EPERM without CAP_SYS_ADMIN.
pub fn restrict_mount(mount: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let attr = MountAttr {
        set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOATIME,
        clear: MOUNT_ATTR_ATIME,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string; `attr` has the given size, and the kernel only reads it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}
