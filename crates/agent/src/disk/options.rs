//! Mount options as in fstab (pure).

use rustix::mount::MountFlags;

/// Splits `defaults,noatime,discard` into the kernel's flags and the file system's own options.
pub fn split(options: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut rest = Vec::new();
    for option in options.split(',').map(str::trim) {
        let (flag, on) = match option {
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "relatime" => (MountFlags::RELATIME, true),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "dirsync" => (MountFlags::DIRSYNC, true),
            // These are for mount(8), fstab and systemd, not for the kernel.
            "" | "defaults" | "auto" | "noauto" | "nofail" | "_netdev" | "user" | "nouser" | "async" => continue,
            o if o.starts_with("x-") || o.starts_with("comment=") => continue,
            other => {
                rest.push(other);
                continue;
            }
        };
        flags.set(flag, on);
    }
    (flags, rest.join(","))
}

/// The flags of swapon(2) for options as in fstab: `pri=10`, `discard`, `discard=once`, `discard=pages`. Other options are ignored.
pub fn swap_flags(options: &str) -> libc::c_int {
    // linux/swap.h: SWAP_FLAG_PREFER, and the mask of its priority; SWAP_FLAG_DISCARD, _ONCE and _PAGES.
    const PREFER: libc::c_int = 0x8000;
    const PRIORITY: libc::c_int = 0x7fff;
    const DISCARD: libc::c_int = 0x10000;
    const ONCE: libc::c_int = 0x20000;
    const PAGES: libc::c_int = 0x40000;
    options.split(',').map(str::trim).fold(0, |flags, option| {
        flags
            | match option.split_once('=') {
                Some(("pri", number)) => match number.parse::<u16>().map(libc::c_int::from) {
                    Ok(priority) if priority <= PRIORITY => PREFER | priority,
                    _ => 0,
                },
                Some(("discard", "once")) => DISCARD | ONCE,
                Some(("discard", "pages")) => DISCARD | PAGES,
                None if option == "discard" => DISCARD,
                _ => 0,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_swap_become_flags() {
        for (options, flags) in [
            ("", 0),
            ("defaults", 0),
            ("pri=10", 0x8000 | 10),
            ("pri=0", 0x8000),
            ("pri=32767,discard=once", 0x8000 | 32767 | 0x30000),
            ("discard", 0x10000),
            ("discard=pages", 0x50000),
            // What a site file cannot contain has no effect on other bits.
            ("pri=32768", 0),
            ("pri=-1", 0),
            ("pri=99999999999", 0),
            ("pri,discard=never,x-systemd.growfs", 0),
        ] {
            assert_eq!(swap_flags(options), flags, "{options}");
        }
    }

    #[test]
    fn options_become_flags_or_stay_text() {
        let (flags, rest) = split("defaults,noatime,nosuid,discard,x-systemd.growfs,ro,rw,inode64");
        assert_eq!(flags, MountFlags::NOATIME | MountFlags::NOSUID);
        assert_eq!(rest, "discard,inode64");
        assert_eq!(split(""), (MountFlags::empty(), String::new()));
    }
}
