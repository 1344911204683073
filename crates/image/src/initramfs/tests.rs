//! Reads the whole archive with cpio(1).

use super::*;
use crate::progress::Quiet;
use std::{
    fs,
    process::{Command, Stdio},
};

const RELEASE: &str = "6.1.0";

/// A 64-bit ELF file with a .modinfo section, and a symbol table of the functions that it calls.
pub fn module(info: &[u8], calls: &[&str]) -> Vec<u8> {
    let mut strings = vec![0];
    let mut symbols = vec![0; 24];
    for call in calls {
        symbols.extend((strings.len() as u32).to_le_bytes());
        // A global symbol without a section: SHN_UNDEF.
        symbols.extend([0x10, 0, 0, 0].iter().chain(&[0; 16]));
        strings.extend(call.as_bytes());
        strings.push(0);
    }
    let names = b"\0.modinfo\0.shstrtab\0.symtab\0.strtab\0";
    let mut file = vec![0; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let mut headers = vec![0; 64];
    for (name, content) in [(1u32, info), (10, names), (20, &symbols), (28, &strings)] {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
        file.extend_from_slice(content);
        headers.extend(header);
    }
    let table = file.len() as u64;
    file.extend(headers);
    file[40..48].copy_from_slice(&table.to_le_bytes());
    (file[58], file[60], file[62]) = (64, 5, 2);
    file
}

fn tree(config: &str) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let modules = tree.path().join("lib/modules").join(RELEASE);
    let tg3 = module(
        b"license=GPL\0firmware=tigon/tg3.bin\0firmware=../../etc/shadow\0firmware=tigon/absent.bin\0",
        &[],
    );
    for (path, content) in [
        (
            "kernel/drivers/net/ethernet/broadcom/tg3.ko.zst",
            zstd::encode_all(tg3.as_slice(), 3).unwrap(),
        ),
        ("kernel/drivers/net/phy/libphy.ko", module(b"license=GPL\0", &[])),
        ("kernel/drivers/net/wireless/wifi.ko", module(b"", &[])),
        ("kernel/lib/extra.ko", module(b"", &[])),
    ] {
        let file = modules.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    fs::write(
        modules.join("modules.dep"),
        "kernel/drivers/net/ethernet/broadcom/tg3.ko.zst: kernel/drivers/net/phy/libphy.ko\n\
         kernel/drivers/net/phy/libphy.ko:\nkernel/drivers/net/wireless/wifi.ko:\nkernel/lib/extra.ko:\n",
    )
    .unwrap();
    fs::create_dir_all(tree.path().join("lib/firmware/tigon")).unwrap();
    fs::write(tree.path().join("lib/firmware/tigon/tg3.bin.xz"), "packed").unwrap();
    fs::create_dir_all(tree.path().join("boot")).unwrap();
    fs::write(tree.path().join("boot").join(format!("config-{RELEASE}")), config).unwrap();
    tree
}

fn build_from(tree: &Path, extra: &[&str]) -> Result<(Built, Vec<u8>)> {
    build_watched(tree, extra, &mut Quiet)
}

fn build_watched(tree: &Path, extra: &[&str], progress: &mut dyn Progress) -> Result<(Built, Vec<u8>)> {
    let tree = RootDir::open(tree).unwrap();
    let modprobe = Modprobe::read(&tree);
    let ingredients = Ingredients {
        tree: &tree,
        release: RELEASE,
        index: &read_index(&tree, RELEASE, &modprobe).unwrap(),
        modprobe: &modprobe,
        agent: b"the agent",
        list: b"the list",
        extra: &extra.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>(),
    };
    let mut out = Vec::new();
    let built = build(&ingredients, &mut out, progress)?;
    Ok((built, out))
}

fn unpack(archive: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new("cpio")
        .args(["-idm", "--quiet"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .spawn()
        .expect("cpio is installed");
    child.stdin.take().unwrap().write_all(archive).unwrap();
    assert!(child.wait().unwrap().success());
    dir
}

fn unpack_gzip(archive: &[u8]) -> tempfile::TempDir {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(archive), &mut plain).unwrap();
    unpack(&plain)
}

#[test]
fn the_archive_holds_all_that_a_node_needs() {
    let tree = tree("CONFIG_RD_ZSTD=y\n");
    let (built, packed) = build_from(tree.path(), &[]).unwrap();
    let archive = zstd::decode_all(packed.as_slice()).unwrap();
    assert_eq!((built.modules, built.firmware, built.compression), (2, 1, "zstd"));
    let dir = unpack(&archive);
    let read = |p: &str| fs::read(dir.path().join(p)).unwrap();
    assert_eq!(read("init"), b"the agent");
    assert_eq!(read("rackstrap/image.list"), b"the list");
    let modules = format!("lib/modules/{RELEASE}");
    assert!(read(&format!("{modules}/kernel/drivers/net/ethernet/broadcom/tg3.ko")).starts_with(b"\x7fELF"));
    assert_eq!(
        String::from_utf8(read(&format!("{modules}/modules.dep"))).unwrap(),
        "kernel/drivers/net/ethernet/broadcom/tg3.ko: kernel/drivers/net/phy/libphy.ko\n\
         kernel/drivers/net/phy/libphy.ko:\n"
    );
    for index in ["modules.alias", "modules.softdep", "modules.builtin"] {
        assert_eq!(read(&format!("{modules}/{index}")), b"");
    }
    assert_eq!(read("lib/firmware/tigon/tg3.bin.xz"), b"packed");
    assert!(!dir.path().join("etc/shadow").exists());
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let console = fs::symlink_metadata(dir.path().join("dev/console")).unwrap();
    assert!(console.file_type().is_char_device());
    assert_eq!((console.rdev(), console.mtime()), (rustix::fs::makedev(5, 1), 0));
    assert_eq!(fs::metadata(dir.path().join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(
        build_from(tree.path(), &[]).unwrap().1,
        packed,
        "the same tree gives other bytes"
    );
}

#[test]
fn kernels_without_zstd_get_gzip() {
    let tree = tree("# CONFIG_RD_ZSTD is not set\n");
    let (built, packed) = build_from(tree.path(), &[]).unwrap();
    assert_eq!((built.compression, &packed[..2]), ("gzip", &[0x1f, 0x8b][..]));
    // The time in the header is zero.
    assert_eq!(packed[4..8], [0; 4]);
    assert_eq!(build_from(tree.path(), &[]).unwrap().1, packed);
}

#[test]
fn modules_can_be_added_by_name() {
    let tree = tree("");
    assert_eq!(build_from(tree.path(), &["extra", "wifi"]).unwrap().0.modules, 4);
    let error = build_from(tree.path(), &["nosuch"]).unwrap_err().to_string();
    assert!(error.contains("no module nosuch"), "{error}");
    let modules = tree.path().join("lib/modules").join(RELEASE);
    fs::remove_file(modules.join("kernel/drivers/net/phy/libphy.ko")).unwrap();
    assert!(build_from(tree.path(), &[]).unwrap_err().to_string().contains("libphy"));
    fs::write(
        modules.join("modules.dep"),
        "kernel/drivers/net/virtio_net.ko: kernel/x.ko\n",
    )
    .unwrap();
    assert!(
        build_from(tree.path(), &[])
            .unwrap_err()
            .to_string()
            .contains("no entry for it; run depmod")
    );
}

/// Records the remarks.
#[derive(Default)]
struct Remarks(Vec<String>);

impl Progress for Remarks {
    fn begin(&mut self, _step: Step, _bytes: Option<u64>) {}
    fn advance(&mut self, _files: u64, _bytes: u64) {}
    fn remark(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

fn add_modules(tree: &Path, modules: &[(&str, &[&str])]) {
    let dir = tree.join("lib/modules").join(RELEASE);
    let index = dir.join("modules.dep");
    let mut dep = fs::read_to_string(&index).unwrap();
    for (path, calls) in modules {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), module(b"license=GPL\0", calls)).unwrap();
        dep.push_str(&format!("{path}:\n"));
    }
    fs::write(index, dep).unwrap();
}

#[test]
fn drivers_from_outside_the_kernel_are_included_from_any_directory() {
    let tree = tree("");
    const CARD: &[&str] = &["__pci_register_driver", "alloc_etherdev_mqs"];
    const DISKS: &[&str] = &["__pci_register_driver", "scsi_host_alloc"];
    add_modules(
        tree.path(),
        &[
            ("extra/be2net.ko", CARD),
            ("extra/kmod-bnx2x/bnx2x.ko", CARD),
            ("updates/megaraid_sas.ko", DISKS),
            ("weak-updates/mpt3sas/mpt3sas.ko", DISKS),
            ("weak-updates/smartpqi.ko", DISKS),
            ("updates/dkms/nvidia.ko", &["__pci_register_driver", "drm_dev_alloc"]),
            ("extra/zfs/zfs.ko", &["__blk_mq_alloc_disk"]),
            ("kernel/net/unasked.ko", CARD),
        ],
    );
    let mut remarks = Remarks::default();
    let (built, archive) = build_watched(tree.path(), &[], &mut remarks).unwrap();
    assert_eq!(built.modules, 2 + 5);
    let dir = unpack_gzip(&archive);
    let modules = dir.path().join("lib/modules").join(RELEASE);
    assert!(modules.join("weak-updates/mpt3sas/mpt3sas.ko").exists());
    let remark = remarks
        .0
        .iter()
        .find(|remark| remark.contains("outside the kernel"))
        .unwrap();
    assert!(
        remark.ends_with("nvidia, zfs") && remark.contains("--module"),
        "{remark}"
    );
    // A module that is requested by name is not in the remark.
    let mut remarks = Remarks::default();
    build_watched(tree.path(), &["zfs"], &mut remarks).unwrap();
    assert!(
        remarks.0.iter().any(|remark| remark.ends_with(": nvidia")),
        "{:?}",
        remarks.0
    );
}

#[test]
fn the_images_modprobe_configuration_is_included() {
    let tree = tree("");
    add_modules(
        tree.path(),
        &[
            ("kernel/fs/overlayfs/overlay.ko", &[]),
            ("kernel/drivers/misc/helper.ko", &[]),
        ],
    );
    let conf = tree.path().join("etc/modprobe.d");
    fs::create_dir_all(&conf).unwrap();
    fs::write(
        conf.join("site.conf"),
        "options tg3 tg3_debug=1\nblacklist libphy\nsoftdep tg3 post: helper\ninstall overlay /bin/false\n",
    )
    .unwrap();
    let mut remarks = Remarks::default();
    let (built, archive) = build_watched(tree.path(), &[], &mut remarks).unwrap();
    assert_eq!(built.modules, 4, "the soft dependency is missing");
    let dir = unpack_gzip(&archive);
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(read(modprobe::PLACE), "blacklist libphy\noptions tg3 tg3_debug=1\n");
    assert_eq!(
        read(&format!("lib/modules/{RELEASE}/modules.softdep")),
        "softdep tg3 post: helper\n"
    );
    assert!(
        remarks
            .0
            .iter()
            .any(|remark| remark.contains("site.conf forbids the module overlay")),
        "{:?}",
        remarks.0
    );
}

#[test]
fn firmware_is_found_where_the_kernel_finds_it() {
    let places: Vec<String> = firmware_places("6.1", "a/b.bin").collect();
    assert_eq!(
        places[..5],
        [
            "lib/firmware/updates/6.1/a/b.bin",
            "lib/firmware/updates/a/b.bin",
            "lib/firmware/6.1/a/b.bin",
            "lib/firmware/a/b.bin",
            "lib/firmware/updates/6.1/a/b.bin.zst",
        ]
    );
    let tree = tree("");
    let firmware = tree.path().join("lib/firmware");
    for (place, content) in [
        ("updates/tigon/absent.bin.zst", "newer"),
        ("6.1.0/tigon/tg3.bin", "of this kernel"),
    ] {
        fs::create_dir_all(firmware.join(place).parent().unwrap()).unwrap();
        fs::write(firmware.join(place), content).unwrap();
    }
    let (built, archive) = build_from(tree.path(), &[]).unwrap();
    assert_eq!(built.firmware, 2);
    let dir = unpack_gzip(&archive);
    let read = |path: &str| fs::read_to_string(dir.path().join("lib/firmware").join(path)).unwrap();
    assert_eq!(read("updates/tigon/absent.bin.zst"), "newer");
    assert_eq!(read("6.1.0/tigon/tg3.bin"), "of this kernel");
    assert!(!dir.path().join("lib/firmware/tigon/tg3.bin.xz").exists());
}
