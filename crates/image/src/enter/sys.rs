//! The system calls of entering that Rust's compiler cannot vouch for.
#![allow(unsafe_code)]

use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

/// Children of the calling thread are in a new PID namespace from now on; the first one is its PID 1.
pub(super) fn children_in_new_pid_namespace() -> io::Result<()> {
    // SAFETY: only UnshareFlags::FILES can take descriptors away from other threads.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?)
}

/// The calling process, which has one thread, has mounts, a host name and IPC of its own from now on.
pub(super) fn new_namespaces() -> io::Result<()> {
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    // SAFETY: only UnshareFlags::FILES can take descriptors away from other threads.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

/// What a key on the terminal sends to all of the foreground does not end this process: the command that runs inside
/// decides. Nor does giving the terminal back to the foreground, which it is not in after a shell.
pub(super) fn ignore_the_terminals_signals() {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTTOU] {
        // SAFETY: SIG_IGN runs no code of ours; the call cannot fail for these signals.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Takes over a descriptor that the parent process left open for this one, and closes it for those that come after.
///
/// # Errors
/// There is none of that number.
pub(super) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD of a number that is no descriptor fails with EBADF and does nothing else.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, as fcntl said. Nobody in this process owns it: it was open when the process began, and the
    // caller, which is about to become PID 1 and has done nothing else before, takes each over once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
