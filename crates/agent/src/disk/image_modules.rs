//! Kernel modules of the image that few layouts need. The initramfs does not have them, because every boot of every node would load them
//! over the network.

use crate::{command, sys};
use std::{fs, path::Path, time::Duration};

/// Longest time for one module, which the image's modprobe reads over NFS.
const LONGEST: Duration = Duration::from_secs(60);

/// Has the image's modprobe(8) load these modules, with what they need. Returns why some could not be loaded, for the message of what then
/// fails; empty if all were. Kernels that have a module built in need none.
pub fn load(image: &Path, names: &[&str]) -> String {
    let failed = names.iter().filter_map(|name| match load_one(image, name) {
        Ok(()) => None,
        Err(why) => Some(format!("modprobe {name}: {why}")),
    });
    failed.collect::<Vec<_>>().join("; ")
}

fn load_one(image: &Path, name: &str) -> Result<(), String> {
    let Some(program) = super::machine::find_program(image, "modprobe") else {
        return Err("the image has no modprobe; install kmod in it (Debian's name)".to_owned());
    };
    let mut command = sys::command_in_root(image, &format!("/{program}")).map_err(|failure| failure.to_string())?;
    command.arg(name);
    let (ran, _) = command::run_prepared(&["modprobe", name], command, LONGEST);
    match ran.ok {
        true => Ok(()),
        false => Err(super::machine::how_it_ended(&ran)),
    }
}

/// Loads the module of a file system if the kernel does not know it. Returns why that failed; empty if it did not.
pub fn load_file_system(image: &Path, name: &str) -> String {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match knows(&known, name) {
        true => String::new(),
        false => load(image, &[name]),
    }
}

/// Whether `/proc/filesystems` has the name: one line each, after `nodev` or nothing, and a tab (pure).
fn knows(filesystems: &str, name: &str) -> bool {
    filesystems.lines().any(|line| line.rsplit('\t').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_the_kernel_knows_is_found_by_its_whole_name() {
        let known = "nodev\tsysfs\n\text4\nnodev\tbtrfs2\n";
        assert!(knows(known, "ext4") && knows(known, "sysfs"));
        assert!(!knows(known, "btrfs") && !knows(known, "nodev") && !knows("", "ext4"));
    }

    #[test]
    fn an_image_without_modprobe_and_one_without_the_module_are_named() {
        let empty = tempfile::tempdir().unwrap();
        let said = load(empty.path(), &["btrfs", "dm_crypt"]);
        assert_eq!(said.matches("install kmod").count(), 2, "{said}");
        assert!(
            said.starts_with("modprobe btrfs: ") && said.contains("; modprobe dm_crypt: "),
            "{said}"
        );
    }
}
