//! The image's own modprobe.d(5), reduced to the modules that the initramfs loads, in the form that the agent reads.

use super::conf;
use crate::root::RootDir;
use rackstrap_modindex::name_of;
use std::collections::{BTreeMap, BTreeSet};

/// Path in the initramfs. It is one file, with nothing that needs a shell.
pub(super) const PLACE: &str = "etc/modprobe.d/image.conf";

/// Options, blacklists, aliases, soft dependencies and `install` commands of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modprobe {
    /// Pairs of module and parameters, in the order in which the module gets them.
    options: Vec<(String, String)>,
    /// Pairs of pattern and module.
    aliases: Vec<(String, String)>,
    /// Module -> file that blacklists it.
    blacklist: BTreeMap<String, String>,
    /// Modules that are never loaded (`install NAME /bin/false`) -> file.
    blocked: BTreeMap<String, String>,
    /// Modules with a command that replaces loading them -> file.
    commands: BTreeMap<String, String>,
    /// `softdep` lines.
    softdeps: String,
}

impl Modprobe {
    /// Reads `modprobe.d` of the tree. Lines that cannot be read are skipped, as kmod does.
    pub fn read(tree: &RootDir) -> Self {
        Modprobe::of_lines(&conf::lines(tree, "modprobe"))
    }

    /// Reads lines, each with the path of its file.
    pub(super) fn of_lines(lines: &[(String, String)]) -> Self {
        let mut all = Modprobe::default();
        for (file, line) in lines {
            all.take(file, line);
        }
        all
    }

    fn take(&mut self, file: &str, line: &str) {
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (name, more) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
        let more = more.trim();
        if name.is_empty() {
            return;
        }
        match keyword {
            "blacklist" => drop(self.blacklist.insert(name_of(name), file.to_owned())),
            "options" if !more.is_empty() => self.options.push((name_of(name), more.to_owned())),
            // For kmod, text after the module is a comment.
            "alias" => self.aliases.extend(
                more.split_whitespace()
                    .next()
                    .map(|module| (name.to_owned(), name_of(module))),
            ),
            "softdep" => {
                self.softdeps.push_str(line);
                self.softdeps.push('\n');
            }
            "install" if does_nothing(more) => drop(self.blocked.insert(name_of(name), file.to_owned())),
            "install" => drop(self.commands.insert(name_of(name), file.to_owned())),
            // `remove` is about unloading, `weakdep` about packing; kmod no longer knows `config` and `include`.
            _ => {}
        }
    }

    /// Its `softdep` lines, in the form of `modules.softdep`.
    pub fn softdeps(&self) -> &str {
        &self.softdeps
    }

    /// Removes what forbids the modules `needed`, without which no node can mount its root. Returns a remark for each.
    pub fn allow(&mut self, needed: &BTreeSet<String>) -> Vec<String> {
        let mut remarks = Vec::new();
        for name in needed {
            let files = [self.blacklist.remove(name), self.blocked.remove(name)];
            if let Some(file) = files.into_iter().flatten().next() {
                remarks.push(format!(
                    "{file} forbids the module {name}, which nodes need to mount their root: the initramfs loads it anyway"
                ));
            }
        }
        remarks
    }

    /// Remarks about settings for modules of `included` that an initramfs cannot apply.
    pub fn remarks(&self, included: &BTreeSet<String>) -> Vec<String> {
        let commands = self.commands.iter().filter(|(name, _)| included.contains(*name));
        let remark = |(name, file): (&String, &String)| {
            format!("{file} has an install command for {name}: the initramfs loads the module without the command")
        };
        commands.map(remark).collect()
    }

    /// The lines for the initramfs that are about modules of `included`. All aliases are kept: one that leads to no module
    /// (`alias net-pf-10 off`) forbids it.
    pub fn text(&self, included: &BTreeSet<String>) -> String {
        let mut lines = Vec::new();
        let pairs = self.aliases.iter();
        lines.extend(pairs.map(|(pattern, module)| format!("alias {pattern} {module}\n")));
        let known = |map: &BTreeMap<String, String>| -> Vec<String> {
            let names = map.keys().filter(|name| included.contains(*name));
            names.cloned().collect()
        };
        lines.extend(known(&self.blacklist).iter().map(|name| format!("blacklist {name}\n")));
        lines.extend(
            known(&self.blocked)
                .iter()
                .map(|name| format!("install {name} /bin/false\n")),
        );
        let options = self.options.iter().filter(|(name, _)| included.contains(name));
        lines.extend(options.map(|(name, text)| format!("options {name} {text}\n")));
        lines.concat()
    }
}

/// True for the commands with which administrators forbid a module.
fn does_nothing(command: &str) -> bool {
    let program = command.split_whitespace().next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    matches!(program, "true" | "false" | ":" | "exit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Modprobe {
        let mut all = Modprobe::default();
        text.lines().for_each(|line| all.take("/etc/modprobe.d/x.conf", line));
        all
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    const TEXT: &str = "options mpt3sas max_queue_depth=100 msix_disable=1\noptions mpt3sas logging_level=0x3f8\n\
        options zfs zfs_arc_max=1\nblacklist be2net\nblacklist nouveau\nalias net-pf-10 off # no IPv6\nalias lone\ninstall usb-storage /bin/true\n\
        install overlay /usr/bin/false # hardening\ninstall nvme /sbin/modprobe --ignore-install nvme; /usr/bin/tune\n\
        install sr_mod /usr/bin/tune\nsoftdep mpt3sas pre: raid_class post: ses\nremove x /bin/true\nblacklist\noptions x\nnonsense y z\n";

    #[test]
    fn settings_of_included_modules_are_kept() {
        let all = parse(TEXT);
        let included = names(&["mpt3sas", "be2net", "usb_storage", "nvme"]);
        assert_eq!(
            all.text(&included),
            "alias net-pf-10 off\nblacklist be2net\ninstall usb_storage /bin/false\n\
             options mpt3sas max_queue_depth=100 msix_disable=1\noptions mpt3sas logging_level=0x3f8\n"
        );
        assert_eq!(all.softdeps(), "softdep mpt3sas pre: raid_class post: ses\n");
        let remarks = all.remarks(&included);
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        assert!(remarks[0].contains("/etc/modprobe.d/x.conf") && remarks[0].contains("nvme"));
    }

    #[test]
    fn modules_that_the_root_needs_are_loaded_though_forbidden() {
        let mut all = parse(TEXT);
        let remarks = all.allow(&names(&["overlay", "nfs"]));
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        assert!(remarks[0].contains("forbids the module overlay"));
        assert!(!all.text(&names(&["overlay"])).contains("overlay"));
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in "(alias|options|install|softdep|blacklist)?[ \t]{0,2}\\PC{0,40}") {
            let mut all = Modprobe::default();
            all.take("f", &line);
            all.text(&names(&["a"]));
        }
    }
}
