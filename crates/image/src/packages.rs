//! Lists the packages of a tree, and compares them with those of another tree.

use super::{PackageCounts, PackageKind, root::RootDir, rpm};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Longest list that is read: Debian has some 60,000 packages, and `status` has a kilobyte for each.
pub(super) const LONGEST: u64 = 128 << 20;

/// The list of dpkg (dpkg(1), FILES).
const DPKG: &str = "var/lib/dpkg/status";
/// The list of apk (apk(8)).
const APK: &str = "lib/apk/db/installed";

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Name of the package.
    pub name: String,
    /// Architecture, as the package manager calls it.
    pub arch: String,
    /// Version, as the package manager prints it.
    pub version: String,
}

/// A difference between the packages of two trees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    /// Name; with `:arch` if the name exists for several architectures.
    pub name: String,
    /// Its versions before; none if it was added.
    pub before: Option<String>,
    /// Its versions now; none if it was removed.
    pub after: Option<String>,
}

/// `packages.json` of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    /// The package manager.
    pub kind: PackageKind,
    /// Why the packages are not known; empty if they are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// All installed packages, by name.
    pub installed: Vec<Package>,
    /// The differences from the parent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<PackageChange>,
}

impl Packages {
    /// Counts the packages.
    pub fn counts(&self) -> PackageCounts {
        let count = |fits: fn(&PackageChange) -> bool| self.changes.iter().filter(|c| fits(c)).count() as u64;
        PackageCounts {
            kind: self.kind,
            installed: self.installed.len() as u64,
            added: count(|c| c.before.is_none()),
            removed: count(|c| c.after.is_none()),
            changed: count(|c| c.before.is_some() && c.after.is_some()),
        }
    }

    /// The changes from `before` to these. An error says why they are not known.
    pub fn since(&self, before: &Packages) -> Result<Vec<PackageChange>, String> {
        for side in [before, self] {
            if side.kind == PackageKind::Unknown {
                return Err(side.why.clone());
            }
        }
        Ok(changes(&before.installed, &self.installed))
    }

    pub(super) fn unknown(why: impl Into<String>) -> Self {
        Packages {
            why: why.into(),
            ..Packages::default()
        }
    }
}

/// Reads the list of the tree's package manager. If the packages are unknown, the result says why.
pub(crate) fn read_packages(tree: &RootDir) -> Packages {
    for (file, kind) in [(DPKG, PackageKind::Dpkg), (APK, PackageKind::Apk)] {
        if !tree.exists(file) {
            continue;
        }
        let parse = match kind {
            PackageKind::Apk => apk,
            _ => dpkg,
        };
        return match tree.read(file, LONGEST) {
            Ok(text) => sorted(kind, parse(&String::from_utf8_lossy(&text))),
            Err(e) => Packages::unknown(format!("/{file} cannot be read: {e}")),
        };
    }
    if rpm::is_there(tree) {
        return rpm::installed(tree);
    }
    Packages::unknown("the tree has no package database of dpkg, rpm or apk")
}

/// In the order of their names.
pub(super) fn sorted(kind: PackageKind, mut installed: Vec<Package>) -> Packages {
    installed.sort();
    installed.dedup();
    Packages {
        kind,
        installed,
        ..Packages::default()
    }
}

/// Parses stanzas of deb-control(5). A package counts if files of it are unpacked: `Status: install ok installed`, also
/// half-configured and so on, but neither `config-files` nor `not-installed`.
fn dpkg(text: &str) -> Vec<Package> {
    let mut found = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let lines = stanza.lines().filter(|line| !line.starts_with([' ', '\t']));
            let mut values = lines.filter_map(|line| line.split_once(':'));
            let value = values.find(|(key, _)| key.eq_ignore_ascii_case(name));
            value.map(|(_, value)| value.trim().to_owned())
        };
        let state = field("Status").unwrap_or_default();
        let state = state.split_ascii_whitespace().last().unwrap_or_default();
        if matches!(state, "" | "not-installed" | "config-files") {
            continue;
        }
        if let (Some(name), Some(version)) = (field("Package"), field("Version")) {
            let arch = field("Architecture").unwrap_or_default();
            found.push(Package { name, arch, version });
        }
    }
    found
}

/// Parses stanzas of apk's database: `P:` name, `V:` version, `A:` architecture.
fn apk(text: &str) -> Vec<Package> {
    let mut found = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |key: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .map(str::to_owned)
        };
        if let (Some(name), Some(version)) = (field("P:"), field("V:")) {
            let arch = field("A:").unwrap_or_default();
            found.push(Package { name, arch, version });
        }
    }
    found
}

/// The differences: packages are identified by name, or by name and architecture if a name exists for several.
fn changes(before: &[Package], after: &[Package]) -> Vec<PackageChange> {
    let mut arches: BTreeMap<&str, [BTreeSet<&str>; 2]> = BTreeMap::new();
    for (side, list) in [before, after].into_iter().enumerate() {
        for package in list {
            arches.entry(&package.name).or_default()[side].insert(&package.arch);
        }
    }
    let key = |package: &Package| {
        // A package that changed from amd64 to all is the same one.
        let several = arches[package.name.as_str()].iter().any(|arches| arches.len() > 1);
        match several {
            true => format!("{}:{}", package.name, package.arch),
            false => package.name.clone(),
        }
    };
    // Some packages (kernels of rpm) are installed in several versions.
    let mut versions: BTreeMap<String, [Vec<&str>; 2]> = BTreeMap::new();
    for (side, list) in [before, after].into_iter().enumerate() {
        for package in list {
            versions.entry(key(package)).or_default()[side].push(&package.version);
        }
    }
    let shown = |versions: &[&str]| (!versions.is_empty()).then(|| versions.join(", "));
    let different = versions.iter().filter(|(_, [before, after])| before != after);
    different
        .map(|(name, [before, after])| PackageChange {
            name: name.clone(),
            before: shown(before),
            after: shown(after),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const STATUS: &str = "Package: bash\nEssential: yes\nStatus: install ok installed\nArchitecture: amd64\n\
        Version: 5.2.15-2+b7\nDescription: GNU Bourne Again SHell\n Version: 9\n\n\
        Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n\
        Package: held\nStatus: hold ok installed\nArchitecture: all\nVersion: 2:3-4\n\n\
        Package: broken\nStatus: install ok half-configured\nArchitecture: amd64\nVersion: 7\n\n\
        Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36\n\n\
        Package: libc6\nStatus: install ok installed\nArchitecture: i386\nVersion: 2.36\n";

    fn tree(file: &str, text: &[u8]) -> (tempfile::TempDir, RootDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        (dir, root)
    }

    fn shown(changes: &[PackageChange]) -> Vec<String> {
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".into());
        let lines = changes.iter();
        lines
            .map(|c| format!("{} {} {}", c.name, side(&c.before), side(&c.after)))
            .collect()
    }

    #[test]
    fn unpacked_packages_of_dpkg_are_listed() {
        let (_dir, root) = tree(DPKG, STATUS.as_bytes());
        let packages = read_packages(&root);
        assert_eq!(packages.kind, PackageKind::Dpkg);
        let list: Vec<_> = packages
            .installed
            .iter()
            .map(|p| format!("{}:{} {}", p.name, p.arch, p.version))
            .collect();
        assert_eq!(
            list,
            [
                "bash:amd64 5.2.15-2+b7",
                "broken:amd64 7",
                "held:all 2:3-4",
                "libc6:amd64 2.36",
                "libc6:i386 2.36"
            ]
        );
    }

    #[test]
    fn changes_are_found() {
        let before = sorted(PackageKind::Dpkg, dpkg(STATUS));
        let text = STATUS
            .replace("5.2.15-2+b7", "5.2.15-3")
            .replace(
                "Architecture: all\nVersion: 2:3-4",
                "Architecture: amd64\nVersion: 2:3-4",
            )
            .replace("deinstall ok config-files", "install ok installed")
            .replace("Architecture: i386\nVersion: 2.36", "Architecture: i386\nVersion: 2.37")
            .replace(
                "Package: broken\nStatus: install ok half-configured",
                "Package: broken\nStatus: x",
            );
        let mut after = sorted(
            PackageKind::Dpkg,
            dpkg(&text.replace("Status: x", "Status: purge ok not-installed")),
        );
        after.changes = after.since(&before).unwrap();
        assert_eq!(
            shown(&after.changes),
            [
                "bash 5.2.15-2+b7 5.2.15-3",
                "broken 7 -",
                "gone - 1",
                "libc6:i386 2.36 2.37"
            ]
        );
        let counts = after.counts();
        assert_eq!(
            (counts.installed, counts.added, counts.removed, counts.changed),
            (5, 1, 1, 2)
        );
        assert!(
            after
                .since(&Packages::unknown("no idea"))
                .unwrap_err()
                .contains("no idea")
        );
    }

    #[test]
    fn several_versions_of_a_name_are_compared() {
        let package = |version: &str| Package {
            name: "kernel".into(),
            arch: "x86_64".into(),
            version: version.into(),
        };
        let changes = changes(&[package("1"), package("2")], &[package("2"), package("3")]);
        assert_eq!(shown(&changes), ["kernel 1, 2 2, 3"]);
    }

    #[test]
    fn apk_is_read_and_a_missing_database_is_reported() {
        let (_dir, root) = tree(
            APK,
            b"C:x\nP:busybox\nV:1.36-r0\nA:x86_64\nF:bin\n\nP:musl\nV:1.2\nA:x86_64\n",
        );
        let packages = read_packages(&root);
        assert_eq!((packages.kind, packages.installed.len()), (PackageKind::Apk, 2));
        assert_eq!(packages.installed[0].version, "1.36-r0");
        let (_dir, root) = tree("etc/x", b"");
        let packages = read_packages(&root);
        assert!(packages.kind == PackageKind::Unknown && packages.why.contains("no package database"));
    }

    #[test]
    fn damaged_lists_cause_no_panic() {
        for text in [
            &b"\xff\xfe\n\n\n\nPackage"[..],
            b":",
            b"Package: x\nStatus: \nVersion: 1",
            b"",
            b"\n\nStatus: a b c\n",
        ] {
            let (_dir, root) = tree(DPKG, text);
            let packages = read_packages(&root);
            assert_eq!((packages.kind, packages.installed.len()), (PackageKind::Dpkg, 0));
        }
    }
}
