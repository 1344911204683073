//! Builds the initramfs of an image: the agent as `/init`, and the modules that a node needs until it has mounted its root.

mod conf;
mod cpio;
mod depmod;
mod driver;
pub(crate) mod elf;
mod modprobe;
mod module_file;
mod modules;
mod select;
mod survey;

pub use modprobe::Modprobe;
pub use modules::ModuleIndex;
pub use survey::{ModuleSurvey, ModuleTexts, survey_modules};

use super::{
    error::{Doing, ImportError, Result},
    progress::{Progress, Step},
    root::RootDir,
};
use depmod::SearchOrder;
use rackstrap_modindex::{name_of, plain_path};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::Path,
};

/// Largest index of depmod that is read (Debian's modules.alias has 1.2 MB).
const LARGEST_INDEX: u64 = 64 << 20;
/// Largest module file, compressed or not.
const LARGEST_MODULE: u64 = 64 << 20;
/// Firmware files larger than this are left out, and so is all firmware after this total.
const LARGEST_FIRMWARE: u64 = 4 << 20;
const ALL_FIRMWARE: u64 = 24 << 20;
/// Measured on Debian 12's modules, 58 MB: level 6 gives 14.4 MB, 9 gives 13.8, 12 gives 13.7 in three times the time of
/// 9, 19 gives 12.2 in sixteen times.
const ZSTD_LEVEL: i32 = 9;
/// Modules without which no root can be mounted, with their purpose.
pub const ROOT_NEEDS: &[(&str, &str)] = &[
    ("sunrpc", "remote procedure calls, below NFS"),
    ("nfs", "the NFS client"),
    ("nfsv3", "version 3 of the NFS client"),
    ("overlay", "the writable layer above the root"),
];
/// Directories that the agent mounts on or writes to first.
const DIRS: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("lib", 0o755),
    ("lib/modules", 0o755),
    ("proc", 0o555),
    ("rackstrap", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
];

/// The parts of an initramfs.
#[derive(Debug)]
pub struct Ingredients<'a> {
    /// The tree with modules and firmware.
    pub tree: &'a RootDir,
    /// Kernel release.
    pub release: &'a str,
    /// The module indexes of that release, see [`read_index`].
    pub index: &'a ModuleIndex,
    /// The tree's own configuration of modules; the index contains its soft dependencies.
    pub modprobe: &'a Modprobe,
    /// The agent's binary.
    pub agent: &'a [u8],
    /// The list of the tree's files for the agent ([`rackstrap_wire::ImageList`]).
    pub list: &'a [u8],
    /// Names of further modules to include.
    pub extra: &'a [String],
}

/// The properties of the initramfs that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Number of modules.
    pub modules: usize,
    /// Number of firmware files.
    pub firmware: usize,
    /// Bytes before compression.
    pub unpacked: u64,
    /// `zstd` or `gzip`.
    pub compression: &'static str,
}

/// Reads the indexes of depmod(8) for `release`, and adds the soft dependencies of `modprobe`.
pub fn read_index(tree: &RootDir, release: &str, modprobe: &Modprobe) -> io::Result<ModuleIndex> {
    let read = |name: &str| {
        let bytes = tree.read(module_dir(release) + "/" + name, LARGEST_INDEX)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let optional = |name: &str| match read(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    };
    let texts = [
        read("modules.dep")?,
        optional("modules.softdep")?,
        optional("modules.alias")?,
        optional("modules.builtin")?,
    ];
    Ok(index_of(texts, modprobe, &SearchOrder::read(tree, release)))
}

/// The index of `modules.dep`, `.softdep`, `.alias` and `.builtin`.
fn index_of([dep, softdep, alias, builtin]: [String; 4], modprobe: &Modprobe, order: &SearchOrder) -> ModuleIndex {
    let softdep = softdep + "\n" + modprobe.softdeps();
    let mut index = ModuleIndex::parse(&dep, &softdep, &alias, &builtin);
    index.prefer(order);
    index
}

fn module_dir(release: &str) -> String {
    format!("lib/modules/{release}")
}

/// True if that kernel can unpack a zstd initramfs, by its configuration. Without a configuration gzip is the safe choice.
fn reads_zstd(tree: &RootDir, release: &str) -> bool {
    let places = [format!("boot/config-{release}"), module_dir(release) + "/config"];
    places.iter().any(|place| {
        tree.read(place, 4 << 20)
            .is_ok_and(|config| config.split(|b| *b == b'\n').any(|line| line == b"CONFIG_RD_ZSTD=y"))
    })
}

/// Writes the initramfs to `out`. The same parts give the same bytes.
pub fn build(from: &Ingredients<'_>, out: &mut dyn Write, progress: &mut dyn Progress) -> Result<Built> {
    let (mut seeds, mut others): (Vec<&str>, Vec<&str>) = from.index.paths().partition(|p| select::is_wanted(p));
    // The directory of the kernel's own modules shows their purpose. For all others only their calls do.
    others.retain(|path| !path.starts_with("kernel/"));
    let (drivers, others): (Vec<&str>, Vec<&str>) = others.into_iter().partition(|path| is_driver(from, path));
    seeds.extend(drivers);
    let mut unknown = Vec::new();
    for name in from.extra {
        match from.index.path_of(name) {
            Some(path) => seeds.push(path),
            None if from.index.has(name) => {}
            None => unknown.push(format!("no module {name} in /lib/modules/{}", from.release)),
        }
    }
    let (included, missing) = from.index.closure(seeds);
    unknown.extend(missing.iter().map(|path| {
        let release = from.release;
        format!("/lib/modules/{release}/modules.dep names {path}, but has no entry for it; run depmod -a {release}")
    }));
    if !unknown.is_empty() {
        return Err(ImportError::Refused(unknown));
    }
    let (modprobe, remarks) = configuration(from.index, from.modprobe, &included);
    remarks.iter().for_each(|remark| progress.remark(remark));
    let left_out: BTreeSet<String> = others
        .iter()
        .filter(|path| !included.contains(*path))
        .map(|path| name_of(path))
        .collect();
    if !left_out.is_empty() {
        progress.remark(&format!(
            "not in the initramfs, because these modules from outside the kernel drive neither network cards nor disks (to add one: \
             --module NAME): {}",
            list(&left_out)
        ));
    }
    let zstd = reads_zstd(from.tree, from.release);
    let compression = if zstd { "zstd" } else { "gzip" };
    progress.begin(Step::Initramfs, None);
    let (firmware, unpacked) = write_contents(from, &included, &modprobe, out, zstd, progress)?;
    Ok(Built {
        modules: included.len(),
        firmware,
        unpacked,
        compression,
    })
}

/// True if the module at `path` drives a network card or disks. False if it cannot be read.
fn is_driver(from: &Ingredients<'_>, path: &str) -> bool {
    let module = from.tree.read(module_dir(from.release) + "/" + path, LARGEST_MODULE);
    module
        .and_then(module_file::decompress)
        .is_ok_and(|module| driver::boots_nodes(&module))
}

/// The tree's `modprobe.d` as it applies in the initramfs, and remarks about the rest.
fn configuration(index: &ModuleIndex, modprobe: &Modprobe, included: &BTreeSet<&str>) -> (String, Vec<String>) {
    let names = |paths: &BTreeSet<&str>| -> BTreeSet<String> { paths.iter().map(|p| name_of(p)).collect() };
    let needed = ROOT_NEEDS.iter().filter_map(|(name, _)| index.path_of(name));
    let mut modprobe = modprobe.clone();
    let mut remarks = modprobe.allow(&names(&index.closure(needed).0));
    let included = names(included);
    remarks.extend(modprobe.remarks(&included));
    (modprobe.text(&included), remarks)
}

fn write_contents(
    from: &Ingredients<'_>,
    included: &BTreeSet<&str>,
    modprobe: &str,
    out: &mut dyn Write,
    zstd: bool,
    progress: &mut dyn Progress,
) -> Result<(usize, u64)> {
    let writing = || "writing the initramfs";
    if zstd {
        let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL).doing(writing)?;
        encoder.include_checksum(true).doing(writing)?;
        let mut archive = cpio::Writer::new(encoder);
        let firmware = write_archive(from, included, modprobe, &mut archive, progress)?;
        let encoder = archive.finish().doing(writing)?;
        encoder.finish().doing(writing)?.flush().doing(writing)?;
        Ok(firmware)
    } else {
        // `GzBuilder` without a name and with mtime 0, so that the bytes do not depend on the clock.
        let encoder = flate2::GzBuilder::new().write(out, flate2::Compression::new(7));
        let mut archive = cpio::Writer::new(encoder);
        let firmware = write_archive(from, included, modprobe, &mut archive, progress)?;
        let encoder = archive.finish().doing(writing)?;
        encoder.finish().doing(writing)?.flush().doing(writing)?;
        Ok(firmware)
    }
}

fn write_archive<W: Write>(
    from: &Ingredients<'_>,
    included: &BTreeSet<&str>,
    modprobe: &str,
    archive: &mut cpio::Writer<W>,
    progress: &mut dyn Progress,
) -> Result<(usize, u64)> {
    let writing = || "writing the initramfs";
    for (dir, mode) in DIRS {
        archive.dir(dir, *mode).doing(writing)?;
    }
    // Without a console in the archive the kernel starts /init with no standard output (init/main.c, console_on_rootfs).
    archive.char_device("dev/console", 0o600, 5, 1).doing(writing)?;
    archive.file("init", 0o755, from.agent).doing(writing)?;
    archive.file("rackstrap/image.list", 0o644, from.list).doing(writing)?;
    let base = module_dir(from.release);
    let mut dirs: BTreeSet<String> = DIRS.iter().map(|(dir, _)| (*dir).to_owned()).collect();
    parents(&mut dirs, &(base.clone() + "/x"), archive).doing(writing)?;
    for (name, text) in [
        ("modules.alias", from.index.reduced_alias(included)),
        ("modules.builtin", from.index.builtin().to_owned()),
        ("modules.dep", from.index.reduced_dep(included)),
        ("modules.softdep", from.index.reduced_softdep(included)),
    ] {
        archive
            .file(&format!("{base}/{name}"), 0o644, text.as_bytes())
            .doing(writing)?;
    }
    parents(&mut dirs, modprobe::PLACE, archive).doing(writing)?;
    archive
        .file(modprobe::PLACE, 0o644, modprobe.as_bytes())
        .doing(writing)?;
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    for path in included {
        let place = format!("{base}/{path}");
        let module = from
            .tree
            .read(&place, LARGEST_MODULE)
            .and_then(module_file::decompress)
            .doing(|| format!("reading the module {place}"))?;
        for firmware in module_file::firmware(&module) {
            wanted.entry(firmware).or_insert_with(|| name_of(path));
        }
        let target = plain_path(&place).to_owned();
        parents(&mut dirs, &target, archive).doing(writing)?;
        archive.file(&target, 0o644, &module).doing(writing)?;
        progress.advance(1, module.len() as u64);
    }
    let found = add_firmware(from, &wanted, &mut dirs, archive, progress)?;
    Ok((found, archive.written()))
}

/// The paths where the kernel `release` looks for a firmware file, in its order (drivers/base/firmware_loader/main.c, `fw_path` and
/// `_request_firmware`): the plain file in all directories, then the compressed ones. Files are copied as they are.
fn firmware_places(release: &str, firmware: &str) -> impl Iterator<Item = String> {
    let dirs = [
        format!("updates/{release}/"),
        "updates/".to_owned(),
        format!("{release}/"),
        String::new(),
    ];
    ["", ".zst", ".xz"].into_iter().flat_map(move |ending| {
        let places = dirs.clone().map(|dir| format!("lib/firmware/{dir}{firmware}{ending}"));
        places.into_iter()
    })
}

/// Adds the firmware of the included drivers, if the tree has it.
fn add_firmware<W: Write>(
    from: &Ingredients<'_>,
    wanted: &BTreeMap<String, String>,
    dirs: &mut BTreeSet<String>,
    archive: &mut cpio::Writer<W>,
    progress: &mut dyn Progress,
) -> Result<usize> {
    let (mut found, mut total) = (0, 0);
    let mut absent: BTreeSet<&str> = BTreeSet::new();
    let mut left_out: BTreeSet<&str> = BTreeSet::new();
    for (firmware, driver) in wanted {
        let Some(place) = firmware_places(from.release, firmware).find(|place| from.tree.exists(place)) else {
            absent.insert(driver);
            continue;
        };
        match from.tree.read(&place, LARGEST_FIRMWARE) {
            Ok(content) if total + content.len() as u64 <= ALL_FIRMWARE => {
                total += content.len() as u64;
                found += 1;
                parents(dirs, &place, archive).doing(|| "writing the initramfs")?;
                archive
                    .file(&place, 0o644, &content)
                    .doing(|| "writing the initramfs")?;
                progress.advance(1, content.len() as u64);
            }
            _ => {
                left_out.insert(driver);
            }
        }
    }
    if !absent.is_empty() {
        progress.remark(&format!(
            "the tree has no firmware for these drivers, which some of their cards need (Debian: firmware-* packages): {}",
            list(&absent)
        ));
    }
    if !left_out.is_empty() {
        progress.remark(&format!(
            "firmware left out because it is too large for an initramfs, for: {}",
            list(&left_out)
        ));
    }
    Ok(found)
}

fn list<T: AsRef<str>>(names: &BTreeSet<T>) -> String {
    names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ")
}

/// Writes the missing directories above `path`.
fn parents<W: Write>(dirs: &mut BTreeSet<String>, path: &str, archive: &mut cpio::Writer<W>) -> io::Result<()> {
    for (at, _) in path.match_indices('/') {
        let dir = &path[..at];
        if !dirs.contains(dir) {
            archive.dir(dir, 0o755)?;
            dirs.insert(dir.to_owned());
        }
    }
    Ok(())
}

/// Reads the agent's binary and checks that it can start in an initramfs without libraries.
pub fn read_agent(path: &Path, arch: &str) -> Result<Vec<u8>> {
    let agent = std::fs::read(path).doing(|| format!("reading the agent {}", path.display()))?;
    let refuse = |why: String| Err(ImportError::Request(format!("the agent {} {why}", path.display())));
    match elf::machine(&agent) {
        None => refuse(format!(
            "is not a program (ELF) for a known machine; {}",
            super::agents::how_to_build(arch)
        )),
        Some(machine) if machine != arch => refuse(format!(
            "is built for {machine}, but the tree is {arch}; give the right one with --agent"
        )),
        Some(_) if elf::has_interpreter(&agent) => refuse(
            "is linked dynamically and could not start in an initramfs; build it with -C target-feature=+crt-static"
                .into(),
        ),
        Some(_) => Ok(agent),
    }
}

#[cfg(test)]
mod tests;
