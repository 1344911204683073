//! The indexes that depmod(8) makes below `/lib/modules/RELEASE`, and the dependencies in them.

use super::depmod::SearchOrder;
use rackstrap_modindex::{aliases, built_in, dependencies, name_of, plain_path, soft_dependencies};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// `modules.dep`, `modules.softdep`, `modules.alias` and `modules.builtin` of one kernel.
#[derive(Clone, Debug, Default)]
pub struct ModuleIndex {
    /// Path relative to `/lib/modules/RELEASE` -> paths of all modules that it needs, directly or indirectly.
    deps: BTreeMap<String, Vec<String>>,
    /// Module name -> path.
    by_name: HashMap<String, String>,
    /// Module name -> names or aliases of modules to load before or after it.
    soft: HashMap<String, Vec<String>>,
    /// Alias without wildcards (`crypto-crc32c`) -> module names.
    by_alias: HashMap<String, Vec<String>>,
    /// Lines of `modules.alias` and `modules.softdep`, with the module that each is about.
    alias_lines: Vec<(String, String)>,
    soft_lines: Vec<(String, String)>,
    builtin: BTreeSet<String>,
    builtin_text: String,
}

/// True for paths that stay below their base directory. depmod writes an absolute path for a module outside, which cannot be in an
/// initramfs.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

impl ModuleIndex {
    /// Reads the four files. Lines that cannot be read are skipped, as kmod does.
    pub fn parse(dep: &str, softdep: &str, alias: &str, builtin: &str) -> Self {
        let mut index = ModuleIndex::default();
        for (path, needs) in dependencies(dep).filter(|(path, _)| is_inside(path)) {
            index.by_name.insert(name_of(path), path.to_owned());
            index.deps.insert(path.to_owned(), needs.map(str::to_owned).collect());
        }
        for soft in soft_dependencies(softdep) {
            let module = name_of(soft.module);
            let wanted = soft.wanted.iter().map(|(_, name)| (*name).to_owned());
            index.soft.entry(module.clone()).or_default().extend(wanted);
            index.soft_lines.push((module, soft.line.to_owned()));
        }
        for alias in aliases(alias) {
            let module = name_of(alias.module);
            if !alias.pattern.contains(['*', '?', '[']) {
                let names = index.by_alias.entry(alias.pattern.replace('-', "_")).or_default();
                names.push(module.clone());
            }
            index.alias_lines.push((module, alias.line.to_owned()));
        }
        let builtin = || built_in(builtin).filter(|path| is_inside(path));
        index.builtin = builtin().map(name_of).collect();
        index.builtin_text = builtin().map(|path| plain_path(path).to_owned() + "\n").collect();
        index
    }

    /// Keeps the module that comes first in `order` of those with one name, also in the dependencies of others.
    pub(super) fn prefer(&mut self, order: &SearchOrder) {
        let mut best: BTreeMap<String, String> = BTreeMap::new();
        for path in self.deps.keys() {
            let kept = best.entry(name_of(path)).or_insert_with(|| path.clone());
            if order.rank(path) < order.rank(kept) {
                kept.clone_from(path);
            }
        }
        if best.len() == self.deps.len() {
            return;
        }
        self.deps.retain(|path, _| best.get(&name_of(path)) == Some(path));
        for need in self.deps.values_mut().flatten() {
            if let Some(kept) = best.get(&name_of(need)) {
                need.clone_from(kept);
            }
        }
        self.by_name = best.into_iter().collect();
    }

    /// True if a module of that name exists, or is built into the kernel.
    pub fn has(&self, name: &str) -> bool {
        let name = name_of(name);
        self.by_name.contains_key(&name) || self.builtin.contains(&name)
    }

    /// All module paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.deps.keys().map(String::as_str)
    }

    /// The path of the module `name`; none if it does not exist or is built in.
    pub fn path_of(&self, name: &str) -> Option<&str> {
        self.by_name.get(&name_of(name)).map(String::as_str)
    }

    /// `seeds` and everything that they need: hard dependencies (`modules.dep`) and soft ones (`softdep`), which are given by name or by
    /// alias. The second set has the hard dependencies without an entry of their own.
    pub fn closure<'a>(&'a self, seeds: impl IntoIterator<Item = &'a str>) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
        let mut inside = BTreeSet::new();
        let mut missing = BTreeSet::new();
        let mut todo: Vec<&str> = seeds.into_iter().collect();
        while let Some(path) = todo.pop() {
            let Some((path, needs)) = self.deps.get_key_value(path) else {
                missing.insert(path);
                continue;
            };
            if !inside.insert(path.as_str()) {
                continue;
            }
            todo.extend(needs.iter().map(String::as_str));
            for wanted in self.soft.get(&name_of(path)).into_iter().flatten() {
                todo.extend(self.named(wanted));
            }
        }
        (inside, missing)
    }

    fn named(&self, wanted: &str) -> Vec<&str> {
        if let Some(path) = self.path_of(wanted) {
            return vec![path];
        }
        let names = self.by_alias.get(&wanted.replace('-', "_"));
        names.into_iter().flatten().filter_map(|n| self.path_of(n)).collect()
    }

    /// `modules.dep` of the modules in `included`, with uncompressed names.
    pub fn reduced_dep(&self, included: &BTreeSet<&str>) -> String {
        let mut text = String::new();
        for path in included {
            text.push_str(plain_path(path));
            text.push(':');
            for need in self.deps.get(*path).into_iter().flatten() {
                text.push(' ');
                text.push_str(plain_path(need));
            }
            text.push('\n');
        }
        text
    }

    /// `modules.alias` of the modules in `included`.
    pub fn reduced_alias(&self, included: &BTreeSet<&str>) -> String {
        reduced(&self.alias_lines, included)
    }

    /// `modules.softdep` of the modules in `included`.
    pub fn reduced_softdep(&self, included: &BTreeSet<&str>) -> String {
        reduced(&self.soft_lines, included)
    }

    /// `modules.builtin` with uncompressed names.
    pub fn builtin(&self) -> &str {
        &self.builtin_text
    }
}

fn reduced(lines: &[(String, String)], included: &BTreeSet<&str>) -> String {
    let names: BTreeSet<String> = included.iter().map(|p| name_of(p)).collect();
    let kept = lines.iter().filter(|(module, _)| names.contains(module));
    kept.map(|(_, line)| line.clone() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fixture() -> ModuleIndex {
        ModuleIndex::parse(
            "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz\n\
             kernel/fs/jbd2/jbd2.ko.xz:\nkernel/fs/mbcache.ko.xz:\n\
             kernel/arch/x86/crypto/crc32c-intel.ko.xz:\nkernel/crypto/crc32c_generic.ko.xz:\n\
             kernel/broken.ko: kernel/absent.ko\n/outside.ko:\n../up.ko:\nnonsense\n",
            "# comment\nsoftdep ext4 pre: crypto-crc32c post: mbcache\nsoftdep\nsoftdep jbd2 pre: no-such\n",
            "alias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\n\
             alias pci:v00008086d*sv*sd*bc*sc*i* e1000\nalias half\nalias fs-ext4 ext4\n",
            "kernel/fs/nfs/nfs.ko\nkernel/net/sunrpc/sunrpc.ko\n",
        )
    }

    #[test]
    fn closure_takes_hard_and_soft_dependencies() {
        let index = fixture();
        let (inside, missing) = index.closure(["kernel/fs/ext4/ext4.ko.xz"]);
        assert_eq!(
            inside.into_iter().collect::<Vec<_>>(),
            [
                "kernel/arch/x86/crypto/crc32c-intel.ko.xz",
                "kernel/crypto/crc32c_generic.ko.xz",
                "kernel/fs/ext4/ext4.ko.xz",
                "kernel/fs/jbd2/jbd2.ko.xz",
                "kernel/fs/mbcache.ko.xz",
            ]
        );
        assert!(missing.is_empty());
        let (_, missing) = index.closure(["kernel/broken.ko"]);
        assert_eq!(missing.into_iter().collect::<Vec<_>>(), ["kernel/absent.ko"]);
    }

    #[test]
    fn indexes_are_reduced_to_the_included_modules() {
        let index = fixture();
        let (inside, _) = index.closure(["kernel/fs/ext4/ext4.ko.xz"]);
        let dep = index.reduced_dep(&inside);
        assert!(dep.contains("kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko\n"));
        assert!(!dep.contains(".xz") && !dep.contains("broken"));
        assert_eq!(
            index.reduced_alias(&inside),
            "alias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\nalias fs-ext4 ext4\n"
        );
        assert_eq!(
            index.reduced_softdep(&inside),
            "softdep ext4 pre: crypto-crc32c post: mbcache\nsoftdep jbd2 pre: no-such\n"
        );
    }

    #[test]
    fn builtin_counts_as_present() {
        let index = fixture();
        assert!(index.has("nfs") && index.has("ext4") && index.has("crc32c_intel"));
        assert!(!index.has("overlay") && !index.has("outside") && !index.has("up"));
    }

    #[test]
    fn of_two_modules_of_one_name_the_preferred_one_counts() {
        let dep = "extra/mpt3sas.ko: kernel/drivers/scsi/raid_class.ko\nextra/raid_class.ko:\n\
                   kernel/drivers/scsi/mpt3sas/mpt3sas.ko: kernel/drivers/scsi/raid_class.ko\n\
                   kernel/drivers/scsi/raid_class.ko:\nupdates/mpt3sas.ko: extra/raid_class.ko\n";
        let tree = tempfile::tempdir().unwrap();
        let root = crate::RootDir::open(tree.path()).unwrap();
        let mut index = ModuleIndex::parse(dep, "", "", "");
        index.prefer(&SearchOrder::read(&root, "6.1"));
        assert_eq!(index.path_of("mpt3sas"), Some("updates/mpt3sas.ko"));
        std::fs::create_dir_all(tree.path().join("etc/depmod.d")).unwrap();
        std::fs::write(
            tree.path().join("etc/depmod.d/dist.conf"),
            "search extra built-in weak-updates\n",
        )
        .unwrap();
        let mut index = ModuleIndex::parse(dep, "", "", "");
        index.prefer(&SearchOrder::read(&root, "6.1"));
        let (inside, missing) = index.closure(["extra/mpt3sas.ko"]);
        assert_eq!(
            inside.into_iter().collect::<Vec<_>>(),
            ["extra/mpt3sas.ko", "extra/raid_class.ko"]
        );
        assert!(missing.is_empty());
        assert_eq!(index.paths().count(), 2);
    }

    proptest! {
        #[test]
        fn malformed_indexes_do_no_harm(
            dep in "([a-z/:. \n]|ko|\\.ko: ){0,80}", softdep in "(softdep |pre: |[a-z\n ]){0,60}",
            alias in "(alias |[a-z*\n ]){0,60}", builtin in "[a-z/.\n]{0,60}",
        ) {
            let index = ModuleIndex::parse(&dep, &softdep, &alias, &builtin);
            let (inside, _) = index.closure(index.paths().collect::<Vec<_>>());
            prop_assert_eq!(inside.len(), index.paths().count());
            prop_assert!(inside.iter().all(|p| !p.starts_with('/') && !p.contains("..") || !p.split('/').any(|s| s == "..")));
            index.reduced_dep(&inside);
            index.reduced_alias(&inside);
            index.reduced_softdep(&inside);
        }
    }
}
