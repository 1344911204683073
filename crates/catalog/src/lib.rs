//! The description of a sealed image version (`manifest.toml`), and the set of all versions. Plain data, which decisions read.
//! `rackstrap-image` makes versions and reads them from disk.

use rackstrap_base::{arch::Architecture, bootname::BootFile, clock::Timestamp};
use rackstrap_wire::{ImageRef, Plan};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// `images/NAME/VERSION/manifest.toml`, and the same file of each further variant, `images/NAME/VERSION/ARCHITECTURE/manifest.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// Name and number of the version.
    pub image: ImageRef,
    /// Time of the seal.
    pub created: Timestamp,
    /// Source of the tree, for people.
    pub source: String,
    /// Remark of the person who made it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Kernel release, `6.1.0-40-amd64`.
    pub kernel_release: String,
    /// Machine, as `uname -m` names it.
    pub arch: String,
    /// The program that runs as PID 1.
    pub init: InitKind,
    /// Files in the tree.
    pub files: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// `PRETTY_NAME` of os-release; empty without one.
    #[serde(default)]
    pub os: String,
    /// Digest of the tree, `blake3:` and 64 hex digits (defined in `crates/image/src/digest.rs`). Empty in versions that were sealed
    /// before digests existed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Digest of the file `kernel`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kernel_digest: String,
    /// Digest of the file `initramfs`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub initramfs_digest: String,
    /// The version of which this one was a working copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ImageRef>,
    /// Name of that working copy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub work: String,
    /// Name of the user who sealed it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Modules in its initramfs that a person asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// [`rackstrap_wire::WIRE_VERSION`] of the agent in its initramfs; none in versions that were sealed before wire version 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<u32>,
    /// The operating system of the tree. Versions of releases that knew Linux only do not name it.
    #[serde(default, skip_serializing_if = "System::is_linux")]
    pub system: System,
    /// Numbers of packages; `packages.json` next to the manifest lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<PackageCounts>,
    /// Digests of its boot loaders, by the names of their files next to the tree; empty for Linux.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub loaders: BTreeMap<String, String>,
}

/// FreeBSD's boot loader for a BIOS, by its name in `/boot`.
pub const PXE_LOADER: &str = BootFile::PxeLoader.name();
/// FreeBSD's boot loader for UEFI, by its name in `/boot`.
pub const EFI_LOADER: &str = BootFile::EfiLoader.name();
/// The boot loaders that a version of FreeBSD may have.
pub const FREEBSD_LOADERS: [&str; 2] = [PXE_LOADER, EFI_LOADER];

/// The operating system of a tree: it decides on how nodes boot it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// Kernel and initramfs by HTTP; the agent mounts the root.
    #[default]
    Linux,
    /// FreeBSD's own loader reads the kernel by NFS, and the kernel mounts the root.
    FreeBsd,
}

impl System {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            System::Linux => "Linux",
            System::FreeBsd => "FreeBSD",
        }
    }

    fn is_linux(&self) -> bool {
        *self == System::Linux
    }
}

/// The program that runs as PID 1 of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitKind {
    /// systemd, of any version.
    Systemd,
    /// Anything else (sysvinit, OpenRC, busybox).
    Other,
}

/// The package manager of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackageKind {
    /// The package manager of Debian and its derivatives.
    Dpkg,
    /// The package manager of Fedora, openSUSE and their derivatives.
    Rpm,
    /// The package manager of Alpine.
    Apk,
    /// No known one.
    #[default]
    Unknown,
}

impl PackageKind {
    /// The name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            PackageKind::Dpkg => "dpkg",
            PackageKind::Rpm => "rpm",
            PackageKind::Apk => "apk",
            PackageKind::Unknown => "unknown",
        }
    }
}

/// Number of packages of a version, and number of differences from its parent, in the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackageCounts {
    /// The package manager.
    pub kind: PackageKind,
    /// Number of installed packages.
    pub installed: u64,
    /// Number of packages that the parent does not have.
    #[serde(default)]
    pub added: u64,
    /// Number of packages that only the parent has.
    #[serde(default)]
    pub removed: u64,
    /// Number of packages with another version than in the parent.
    #[serde(default)]
    pub changed: u64,
}

/// A version on disk, or a further variant of one: the build of the same version for machines of another architecture. Each variant
/// has a tree, a kernel, an initramfs and a manifest of its own.
#[derive(Clone, Debug)]
pub struct ImageVersion {
    /// Its manifest.
    pub manifest: Manifest,
    /// `images/NAME/VERSION`; below it `root/`, `kernel`, `initramfs`, `manifest.toml`. Of a further variant: the directory with the
    /// name of its architecture below that.
    pub dir: PathBuf,
    /// Empty for the variant with which the version was made; else the name of the architecture (`arm64`), which is also that of the
    /// directory.
    pub variant: String,
    /// The further variants of this version, by name. A variant has none of its own.
    further: Vec<Arc<ImageVersion>>,
    /// True if its tree enforces SELinux, which a node cannot do. It is read from the tree, so it is known of older versions too.
    pub enforces_selinux: bool,
    /// Whether a network service of its tree sets the networks of `[[network]]` up. It is read from the tree, too.
    pub has_network_service: bool,
}

impl ImageVersion {
    /// The version in the directory `dir`, of a tree that does not enforce SELinux and has a network service.
    pub fn new(manifest: Manifest, dir: PathBuf) -> Self {
        ImageVersion {
            variant: String::new(),
            further: Vec::new(),
            manifest,
            dir,
            enforces_selinux: false,
            has_network_service: true,
        }
    }

    /// The same version with these further variants. Their [`ImageVersion::variant`] becomes the name of their architecture.
    #[must_use]
    pub fn with_variants(mut self, further: impl IntoIterator<Item = ImageVersion>) -> Self {
        let named = further.into_iter().map(|variant| {
            Arc::new(ImageVersion {
                variant: variant.architecture_name(),
                ..variant
            })
        });
        self.further = named.collect();
        self.further.sort_by(|a, b| a.variant.cmp(&b.variant));
        self
    }

    /// The architecture of its own tree; none if the manifest names an unknown machine. Such a variant is offered to every machine.
    pub fn architecture(&self) -> Option<Architecture> {
        Architecture::of_machine(&self.manifest.arch)
    }

    /// Whether it is for another processor than a PC's, so that U-Boot or a board's firmware may load it.
    pub fn is_for_boards(&self) -> bool {
        matches!(
            self.architecture(),
            Some(Architecture::Arm64 | Architecture::Arm | Architecture::Riscv64)
        )
    }

    /// The same for people. An unknown machine has the name from the manifest.
    pub fn architecture_name(&self) -> String {
        match self.architecture() {
            Some(architecture) => architecture.to_string(),
            None => self.manifest.arch.clone(),
        }
    }

    /// All variants: the one with which the version was made, then the further ones.
    pub fn variants(&self) -> impl Iterator<Item = &ImageVersion> {
        std::iter::once(self).chain(self.further.iter().map(|variant| &**variant))
    }

    /// The variant for machines of that architecture: the one that was built for it, else one that also runs there. If the
    /// architecture is not known, it is the one with which the version was made.
    pub fn variant_for(self: &Arc<Self>, machine: Option<Architecture>) -> Option<&Arc<ImageVersion>> {
        let all = || std::iter::once(self).chain(&self.further);
        let exact = all().find(|variant| variant.architecture().is_some_and(|built| Some(built) == machine));
        exact.or_else(|| {
            all().find(|variant| {
                let both = variant.architecture().zip(machine);
                both.is_none_or(|(built, machine)| built.runs_on(machine))
            })
        })
    }

    /// The variant with that [`ImageVersion::variant`].
    pub fn variant_named(self: &Arc<Self>, name: &str) -> Option<&Arc<ImageVersion>> {
        std::iter::once(self)
            .chain(&self.further)
            .find(|variant| variant.variant == name)
    }

    /// True if its tree is FreeBSD's.
    pub fn is_freebsd(&self) -> bool {
        self.manifest.system == System::FreeBsd
    }

    /// The architectures of its variants, for people: `amd64, arm64`.
    pub fn architectures(&self) -> String {
        let names = self.variants().map(ImageVersion::architecture_name);
        names.collect::<Vec<_>>().join(", ")
    }

    /// `debian@3`, and `debian@3/arm64` for a further variant: its name in an NFS export.
    pub fn export_name(&self) -> String {
        export_name(&self.manifest.image, &self.variant)
    }

    /// True if its agent sends requests from ports that only root can use.
    pub fn asks_from_privileged_ports(&self) -> bool {
        self.speaks(rackstrap_wire::PRIVILEGED_PORTS)
    }

    /// True if its agent can be in a VLAN.
    pub fn tags_boot_network(&self) -> bool {
        self.speaks(rackstrap_wire::BOOT_VLAN)
    }

    /// True if its agent has a disk for each of several layouts.
    pub fn has_several_layouts(&self) -> bool {
        self.speaks(rackstrap_wire::SEVERAL_LAYOUTS)
    }

    /// True if its agent speaks this version of the protocol or a later one.
    fn speaks(&self, wire: u32) -> bool {
        self.manifest.wire.is_some_and(|own| own >= wire)
    }
}

/// The commands that seal an image again, with the agent of this release.
pub fn seal_commands(image: &ImageRef) -> String {
    format!(
        "rackstrap image clone {image} && rackstrap image seal {}-work",
        image.name
    )
}

/// The name of a variant: `debian@3` for the one with which the version was made, else `debian@3/arm64`.
pub fn export_name(image: &ImageRef, variant: &str) -> String {
    match variant {
        "" => image.to_string(),
        variant => format!("{image}/{variant}"),
    }
}

/// All sealed versions, immutable. A change makes a new catalog.
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

    /// The version with that name and number.
    pub fn get(&self, image: &ImageRef) -> Option<&Arc<ImageVersion>> {
        self.versions.get(image)
    }

    /// The variant that a boot with this plan has as its root.
    pub fn of_plan(&self, plan: &Plan) -> Option<&Arc<ImageVersion>> {
        self.get(&plan.image)?.variant_named(&plan.variant)
    }

    /// The newest version of an image.
    pub fn newest(&self, name: &str) -> Option<&Arc<ImageVersion>> {
        self.versions
            .values()
            .filter(|v| v.manifest.image.name == name)
            .max_by_key(|v| v.manifest.image.version)
    }

    /// Whether a variant of any version is for machines of that architecture.
    pub fn has_architecture(&self, arch: Architecture) -> bool {
        let mut variants = self.versions.values().flat_map(|version| version.variants());
        variants.any(|variant| variant.architecture() == Some(arch))
    }

    /// All versions, by name and number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ImageVersion>> {
        self.versions.values()
    }
}

impl Manifest {
    /// A manifest that contains only a name and a number.
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
            system: System::Linux,
            packages: None,
            loaders: BTreeMap::new(),
        }
    }
}

/// The command that makes the first version of the image `name`, as it works in a checkout, which contains the recipes.
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

    fn alone(arch: &str) -> Arc<ImageVersion> {
        Arc::new(version(arch))
    }

    #[test]
    fn a_variant_is_found_by_the_architecture_of_the_machine() {
        let amd64 = alone("x86_64");
        assert_eq!(amd64.architectures(), "amd64");
        assert!(amd64.variant_for(Some(Architecture::Amd64)).is_some());
        assert!(amd64.variant_for(Some(Architecture::Arm64)).is_none());
        assert!(amd64.variant_for(None).is_some(), "any variant fits an unknown machine");
        assert!(alone("aarch64").variant_for(Some(Architecture::Amd64)).is_none());
        assert!(alone("i686").variant_for(Some(Architecture::Amd64)).is_some());
        let strange = alone("s390x");
        assert_eq!(strange.architectures(), "s390x");
        assert!(
            strange.variant_for(Some(Architecture::Arm64)).is_some(),
            "a variant for an unknown machine fits every machine"
        );
    }

    #[test]
    fn each_machine_gets_the_variant_that_was_built_for_it() {
        let both = Arc::new(version("i686").with_variants([version("x86_64"), version("aarch64")]));
        assert_eq!(both.architectures(), "i386, amd64, arm64");
        let of = |machine| both.variant_for(machine).map(|variant| variant.export_name());
        assert_eq!(of(Some(Architecture::Amd64)).as_deref(), Some("debian@1/amd64"));
        assert_eq!(of(Some(Architecture::Arm64)).as_deref(), Some("debian@1/arm64"));
        assert_eq!(of(Some(Architecture::I386)).as_deref(), Some("debian@1"));
        assert_eq!(of(None).as_deref(), Some("debian@1"));
        assert_eq!(of(Some(Architecture::Riscv64)), None);
        assert_eq!(both.variant_named("arm64").unwrap().manifest.arch, "aarch64");
        assert!(both.variant_named("i386").is_none(), "the first variant has no name");
        let mut plan = rackstrap_wire::testing::plan("n").build();
        let catalog = Catalog::new([ImageVersion::clone(&both)]);
        assert_eq!(catalog.of_plan(&plan).unwrap().manifest.arch, "i686");
        plan.variant = "arm64".to_owned();
        assert_eq!(catalog.of_plan(&plan).unwrap().manifest.arch, "aarch64");
        plan.variant = "arm".to_owned();
        assert!(catalog.of_plan(&plan).is_none());
    }
}
