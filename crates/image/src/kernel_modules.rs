//! Compares the kernel modules of a version with those that hardware needs.

use super::{ImageVersion, root::RootDir};
use rackstrap_modindex::{built_in, dependencies, name_of};
use rackstrap_wire::Hardware;
use std::{collections::BTreeSet, io};

/// Largest index that is read; Debian's modules.dep is 0.6 MiB.
const LARGEST: u64 = 16 << 20;

/// The modules of one kernel: those with a file, and those that are built in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelModules(BTreeSet<String>);

impl KernelModules {
    /// Reads the indexes of depmod and of the kernel's build in the version's root. A sealed version never changes, so a caller may keep
    /// the result.
    ///
    /// # Errors
    /// `modules.dep` does not exist, or is larger than 16 MiB.
    pub fn read(version: &ImageVersion) -> io::Result<Self> {
        let root = RootDir::open(&version.dir.join("root"))?;
        let release = &version.manifest.kernel_release;
        let index = |name: &str| {
            let path = format!("/lib/modules/{release}/{name}");
            let content = root.read(&path, LARGEST);
            content.map_err(|e| io::Error::new(e.kind(), format!("{path} of {}: {e}", version.manifest.image)))
        };
        let files = index("modules.dep")?;
        let builtin = match index("modules.builtin") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        Ok(KernelModules::parse(
            &String::from_utf8_lossy(&files),
            &String::from_utf8_lossy(&builtin),
        ))
    }

    /// Parses the contents of `modules.dep` and `modules.builtin` (modules.dep(5), Documentation/kbuild/kbuild.rst).
    pub fn parse(dep: &str, builtin: &str) -> Self {
        let files = dependencies(dep).map(|(file, _)| file.trim());
        KernelModules(files.chain(built_in(builtin)).map(name_of).collect())
    }

    /// True if the kernel has that module, as a file or built in.
    pub fn has(&self, module: &str) -> bool {
        self.0.contains(&module.replace('-', "_"))
    }
}

/// The modules that the machine's devices requested at its last boot, and that this kernel does not have.
///
/// A driver that has another name in another kernel is also listed: this is for a warning only.
pub fn missing_modules(hardware: &Hardware, kernel: &KernelModules) -> Vec<String> {
    let missing = hardware.modules.iter().filter(|module| !kernel.has(module));
    missing.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;
    use std::fs;

    const DEP: &str = "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko.xz: kernel/drivers/ptp/ptp.ko.xz\n\
                       kernel/drivers/block/virtio-blk.ko:\nnonsense\n";

    fn hardware(modules: &[&str]) -> Hardware {
        Hardware {
            modules: modules.iter().map(|&module| module.to_owned()).collect(),
            ..Hardware::default()
        }
    }

    #[test]
    fn a_module_that_is_neither_a_file_nor_built_in_is_missing() {
        let kernel = KernelModules::parse(DEP, "kernel/drivers/nvme/host/nvme-core.ko\n");
        let wants = hardware(&["e1000e", "mlx5_core", "nvme_core", "virtio_blk", "ptp"]);
        assert_eq!(missing_modules(&wants, &kernel), ["mlx5_core", "ptp"]);
        assert!(missing_modules(&Hardware::default(), &kernel).is_empty());
    }

    #[test]
    fn indexes_are_read_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let version = ImageVersion::new(
            Manifest {
                kernel_release: "6.1.0".to_owned(),
                ..Manifest::bare("debian@1".parse().unwrap())
            },
            dir.path().to_owned(),
        );
        let lib = dir.path().join("root/usr/lib/modules/6.1.0");
        fs::create_dir_all(&lib).unwrap();
        let error = KernelModules::read(&version).unwrap_err();
        assert!(
            error.to_string().contains("/lib/modules/6.1.0/modules.dep of debian@1"),
            "{error}"
        );
        // /lib is an absolute link, as in some roots.
        std::os::unix::fs::symlink("/usr/lib", dir.path().join("root/lib")).unwrap();
        fs::write(lib.join("modules.dep"), DEP).unwrap();
        let kernel = KernelModules::read(&version).unwrap();
        assert!(kernel.has("e1000e") && kernel.has("virtio-blk") && !kernel.has("nvme_core"));
        fs::write(lib.join("modules.builtin"), "kernel/drivers/nvme/host/nvme-core.ko\n").unwrap();
        assert!(KernelModules::read(&version).unwrap().has("nvme_core"));
        // An index without an end, and an index outside the root, are refused.
        fs::remove_file(lib.join("modules.dep")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", lib.join("modules.dep")).unwrap();
        assert!(KernelModules::read(&version).is_err());
    }
}
