//! What a sealed image version says about itself (`manifest.toml`), and the set of all versions. Plain data, which decisions read;
//! `rackstrap-image` makes versions and reads them from disk.

use rackstrap_base::{arch::Architecture, clock::Timestamp};
use rackstrap_wire::ImageRef;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// `images/NAME/VERSION/manifest.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// Which version this is.
    pub image: ImageRef,
    /// When it was sealed.
    pub created: Timestamp,
    /// Where it came from, for people.
    pub source: String,
    /// What a person remarked when it was made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Kernel release, `6.1.0-40-amd64`.
    pub kernel_release: String,
    /// Machine, as `uname -m`.
    pub arch: String,
    /// What runs as PID 1.
    pub init: InitKind,
    /// Files in the tree.
    pub files: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// `PRETTY_NAME` of os-release, if any.
    #[serde(default)]
    pub os: String,
    /// Digest of the tree, `blake3:` and 64 hex digits (`crates/image/src/digest.rs` says over what); empty in versions that
    /// were sealed before there were digests.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Digest of the file `kernel`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kernel_digest: String,
    /// Digest of the file `initramfs`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub initramfs_digest: String,
    /// The version that this one was a working copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ImageRef>,
    /// Name of that working copy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub work: String,
    /// Who sealed it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Modules that its initramfs has by wish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// [`rackstrap_wire::WIRE_VERSION`] of the agent in its initramfs; none in versions that were sealed before 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<u32>,
    /// How many packages it has; `packages.json` beside the manifest lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<PackageCounts>,
}

/// What runs as PID 1 of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitKind {
    /// systemd.
    Systemd,
    /// Anything else (sysvinit, OpenRC, busybox).
    Other,
}

/// Which program manages the packages of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackageKind {
    /// Debian's.
    Dpkg,
    /// Fedora's, openSUSE's and their kin's.
    Rpm,
    /// Alpine's.
    Apk,
    /// None that we can ask.
    #[default]
    Unknown,
}

impl PackageKind {
    /// What people see.
    pub fn as_str(self) -> &'static str {
        match self {
            PackageKind::Dpkg => "dpkg",
            PackageKind::Rpm => "rpm",
            PackageKind::Apk => "apk",
            PackageKind::Unknown => "unknown",
        }
    }
}

/// How many packages a version has, and how many differ from its parent: in the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackageCounts {
    /// Who manages them.
    pub kind: PackageKind,
    /// Installed.
    pub installed: u64,
    /// Not in the parent.
    #[serde(default)]
    pub added: u64,
    /// Only in the parent.
    #[serde(default)]
    pub removed: u64,
    /// Of another version than in the parent.
    #[serde(default)]
    pub changed: u64,
}

/// What a version is for machines of one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// None where the manifest names a machine that is not known here: such a variant counts as right for every machine.
    pub architecture: Option<Architecture>,
}

/// A version on disk.
#[derive(Clone, Debug)]
pub struct ImageVersion {
    /// Its manifest.
    pub manifest: Manifest,
    /// `images/NAME/VERSION`; below it `root/`, `kernel`, `initramfs`, `manifest.toml`.
    pub dir: PathBuf,
    /// The builds of this version, one for each architecture; today that of its manifest.
    variants: Vec<Variant>,
    /// True if its tree enforces SELinux, which a node could not. It is read from the tree, so that older versions count as well.
    pub enforces_selinux: bool,
}

impl ImageVersion {
    /// The version in the directory `dir`, of a tree that does not enforce SELinux.
    pub fn new(manifest: Manifest, dir: PathBuf) -> Self {
        let variant = Variant {
            architecture: Architecture::of_machine(&manifest.arch),
        };
        ImageVersion {
            variants: vec![variant],
            manifest,
            dir,
            enforces_selinux: false,
        }
    }

    /// Its variants, at least one.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// The variant that a machine of that architecture can run; any one for a machine of which that is not known.
    pub fn variant_for(&self, machine: Option<Architecture>) -> Option<&Variant> {
        self.variants.iter().find(|variant| {
            let both = variant.architecture.zip(machine);
            both.is_none_or(|(built, machine)| built.runs_on(machine))
        })
    }

    /// The architectures of its variants, for people: `amd64`. A machine that is not known here has the name that the manifest has.
    pub fn architectures(&self) -> String {
        let names = self.variants.iter().map(|variant| match variant.architecture {
            Some(architecture) => architecture.to_string(),
            None => self.manifest.arch.clone(),
        });
        names.collect::<Vec<_>>().join(", ")
    }

    /// True if its agent sends its requests from ports that take root's rights.
    pub fn asks_from_privileged_ports(&self) -> bool {
        self.manifest
            .wire
            .is_some_and(|wire| wire >= rackstrap_wire::PRIVILEGED_PORTS)
    }
}

/// All sealed versions, immutable; a change makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    versions: BTreeMap<ImageRef, Arc<ImageVersion>>,
}

impl Catalog {
    /// Indexes `versions`.
    pub fn new(versions: impl IntoIterator<Item = ImageVersion>) -> Self {
        Catalog {
            versions: versions
                .into_iter()
                .map(|v| (v.manifest.image.clone(), Arc::new(v)))
                .collect(),
        }
    }

    /// That very version.
    pub fn get(&self, image: &ImageRef) -> Option<&Arc<ImageVersion>> {
        self.versions.get(image)
    }

    /// The newest version of that image.
    pub fn newest(&self, name: &str) -> Option<&Arc<ImageVersion>> {
        self.versions
            .values()
            .filter(|v| v.manifest.image.name == name)
            .max_by_key(|v| v.manifest.image.version)
    }

    /// All versions, by name and number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ImageVersion>> {
        self.versions.values()
    }
}

impl Manifest {
    /// A manifest that says nothing but which version it is of.
    pub fn bare(image: ImageRef) -> Manifest {
        Manifest {
            image,
            created: Timestamp(0),
            source: String::new(),
            message: String::new(),
            kernel_release: String::new(),
            arch: String::new(),
            init: InitKind::Other,
            files: 0,
            bytes: 0,
            os: String::new(),
            digest: String::new(),
            kernel_digest: String::new(),
            initramfs_digest: String::new(),
            parent: None,
            work: String::new(),
            by: String::new(),
            modules: Vec::new(),
            wire: None,
            packages: None,
        }
    }
}

/// The command that makes the first version of the image called `name`, as it can be typed in a checkout, which has the recipes.
pub fn import_command(name: &str) -> String {
    let recipe = if name.starts_with("rocky") { "rocky" } else { "debian" };
    format!("rackstrap image import {name} --from images/{recipe}.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(arch: &str) -> ImageVersion {
        let manifest = Manifest {
            arch: arch.to_owned(),
            ..Manifest::bare("debian@1".parse().unwrap())
        };
        ImageVersion::new(manifest, PathBuf::new())
    }

    #[test]
    fn a_variant_is_found_by_the_architecture_of_the_machine() {
        let amd64 = version("x86_64");
        assert_eq!(amd64.architectures(), "amd64");
        assert!(amd64.variant_for(Some(Architecture::Amd64)).is_some());
        assert!(amd64.variant_for(Some(Architecture::Arm64)).is_none());
        assert!(amd64.variant_for(None).is_some(), "nothing is known of the machine");
        assert!(version("aarch64").variant_for(Some(Architecture::Amd64)).is_none());
        assert!(version("i686").variant_for(Some(Architecture::Amd64)).is_some());
        let strange = version("s390x");
        assert_eq!(strange.architectures(), "s390x");
        assert!(
            strange.variant_for(Some(Architecture::Arm64)).is_some(),
            "nothing is known of the image"
        );
    }
}
