//! Files of an image's tree that firmware loads: device trees, and the firmware of a Raspberry Pi.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use std::{fs::File, io, os::unix::fs::MetadataExt, path::Path};

/// Largest file that is sent, in bytes. The firmware of a Raspberry Pi has 4 MB at most.
pub const MOST: u64 = 64 << 20;

/// Directories with device trees, with `RELEASE` for that of the kernel: of Debian, Fedora, Arch Linux ARM and Armbian.
const DEVICE_TREES: [&str; 6] = [
    "usr/lib/linux-image-RELEASE",
    "usr/lib/modules/RELEASE/dtb",
    "boot/dtbs/RELEASE",
    "boot/dtb-RELEASE",
    "boot/dtbs",
    "boot/dtb",
];

/// Directories with the firmware of a Raspberry Pi: where Raspberry Pi OS and Ubuntu mount the boot partition, in new and in old releases,
/// and of Debian's package raspi-firmware.
const RASPBERRY_PI: [&str; 3] = ["boot/firmware", "boot", "usr/lib/raspi-firmware"];

/// The device tree `path`, such as `rockchip/rk3399-rockpro64.dtb`, of the tree `root` with a kernel of that release; none if the tree has none.
///
/// # Errors
/// It exists and cannot be opened, is not a file of the right size, or not all users may read it.
pub fn device_tree(root: &Path, release: &str, path: &str) -> io::Result<Option<File>> {
    let dirs = DEVICE_TREES.iter().map(|dir| dir.replace("RELEASE", release));
    first(root, dirs.map(|dir| format!("{dir}/{path}")))
}

/// Whether the tree has device trees at all.
pub fn has_device_trees(root: &Path, release: &str) -> bool {
    let is_dir = |dir: &&str| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(root, &dir.replace("RELEASE", release), flags).is_ok()
    };
    DEVICE_TREES.iter().any(is_dir)
}

/// Whether a Raspberry Pi's firmware loads a file of that name (`start4.elf`, `overlays/vc4.dtbo`). Other files that are next to these, such as
/// `userconf.txt` and `user-data`, can have passwords in them, and TFTP sends a file to every user of the node.
fn is_of_firmware(name: &str) -> bool {
    // `os_prefix` and `overlay_prefix` in config.txt name directories for device trees.
    if name.ends_with(".dtb") || name.ends_with(".dtbo") {
        return name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    }
    let between = |begin: &str, end: &str| name.starts_with(begin) && name.ends_with(end);
    !name.contains('/')
        && (between("start", ".elf")
            || between("fixup", ".dat")
            || between("kernel", ".img")
            || between("armstub", ".bin")
            || matches!(name, "bootcode.bin" | "config.txt" | "cmdline.txt"))
}

/// A file by the name that a Raspberry Pi asks for: its firmware, its device tree or an overlay. None if the tree does not have it, or if
/// firmware asks for no file of that name.
///
/// # Errors
/// As for [`device_tree`].
pub fn of_raspberry_pi(root: &Path, release: &str, name: &str) -> io::Result<Option<File>> {
    if !is_of_firmware(name) {
        return Ok(None);
    }
    let firmware = RASPBERRY_PI.iter().map(|dir| format!("{dir}/{name}"));
    // Debian and Fedora keep its device trees below the vendor's name.
    let trees = DEVICE_TREES.iter().flat_map(|dir| {
        let dir = dir.replace("RELEASE", release);
        [format!("{dir}/broadcom/{name}"), format!("{dir}/{name}")]
    });
    first(
        root,
        firmware.chain(trees.filter(|_| name.ends_with(".dtb") || name.ends_with(".dtbo"))),
    )
}

fn first(root: &Path, paths: impl Iterator<Item = String>) -> io::Result<Option<File>> {
    for path in paths {
        // Opening a FIFO would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match open(root, &path, flags) {
            Ok(file) => {
                let metadata = file.metadata()?;
                if !metadata.is_file() || metadata.len() > MOST {
                    return Err(io::Error::other(format!(
                        "{path} is not a file of at most {MOST} bytes"
                    )));
                }
                // Not all users of the node may read it there.
                let mode = metadata.mode() & 0o7777;
                if mode & 0o004 == 0 {
                    return Err(io::Error::other(format!(
                        "not all users may read /{path} (mode {mode:04o}), and everybody on the network could; chmod o+r in the image publishes it"
                    )));
                }
                return Ok(Some(file));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Opens a path of the tree. Links are followed as on the node: its root is the tree, which they cannot leave.
fn open(root: &Path, path: &str, flags: OFlags) -> io::Result<File> {
    let top = openat2(
        CWD,
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::empty(),
    )?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(File::from(openat2(&top, path, flags, Mode::empty(), inside)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        io::Read,
        os::unix::fs::{PermissionsExt, symlink},
    };

    fn text(file: io::Result<Option<File>>) -> Option<String> {
        let mut text = String::new();
        file.unwrap()?.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn files_are_found_where_distributions_have_them_and_links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, release) = (dir.path().join("root"), "6.1.0-42-arm64");
        fs::write(dir.path().join("secret"), "secret").unwrap();
        for path in [
            "usr/lib/linux-image-6.1.0-42-arm64/rockchip/rk3399-rockpro64.dtb",
            "usr/lib/linux-image-6.1.0-42-arm64/broadcom/bcm2711-rpi-4-b.dtb",
            "boot/firmware/start4.elf",
            "usr/lib/raspi-firmware/bootcode.bin",
            "boot/firmware/overlays/vc4.dtbo",
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        symlink("../secret", root.join("boot/fixup4.dat")).unwrap();
        symlink("/boot/firmware/start4.elf", root.join("boot/start.elf")).unwrap();
        assert!(has_device_trees(&root, release) && !has_device_trees(&root, "6.12.1"));
        let tree = |path| text(device_tree(&root, release, path));
        assert_eq!(
            tree("rockchip/rk3399-rockpro64.dtb").as_deref(),
            Some("rk3399-rockpro64.dtb")
        );
        assert_eq!(tree("rockchip/other.dtb"), None);
        assert_eq!(
            text(device_tree(&root, "6.12.1", "rockchip/rk3399-rockpro64.dtb")),
            None
        );
        let pi = |name| text(of_raspberry_pi(&root, release, name));
        for name in ["start4.elf", "bootcode.bin", "bcm2711-rpi-4-b.dtb"] {
            assert_eq!(pi(name).as_deref(), Some(name));
        }
        assert_eq!(pi("overlays/vc4.dtbo").as_deref(), Some("vc4.dtbo"));
        // Absolute links mean the node's root.
        assert_eq!(pi("start.elf").as_deref(), Some("start4.elf"));
        for name in ["fixup4.dat", "recovery.elf", "../../secret", "kernel8.img"] {
            assert_eq!(pi(name), None, "{name}");
        }
        fs::create_dir_all(root.join("boot/start.dtb")).unwrap();
        assert!(of_raspberry_pi(&root, release, "start.dtb").is_err(), "a directory");
    }

    #[test]
    fn only_files_of_firmware_that_all_users_may_read_are_sent() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let write = |path: &str, mode| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "content").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for name in [
            "userconf.txt",
            "user-data",
            "network-config",
            "grub2/user.cfg",
            "initrd.img",
            "vmlinuz",
            "overlays/secret.txt",
            "startup/x.elf",
        ] {
            write(&format!("boot/firmware/{name}"), 0o644);
            write(&format!("boot/{name}"), 0o644);
            assert_eq!(text(of_raspberry_pi(&root, "6.1", name)), None, "{name}");
        }
        write("etc/x.dtb", 0o644);
        assert_eq!(text(of_raspberry_pi(&root, "6.1", "../etc/x.dtb")), None);
        let sent = [
            "start4.elf",
            "fixup.dat",
            "kernel_2712.img",
            "current/overlays/vc4.dtbo",
        ];
        for name in sent {
            write(&format!("boot/firmware/{name}"), 0o604);
            assert!(text(of_raspberry_pi(&root, "6.1", name)).is_some(), "{name}");
            for mode in [0o600, 0o640, 0o750] {
                write(&format!("boot/firmware/{name}"), mode);
                let refused = of_raspberry_pi(&root, "6.1", name).unwrap_err().to_string();
                assert!(
                    refused.contains(&format!("/boot/firmware/{name} (mode {mode:04o})")),
                    "{refused}"
                );
            }
        }
        // Also by a link, and of all boards.
        write("etc/shadow", 0o640);
        symlink("/etc/shadow", root.join("boot/start.elf")).unwrap();
        assert!(of_raspberry_pi(&root, "6.1", "start.elf").is_err());
        write("boot/dtbs/x.dtb", 0o600);
        assert!(device_tree(&root, "6.1", "x.dtb").is_err());
    }
}
