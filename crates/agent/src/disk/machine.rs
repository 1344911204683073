//! What preparation needs, done for real: the kernel, and the image's own mkfs.

use super::{
    choose::partition_name,
    device::BlockDevice,
    geometry::{Geometry, Range, partition_number},
    options,
    prepare::Machine,
    refresh::Copy,
    seed,
};
use crate::{
    fail::{Doing, Failure, Res},
    network::wait_for,
    sys,
};
use rackstrap_wire::{FileSystem, ImageList, Layout, Partition};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest wait for a partition's node.
const NODE_WAIT: Duration = Duration::from_secs(10);

/// A disk of this machine, and the image whose programs prepare it.
pub struct RealMachine<'a> {
    /// Kernel name of the disk.
    pub disk: String,
    /// The layout.
    pub layout: &'a Layout,
    /// The image's root, mounted read-only.
    pub image: PathBuf,
    /// What the image says of its files.
    pub list: &'a ImageList<'a>,
    /// Directory below which the new file systems are mounted, one directory per partition name.
    pub mounts: PathBuf,
    /// Called after each step; may never return.
    pub on_step: &'a mut dyn FnMut(&str),
    /// Called with lines for people.
    pub on_note: &'a mut dyn FnMut(&str),
}

impl RealMachine<'_> {
    /// `/dev/vda2`.
    pub fn node(&self, index: usize) -> PathBuf {
        let number = partition_number(self.layout.table, index);
        Path::new("/dev").join(partition_name(&self.disk, number))
    }
}

impl Machine for RealMachine<'_> {
    fn reread(&mut self, device: &mut dyn BlockDevice, geometry: &Geometry) -> Res<()> {
        let path = Path::new("/dev").join(&self.disk);
        let file = fs::File::open(&path).doing(|| format!("opening {}", path.display()))?;
        device.forget().doing(|| format!("flushing {}", path.display()))?;
        // The kernel scans partitions by itself when the disk's last writer closes it; that may be just now.
        let mut last = None;
        let read = wait_for(NODE_WAIT, || {
            sys::reread_partitions(&file).map_err(|e| last = Some(e)).ok()
        });
        if read.is_none() {
            let why = last.map(|e| e.to_string()).unwrap_or_default();
            return Err(Failure::new(format!(
                "having the kernel read the partitions of {}: {why}",
                self.disk
            )));
        }
        for (index, range) in geometry.partitions.iter().enumerate() {
            let number = partition_number(self.layout.table, index);
            partition_node(&self.disk, number, Some(*range))?;
        }
        Ok(())
    }

    fn make_fs(&mut self, _: &mut dyn BlockDevice, index: usize, partition: &Partition, _: Range) -> Res<()> {
        let node = self.node(index);
        let Some(recipe) = recipe(partition.fs) else {
            return Ok(());
        };
        run(&self.image, recipe.program, recipe.arguments, &partition.name, &node)
    }

    fn seed(&mut self, _: &mut dyn BlockDevice) -> Res<()> {
        for (index, partition) in self.layout.partitions.iter().enumerate() {
            let Some(mount) = &partition.mount else { continue };
            if !matches!(partition.fs, FileSystem::Ext4 | FileSystem::Xfs) {
                continue;
            }
            let target = mount_partition(&self.node(index), partition, &self.mounts, true)?;
            let result = seed_partition(&self.image, self.list, self.layout, mount, &target);
            let synced = fs::File::open(&target).and_then(|d| Ok(rustix::fs::syncfs(&d)?));
            unmount(&target)?;
            if let Some(copied) = result? {
                synced.doing(|| format!("syncing {mount}"))?;
                let mib = copied.bytes >> 20;
                (self.on_note)(&format!(
                    "{mount}: {} files, {mib} MiB copied from the image",
                    copied.files
                ));
            }
        }
        Ok(())
    }

    fn step(&mut self, name: &str) {
        (self.on_step)(name);
    }
}

/// Calls `work` with what the image has at `mount` and the file system for it at `target`; none if the image has no such directory.
fn with_copy<T>(
    image: &Path,
    layout: &Layout,
    mount: &str,
    target: &Path,
    work: impl FnOnce(&Copy<'_>) -> Res<T>,
) -> Res<Option<T>> {
    let inside = rustix::fs::openat2(
        &fs::File::open(image).doing(|| format!("opening {}", image.display()))?,
        mount.trim_start_matches('/'),
        OFlags::PATH | OFlags::DIRECTORY,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    );
    let directory = match inside {
        Ok(directory) => directory,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(e) => return Err(Failure::new(format!("looking for {mount} in the image: {e}"))),
    };
    use std::os::fd::AsRawFd;
    let path = PathBuf::from(format!("/proc/self/fd/{}/.", directory.as_raw_fd()));
    let mounts: Vec<&str> = layout.partitions.iter().filter_map(|p| p.mount.as_deref()).collect();
    let copy = Copy {
        image: &path,
        target,
        mount,
        mounts: &mounts,
    };
    work(&copy).map(Some)
}

/// Brings a partition that was kept, mounted at `target`, to the image's state; says what was done, if anything was.
pub fn refresh_partition(
    image: &Path,
    list: &ImageList<'_>,
    layout: &Layout,
    partition: &Partition,
    target: &Path,
) -> Res<Option<String>> {
    match &partition.mount {
        Some(mount) => {
            let done = with_copy(image, layout, mount, target, |copy| copy.refresh(list));
            done.map(Option::flatten)
                .map_err(|failure| Failure::new(format!("{mount} does not follow the image: {failure}")))
        }
        None => Ok(None),
    }
}

/// Copies what the image has at `mount`; none if it has no such directory.
fn seed_partition(
    image: &Path,
    list: &ImageList<'_>,
    layout: &Layout,
    mount: &str,
    target: &Path,
) -> Res<Option<seed::Copied>> {
    let copied = with_copy(image, layout, mount, target, |copy| {
        let copied = seed::copy_tree(copy.image, target)?;
        copy.settle(list)?;
        Ok(copied)
    })?;
    if matches!(mount, "/tmp" | "/var/tmp") {
        rustix::fs::chmod(target, Mode::from_raw_mode(0o1777)).doing(|| format!("chmod of {mount}"))?;
    }
    Ok(copied)
}

/// How a file system is made.
pub struct Recipe {
    /// Program, searched in the image's usual directories.
    pub program: &'static str,
    /// Arguments before label and device.
    pub arguments: &'static [&'static str],
    /// Debian's package of it, for the message when it is missing.
    pub package: &'static str,
}

/// Features are pinned to what mke2fs and mkfs.xfs of Debian 11 and RHEL 8 make, so that an image that is rolled back to an
/// older kernel still mounts what a newer one made.
pub fn recipe(fs: FileSystem) -> Option<Recipe> {
    match fs {
        FileSystem::Ext4 => Some(Recipe {
            program: "mkfs.ext4",
            arguments: &[
                "-F",
                "-q",
                "-O",
                "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum",
                "-m",
                "1",
                "-L",
            ],
            package: "e2fsprogs",
        }),
        FileSystem::Xfs => Some(Recipe {
            program: "mkfs.xfs",
            arguments: &[
                "-f",
                "-q",
                "-m",
                "crc=1,finobt=1,reflink=1,rmapbt=0",
                "-i",
                "sparse=1",
                "-L",
            ],
            package: "xfsprogs",
        }),
        FileSystem::Swap => Some(Recipe {
            program: "mkswap",
            arguments: &["-f", "-L"],
            package: "util-linux",
        }),
        FileSystem::Raw => None,
    }
}

/// Says which program of the image is missing for a layout; asked before anything is written.
pub fn missing_program(image: &Path, layout: &Layout) -> Option<String> {
    let recipes = layout.partitions.iter().filter_map(|p| recipe(p.fs));
    for recipe in recipes {
        if find_program(image, recipe.program).is_none() {
            return Some(format!(
                "the image has no {}; install {} in it (Debian's name)",
                recipe.program, recipe.package
            ));
        }
    }
    None
}

fn find_program(image: &Path, program: &str) -> Option<String> {
    let root = fs::File::open(image).ok()?;
    ["usr/sbin", "sbin", "usr/bin", "bin"]
        .into_iter()
        .map(|d| format!("{d}/{program}"))
        .find(|path| rustix::fs::openat2(&root, path, OFlags::PATH, Mode::empty(), ResolveFlags::IN_ROOT).is_ok())
}

fn run(image: &Path, program: &str, arguments: &[&str], label: &str, node: &Path) -> Res<()> {
    let doing = || format!("{program} {}", node.display());
    let path = find_program(image, program).ok_or_else(|| Failure::new(format!("the image has no {program}")))?;
    let mut command = sys::command_in_root(image, &format!("/{path}"))?;
    command
        .args(arguments)
        .arg(label)
        .arg(node)
        .stdin(std::process::Stdio::null());
    let output = command.output().doing(doing)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "{}: {}: {}",
            doing(),
            output.status,
            last_words(&output.stderr)
        ))),
    }
}

fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let text = lines[lines.len().saturating_sub(2)..].join("; ");
    rackstrap_wire::text::cut(&text, 200).to_owned()
}

/// What `e2fsck -p` found (fsck.ext4(8)); the error says that the file system must not be mounted.
pub fn check_ext4(image: &Path, node: &Path) -> Res<String> {
    let Some(path) = find_program(image, "e2fsck") else {
        // The journal is replayed by mounting; the rest is the administrator's choice of packages.
        return Ok("not checked, as the image has no e2fsck".into());
    };
    let mut command = sys::command_in_root(image, &format!("/{path}"))?;
    command.arg("-p").arg(node).stdin(std::process::Stdio::null());
    let output = command.output().doing(|| format!("e2fsck -p {}", node.display()))?;
    match output.status.code() {
        Some(0) => Ok("clean after its journal was replayed".into()),
        // 2 wants a restart only if the file system was mounted, which it is not.
        Some(1..=3) => Ok("repaired by e2fsck -p".into()),
        _ => {
            let said = last_words(if output.stderr.is_empty() {
                &output.stdout
            } else {
                &output.stderr
            });
            Err(Failure::new(format!(
                "{} wants a person: e2fsck -p: {}: {said}",
                node.display(),
                output.status
            )))
        }
    }
}

/// Waits for partition `number` to have that length, and for its node; tells the kernel of the partition where it does not
/// read our table, and makes the node where devtmpfs did not.
pub fn partition_node(disk: &str, number: u32, range: Option<Range>) -> Res<PathBuf> {
    let name = partition_name(disk, number);
    let shown = Path::new("/sys/class/block").join(&name);
    let node = Path::new("/dev").join(&name);
    // The kernel reads a table before it shows the disk, so what is missing now does not come by itself.
    if let Some(range) = range.filter(|_| !shown.exists()) {
        let path = Path::new("/dev").join(disk);
        fs::File::open(&path)
            .and_then(|file| sys::add_partition(&file, number, range.start, range.len))
            .doing(|| format!("telling the kernel of partition {name}"))?;
    }
    let found = wait_for(NODE_WAIT, || {
        let sectors: u64 = fs::read_to_string(shown.join("size")).ok()?.trim().parse().ok()?;
        if range.is_some_and(|r| r.len != sectors * 512) {
            return None;
        }
        if !node.exists() {
            let numbers = fs::read_to_string(shown.join("dev")).ok()?;
            let (major, minor) = numbers.trim().split_once(':')?;
            let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
            let kind = rustix::fs::FileType::BlockDevice;
            let _ = rustix::fs::mknodat(rustix::fs::CWD, &node, kind, Mode::RUSR | Mode::WUSR, device);
        }
        node.exists().then_some(())
    });
    match found {
        Some(()) => Ok(node),
        None => Err(Failure::new(format!(
            "the kernel shows no partition {name} as the table has it"
        ))),
    }
}

/// Mounts a partition at its place below `mounts`; `plain` leaves the layout's options out (they may say `ro`).
pub fn mount_partition(node: &Path, partition: &Partition, mounts: &Path, plain: bool) -> Res<PathBuf> {
    let target = mounts.join(&partition.name);
    fs::create_dir_all(&target).doing(|| format!("making {}", target.display()))?;
    let (flags, data) = options::split(if plain { "" } else { &partition.options });
    let data = std::ffi::CString::new(data).doing(|| "mount options".into())?;
    let doing = || format!("mounting {} ({})", node.display(), partition.fs.as_str());
    rustix::mount::mount(node, &target, partition.fs.as_str(), flags, Some(data.as_c_str())).doing(doing)?;
    Ok(target)
}

/// Unmounts. A process that was just forked may hold a descriptor for a moment, so EBUSY is asked again for a while.
pub fn unmount(target: &Path) -> Res<()> {
    let mut last = rustix::io::Errno::BUSY;
    let done = wait_for(Duration::from_secs(5), || {
        match rustix::mount::unmount(target, rustix::mount::UnmountFlags::empty()) {
            Err(rustix::io::Errno::BUSY) => None,
            other => Some(other),
        }
    });
    if let Some(Err(e)) = done {
        last = e;
    }
    match done {
        Some(Ok(())) => Ok(()),
        _ => Err(Failure::new(format!("unmounting {}: {last}", target.display()))),
    }
}
