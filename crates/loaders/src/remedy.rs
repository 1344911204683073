//! What to do about a boot loader that is missing or refused: the reason, and the command or the key of the site file that corrects it.

use crate::{Loaders, files::Refused, files::is_of_package, packages::Family};
use rackstrap_model::decide::LoaderChoice;
use std::path::Path;

impl Loaders {
    /// Why no file of a choice is served, and the remedy.
    pub fn lacks(&self, choice: &LoaderChoice, family: Family) -> (String, String) {
        let LoaderChoice {
            name, of_site, files, ..
        } = choice;
        if let Some((file, companion)) = self.half_of(choice) {
            let what = format!(
                "{file} loads {}, and neither that nor {} exists in {}",
                companion.asked,
                companion.file,
                self.searched()
            );
            let remedy = match family.package(&[companion.file]) {
                Some(package) => format!("{}, then: rackstrap reload", family.install(package)),
                None => format!("put {} there, then: rackstrap reload", companion.asked),
            };
            return (what, remedy);
        }
        if let Some((path, refused)) = files.iter().find_map(|file| self.refused(file)) {
            return why_refused(path, refused, of_site.then_some(name));
        }
        let first = files.first().map_or("", String::as_str);
        let what = match *of_site && self.own.contains(first) {
            true => format!("the file of [loader.{name}] does not exist"),
            false => format!("{first} does not exist in {}", self.searched()),
        };
        let remedy = match (family.package(files), *of_site) {
            (Some(package), _) => format!("{}, then: rackstrap reload", family.install(package)),
            (None, true) => format!("put the file there, or correct 'file' in [loader.{name}]; then: rackstrap reload"),
            (None, false) => format!(
                "put {first} into a directory of [server] loader-dirs, or add [loader.NAME] with arch = [\"{name}\"]; then: rackstrap reload"
            ),
        };
        (what, remedy)
    }

    /// Why none of these files is on disks, and the remedy. `unusable` says what is wrong with one that exists.
    pub(crate) fn why_not(&self, files: &[&str], family: Family, unusable: impl Fn() -> String) -> (String, String) {
        let install = family.package(files).map(|package| family.install(package));
        let first = files[0];
        if let Some(found) = files.iter().find_map(|file| self.find(file)) {
            let or = match install.filter(|_| !is_of_package(&found.path)) {
                Some(how) => format!(", or remove it there and take the package's: {how}"),
                None => String::new(),
            };
            let help = format!("put another one into [server] loader-dirs{or}; then: rackstrap reload");
            return (unusable(), help);
        }
        if let Some((path, refused)) = files.iter().find_map(|file| self.refused(file)) {
            let (what, remedy) = why_refused(path, refused, None);
            return (what, format!("{remedy}; then: rackstrap reload"));
        }
        let help = match install {
            Some(how) => format!("install the package: {how}; then: rackstrap reload"),
            None => format!("put {first} into a directory of [server] loader-dirs; then: rackstrap reload"),
        };
        let what = format!("boot loader '{first}' does not exist in {}", self.searched());
        (what, help)
    }
}

/// Why a file that exists is not served, and the remedy. `rule` is the `[loader.NAME]` that names it; none for a file that is found by its name.
fn why_refused(path: &Path, refused: &Refused, rule: Option<&String>) -> (String, String) {
    let remedy = match (refused, rule) {
        (Refused::NotRoots { path, .. }, _) => format!("chown -h root {}", path.display()),
        (Refused::Directory { .. }, _) => {
            "put it, and the links to it, into directories that only root can change".to_owned()
        }
        (Refused::Writable(_), _) => format!("chmod go-w {}", path.display()),
        (Refused::Secret(_), _) => format!("chmod a+r {}", path.display()),
        (Refused::Empty, _) => format!("copy the whole file to {}", path.display()),
        (_, Some(name)) => format!("correct 'file' in [loader.{name}]"),
        (_, None) => "put the file itself into a directory of [server] loader-dirs".to_owned(),
    };
    (format!("{} is not served: {refused}", path.display()), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::site;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_refused_file_has_the_same_remedy_for_machines_and_for_disks() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc/hostname", dir.path().join("ipxe.efi")).unwrap();
        let loaders = Loaders::load(&site(&[dir.path().to_owned()], "")).unwrap();
        let choice = LoaderChoice {
            name: "x86_64-efi".to_owned(),
            of_site: false,
            files: vec!["ipxe.efi".to_owned()],
            why: String::new(),
        };
        let (what, remedy) = loaders.lacks(&choice, Family::Debian);
        assert!(what.contains("ipxe.efi is not served: it is a link to"), "{what}");
        let disks = loaders.why_not(&["ipxe.efi"], Family::Debian, String::new);
        assert_eq!(disks, (what, format!("{remedy}; then: rackstrap reload")));
    }
}
