//! Finds the modules that a device needs, in the indexes that depmod writes, read as text (pure).

use rackstrap_modindex::{When, aliases, built_in, dependencies, name_of, plain_path, soft_dependencies};
use std::collections::{BTreeMap, BTreeSet};

/// `modules.alias`, `modules.dep`, `modules.softdep`, `modules.builtin` of one kernel.
#[derive(Debug, Default)]
pub struct Index {
    /// Pattern and module, in file order, sorted by the part before the first colon.
    aliases: BTreeMap<String, Vec<(String, String)>>,
    /// Module -> file (relative, `.ko`) and the modules that it needs, nearest first.
    modules: BTreeMap<String, (String, Vec<String>)>,
    soft_pre: BTreeMap<String, Vec<String>>,
    soft_post: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl Index {
    /// Reads the contents of the four files; lines that cannot be read are skipped.
    pub fn new(alias: &str, dep: &str, softdep: &str, builtin: &str) -> Self {
        let mut index = Index::default();
        for alias in aliases(alias) {
            let bus = index.aliases.entry(bus_of(alias.pattern).to_owned()).or_default();
            bus.push((alias.pattern.to_owned(), name_of(alias.module)));
        }
        for (file, needs) in dependencies(dep) {
            // The files in the initramfs are uncompressed, whatever the image's index says.
            let plain = plain_path(file).to_owned();
            index
                .modules
                .insert(name_of(file), (plain, needs.map(name_of).collect()));
        }
        for soft in soft_dependencies(softdep) {
            let module = name_of(soft.module);
            for (when, name) in soft.wanted {
                let to = match when {
                    Some(When::Before) => &mut index.soft_pre,
                    Some(When::After) => &mut index.soft_post,
                    None => continue,
                };
                to.entry(module.clone()).or_default().push(name.to_owned());
            }
        }
        index.builtin = built_in(builtin).map(name_of).collect();
        index
    }

    /// Modules for a device's modalias, or for a module's name or alias.
    pub fn resolve(&self, wanted: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        let name = name_of(wanted);
        if self.modules.contains_key(&name) || self.builtin.contains(&name) {
            found.push(name);
        }
        for (pattern, module) in self.aliases.get(bus_of(wanted)).into_iter().flatten() {
            if !found.contains(module) && fnmatch(pattern.as_bytes(), wanted.as_bytes()) {
                found.push(module.clone());
            }
        }
        found
    }

    /// The modules to load for `module`, in order: hard dependencies first, soft ones if they exist.
    pub fn load_order(&self, module: &str) -> Vec<String> {
        enum Step {
            Look(String),
            Load(String),
        }
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        // The remaining steps, the next one last. The image writes the soft dependencies, so a chain of them may be long.
        let mut steps = vec![Step::Look(module.to_owned())];
        while let Some(step) = steps.pop() {
            let module = match step {
                Step::Look(module) => module,
                Step::Load(module) => {
                    order.push(module);
                    continue;
                }
            };
            let Some((_, needs)) = self.modules.get(&module) else {
                continue;
            };
            if !seen.insert(module.clone()) {
                continue;
            }
            let soft = |words: &BTreeMap<String, Vec<String>>| {
                let words = words.get(&module).into_iter().flatten();
                words
                    .flat_map(|word| self.resolve(word))
                    .map(Step::Look)
                    .collect::<Vec<_>>()
            };
            let mut next = soft(&self.soft_pre);
            // modules.dep lists every indirect dependency, the deepest last.
            next.extend(needs.iter().rev().cloned().map(Step::Look));
            next.push(Step::Load(module.clone()));
            next.extend(soft(&self.soft_post));
            steps.extend(next.into_iter().rev());
        }
        order
    }

    /// The module's file, relative to /lib/modules/RELEASE; none for built-in and unknown modules.
    pub fn file(&self, module: &str) -> Option<&str> {
        self.modules.get(module).map(|(file, _)| file.as_str())
    }

    /// True if it is built into the kernel.
    pub fn is_builtin(&self, module: &str) -> bool {
        self.builtin.contains(module)
    }
}

/// The part before the first colon or wildcard. It excludes most patterns without a comparison.
fn bus_of(text: &str) -> &str {
    match text.find([':', '*', '?', '[']) {
        Some(at) if text.as_bytes()[at] == b':' => &text[..at],
        // An alias without a colon is its own bus, unless it has wildcards; depmod writes no such alias.
        Some(_) => "",
        None => text,
    }
}

/// fnmatch(3) without flags, for `*`, `?` and `[…]`: what modalias patterns use. Linear space, no recursion.
pub(crate) fn fnmatch(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        if let Some(next) = one(pattern, p, text[t]) {
            p = next;
            t += 1;
            continue;
        }
        let Some((back_p, back_t)) = star else { return false };
        star = Some((back_p, back_t + 1));
        p = back_p + 1;
        t = back_t + 1;
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// Matches one byte at `p`. Returns the position in the pattern after it.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => {
            let close = p + 2 + pattern.get(p + 2..)?.iter().position(|c| *c == b']')?;
            let set = &pattern[p + 1..close];
            let (negated, set) = match set {
                [b'!' | b'^', rest @ ..] => (true, rest),
                _ => (false, set),
            };
            let mut i = 0;
            let mut within = false;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == b'-' {
                    within |= (set[i]..=set[i + 2]).contains(&byte);
                    i += 3;
                } else {
                    within |= set[i] == byte;
                    i += 1;
                }
            }
            (within != negated).then_some(close + 1)
        }
        b'\\' => (*pattern.get(p + 1)? == byte).then_some(p + 2),
        c => (c == byte).then_some(p + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_like_fnmatch() {
        for (pattern, text, want) in [
            (
                "pci:v00008086d0000100Esv*sd*bc*sc*i*",
                "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
                true,
            ),
            (
                "pci:v00008086d0000100Fsv*sd*bc*sc*i*",
                "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
                false,
            ),
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4", true),
            (
                "usb:v*p*d*dc*dsc*dp*ic08isc0[1-6]ip50in*",
                "usb:v1p2d3dc0dsc0dp0ic08isc06ip50in00",
                true,
            ),
            ("usb:ic08isc0[!6]in*", "usb:ic08isc06in00", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*", "a", true),
            ("", "", true),
            ("a", "", false),
            ("[", "[", false),
        ] {
            assert_eq!(fnmatch(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
    }

    #[test]
    fn dependencies_come_first() {
        let index = Index::new(
            "alias virtio:d00000001v* virtio_net\nalias fs-ext4 ext4\nalias crypto-crc32c crc32c_intel\n# comment\nalias",
            "kernel/net/net_failover.ko.xz: kernel/net/failover.ko.xz\nkernel/net/failover.ko.xz:\n\
             kernel/drivers/net/virtio_net.ko.xz: kernel/net/net_failover.ko.xz kernel/net/failover.ko.xz\n\
             kernel/fs/ext4/ext4.ko.zst: kernel/fs/jbd2/jbd2.ko.zst kernel/lib/crc16.ko.zst\nkernel/fs/jbd2/jbd2.ko.zst:\nkernel/lib/crc16.ko.zst:\n\
             kernel/x/crc32c-intel.ko:\nkernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/a.ko\n",
            "softdep ext4 pre: crypto-crc32c post: nothing-here\n",
            "kernel/drivers/virtio/virtio.ko\n",
        );
        assert_eq!(index.resolve("virtio:d00000001v00001AF4"), ["virtio_net"]);
        assert_eq!(
            index.load_order("virtio_net"),
            ["failover", "net_failover", "virtio_net"]
        );
        assert_eq!(index.resolve("fs-ext4"), ["ext4"]);
        assert_eq!(index.load_order("ext4"), ["crc32c_intel", "crc16", "jbd2", "ext4"]);
        assert_eq!(index.file("ext4"), Some("kernel/fs/ext4/ext4.ko"));
        assert!(index.is_builtin("virtio") && index.load_order("virtio").is_empty());
        assert_eq!(index.load_order("a"), ["b", "a"], "a cycle ends");
    }

    #[test]
    fn a_long_chain_of_soft_dependencies_needs_no_stack() {
        const LONG: usize = 20_000;
        let dep: String = (0..LONG).map(|n| format!("m{n}.ko:\n")).collect();
        let softdep: String = (1..LONG).map(|n| format!("softdep m{} pre: m{n}\n", n - 1)).collect();
        let order = Index::new("", &dep, &softdep, "").load_order("m0");
        assert_eq!((order.len(), order[0].as_str()), (LONG, "m19999"));
    }

    proptest! {
        #[test]
        fn any_index_is_read_without_panic(a in "\\PC{0,80}", d in "\\PC{0,80}", s in "\\PC{0,80}", w in "[a-z:*?\\[\\]-]{0,20}") {
            let index = Index::new(&a, &d, &s, "");
            for name in index.resolve(&w) {
                index.load_order(&name);
            }
            fnmatch(a.as_bytes(), w.as_bytes());
            fnmatch(w.as_bytes(), a.as_bytes());
        }
    }
}
