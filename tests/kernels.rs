//! Initramfs of real kernels: the drivers of servers' cards and disks, with everything that they need, as the agent loads it.
//! kmod says what that is.

use crate::daemon::rackstrap;
use rackstrap_agent::ModuleIndex;
use rackstrap_modindex::{name_of, plain_path};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use testbed::{
    Binaries, Result, Site,
    kernels::{self, Suite},
    process::output,
};

/// Drivers, each with the alias of a card or controller that servers have.
const DRIVERS: [(&str, &str); 12] = [
    ("nvme", "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02"),
    // SAS3108, in PERC H730 and MegaRAID 9361.
    ("megaraid_sas", "pci:v00001000d0000005Dsv00001028sd00001F49bc01sc04i00"),
    // SAS3008, in HBA 9300.
    ("mpt3sas", "pci:v00001000d00000097sv00001000sd000030E0bc01sc07i00"),
    // BCM57414.
    ("bnxt_en", "pci:v000014E4d000016D7sv000014E4sd00004141bc02sc00i00"),
    // BCM57810.
    ("bnx2x", "pci:v000014E4d0000168Esv000014E4sd00001003bc02sc00i00"),
    // X710.
    ("i40e", "pci:v00008086d00001572sv00008086sd00000007bc02sc00i00"),
    // E810-C.
    ("ice", "pci:v00008086d00001592sv00008086sd00000002bc02sc00i00"),
    // ConnectX-3 and its Ethernet part, which newer kernels load for the auxiliary device.
    ("mlx4_core", "pci:v000015B3d00001003sv000015B3sd00000055bc02sc00i00"),
    ("mlx4_en", "mlx4_en"),
    // ConnectX-5.
    ("mlx5_core", "pci:v000015B3d00001017sv000015B3sd00000016bc02sc00i00"),
    // I350.
    ("igb", "pci:v00008086d00001521sv00008086sd00000001bc02sc00i00"),
    ("r8169", "pci:v000010ECd00008168sv000010ECsd00008168bc02sc00i00"),
];
/// Further modules of a root and of layouts.
const FILE_SYSTEMS: [&str; 5] = ["nfs", "nfsv3", "overlay", "ext4", "xfs"];
/// Firmware that cards of these drivers need, by its name in the kernel.
const FIRMWARE: [&str; 3] = [
    "intel/ice/ddp/ice.pkg",
    "rtl_nic/rtl8168h-2.fw",
    "bnx2x/bnx2x-e2-7.13.21.0.fw",
];

#[test]
fn debian_12s_initramfs_has_the_drivers_of_servers() -> Result {
    has_the_drivers_of_servers(Suite::Bookworm)
}

#[test]
fn debian_13s_initramfs_has_the_drivers_of_servers() -> Result {
    has_the_drivers_of_servers(Suite::Trixie)
}

#[test]
fn debian_sids_initramfs_has_the_drivers_of_servers() -> Result {
    has_the_drivers_of_servers(Suite::Sid)
}

fn has_the_drivers_of_servers(suite: Suite) -> Result {
    let tree = kernels::tree(suite, &mut |text| eprintln!("{text}"))?;
    let dir = tempfile::tempdir()?;
    let version = import(suite, &tree, dir.path())?;
    let release = releases(&tree)?.remove(0);
    let kernel = fs::metadata(version.join("kernel"))?;
    assert!(kernel.len() > 4 << 20, "a kernel of {} bytes", kernel.len());

    let initramfs = dir.path().join("initramfs");
    unpack(&version.join("initramfs"), &initramfs)?;
    let modules = initramfs.join("lib/modules").join(&release);
    let read = |name: &str| fs::read_to_string(modules.join(name)).unwrap();
    let index = ModuleIndex::new(
        &read("modules.alias"),
        &read("modules.dep"),
        &read("modules.softdep"),
        &read("modules.builtin"),
    );
    let aliases = DRIVERS.iter().map(|(driver, alias)| (*driver, *alias));
    for (driver, alias) in aliases.chain(FILE_SYSTEMS.iter().map(|name| (*name, *name))) {
        // A driver may be built in: then the agent has nothing to load.
        let found = index.resolve(alias);
        assert!(found.contains(&driver.to_owned()), "{alias} is {found:?}, not {driver}");
        let order = index.load_order(driver);
        let wanted = needs(&tree, &release, driver)?;
        assert!(
            wanted.is_subset(&order.iter().cloned().collect()),
            "{driver} needs {wanted:?}, is loaded as {order:?}"
        );
        for name in &order {
            let file = index
                .file(name)
                .unwrap_or_else(|| panic!("{driver}: no file of {name}"));
            // The kernel loads only uncompressed files, unless it is asked to decompress them (finit_module(2)).
            assert!(fs::read(modules.join(file))?.starts_with(b"\x7fELF"), "{file}");
        }
    }
    let dep = read("modules.dep");
    let files: Vec<PathBuf> = rackstrap_modindex::dependencies(&dep)
        .map(|(file, _)| modules.join(file))
        .collect();
    let built_for = modinfo("vermagic", &files)?;
    assert_eq!(built_for.lines().count(), files.len());
    assert!(built_for.lines().all(|line| line.starts_with(&release)), "{built_for}");
    for name in modinfo("firmware", &files)?.lines() {
        let (there, here) = (find_firmware(&tree, name), find_firmware(&initramfs, name));
        assert_eq!(here.is_some(), there.is_some(), "{name}");
    }
    for name in FIRMWARE {
        let file = find_firmware(&initramfs, name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(fs::read(&file)?, fs::read(find_firmware(&tree, name).unwrap())?);
    }
    Ok(())
}

/// A field of modinfo(8), of all these modules.
fn modinfo(field: &str, files: &[PathBuf]) -> Result<String> {
    output(Command::new("modinfo").args(["-F", field]).args(files))
}

/// Imports the tree with the real command. Returns the version's directory.
fn import(suite: Suite, tree: &Path, dir: &Path) -> Result<PathBuf> {
    let binaries = Binaries::get()?;
    let config = dir.join("site.toml");
    fs::write(&config, Site::demo().to_toml(&dir.join("state"))?)?;
    fs::create_dir(dir.join("state"))?;
    let import = rackstrap(&config)
        .args(["image", "import", suite.name(), "--from"])
        .arg(tree)
        .arg("--agent")
        .arg(binaries.agent)
        .output()?;
    let said = String::from_utf8_lossy(&import.stderr);
    assert!(import.status.success(), "{said}");
    Ok(dir.join("state/images").join(suite.name()).join("1"))
}

fn releases(tree: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(tree.join("usr/lib/modules"))?;
    let names: Vec<String> = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    assert_eq!(names.len(), 1, "{names:?}");
    Ok(names)
}

fn unpack(initramfs: &Path, into: &Path) -> Result {
    fs::create_dir(into)?;
    let mut plain = Command::new("zstd")
        .args(["-dcq"])
        .stdin(File::open(initramfs)?)
        .stdout(Stdio::piped())
        .spawn()?;
    let archive = plain.stdout.take().unwrap();
    output(
        Command::new("cpio")
            .args(["-idm", "--quiet"])
            .current_dir(into)
            .stdin(archive),
    )?;
    assert!(plain.wait()?.success(), "the initramfs is not compressed with zstd");
    Ok(())
}

/// The modules that modprobe(8) loads for `driver` in the whole tree, soft dependencies included.
fn needs(tree: &Path, release: &str, driver: &str) -> Result<BTreeSet<String>> {
    let shown = output(
        Command::new("modprobe")
            .args(["--show-depends", "-C", "/dev/null", "-S", release, "-d"])
            .arg(tree)
            .arg(driver),
    )?;
    let files = shown.lines().filter_map(|line| line.strip_prefix("insmod "));
    Ok(files
        .map(|file| name_of(plain_path(file.split_whitespace().next().unwrap_or_default())))
        .collect())
}

/// The file that the kernel takes of a tree without updates.
fn find_firmware(tree: &Path, name: &str) -> Option<PathBuf> {
    let places = ["", ".zst", ".xz"].map(|ending| tree.join("lib/firmware").join(format!("{name}{ending}")));
    places.into_iter().find(|place| place.is_file())
}
