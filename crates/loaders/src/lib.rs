//! Boot loaders (`undionly.kpxe`, `snponly.efi`): read once, shared by all transfers.
//!
//! `files.rs` says which files are served, `packages.rs` where missing ones come from. Which loader a machine gets is decided by
//! [`rackstrap_model::decide`]. `disk_loader/` makes the network loader that disks carry for BIOS,
//! `esp` the one for UEFI, `layout_esp` the one for UEFI with Secure Boot. `on_disks` says what is missing for them, and `remedy` what to do
//! about a file that is missing or refused.

mod disk_loader;
mod esp;
mod esp_image;
mod files;
mod layout_esp;
mod on_disks;
mod packages;
mod remedy;

pub use esp::Esps;
pub use files::Refused;
pub use layout_esp::{LayoutEsps, TooSmall};
pub use on_disks::OnDisk;
pub use packages::Family;

use bytes::Bytes;
use files::{DEFAULT_DIRS, FURTHER_DIRS, MEMTEST_DIR, Trust};
use rackstrap_base::{
    firmware::{Companion, DEFAULT_LOADERS, companions_of, name_and_number, or_bios},
    text::cut,
};
use rackstrap_model::decide::{LoaderChoice, freebsd_file};
use rackstrap_site::{LoaderFile, Site};
use rackstrap_wire::DiskLoader;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

/// memtest86+ since version 6, for a BIOS and for UEFI: the names of Debian's package.
pub const MEMTEST: [&str; 2] = ["memtest86+x64.bin", "memtest86+x64.efi"];

/// All boot loaders by name.
#[derive(Debug, Default)]
pub struct Loaders {
    files: BTreeMap<String, LoaderContent>,
    /// The names of the files that the site file gives by their paths: no other file has such a name.
    own: BTreeSet<String>,
    /// Files that exist by the name of a loader, and are not served.
    refused: BTreeMap<String, (PathBuf, Refused)>,
    dirs: Vec<PathBuf>,
    disk: Option<(DiskLoader, Bytes)>,
    esps: Esps,
    layout_esps: LayoutEsps,
}

/// A boot loader.
#[derive(Clone, Debug)]
pub struct LoaderContent {
    /// The file, as it was found: perhaps a link.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Bytes,
}

/// The loader does not exist.
#[derive(Debug, thiserror::Error)]
#[error("boot loader '{name}' does not exist in {dirs}")]
pub struct NoLoader {
    name: String,
    dirs: String,
}

impl Loaders {
    /// Reads all files of the site's loader directories, and the files that the site file names. If two directories have the same name,
    /// the one in the earlier directory wins. Directories that do not exist are left out, because /usr/lib/ipxe is not installed where no
    /// firmware needs it.
    ///
    /// # Errors
    /// A directory that exists cannot be read.
    pub fn load(site: &Site) -> io::Result<Self> {
        Loaders::load_as(site, &Trust::default())
    }

    fn load_as(site: &Site, trust: &Trust) -> io::Result<Self> {
        let mut loaders = Loaders {
            dirs: site.server.loader_dirs.clone(),
            ..Loaders::default()
        };
        for dir in &site.server.loader_dirs {
            let entries = match std::fs::read_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                if let Some(name) = path.file_name().and_then(|n| n.to_str()) {
                    loaders.look(trust, dir, name);
                }
            }
        }
        for rule in &site.loaders {
            match &rule.file {
                LoaderFile::Named(name) => {
                    loaders.search(trust, name, &FURTHER_DIRS);
                }
                LoaderFile::Path(path) => {
                    loaders.own.insert(rule.served());
                    match trust.read_path(path) {
                        Ok(bytes) => loaders.add(rule.served(), path, bytes),
                        Err(refused) => loaders.refuse(&rule.served(), path, refused),
                    }
                }
            }
        }
        for rule in &site.loaders {
            for companion in companions_of(&rule.served()) {
                loaders.add_companion(trust, companion);
            }
        }
        // Below a directory, as Enterprise Linux has them.
        for name in DEFAULT_LOADERS.iter().flat_map(|loader| loader.files) {
            loaders.search(trust, name, &DEFAULT_DIRS);
        }
        for name in MEMTEST {
            loaders.search(trust, name, &[MEMTEST_DIR]);
        }
        let ipxe = loaders.files.get(disk_loader::IPXE);
        loaders.disk = ipxe.and_then(|ipxe| disk_loader::build(&ipxe.bytes));
        loaders.esps = Esps::build(|name| loaders.files.get(name).map(|found| found.bytes.clone()));
        loaders.layout_esps = loaders.make_layout_esps(site, trust);
        Ok(loaders)
    }

    /// Looks for a file by its name in the loader directories and then in `further`, unless it is known.
    fn search(&mut self, trust: &Trust, name: &str, further: &[&str]) {
        let further = further.iter().map(PathBuf::from);
        for dir in self.dirs.clone().into_iter().chain(further) {
            self.look(trust, &dir, name);
        }
    }

    /// Serves the file of a package by the name that shim asks for, unless a loader directory has a file of that name.
    fn add_companion(&mut self, trust: &Trust, companion: &Companion) {
        self.search(trust, companion.file, &FURTHER_DIRS);
        if let (false, Some(content)) = (
            self.files.contains_key(companion.asked),
            self.files.get(companion.file).cloned(),
        ) {
            self.files.insert(companion.asked.to_owned(), content);
        }
    }

    /// The program that the loader `file`, which exists, asks for and does not get; none if it gets all that it needs.
    fn lacking(&self, file: &str) -> Option<&'static Companion> {
        companions_of(file).find(|companion| companion.needed && self.companion(file, companion).is_none())
    }

    /// What the loader `file` gets for a program that it asks for.
    fn companion(&self, file: &str, companion: &Companion) -> Option<&LoaderContent> {
        let dir = file
            .rsplit_once('/')
            .map(|(dir, _)| format!("{dir}/"))
            .unwrap_or_default();
        self.find(&format!("{dir}{}", companion.asked))
    }

    /// The programs that the loader `file` asks for and cannot do without: the names that it asks for, with their files.
    pub fn further_of(&self, file: &str) -> Vec<(&'static str, &LoaderContent)> {
        let needed = companions_of(file).filter(|companion| companion.needed);
        needed
            .filter_map(|companion| Some((companion.asked, self.companion(file, companion)?)))
            .collect()
    }

    /// Takes the file `name` of a directory in, unless it is known. A missing file changes nothing.
    fn look(&mut self, trust: &Trust, dir: &Path, name: &str) {
        if self.files.contains_key(name) {
            return;
        }
        let path = dir.join(name);
        let read = dir.canonicalize().map_err(Refused::from);
        match read.and_then(|top| trust.read_below(&top, &top.join(name))) {
            Ok(bytes) => self.add(name.to_owned(), &path, bytes),
            Err(Refused::NotAFile) if path.is_dir() => {}
            Err(refused) => self.refuse(name, &path, refused),
        }
    }

    fn add(&mut self, name: String, path: &Path, bytes: Vec<u8>) {
        self.refused.remove(&name);
        let content = LoaderContent {
            path: path.to_owned(),
            bytes: bytes.into(),
        };
        self.files.insert(name, content);
    }

    fn refuse(&mut self, name: &str, path: &Path, refused: Refused) {
        // A link to nothing exists.
        if path.symlink_metadata().is_ok() {
            let first = (path.to_owned(), refused);
            self.refused.entry(name.to_owned()).or_insert(first);
        }
    }

    /// The network loader that disks carry for BIOS, made of `ipxe.lkrn`; none if that is missing or not usable.
    pub fn disk(&self) -> Option<&(DiskLoader, Bytes)> {
        self.disk.as_ref()
    }

    /// The EFI system partitions that disks carry.
    pub fn esps(&self) -> &Esps {
        &self.esps
    }

    /// The loader with that name. Some firmware puts a slash before it.
    ///
    /// # Errors
    /// It does not exist.
    pub fn get(&self, name: &str) -> Result<Bytes, NoLoader> {
        self.find(name)
            .map(|found| found.bytes.clone())
            .ok_or_else(|| NoLoader {
                name: cut(name, 100).to_owned(),
                dirs: self.searched(),
            })
    }

    /// The loader with that name, with its file; none if it does not exist.
    pub fn find(&self, name: &str) -> Option<&LoaderContent> {
        let name = name.trim_start_matches('/');
        // shim asks for grubx64.efi in the directory that it was loaded from itself.
        let next_to_it = || {
            let (dir, rest) = name.split_once('/')?;
            let of_rule = self
                .own
                .iter()
                .any(|own| own.split_once('/').is_some_and(|(own, _)| own == dir));
            // A file of the site file that is missing or refused is not replaced by another one of its name.
            self.files.get(rest).filter(|_| of_rule && !self.own.contains(name))
        };
        // GRUB has one place for all files, by HTTP and by TFTP.
        let by_path = || self.files.get(name.strip_prefix("loader/")?);
        self.files.get(name).or_else(next_to_it).or_else(by_path)
    }

    /// Which of the files of memtest86+ is missing, with the remedy; none if machines with a BIOS and with UEFI both get it.
    pub fn lacks_memtest(&self) -> Option<String> {
        let missing = MEMTEST.iter().find(|name| self.find(name).is_none())?;
        let family = Family::of_this_machine();
        let remedy = match family.package(&[missing]) {
            Some(package) => format!("{}, then: rackstrap reload", family.install(package)),
            None => format!("put {missing} into one of {}, then: rackstrap reload", self.searched()),
        };
        Some(format!("{missing} is not on this server; {remedy}"))
    }

    /// Why a file that exists by that name is not served, with its path; none if there is no such file.
    pub fn refused(&self, name: &str) -> Option<&(PathBuf, Refused)> {
        self.refused.get(name)
    }

    /// The directories, for people.
    pub fn searched(&self) -> String {
        let dirs: Vec<String> = self.dirs.iter().map(|d| d.display().to_string()).collect();
        dirs.join(", ")
    }

    /// The name by which firmware of type `arch` gets its loader; empty if it asks for names of its own.
    ///
    /// # Errors
    /// No loader is made for this firmware, or its file does not exist or is refused. The text names the remedy.
    pub fn offer(&self, arch: Option<u16>, choice: &Result<LoaderChoice, String>) -> Result<String, String> {
        let choice = choice.as_ref().map_err(String::clone)?;
        if choice.files.is_empty() {
            return Ok(String::new());
        }
        if let Some((file, _)) = self.first_of(choice) {
            return Ok(file.to_owned());
        }
        // The image has the file, and the decision knows that it does.
        if let Some(file) = choice
            .files
            .first()
            .filter(|file| !choice.of_site && freebsd_file(file).is_some())
        {
            return Ok(file.clone());
        }
        let (what, remedy) = self.lacks(choice, Family::of_this_machine());
        Err(format!(
            "no loader for {}: {what}; {remedy}",
            name_and_number(or_bios(arch))
        ))
    }

    /// The name by which firmware asks for its loader. A loader whose file is missing is named, too, so that the machine shows the name on
    /// its screen.
    pub fn name_of<'a>(&self, choice: &'a LoaderChoice) -> Option<&'a str> {
        let there = self.first_of(choice).map(|(file, _)| file);
        there.or(choice.files.first().map(String::as_str))
    }

    /// The first file of a choice that exists with all that it loads in turn, by its name; none if all are missing.
    pub fn first_of<'a>(&self, choice: &'a LoaderChoice) -> Option<(&'a str, &LoaderContent)> {
        let mut files = choice.files.iter().filter(|file| self.lacking(file).is_none());
        files.find_map(|file| Some((file.as_str(), self.find(file)?)))
    }

    /// The first file of a choice that exists and lacks what it loads in turn.
    fn half_of<'a>(&self, choice: &'a LoaderChoice) -> Option<(&'a str, &'static Companion)> {
        let mut there = choice.files.iter().filter(|file| self.find(file).is_some());
        there.find_map(|file| Some((file.as_str(), self.lacking(file)?)))
    }

    /// The package to install for a choice of which no file is served; none if the distribution has none.
    pub fn missing_package(&self, choice: &LoaderChoice, family: Family) -> Option<&'static str> {
        match self.half_of(choice) {
            Some((_, companion)) => family.package(&[companion.file]),
            None => family.package(&choice.files),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    /// The smallest site with these loader directories and these further lines.
    pub(crate) fn site(dirs: &[PathBuf], lines: &str) -> Site {
        let text = format!(
            "[cluster]\nnode-name = \"n{{n:02}}\"\nnode-address = \"10.5.1.{{n}}\"\n[[subnet]]\nnetwork = \"10.5.0.0/16\"\n\
             relayed = true\nserver = \"10.5.0.1\"\n{lines}"
        );
        let (mut site, _) = rackstrap_site::parse(&text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}"));
        site.server.loader_dirs = dirs.to_vec();
        site
    }

    fn own() -> Trust {
        Trust {
            owner: rustix::process::geteuid().as_raw(),
            ..Trust::default()
        }
    }

    fn choice(name: &str, of_site: bool, files: &[&str]) -> LoaderChoice {
        LoaderChoice {
            name: name.to_owned(),
            of_site,
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            why: String::new(),
        }
    }

    #[test]
    fn only_files_that_stay_inside_are_loaders_and_the_first_directory_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        fs::create_dir_all(&first).unwrap();
        fs::create_dir_all(second.join("sub")).unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        fs::write(first.join("a.efi"), "first").unwrap();
        fs::write(second.join("a.efi"), "second").unwrap();
        symlink("a.efi", second.join("b.efi")).unwrap();
        symlink("../secret", second.join("c.efi")).unwrap();
        let loaders = Loaders::load(&site(&[first, second, dir.path().join("absent")], "")).unwrap();
        assert_eq!(loaders.get("a.efi").unwrap(), "first");
        assert_eq!(loaders.get("/b.efi").unwrap(), "second");
        for name in ["c.efi", "sub", "../secret", "sub/../a.efi", ""] {
            assert!(loaders.get(name).is_err(), "{name}");
        }
        let said = loaders.get("c.efi").unwrap_err().to_string();
        assert!(said.starts_with("boot loader 'c.efi' does not exist in /"), "{said}");
        let (what, remedy) = loaders.lacks(&choice("x", false, &["c.efi"]), Family::Debian);
        assert!(
            what.contains("c.efi is not served: it is a link to") && remedy.contains("loader-dirs"),
            "{what}; {remedy}"
        );
    }

    #[test]
    fn files_of_the_site_file_are_served_by_names_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let (tftp, package) = (dir.path().join("tftp"), dir.path().join("package"));
        fs::create_dir_all(tftp.join("arm64-efi")).unwrap();
        fs::create_dir_all(&package).unwrap();
        for (path, text) in [
            (tftp.join("snponly.efi"), "x64"),
            (tftp.join("grubx64.efi"), "grub"),
            (tftp.join("arm64-efi/snponly.efi"), "arm64"),
            (package.join("snponly.efi"), "shim"),
            (tftp.join("gone.efi"), "another one of this name"),
        ] {
            fs::write(path, text).unwrap();
        }
        let lines = format!(
            "[loader.own]\nfile = \"{0}/snponly.efi\"\narch = [7]\n[loader.gone]\nfile = \"{0}/gone.efi\"\narch = [10]\n",
            package.display()
        );
        let loaders = Loaders::load_as(&site(&[tftp], &lines), &own()).unwrap();
        for (name, text) in [
            ("snponly.efi", "x64"),
            ("arm64-efi/snponly.efi", "arm64"),
            ("loader.own/snponly.efi", "shim"),
            ("/loader.own/snponly.efi", "shim"),
            // What shim asks for.
            ("loader.own/grubx64.efi", "grub"),
        ] {
            assert_eq!(loaders.get(name).unwrap(), text, "{name}");
        }
        for name in [
            "own/snponly.efi",
            "loader.own/../snponly.efi",
            "x/grubx64.efi",
            "loader.x/grubx64.efi",
            "loader.gone/gone.efi",
            "loader.own/",
        ] {
            assert!(loaders.get(name).is_err(), "{name}");
        }
        let arm64 = Ok(choice(
            "arm64-efi",
            false,
            &["snponly-arm64.efi", "arm64-efi/snponly.efi"],
        ));
        assert_eq!(loaders.offer(Some(11), &arm64).unwrap(), "arm64-efi/snponly.efi");
        let gone = Ok(choice("gone", true, &["loader.gone/gone.efi"]));
        assert_eq!(
            loaders.offer(Some(10), &gone).unwrap_err(),
            "no loader for arm-efi (10): the file of [loader.gone] does not exist; put the file there, or correct 'file' in [loader.gone]; \
             then: rackstrap reload"
        );
    }

    #[test]
    fn shim_gets_the_grub_of_debians_package_by_the_name_that_it_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| fs::write(dir.path().join(name), name).unwrap();
        let of = |file: &str| {
            let lines = format!("[loader.secure]\nfile = \"{file}\"\narch = [7]\n");
            let site = site(&[dir.path().to_owned()], &lines);
            (Loaders::load_as(&site, &own()).unwrap(), site.loaders[0].served())
        };
        // A name of no package, as this machine may have Debian's.
        put("shimaa64.efi");
        let (loaders, served) = of("shimaa64.efi");
        let choice = choice("secure", true, &[&served]);
        assert!(loaders.first_of(&choice).is_none());
        let (what, remedy) = loaders.lacks(&choice, Family::Debian);
        assert!(
            what.starts_with("shimaa64.efi loads grubaa64.efi, and neither"),
            "{what}"
        );
        let install = Family::Debian.install("grub-efi-arm64-signed:arm64");
        assert_eq!(remedy, format!("{install}, then: rackstrap reload"));
        assert_eq!(
            loaders.missing_package(&choice, Family::Debian),
            Some("grub-efi-arm64-signed:arm64")
        );
        put("grubnetaa64.efi.signed");
        let by_path = dir.path().join("shimaa64.efi");
        for file in ["shimaa64.efi", by_path.to_str().unwrap()] {
            let (loaders, served) = of(file);
            assert!(
                loaders
                    .offer(Some(7), &Ok(self::choice("secure", true, &[&served])))
                    .is_ok()
            );
            let next = served.replace("shimaa64.efi", "grubaa64.efi");
            assert_eq!(loaders.get(&next).unwrap(), "grubnetaa64.efi.signed", "{next}");
            assert_eq!(loaders.further_of(&served)[0].0, "grubaa64.efi");
        }
        // The administrator's own one comes first.
        put("grubaa64.efi");
        assert_eq!(of("shimaa64.efi").0.get("grubaa64.efi").unwrap(), "grubaa64.efi");
    }

    #[test]
    fn pxelinux_is_served_with_what_it_loads() {
        let dir = tempfile::tempdir().unwrap();
        let (tftp, package) = (dir.path().join("tftp"), dir.path().join("package"));
        fs::create_dir_all(&tftp).unwrap();
        fs::create_dir_all(&package).unwrap();
        fs::write(package.join("pxelinux.0"), "core").unwrap();
        fs::write(tftp.join("ldlinux.c32"), "ldlinux").unwrap();
        let lines = format!(
            "[loader.bios]\nfile = \"{}/pxelinux.0\"\narch = [0]\n",
            package.display()
        );
        let loaders = Loaders::load_as(&site(&[tftp], &lines), &own()).unwrap();
        assert_eq!(loaders.get("loader.bios/ldlinux.c32").unwrap(), "ldlinux");
        let wanted = Ok(choice("bios", true, &["loader.bios/pxelinux.0"]));
        assert_eq!(loaders.offer(Some(0), &wanted).unwrap(), "loader.bios/pxelinux.0");
        // U-Boot and Raspberry Pi need no file.
        assert_eq!(loaders.offer(Some(22), &Ok(choice("u-boot", false, &[]))).unwrap(), "");
    }

    #[test]
    fn a_missing_default_loader_names_its_package_or_the_section() {
        let dir = tempfile::tempdir().unwrap();
        let loaders = Loaders::load(&site(&[dir.path().to_owned()], "")).unwrap();
        let of = |arch, family| {
            let default = rackstrap_base::firmware::default_loader(Some(arch)).unwrap();
            loaders.lacks(&choice(default.name, false, default.files), family).1
        };
        assert_eq!(of(7, Family::Debian), "apt install ipxe, then: rackstrap reload");
        assert_eq!(
            of(11, Family::RedHat),
            "dnf install ipxe-bootimgs-aarch64, then: rackstrap reload"
        );
        let grub = Family::Debian.install("grub-efi-arm64-signed:arm64");
        assert_eq!(of(11, Family::Debian), format!("{grub}, then: rackstrap reload"));
        assert_eq!(
            of(11, Family::Alpine),
            "put snponly-arm64.efi into a directory of [server] loader-dirs, or add [loader.NAME] with arch = [\"arm64-efi\"]; then: \
             rackstrap reload"
        );
    }
}
