//! Recipes for trees of Debian and its derivatives, by mmdebstrap.

use super::{RecipeError, check, check_run, word};
use rackstrap_base::arch::Architecture;
use serde::Deserialize;
use std::path::Path;

/// A recipe for a tree of Debian or a derivative.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// `mmdebstrap`, which is the default.
    #[serde(default, rename = "kind")]
    _kind: Option<String>,
    /// Release: `bookworm`.
    pub suite: String,
    /// Set of packages with which mmdebstrap starts: `minbase`, `standard`, …
    #[serde(default = "default_variant")]
    pub variant: String,
    /// Archive components.
    #[serde(default = "default_components")]
    pub components: Vec<String>,
    /// Further packages to install.
    pub packages: Vec<String>,
    /// Commands for `/bin/sh -e`, executed in the tree in this order after the packages are installed.
    #[serde(default)]
    pub run: Vec<String>,
}

fn default_variant() -> String {
    "minbase".to_owned()
}

fn default_components() -> Vec<String> {
    vec!["main".to_owned()]
}

impl Debian {
    pub(super) fn parse(text: &str) -> Result<Self, RecipeError> {
        let recipe: Debian = toml::from_str(text)?;
        let suite = &recipe.suite;
        check(
            "suite",
            suite,
            word(suite, ""),
            "the name of a release, such as bookworm",
        )?;
        let variant = &recipe.variant;
        check(
            "variant",
            variant,
            word(variant, ""),
            "a variant of mmdebstrap, such as minbase",
        )?;
        for name in &recipe.components {
            check("components", name, word(name, ""), "an archive component, such as main")?;
        }
        for name in &recipe.packages {
            // Debian Policy 5.6.7: lower case, digits, plus, minus, dot; apt also takes `:arch`, `/suite`, `=version`.
            let wanted = "the name of a package, such as openssh-server";
            check("packages", name, word(name, ":/=~"), wanted)?;
        }
        check_run(&recipe.run)?;
        Ok(recipe)
    }

    /// Arguments for `mmdebstrap`, which makes the tree in `target` (absent or empty) from its default mirrors or from `mirror`.
    pub fn args(&self, architecture: Option<Architecture>, target: &Path, mirror: Option<&str>) -> Vec<String> {
        let mut args = vec![
            "--mode=root".to_owned(),
            "--format=directory".to_owned(),
            format!("--variant={}", self.variant),
            format!("--components={}", self.components.join(",")),
        ];
        let mut packages = self.packages.clone();
        if let Some(architecture) = architecture {
            let name = debian_name(architecture);
            args.push(format!("--architectures={name}"));
            // Kernels are the packages that have an architecture in their names.
            packages
                .iter_mut()
                .for_each(|package| *package = kernel_for(package, name));
        }
        if !packages.is_empty() {
            args.push(format!("--include={}", packages.join(",")));
        }
        for command in &self.run {
            // mmdebstrap passes a hook with shell characters to sh -c, with the tree as $1.
            let quoted = command.replace('\'', r"'\''");
            args.push(format!(r#"--customize-hook=chroot "$1" /bin/sh -ec '{quoted}'"#));
        }
        args.push(self.suite.clone());
        args.push(target.display().to_string());
        args.extend(mirror.map(str::to_owned));
        args
    }
}

/// Debian's name of an architecture. Its arm is `armhf`: kernels of the older `armel` are for boards that do not boot from a network.
fn debian_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "amd64",
        Architecture::I386 => "i386",
        Architecture::Arm64 => "arm64",
        Architecture::Arm => "armhf",
        Architecture::Riscv64 => "riscv64",
    }
}

/// The name of the package for another architecture: `linux-image-arm64` for `linux-image-amd64`, so that one recipe makes the
/// variants of a version. Debian has no such pairs for i386 and arm, whose kernels have further words in their names.
fn kernel_for(package: &str, name: &str) -> String {
    let pairs = ["amd64", "arm64", "riscv64"];
    let own = pairs
        .iter()
        .find_map(|own| package.strip_suffix(own).filter(|begin| begin.ends_with('-')));
    match own.filter(|begin| begin.starts_with("linux-image-") || begin.starts_with("linux-headers-")) {
        Some(begin) if pairs.contains(&name) => format!("{begin}{name}"),
        _ => package.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_recipe_is_valid() {
        let text = include_str!("../../../../images/debian.toml");
        let recipe = Debian::parse(text).unwrap();
        assert_eq!(recipe.suite, "bookworm");
        for package in [
            "systemd-sysv",
            "udev",
            "openssh-server",
            "linux-image-amd64",
            "e2fsprogs",
            "xfsprogs",
            "kmod",
        ] {
            assert!(recipe.packages.iter().any(|p| p == package), "{package}");
        }
    }

    #[test]
    fn a_recipe_becomes_the_arguments_of_mmdebstrap() {
        let recipe = Debian::parse("suite = 'sid'\npackages = ['a', 'b']\nrun = [\"echo 'x'\"]").unwrap();
        assert_eq!(
            recipe.args(None, Path::new("/t"), Some("http://deb.debian.org/debian")),
            [
                "--mode=root",
                "--format=directory",
                "--variant=minbase",
                "--components=main",
                "--include=a,b",
                r#"--customize-hook=chroot "$1" /bin/sh -ec 'echo '\''x'\'''"#,
                "sid",
                "/t",
                "http://deb.debian.org/debian",
            ]
        );
    }

    #[test]
    fn the_same_recipe_makes_the_variant_for_another_architecture() {
        let recipe = Debian::parse(include_str!("../../../../images/debian.toml")).unwrap();
        let args = recipe.args(Some(Architecture::Arm64), Path::new("/t"), None);
        assert!(args.iter().any(|arg| arg == "--architectures=arm64"), "{args:?}");
        let include = args.iter().find(|arg| arg.starts_with("--include=")).unwrap();
        assert!(
            include.contains("linux-image-arm64") && !include.contains("amd64"),
            "{include}"
        );
        assert_eq!(
            kernel_for("linux-image-cloud-amd64", "arm64"),
            "linux-image-cloud-arm64"
        );
        for package in [
            "linux-image-6.1-marvell",
            "grub-efi-amd64",
            "libamd64",
            "openssh-server",
        ] {
            assert_eq!(kernel_for(package, "arm64"), package);
        }
    }

    #[test]
    fn wrong_recipes_are_refused() {
        for (text, says) in [
            ("packages = []", "suite"),
            ("suite = 'x'\npackages = []\npackage = []", "package"),
            ("suite = '--x'\npackages = []", "suite: '--x'"),
            ("suite = 'x'\npackages = ['-e']", "packages: '-e'"),
            ("suite = 'x'\npackages = ['a,b']", "packages: 'a,b'"),
            ("suite = 'x'\npackages = []\nrun = ['']", "run"),
        ] {
            let error = Debian::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
