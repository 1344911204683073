//! The root: the image read-only, and above it a writable layer in RAM. There is one module for each kind of root.

mod nfs;

use crate::fail::{Doing, Failure, Res};
use rackstrap_wire::{Plan, Root};
use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags},
    mount::MountFlags,
};
use std::{
    ffi::CString,
    fs::{self, File},
    path::Path,
};

/// The image, read-only.
pub const IMAGE: &str = "/image";
/// RAM: `upper` and `work` of the overlay.
pub const LAYER: &str = "/layer";
/// The new root.
pub const NEW_ROOT: &str = "/newroot";

/// Mounts the image at [`IMAGE`] and checks that it is one. Returns its source.
pub fn mount_image(plan: &Plan) -> Res<String> {
    fs::create_dir_all(IMAGE).doing(|| format!("making {IMAGE}"))?;
    // This is a second attempt if a check below failed.
    let _ = rustix::mount::unmount(IMAGE, rustix::mount::UnmountFlags::DETACH);
    let source = match &plan.root {
        Root::Nfs(root) => nfs::mount(root)?,
    };
    check_init(Path::new(IMAGE), &plan.init)?;
    Ok(source)
}

/// Checks that `init` is an executable file of the root, with symlinks resolved inside it.
fn check_init(root: &Path, init: &str) -> Res<()> {
    let directory = File::open(root).doing(|| format!("opening {}", root.display()))?;
    let doing = || format!("looking for {init} in the image");
    let file = rustix::fs::openat2(
        &directory,
        init.trim_start_matches('/'),
        OFlags::PATH,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
    .doing(doing)?;
    let stat = rustix::fs::fstat(&file).doing(doing)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_mode & 0o111 == 0 {
        return Err(Failure::new(format!("{init} in the image is not an executable file")));
    }
    Ok(())
}

/// True if the init of `root` is systemd, by where its symlinks lead.
pub fn is_systemd(root: &Path, init: &str) -> bool {
    let Ok(directory) = File::open(root) else { return false };
    let mut path = init.trim_start_matches('/').to_owned();
    // Only links of the last component are followed: every distribution does it so (/sbin/init -> ../lib/systemd/systemd).
    for _ in 0..8 {
        if path.ends_with("/systemd") || path == "systemd" {
            return true;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let Ok(link) = rustix::fs::openat2(&directory, &path, flags, Mode::empty(), ResolveFlags::IN_ROOT) else {
            return false;
        };
        let Ok(target) = rustix::fs::readlinkat(&link, "", Vec::new()) else {
            return false;
        };
        let target = target.to_string_lossy().into_owned();
        path = match (target.strip_prefix('/'), path.rsplit_once('/')) {
            (Some(absolute), _) => absolute.to_owned(),
            (None, Some((parent, _))) => format!("{parent}/{target}"),
            (None, None) => target,
        };
    }
    false
}

/// Mounts the overlay of image and RAM at [`NEW_ROOT`].
pub fn mount_overlay(ram_size: &str) -> Res<()> {
    for dir in [LAYER, NEW_ROOT] {
        fs::create_dir_all(dir).doing(|| format!("making {dir}"))?;
        // A second attempt starts from the beginning.
        let _ = rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH);
    }
    let plain = !ram_size.is_empty() && ram_size.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%');
    if !plain {
        return Err(Failure::permanent(format!(
            "the plan's RAM size '{ram_size}' is not like 50% or 2g"
        )));
    }
    let size = CString::new(format!("size={ram_size},mode=0755")).doing(|| "tmpfs options".into())?;
    rustix::mount::mount("rackstrap", LAYER, "tmpfs", MountFlags::empty(), Some(size.as_c_str()))
        .doing(|| format!("mounting a tmpfs of {ram_size}"))?;
    for dir in ["upper", "work"] {
        let path = Path::new(LAYER).join(dir);
        fs::create_dir(&path).doing(|| format!("making {}", path.display()))?;
    }
    // The mode of the overlay's root directory is that of the upper directory.
    let stat = rustix::fs::stat(IMAGE).doing(|| "looking at the image".into())?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    rustix::fs::chmod(Path::new(LAYER).join("upper"), mode).doing(|| "chmod of the new root".into())?;
    let data = format!("lowerdir={IMAGE},upperdir={LAYER}/upper,workdir={LAYER}/work");
    let data = CString::new(data).doing(|| "overlay options".into())?;
    rustix::mount::mount(
        "rackstrap",
        NEW_ROOT,
        "overlay",
        MountFlags::empty(),
        Some(data.as_c_str()),
    )
    .doing(|| "mounting the overlay (module overlay)".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn init_is_found_inside_the_root_only() {
        let root = tempfile::tempdir().unwrap();
        let at = |p: &str| root.path().join(p);
        fs::create_dir_all(at("usr/lib/systemd")).unwrap();
        fs::create_dir_all(at("usr/sbin")).unwrap();
        fs::write(at("usr/lib/systemd/systemd"), "").unwrap();
        symlink("usr/sbin", at("sbin")).unwrap();
        symlink("usr/lib", at("lib")).unwrap();
        symlink("/lib/systemd/systemd", at("usr/sbin/init")).unwrap();
        assert!(check_init(root.path(), "/sbin/init").is_err(), "not executable");
        fs::set_permissions(at("usr/lib/systemd/systemd"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(check_init(root.path(), "/sbin/init"), Ok(()));
        assert!(is_systemd(root.path(), "/sbin/init"));
        fs::write(at("usr/sbin/openrc-init"), "").unwrap();
        assert!(!is_systemd(root.path(), "/sbin/openrc-init"));
        assert!(
            check_init(root.path(), "/bin/sh").is_err(),
            "the machine's own files do not count"
        );
        fs::remove_file(at("usr/sbin/init")).unwrap();
        symlink("../lib/systemd/systemd", at("usr/sbin/init")).unwrap();
        assert!(is_systemd(root.path(), "/sbin/init"));
        symlink("loop", at("usr/sbin/loop")).unwrap();
        assert!(!is_systemd(root.path(), "/sbin/loop"));
    }
}
