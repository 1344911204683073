//! Chooses between several modules of one name: depmod.d(5), `search` and `override`.
//!
//! depmod writes one entry per name into `modules.dep`. Other programs that make this file write all of them.

use super::conf;
use crate::root::RootDir;
use rackstrap_modindex::name_of;

/// The priority of directories below `/lib/modules/RELEASE`.
#[derive(Debug)]
pub(super) struct SearchOrder {
    /// Directories, highest priority first; [`BUILT_IN`] stands for all directories without an entry.
    dirs: Vec<String>,
    /// Pairs of a module and its directory.
    overrides: Vec<(String, String)>,
}

/// The name of the kernel's own modules in `search`.
const BUILT_IN: &str = "built-in";

impl SearchOrder {
    /// The order that the tree configures for the kernel `release`. The default of depmod is `updates built-in`.
    pub fn read(tree: &RootDir, release: &str) -> Self {
        let lines = conf::lines(tree, "depmod");
        SearchOrder::parse(lines.iter().map(|(_, line)| line.as_str()), release)
    }

    pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a str>, release: &str) -> Self {
        let (mut dirs, mut overrides): (Vec<String>, _) = (Vec::new(), Vec::new());
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["search", ref given @ ..] => dirs.extend(given.iter().map(|dir| dir.trim_matches('/').to_owned())),
                ["override", module, kernel, dir] if kernel == "*" || kernel == release => {
                    overrides.push((name_of(module), dir.trim_matches('/').to_owned()));
                }
                _ => {}
            }
        }
        if dirs.is_empty() {
            dirs = vec!["updates".to_owned(), BUILT_IN.to_owned()];
        }
        SearchOrder { dirs, overrides }
    }

    /// The rank of the module at `path` among those of its name: the smallest wins.
    pub fn rank(&self, path: &str) -> usize {
        let inside = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        let name = name_of(path);
        if self
            .overrides
            .iter()
            .any(|(module, dir)| *module == name && inside(dir))
        {
            return 0;
        }
        let named = self.dirs.iter().position(|dir| dir != BUILT_IN && inside(dir));
        let place = named.or_else(|| self.dirs.iter().position(|dir| dir == BUILT_IN));
        1 + place.unwrap_or(self.dirs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_tree() {
        let order = |text: &str| SearchOrder::parse(text.lines(), "6.1");
        let default = order("");
        assert!(default.rank("updates/dkms/x.ko") < default.rank("kernel/drivers/x.ko"));
        assert_eq!(default.rank("extra/x.ko"), default.rank("kernel/x.ko"));
        let fedora = order("search updates extra built-in weak-updates\n");
        let ranks = ["updates/x.ko", "extra/a/x.ko", "kernel/x.ko", "weak-updates/x.ko"].map(|path| fedora.rank(path));
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
        assert_eq!(fedora.rank("extras/x.ko"), fedora.rank("kernel/x.ko"));
        let chosen = order("search updates built-in\noverride x * weak-updates/x\noverride y 5.0 extra\n");
        assert!(chosen.rank("weak-updates/x/x.ko.xz") < chosen.rank("updates/x.ko"));
        assert!(
            chosen.rank("extra/y.ko") > chosen.rank("updates/y.ko"),
            "of another kernel"
        );
    }
}
