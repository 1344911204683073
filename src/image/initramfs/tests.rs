//! The whole archive, read back by cpio(1).

use super::*;
use crate::image::progress::Quiet;
use std::{
    fs,
    process::{Command, Stdio},
};

const RELEASE: &str = "6.1.0";

/// A 64-bit ELF file with nothing but a .modinfo section.
fn module(info: &[u8]) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut file = vec![0; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let (info_at, names_at) = (64u64, 64 + info.len() as u64);
    file.extend_from_slice(info);
    file.extend_from_slice(names);
    let table = file.len() as u64;
    for (name, at, len) in [
        (0u32, 0u64, 0u64),
        (1, info_at, info.len() as u64),
        (10, names_at, names.len() as u64),
    ] {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[24..32].copy_from_slice(&at.to_le_bytes());
        header[32..40].copy_from_slice(&len.to_le_bytes());
        file.extend_from_slice(&header);
    }
    file[40..48].copy_from_slice(&table.to_le_bytes());
    (file[58], file[60], file[62]) = (64, 3, 2);
    file
}

fn tree(config: &str) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let modules = tree.path().join("lib/modules").join(RELEASE);
    let tg3 = module(b"license=GPL\0firmware=tigon/tg3.bin\0firmware=../../etc/shadow\0firmware=tigon/absent.bin\0");
    for (path, content) in [
        (
            "kernel/drivers/net/ethernet/broadcom/tg3.ko.zst",
            zstd::encode_all(tg3.as_slice(), 3).unwrap(),
        ),
        ("kernel/drivers/net/phy/libphy.ko", module(b"license=GPL\0")),
        ("kernel/drivers/net/wireless/wifi.ko", module(b"")),
        ("kernel/lib/extra.ko", module(b"")),
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
    let tree = RootDir::open(tree).unwrap();
    let ingredients = Ingredients {
        tree: &tree,
        release: RELEASE,
        index: &read_index(&tree, RELEASE).unwrap(),
        agent: b"the agent",
        list: b"the list",
        extra: &extra.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>(),
    };
    let mut out = Vec::new();
    let built = build(&ingredients, &mut out, &mut Quiet)?;
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

#[test]
fn holds_what_a_node_needs() {
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
        "the same tree gives the same bytes"
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
fn modules_by_name() {
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
