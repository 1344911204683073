//! The parts of preparation that need the machine: the kernel, and the image's own mkfs.

use super::{
    choose::partition_name,
    device::BlockDevice,
    geometry::{Geometry, Range, partition_number},
    options,
    prepare::Machine,
    refresh::ImageCopy,
    seed, trim,
};
use crate::{
    command::{self, Execution},
    fail::{Doing, Failure, Res},
    network::wait_for,
    sys,
};
use rackstrap_wire::{ContentOf, FileSystem, ImageList, Layout, Partition, RootOf, label_of};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A program that makes or checks a file system longer than this waits for a disk that does not answer. It is the agent's longest wait without
/// a step: `guards.rs` holds the watchdog's time against it.
pub const LONGEST_PROGRAM: Duration = Duration::from_secs(25 * 60);
/// Longest wait for a partition's node.
const NODE_WAIT: Duration = Duration::from_secs(10);

/// A disk of this machine, and the image whose programs prepare it.
pub struct RealMachine<'a> {
    /// Kernel name of the disk.
    pub disk: String,
    /// The layout.
    pub layout: &'a Layout,
    /// What is special about the content of partitions.
    pub contents: &'a [ContentOf],
    /// The image's root, mounted read-only.
    pub image: PathBuf,
    /// The image's list of files.
    pub list: &'a ImageList<'a>,
    /// Names of the only partitions that are filled from the image; empty for all of the layout.
    pub only: Vec<String>,
    /// Directory below which the new file systems are mounted, one directory per partition name.
    pub mounts: PathBuf,
    /// Called after each step; may never return.
    pub on_step: &'a mut dyn FnMut(&str),
    /// Called with lines for people.
    pub on_line: &'a mut dyn FnMut(&str),
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
        // The kernel scans partitions itself when the last writer closes the disk. That may happen just now.
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

    fn trim(&mut self, index: usize, partition: &Partition) {
        if let Some(trimmed) = trim::trim(&self.disk, &self.node(index)) {
            (self.on_line)(&trimmed.describe(&partition.name));
        }
    }

    fn make_fs(&mut self, _: &mut dyn BlockDevice, index: usize, partition: &Partition, _: Range) -> Res<()> {
        let label = label_of(self.contents, partition);
        make_file_system(&self.image, partition.fs, &label, &self.node(index))
    }

    fn seed(&mut self, _: &mut dyn BlockDevice) -> Res<()> {
        for (index, partition) in self.layout.partitions.iter().enumerate() {
            if !self.only.is_empty() && !self.only.contains(&partition.name) {
                continue;
            }
            let target = Target {
                image: &self.image,
                list: self.list,
                layout: self.layout,
                mounts: &self.mounts,
            };
            if let Some(line) = target.seed(&self.node(index), partition)? {
                (self.on_line)(&line);
            }
        }
        Ok(())
    }

    fn step(&mut self, name: &str) {
        (self.on_step)(name);
    }
}

/// What new file systems are filled from, and where they are mounted meanwhile.
pub(super) struct Target<'a> {
    /// The image's root, mounted read-only.
    pub image: &'a Path,
    /// The image's list of files.
    pub list: &'a ImageList<'a>,
    /// The layout.
    pub layout: &'a Layout,
    /// Directory with one directory per partition name.
    pub mounts: &'a Path,
}

impl Target<'_> {
    /// Fills the new file system of a partition from the image, syncs and unmounts it. Returns what was copied, for people; none if nothing was.
    pub fn seed(&self, node: &Path, partition: &Partition) -> Res<Option<String>> {
        let Some(mount) = partition.mount.as_ref().filter(|_| partition.fs.has_attributes()) else {
            return Ok(None);
        };
        let target = mount_partition(node, partition, self.mounts, true)?;
        let began = Instant::now();
        let result = seed_partition(self.image, self.list, self.layout, mount, &target);
        let synced = fs::File::open(&target).and_then(|d| Ok(rustix::fs::syncfs(&d)?));
        let took = began.elapsed();
        unmount(&target)?;
        let Some(copied) = result? else { return Ok(None) };
        synced.doing(|| format!("syncing {mount}"))?;
        Ok(Some(describe_copy(mount, copied, took)))
    }
}

/// `/var: 2310 files, 180 MiB copied from the image in 3.1 s (58 MiB/s)`
fn describe_copy(mount: &str, copied: seed::Copied, took: Duration) -> String {
    let mib = copied.bytes as f64 / f64::from(1 << 20);
    let secs = took.as_secs_f64();
    let speed = match secs >= 0.1 {
        true => format!(" ({:.0} MiB/s)", mib / secs),
        false => String::new(),
    };
    format!(
        "{mount}: {} files, {mib:.0} MiB copied from the image in {secs:.1} s{speed}",
        copied.files
    )
}

/// Calls `work` with the image's directory `mount` and the file system for it at `target`. None if the image has no such directory.
fn with_copy<T>(
    image: &Path,
    layout: &Layout,
    mount: &str,
    target: &Path,
    work: impl FnOnce(&ImageCopy<'_>) -> Res<T>,
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
    let copy = ImageCopy {
        image: &path,
        target,
        mount,
        mounts: &mounts,
    };
    work(&copy).map(Some)
}

/// Updates a kept partition, mounted at `target`, to the image's state. Returns what was changed; none if nothing was.
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
                .map_err(|failure| Failure::new(format!("{mount} was not updated from the image: {failure}")))
        }
        None => Ok(None),
    }
}

/// Copies the image's directory `mount`. None if the image has no such directory.
fn seed_partition(
    image: &Path,
    list: &ImageList<'_>,
    layout: &Layout,
    mount: &str,
    target: &Path,
) -> Res<Option<seed::Copied>> {
    let copied = with_copy(image, layout, mount, target, |copy| {
        let copied = seed::copy_tree(copy.image, target)?;
        copy.record_seed(list)?;
        Ok(copied)
    })?;
    if matches!(mount, "/tmp" | "/var/tmp") {
        rustix::fs::chmod(target, Mode::from_raw_mode(0o1777)).doing(|| format!("chmod of {mount}"))?;
    }
    Ok(copied)
}

/// The program and its arguments that make a file system.
pub struct Recipe {
    /// Program, searched in the image's usual directories.
    pub program: &'static str,
    /// Arguments before label and device.
    pub arguments: &'static [&'static str],
    /// Debian's package of the program, for the message when it is missing.
    pub package: &'static str,
}

/// Features are limited to what mke2fs and mkfs.xfs of Debian 11 and RHEL 8 enable. So after a rollback, an image with an older
/// kernel still mounts a file system that a newer image made. None of them discards the partition, because [`trim`] has done it.
pub fn recipe(fs: FileSystem) -> Option<Recipe> {
    let (program, package) = fs.maker()?;
    let arguments: &[&str] = match fs {
        FileSystem::Ext4 => &[
            "-F",
            "-q",
            "-E",
            "nodiscard",
            "-O",
            "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum",
            "-m",
            "1",
            "-L",
        ],
        FileSystem::Xfs => &[
            "-f",
            "-q",
            "-K",
            "-m",
            "crc=1,finobt=1,reflink=1,rmapbt=0",
            "-i",
            "sparse=1",
            "-L",
        ],
        // Its defaults since btrfs-progs 5.15 (free-space-tree, no-holes) are mounted by Linux 4.9 and later.
        FileSystem::Btrfs => &["-f", "-q", "-K", "-L"],
        FileSystem::Vfat => &["-n"],
        FileSystem::Swap => &["-f", "-L"],
        FileSystem::Raw => return None,
    };
    Some(Recipe {
        program,
        arguments,
        package,
    })
}

/// Names a program that the layout needs and the image lacks. Called before anything is written.
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

/// The path of a program inside the image, without the slash before it.
pub(super) fn find_program(image: &Path, program: &str) -> Option<String> {
    let root = fs::File::open(image).ok()?;
    ["usr/sbin", "sbin", "usr/bin", "bin"]
        .into_iter()
        .map(|d| format!("{d}/{program}"))
        .find(|path| rustix::fs::openat2(&root, path, OFlags::PATH, Mode::empty(), ResolveFlags::IN_ROOT).is_ok())
}

/// Makes a file system; nothing on a raw partition.
pub(super) fn make_file_system(image: &Path, fs: FileSystem, label: &str, node: &Path) -> Res<()> {
    match recipe(fs) {
        Some(recipe) => run(image, recipe.program, recipe.arguments, label, node),
        None => Ok(()),
    }
}

fn run(image: &Path, program: &str, arguments: &[&str], label: &str, node: &Path) -> Res<()> {
    let doing = || format!("{program} {}", node.display());
    let path = find_program(image, program).ok_or_else(|| Failure::new(format!("the image has no {program}")))?;
    let mut command = sys::command_in_root(image, &format!("/{path}"))?;
    command.args(arguments).arg(label).arg(node);
    let (ran, _) = command::run_prepared(&[program, &node.to_string_lossy()], command, LONGEST_PROGRAM);
    match ran.ok {
        true => Ok(()),
        false => Err(Failure::new(format!("{}: {}", doing(), how_it_ended(&ran)))),
    }
}

/// `ended with exit status 1: no space`
pub(super) fn how_it_ended(ran: &Execution) -> String {
    let lines: Vec<&str> = ran.output.split(" / ").filter(|line| !line.is_empty()).collect();
    let said = lines[lines.len().saturating_sub(2)..].join("; ");
    let said = rackstrap_wire::text::cut(&said, 200);
    match said.is_empty() {
        true => ran.end.clone(),
        false => format!("{}: {said}", ran.end),
    }
}

/// Checks a file system with `e2fsck -p` (fsck.ext4(8)) and returns what it found. An error means that it must not be mounted.
pub fn check_ext4(image: &Path, node: &Path) -> Res<String> {
    let Some(path) = find_program(image, "e2fsck") else {
        // Mounting replays the journal. Whether e2fsck is installed is the administrator's choice.
        return Ok("not checked, because the image has no e2fsck".into());
    };
    let mut command = sys::command_in_root(image, &format!("/{path}"))?;
    command.arg("-p").arg(node);
    let (ran, code) = command::run_prepared(&["e2fsck", &node.to_string_lossy()], command, LONGEST_PROGRAM);
    match code {
        Some(0) => Ok("clean after its journal was replayed".into()),
        // With 2, e2fsck requires a restart only if the file system was mounted, which it is not.
        Some(1..=3) => Ok("repaired by e2fsck -p".into()),
        Some(_) => Err(Failure::new(format!(
            "{} needs repair by an administrator: e2fsck -p: {}",
            node.display(),
            how_it_ended(&ran)
        ))),
        None => Err(Failure::new(format!(
            "{} was not checked, because e2fsck -p {}",
            node.display(),
            how_it_ended(&ran)
        ))),
    }
}

/// Waits until partition `number` has that length and a device node. If the kernel cannot read our table, this adds the partition;
/// if devtmpfs made no node, this makes it.
pub fn partition_node(disk: &str, number: u32, range: Option<Range>) -> Res<PathBuf> {
    let name = partition_name(disk, number);
    let shown = Path::new("/sys/class/block").join(&name);
    let node = Path::new("/dev").join(&name);
    // The kernel reads a table before it shows the disk, so a partition that is missing now does not appear by itself.
    if let Some(range) = range.filter(|_| !shown.exists()) {
        let path = Path::new("/dev").join(disk);
        fs::File::open(&path)
            .and_then(|file| sys::add_partition(&file, number, range.start, range.len))
            .doing(|| format!("adding partition {name} to the kernel's table"))?;
    }
    let found = wait_for(NODE_WAIT, || {
        let sectors: u64 = fs::read_to_string(shown.join("size")).ok()?.trim().parse().ok()?;
        let start: u64 = fs::read_to_string(shown.join("start")).ok()?.trim().parse().ok()?;
        if range.is_some_and(|r| (r.start, r.len) != (start * 512, sectors * 512)) {
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
            "the kernel does not show partition {name} with the table's start and size"
        ))),
    }
}

/// Mounts a partition below `mounts`. `plain` leaves out the layout's options, which may contain `ro`.
pub fn mount_partition(node: &Path, partition: &Partition, mounts: &Path, plain: bool) -> Res<PathBuf> {
    let target = mounts.join(&partition.name);
    fs::create_dir_all(&target).doing(|| format!("making {}", target.display()))?;
    let (flags, data) = options::split(if plain { "" } else { &partition.options });
    let data = std::ffi::CString::new(data).doing(|| "mount options".into())?;
    let doing = || format!("mounting {} ({})", node.display(), partition.fs.as_str());
    rustix::mount::mount(node, &target, partition.fs.as_str(), flags, Some(data.as_c_str())).doing(doing)?;
    Ok(target)
}

/// Gives the root directory of a mounted file system its owner and mode. Writes nothing if it has them.
pub fn set_root(target: &Path, root: &RootOf) -> std::io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(target, flags, Mode::empty())?;
    let now = rustix::fs::fstat(&directory)?;
    if let Some((user, group)) = root.owner.filter(|owner| *owner != (now.st_uid, now.st_gid)) {
        let (user, group) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(group));
        rustix::fs::fchown(&directory, Some(user), Some(group))?;
    }
    // chown(2) may clear the bits for set-user-ID and set-group-ID.
    let now = rustix::fs::fstat(&directory)?.st_mode & 0o7777;
    if let Some(mode) = root.mode.map(|mode| mode & 0o7777).filter(|mode| *mode != now) {
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))?;
    }
    Ok(())
}

/// Unmounts. A process that was just forked may hold a descriptor for a moment, so EBUSY is retried for a while.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_is_said_with_its_speed() {
        let copied = seed::Copied {
            files: 2310,
            bytes: 180 << 20,
        };
        let said = |millis| describe_copy("/var", copied, Duration::from_millis(millis));
        assert_eq!(
            said(3100),
            "/var: 2310 files, 180 MiB copied from the image in 3.1 s (58 MiB/s)"
        );
        assert_eq!(said(0), "/var: 2310 files, 180 MiB copied from the image in 0.0 s");
    }

    #[test]
    fn the_root_directory_of_a_file_system_gets_its_owner_and_mode_and_no_link_is_followed() {
        let of = |path: &Path| {
            let now = rustix::fs::stat(path).unwrap();
            (now.st_uid, now.st_gid, now.st_mode & 0o7777)
        };
        let dir = tempfile::tempdir().unwrap();
        let mounted = crate::testdisk::Mounted::tmpfs(dir.path(), "mode=755");
        let mut root = RootOf {
            partition: "scratch".to_owned(),
            owner: Some((1000, 100)),
            mode: Some(0o2775),
        };
        set_root(dir.path(), &root).unwrap();
        assert_eq!(of(dir.path()), (1000, 100, 0o2775));
        // Nothing is written if it has them.
        mounted.read_only();
        set_root(dir.path(), &root).unwrap();
        root.mode = Some(0o1777);
        assert!(set_root(dir.path(), &root).is_err());
        let link = dir.path().with_extension("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(set_root(&link, &root).is_err());
        fs::remove_file(&link).unwrap();
    }
}
