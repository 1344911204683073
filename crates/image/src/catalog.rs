//! Reads the directory of images.

use super::{Catalog, ImageVersion, Manifest, root::RootDir, selinux::enforces_selinux, versions::version_number};
use rackstrap_base::{arch::Architecture, text::quoted};
use rackstrap_catalog::{FREEBSD_LOADERS, System};
use rackstrap_wire::{ImageRef, network_service};
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// A directory below `images/` that looks like a version and is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogProblem {
    /// Directory of the version.
    pub path: PathBuf,
    /// The fault, and how to correct it.
    pub what: String,
}

impl fmt::Display for CatalogProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

/// Longest manifest; real ones have a few hundred bytes.
const LARGEST_MANIFEST: u64 = 1 << 20;

/// Why this process cannot read `images_dir`, if the reason is that it does not run as root.
pub fn needs_root(images_dir: &Path) -> Option<String> {
    let denied = std::fs::read_dir(images_dir).err()?.kind() == io::ErrorKind::PermissionDenied;
    denied.then(|| format!("reading {} needs root; use sudo", images_dir.display()))
}

/// All sealed versions below `images_dir`, and directories that are not usable. A missing directory holds no image. Names that
/// begin with a dot are skipped: they are versions that are being made.
pub fn load_catalog(images_dir: &Path) -> (Catalog, Vec<CatalogProblem>) {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for name in entries(images_dir, &mut problems) {
        let dir = images_dir.join(&name);
        if !dir.is_dir() {
            continue;
        }
        let Some(name) = name.to_str().filter(|name| ImageRef::valid_name(name)) else {
            let what = "not a valid image name; move it elsewhere (names are a-z, 0-9, '.', '_', '-')".to_owned();
            problems.push(CatalogProblem { path: dir, what });
            continue;
        };
        for number in entries(&dir, &mut problems) {
            let path = dir.join(&number);
            let Some(version) = number.to_str().and_then(version_number) else {
                let what = "not a version number; move it elsewhere".to_owned();
                problems.push(CatalogProblem { path, what });
                continue;
            };
            let image = ImageRef {
                name: name.to_owned(),
                version,
            };
            match load_version(&path, &image, &mut problems) {
                Ok(version) => found.push(version),
                Err(what) => problems.push(CatalogProblem { path, what }),
            }
        }
    }
    (Catalog::new(found), problems)
}

/// Entries of a directory that do not begin with a dot, sorted.
pub(crate) fn entries(dir: &Path, problems: &mut Vec<CatalogProblem>) -> Vec<std::ffi::OsString> {
    let list = || {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name();
            if !name.as_encoded_bytes().starts_with(b".") && name != "lost+found" {
                names.push(name);
            }
        }
        names.sort();
        Ok::<_, io::Error>(names)
    };
    match list() {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => {
            let help = match e.kind() {
                io::ErrorKind::PermissionDenied => "; use sudo",
                _ => "",
            };
            let what = format!("cannot be read: {e}{help}");
            problems.push(CatalogProblem {
                path: dir.to_owned(),
                what,
            });
            Vec::new()
        }
    }
}

/// The version `image` in `dir` with its variants. A variant that is not usable becomes one of `problems`.
pub(crate) fn load_version(
    dir: &Path,
    image: &ImageRef,
    problems: &mut Vec<CatalogProblem>,
) -> Result<ImageVersion, String> {
    let first = load_variant(dir, image)?;
    let mut further = Vec::new();
    for architecture in Architecture::ALL {
        let path = dir.join(architecture.to_string());
        // A link would lead out of the version.
        if !std::fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir()) {
            continue;
        }
        match load_variant(&path, image) {
            Ok(variant) if variant.architecture() == Some(architecture) => further.push(variant),
            Ok(variant) => problems.push(CatalogProblem {
                path,
                what: format!(
                    "its manifest is of a tree for {}; variants are made by `rackstrap image import {image}`, not by copying directories",
                    variant.architecture_name()
                ),
            }),
            Err(what) => problems.push(CatalogProblem { path, what }),
        }
    }
    Ok(first.with_variants(further))
}

fn load_variant(dir: &Path, image: &ImageRef) -> Result<ImageVersion, String> {
    let text = read_manifest(&dir.join("manifest.toml"))
        .map_err(|e| format!("manifest.toml cannot be read: {e}; import the image again"))?;
    let manifest: Manifest =
        toml::from_str(&text).map_err(|e| format!("manifest.toml: {}", e.to_string().trim_end()))?;
    if manifest.image != *image {
        // A rename of the image was interrupted.
        let renamed = read_manifest(&dir.join("manifest.toml.new"))
            .ok()
            .and_then(|text| toml::from_str(&text).ok());
        if let Some(manifest) = renamed.filter(|manifest: &Manifest| manifest.image == *image) {
            return whole(dir, manifest);
        }
        return Err(format!(
            "its manifest is of {}; versions are made by `rackstrap image import`, not by copying directories",
            manifest.image
        ));
    }
    whole(dir, manifest)
}

/// The version, if all its parts exist.
fn whole(dir: &Path, manifest: Manifest) -> Result<ImageVersion, String> {
    let files: Vec<&str> = match manifest.system {
        System::Linux => vec!["kernel", "initramfs"],
        System::FreeBsd => {
            // The names are from a file: none of them may lead to another place.
            if let Some(strange) = (manifest.loaders.keys()).find(|name| !FREEBSD_LOADERS.contains(&name.as_str())) {
                return Err(format!(
                    "manifest.toml: {} is not a boot loader of FreeBSD",
                    quoted(strange, 40)
                ));
            }
            manifest.loaders.keys().map(String::as_str).collect()
        }
    };
    let files = files.into_iter().map(|file| (file, "a file"));
    for (part, wanted) in [("root", "a directory")].into_iter().chain(files) {
        let right = match std::fs::symlink_metadata(dir.join(part)) {
            Ok(data) if part == "root" => data.is_dir(),
            Ok(data) => data.is_file() && data.len() > 0,
            Err(e) => return Err(format!("{part} cannot be read: {e}; import the image again")),
        };
        if !right {
            return Err(format!("{part} is not {wanted}, or is empty; import the image again"));
        }
    }
    let mut version = ImageVersion::new(manifest, dir.to_owned());
    if let Ok(root) = RootDir::open(&dir.join("root")) {
        version.enforces_selinux = enforces_selinux(&root);
        version.has_network_service = network_service::find(|path| root.exists(path), &[]).choose().is_some();
    }
    Ok(version)
}

pub(crate) fn read_manifest(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(LARGEST_MANIFEST)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn version(images: &Path, name: &str, number: &str, says: &str) -> PathBuf {
        let dir = images.join(name).join(number);
        fs::create_dir_all(dir.join("root")).unwrap();
        fs::write(dir.join("kernel"), "k").unwrap();
        fs::write(dir.join("initramfs"), "i").unwrap();
        let text = format!(
            "image = \"{says}\"\ncreated = 5\nsource = \"x\"\nkernel-release = \"6\"\narch = \"x86_64\"\n\
             init = \"systemd\"\nfiles = 1\nbytes = 2\n"
        );
        fs::write(dir.join("manifest.toml"), text).unwrap();
        dir
    }

    #[test]
    fn valid_versions_are_found_and_other_directories_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path();
        version(images, "debian", "1", "debian@1");
        version(images, "debian", "2", "debian@2");
        version(images, "debian", "3", "debian@2");
        version(images, "debian", "04", "debian@4");
        version(images, "debian", ".incoming-1", "debian@9");
        version(images, "Bad Name", "1", "x@1");
        let kernel = version(images, "a", "1", "a@1").join("kernel");
        fs::remove_file(&kernel).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &kernel).unwrap();
        fs::remove_dir_all(version(images, "a", "2", "a@2").join("root")).unwrap();
        fs::write(version(images, "a", "3", "a@3").join("manifest.toml"), "nonsense = 1").unwrap();
        fs::write(images.join("README"), "not a directory").unwrap();
        let (catalog, problems) = load_catalog(images);
        let found: Vec<String> = catalog.iter().map(|v| v.manifest.image.to_string()).collect();
        assert_eq!(found, ["debian@1", "debian@2"]);
        assert_eq!(catalog.newest("debian").unwrap().dir, images.join("debian/2"));
        let paths: Vec<_> = problems
            .iter()
            .map(|p| p.path.strip_prefix(images).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(paths, ["Bad Name", "a/1", "a/2", "a/3", "debian/04", "debian/3"]);
        assert!(problems[0].to_string().contains("not a valid image name"));
    }

    #[test]
    fn a_network_service_is_found_in_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path();
        version(images, "bare", "1", "bare@1");
        let root = version(images, "debian", "1", "debian@1").join("root");
        let add = |path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        add("usr/sbin/NetworkManager");
        let has = |image: &str| {
            let (catalog, problems) = load_catalog(images);
            assert!(problems.is_empty(), "{problems:?}");
            catalog.newest(image).unwrap().has_network_service
        };
        assert!(!has("bare"));
        assert!(!has("debian"), "it does not start");
        // A link of the tree leads into the tree.
        add("usr/lib/systemd/system/NetworkManager.service");
        add("etc/systemd/system/multi-user.target.wants/other.service");
        let wanted = root.join("etc/systemd/system/multi-user.target.wants/NetworkManager.service");
        std::os::unix::fs::symlink("/usr/lib/systemd/system/NetworkManager.service", wanted).unwrap();
        assert!(has("debian") && !has("bare"));
    }

    #[test]
    fn a_missing_directory_has_no_images() {
        let (catalog, problems) = load_catalog(Path::new("/nonexistent/images"));
        assert_eq!((catalog.iter().count(), problems.len()), (0, 0));
    }

    #[test]
    fn a_version_of_freebsd_has_loaders_and_one_of_linux_is_written_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path();
        let linux = version(images, "debian", "1", "debian@1");
        let freebsd = |number: u32, loader: &str| {
            let dir = version(images, "freebsd", &number.to_string(), &format!("freebsd@{number}"));
            for file in ["kernel", "initramfs"] {
                fs::remove_file(dir.join(file)).unwrap();
            }
            let text = fs::read_to_string(dir.join("manifest.toml")).unwrap();
            let more = format!("system = \"freebsd\"\n[loaders]\n\"{loader}\" = \"blake3:00\"\n");
            fs::write(dir.join("manifest.toml"), text + &more).unwrap();
            dir
        };
        fs::write(freebsd(1, "pxeboot").join("pxeboot"), "p").unwrap();
        freebsd(2, "loader.efi");
        fs::write(freebsd(3, "../1/pxeboot").join("x"), "p").unwrap();
        let (catalog, problems) = load_catalog(images);
        let found: Vec<String> = catalog.iter().map(|v| v.manifest.image.to_string()).collect();
        assert_eq!(found, ["debian@1", "freebsd@1"]);
        assert!(
            problems[0].what.starts_with("loader.efi cannot be read"),
            "{problems:?}"
        );
        assert!(
            problems[1].what.contains("is not a boot loader of FreeBSD"),
            "{problems:?}"
        );
        let text = fs::read_to_string(linux.join("manifest.toml")).unwrap();
        let manifest: Manifest = toml::from_str(&text).unwrap();
        assert_eq!(manifest.system, System::Linux);
        assert!(!toml::to_string(&manifest).unwrap().contains("\nsystem = "));
        let bsd = &catalog.get(&"freebsd@1".parse().unwrap()).unwrap().manifest;
        assert_eq!(
            toml::from_str::<Manifest>(&toml::to_string(bsd).unwrap()).unwrap(),
            *bsd
        );
    }
}
