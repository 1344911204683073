//! Parses the indexes of kernel modules that depmod(8) writes below `/lib/modules/RELEASE`, and the names of modules.
//!
//! An import uses them to select the modules of an initramfs, and the agent uses them to load modules. Lines that cannot be read are
//! skipped, as kmod does.

mod name;

pub use name::{name_of, plain_path};

/// The time at which a soft dependency is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the module (`pre:`).
    Before,
    /// After the module (`post:`).
    After,
}

/// A line of `modules.softdep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soft<'a> {
    /// The module, as written in the line.
    pub module: &'a str,
    /// Names or aliases of modules, each with its time; those before the first `pre:` or `post:` have none.
    pub wanted: Vec<(Option<When>, &'a str)>,
    /// The whole line of the index.
    pub line: &'a str,
}

/// A line of `modules.alias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias<'a> {
    /// The alias, which may have wildcards.
    pub pattern: &'a str,
    /// The module of the alias, as written in the line.
    pub module: &'a str,
    /// The whole line of the index.
    pub line: &'a str,
}

/// `modules.dep`: the path of each module, and of all modules that it needs, the nearest first.
pub fn dependencies(text: &str) -> impl Iterator<Item = (&str, impl Iterator<Item = &str>)> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(path, needs)| (path, needs.split_whitespace()))
}

/// `modules.softdep`: other modules that are loaded with a module, if they exist.
pub fn soft_dependencies(text: &str) -> impl Iterator<Item = Soft<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (Some("softdep"), Some(module)) = (words.next(), words.next()) else {
            return None;
        };
        let (mut when, mut wanted) = (None, Vec::new());
        for word in words {
            match word {
                "pre:" => when = Some(When::Before),
                "post:" => when = Some(When::After),
                name => wanted.push((when, name)),
            }
        }
        let line = line.trim_end();
        Some(Soft { module, wanted, line })
    })
}

/// `modules.alias`: the devices, file systems and protocols that need a module.
pub fn aliases(text: &str) -> impl Iterator<Item = Alias<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (Some("alias"), Some(pattern), Some(module), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return None;
        };
        let line = line.trim_end();
        Some(Alias { pattern, module, line })
    })
}

/// `modules.builtin`: paths of modules that are built into the kernel.
pub fn built_in(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_lines_are_read_and_others_skipped() {
        let all: Vec<(&str, Vec<&str>)> = dependencies("a/x.ko: b/y.ko.xz c/z.ko\nnonsense\nb/y.ko.xz:\n")
            .map(|(path, needs)| (path, needs.collect()))
            .collect();
        assert_eq!(all, [("a/x.ko", vec!["b/y.ko.xz", "c/z.ko"]), ("b/y.ko.xz", vec![])]);
        let soft: Vec<Soft<'_>> =
            soft_dependencies("# made by depmod\nsoftdep x-y early pre: a b post: c \nsoftdep\n").collect();
        let wanted = vec![
            (None, "early"),
            (Some(When::Before), "a"),
            (Some(When::Before), "b"),
            (Some(When::After), "c"),
        ];
        let line = "softdep x-y early pre: a b post: c";
        assert_eq!(
            soft,
            [Soft {
                module: "x-y",
                wanted,
                line
            }]
        );
        let aliases: Vec<Alias<'_>> = aliases("alias fs-xfs xfs \nalias one\nalias a b c\nother x y\n").collect();
        assert_eq!(
            aliases,
            [Alias {
                pattern: "fs-xfs",
                module: "xfs",
                line: "alias fs-xfs xfs"
            }]
        );
        assert_eq!(
            built_in("kernel/fs/ext4/ext4.ko\n\n").collect::<Vec<_>>(),
            ["kernel/fs/ext4/ext4.ko"]
        );
    }
}
