//! A root over NFSv3.

use super::IMAGE;
use crate::fail::{Doing, Failure, Res};
use rackstrap_wire::NfsRoot;
use rustix::{io::Errno, mount::MountFlags};
use std::{ffi::CString, fs};

/// Mounts `root` at [`IMAGE`]. Returns its source: `10.5.0.1:/debian@1`.
pub fn mount(root: &NfsRoot) -> Res<String> {
    let source = format!("{}:{}", root.server, root.export);
    let doing = || format!("mounting {source}");
    let data = CString::new(options(root)).doing(doing)?;
    let flags = MountFlags::RDONLY;
    rustix::mount::mount(source.as_str(), IMAGE, "nfs", flags, Some(data.as_c_str())).map_err(|e| {
        let hint = match e {
            Errno::NODEV => "; the initramfs has no NFS client (module nfs)",
            Errno::PFNOSUPPORT => "; the server does not speak MOUNT and NFS version 3 on that port",
            Errno::PROTONOSUPPORT => "; the initramfs has no NFSv3 (module nfsv3)",
            Errno::ACCESS | Errno::PERM => "; the server denies access to this node",
            Errno::NOENT => "; the server does not export it",
            _ => "",
        };
        Failure::new(format!("{}: {e}{hint}", doing()))
    })?;
    limit_readahead();
    Ok(source)
}

/// The kernel's options for an NFSv3 mount without port mapper, UDP or lock daemon (nfs(5)). `hard`: a node waits for its root without
/// limit, so a restart of the server is a pause and not an error. No `noacl`: with it, overlayfs answers EOPNOTSUPP to all users
/// except root (`ovl_get_acl`, fs/overlayfs/inode.c).
fn options(root: &NfsRoot) -> String {
    let NfsRoot {
        server, port, options, ..
    } = root;
    let mut text = format!(
        "vers=3,proto=tcp,mountproto=tcp,port={port},mountport={port},addr={server},mountaddr={server},nolock,hard"
    );
    // `ro` is a flag of the mount call. Options that name a server would contradict the plan.
    for option in options
        .split(',')
        .map(str::trim)
        .filter(|o| !matches!(*o, "" | "ro" | "rw" | "defaults"))
    {
        text.push(',');
        text += option;
    }
    text
}

/// Sets the read-ahead to 128 KiB, the default since Linux 5.4. Before, NFS read ahead 15 times its read size, 15 MiB for a server
/// with 1 MiB, which made boots several times slower (LTSP #27).
fn limit_readahead() {
    const KIB: u64 = 128;
    let Ok(stat) = rustix::fs::stat(IMAGE) else { return };
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    let now = fs::read_to_string(&path)
        .ok()
        .and_then(|t| t.trim().parse::<u64>().ok());
    if now.is_some_and(|n| n > KIB) {
        let _ = fs::write(&path, KIB.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_complete() {
        let root = NfsRoot {
            server: [10, 5, 0, 1].into(),
            port: 2049,
            export: "/debian@1".into(),
            options: "nocto,acregmin=600,ro".into(),
        };
        assert_eq!(
            options(&root),
            "vers=3,proto=tcp,mountproto=tcp,port=2049,mountport=2049,addr=10.5.0.1,mountaddr=10.5.0.1,nolock,hard,nocto,acregmin=600"
        );
    }
}
