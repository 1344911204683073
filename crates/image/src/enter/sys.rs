//! System calls of this module without a safe wrapper.
#![allow(unsafe_code)]

use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

/// Puts later children of the calling thread into a new PID namespace; the first one is its PID 1.
pub(super) fn children_in_new_pid_namespace() -> io::Result<()> {
    // SAFETY: only UnshareFlags::FILES can take descriptors away from other threads.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?)
}

/// Gives the calling process, which has one thread, its own mounts, host name and IPC.
pub(super) fn new_namespaces() -> io::Result<()> {
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    // SAFETY: only UnshareFlags::FILES can take descriptors away from other threads.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

/// Ignores the signals that a key on the terminal sends to the whole foreground: the command inside handles them. Also ignores
/// the signal for changing the foreground from the background, where this process is after a shell.
pub(super) fn ignore_the_terminals_signals() {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTTOU] {
        // SAFETY: SIG_IGN runs no code of ours; the call cannot fail for these signals.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Takes over a descriptor that the parent process left open, and marks it close-on-exec.
///
/// # Errors
/// No descriptor has that number.
pub(super) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD of a number that is not a descriptor fails with EBADF and has no other effect.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: fcntl has shown that it is open. No other code in this process owns it: it was open when the process started, and the
    // caller, which is about to become PID 1 and has done nothing before, takes over each descriptor once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
