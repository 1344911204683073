//! Loads kernel modules: for devices, and for features without a device.

use crate::{
    fail::{Doing, Res},
    modalias::Index,
    modprobe::Config,
};
use std::{
    collections::BTreeSet,
    ffi::CString,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Modules that no device requests. A kernel may have them built in, and an image may lack them: then the phase that needs one
/// fails with its name.
const ALWAYS: &[&str] = &[
    "af_packet",
    "overlay",
    "nfs",
    "nfsv3",
    "ext4",
    "xfs",
    "virtio_pci",
    "virtio_mmio",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "ahci",
    "nvme",
];
/// The image's own configuration of modules; missing in the initramfs of an older version.
const CONFIG: &str = "/etc/modprobe.d/image.conf";
/// The directory tree of devices.
const DEVICES: &str = "/sys/devices";
/// Directories with thousands of entries and no device that needs a module.
const SKIPPED: &[&str] = &[
    "virtual",
    "system",
    "software",
    "tracepoint",
    "breakpoint",
    "power",
    "queues",
    "statistics",
    "msi_irqs",
    "mq",
];
/// The scan ends when no new device has appeared for this long.
const QUIET: Duration = Duration::from_millis(300);
/// Longest scan. Slower hubs and disks are waited for where they are needed.
const LONGEST: Duration = Duration::from_secs(8);

/// Loads modules of the running kernel from the initramfs.
#[derive(Debug)]
pub struct Loader {
    dir: PathBuf,
    index: Index,
    config: Config,
    done: BTreeSet<String>,
    failed: Vec<String>,
    loaded: usize,
    /// Modules that devices request, by name.
    needed: BTreeSet<String>,
}

impl Loader {
    /// Reads the indexes below `/lib/modules/RELEASE`; without them every module counts as built in. `cmdline` has the words of the
    /// kernel's command line.
    pub fn open(cmdline: &[String]) -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let dir = Path::new("/lib/modules").join(release);
        let read = |name: &str| {
            fs::read(dir.join(name))
                .map(|b| String::from_utf8_lossy(&b).into_owned())
                .unwrap_or_default()
        };
        let index = Index::new(
            &read("modules.alias"),
            &read("modules.dep"),
            &read("modules.softdep"),
            &read("modules.builtin"),
        );
        Loader {
            dir,
            index,
            config: Config::new(&fs::read_to_string(CONFIG).unwrap_or_default(), cmdline),
            done: BTreeSet::new(),
            failed: Vec::new(),
            loaded: 0,
            needed: BTreeSet::new(),
        }
    }

    /// Loads the modules for all present devices, until no new device appears.
    pub fn load_for_devices(&mut self) -> String {
        for name in ALWAYS {
            self.want(name);
        }
        let began = Instant::now();
        let mut quiet_since = Instant::now();
        let mut known = BTreeSet::new();
        let mut read = BTreeSet::new();
        while began.elapsed() < LONGEST && quiet_since.elapsed() < QUIET {
            let mut found = BTreeSet::new();
            modaliases(Path::new(DEVICES), 0, &mut read, &mut found);
            for alias in found {
                if known.insert(alias.clone()) {
                    quiet_since = Instant::now();
                    self.needed.extend(self.resolve(&alias));
                    self.want(&alias);
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let failed = match self.failed.len() {
            0 => String::new(),
            _ => format!("; not loaded: {}", self.failed.join(", ")),
        };
        format!("{} modules for {} kinds of devices{failed}", self.loaded, known.len())
    }

    /// Names of the modules that the devices request, sorted: those that the initramfs is made to have (network cards, disks, their buses)
    /// and that are not blacklisted.
    /// Dependencies are not included, because other kernels split them differently.
    pub fn needed(&self) -> Vec<String> {
        let needed = self.needed.iter().filter(|name| !self.config.is_blacklisted(name));
        needed.cloned().collect()
    }

    /// The modules with that name or alias. As in kmod, an alias of the configuration hides those of the modules themselves.
    fn resolve(&self, wanted: &str) -> Vec<String> {
        let aliased = self.config.aliased(wanted);
        match aliased.is_empty() {
            true => self.index.resolve(wanted),
            false => aliased,
        }
    }

    /// Loads the modules with that name or alias, and their dependencies.
    pub fn want(&mut self, wanted: &str) {
        for module in self.resolve(wanted) {
            if self.config.is_blacklisted(&module) {
                continue;
            }
            for name in self.index.load_order(&module) {
                if self.done.insert(name.clone()) {
                    match self.insert(&name) {
                        Ok(true) => self.loaded += 1,
                        Ok(false) => {}
                        Err(e) if self.failed.len() < 8 => self.failed.push(format!("{name} ({e})")),
                        Err(_) => {}
                    }
                }
            }
        }
    }

    /// Returns true if the module was loaded now; false if it was already loaded, or is not in the initramfs.
    fn insert(&self, name: &str) -> Res<bool> {
        if self.config.is_blocked(name) || self.index.is_builtin(name) || Path::new("/sys/module").join(name).exists() {
            return Ok(false);
        }
        let Some(file) = self.index.file(name) else {
            return Ok(false);
        };
        let Ok(file) = File::open(self.dir.join(file)) else {
            return Ok(false);
        };
        let parameters = CString::new(self.config.parameters(name)).doing(|| "parameters".into())?;
        match rustix::system::finit_module(&file, &parameters, 0) {
            Ok(()) => Ok(true),
            // It was loaded meanwhile, or it is a driver without a device on this machine.
            Err(rustix::io::Errno::EXIST | rustix::io::Errno::NODEV) => Ok(false),
            Err(e) => Err(crate::fail::Failure::new(e.to_string())),
        }
    }
}

/// Collects the modaliases of the devices below `dir`, without directories in `read`: a device keeps its modalias as long as it
/// exists. Most devices have it in a file `modalias`; memory cards (eMMC and SD) and some platform devices only as MODALIAS in
/// `uevent`.
fn modaliases(dir: &Path, depth: u32, read: &mut BTreeSet<PathBuf>, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let (mut modalias, mut uevent) = (None, None);
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let name = entry.file_name();
        // Symlinks could form circles; sysfs is never deeper than a few dozen levels.
        if kind.is_dir() && depth < 40 && !SKIPPED.iter().any(|s| name == *s) {
            modaliases(&entry.path(), depth + 1, read, found);
        } else if kind.is_file() && name == "modalias" {
            modalias = Some(entry.path());
        } else if kind.is_file() && name == "uevent" {
            uevent = Some(entry.path());
        }
    }
    if (modalias.is_none() && uevent.is_none()) || !read.insert(dir.to_owned()) {
        return;
    }
    let text = |path: Option<PathBuf>| path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let has_file = modalias.is_some();
    let content = text(modalias.or(uevent));
    let alias = match has_file {
        true => Some(content.as_str()),
        false => content.lines().find_map(|line| line.strip_prefix("MODALIAS=")),
    };
    if let Some(alias) = alias.map(str::trim).filter(|alias| !alias.is_empty()) {
        found.insert(alias.to_owned());
    }
}

/// Loads a module for the kernel, which runs `/init -q -- NAME` (`request_module`: file systems, NFS versions, checksums).
pub fn modprobe(wanted: &str) -> Res<()> {
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mut loader = Loader::open(&crate::cmdline::words(&cmdline));
    loader.want(wanted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_cards_have_their_modalias_in_uevent() {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let card = "pci0000:00/0000:00:05.0/mmc_host/mmc0/mmc0:4567";
        file("pci0000:00/0000:00:05.0/modalias", "pci:v00001B36d00000007sv*\n");
        file(
            "pci0000:00/0000:00:05.0/uevent",
            "DRIVER=sdhci-pci\nMODALIAS=pci:other\n",
        );
        file(
            &format!("{card}/uevent"),
            "DRIVER=mmcblk\nMMC_TYPE=SD\nMODALIAS=mmc:block\n",
        );
        file(&format!("{card}/block/mmcblk0/uevent"), "MAJOR=179\n");
        file(&format!("{card}/power/uevent"), "MODALIAS=skipped\n");
        let (mut read, mut found) = (BTreeSet::new(), BTreeSet::new());
        modaliases(dir.path(), 0, &mut read, &mut found);
        let names: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(names, ["mmc:block", "pci:v00001B36d00000007sv*"]);
        // Directories that were read are skipped, but a new card is found.
        found.clear();
        file("pci0000:00/mmc1/uevent", "MODALIAS=mmc:block\n");
        modaliases(dir.path(), 0, &mut read, &mut found);
        assert_eq!(found.len(), 1);
    }
}
