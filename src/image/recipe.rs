//! Recipes: what to install into a root tree (`images/*.toml`), and how mmdebstrap is told.

use serde::Deserialize;
use std::path::Path;

/// A recipe for a tree of Debian or one of its kin.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Release: `bookworm`.
    pub suite: String,
    /// What mmdebstrap begins with: `minbase`, `standard`, …
    #[serde(default = "default_variant")]
    pub variant: String,
    /// Archive components.
    #[serde(default = "default_components")]
    pub components: Vec<String>,
    /// Packages to install in addition.
    pub packages: Vec<String>,
    /// Commands for `/bin/sh -e`, executed in the chroot in this order after the packages are there.
    #[serde(default)]
    pub run: Vec<String>,
}

fn default_variant() -> String {
    "minbase".to_owned()
}

fn default_components() -> Vec<String> {
    vec!["main".to_owned()]
}

/// Why a text is no recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// Not TOML, or not these fields.
    #[error("{}", .0.to_string().trim_end())]
    Toml(#[from] toml::de::Error),
    /// A value that cannot be passed on.
    #[error("{field}: '{value}' is not {wanted}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What was found.
        value: String,
        /// What would be right.
        wanted: &'static str,
    },
}

impl Recipe {
    /// Reads a recipe. Every value is checked: none may look like an option of mmdebstrap.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let recipe: Recipe = toml::from_str(text)?;
        // Debian Policy 5.6.7: lower case, digits, plus, minus, dot; apt also takes `:arch`, `/suite`, `=version`.
        let word = |value: &str, more: &str| {
            value.starts_with(|c: char| c.is_ascii_alphanumeric())
                && value
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c) || more.contains(c))
        };
        let check = |field, value: &str, right, wanted| match right {
            true => Ok(()),
            false => Err(RecipeError::Value {
                field,
                value: value.to_owned(),
                wanted,
            }),
        };
        check(
            "suite",
            &recipe.suite,
            word(&recipe.suite, ""),
            "the name of a release, such as bookworm",
        )?;
        check(
            "variant",
            &recipe.variant,
            word(&recipe.variant, ""),
            "a variant of mmdebstrap, such as minbase",
        )?;
        for name in &recipe.components {
            check("components", name, word(name, ""), "an archive component, such as main")?;
        }
        for name in &recipe.packages {
            check(
                "packages",
                name,
                word(name, ":/=~"),
                "the name of a package, such as openssh-server",
            )?;
        }
        for command in &recipe.run {
            let right = !command.trim().is_empty() && !command.contains('\0');
            check("run", command, right, "a shell command")?;
        }
        Ok(recipe)
    }

    /// Arguments for `mmdebstrap`, which makes the tree in `target` (absent or empty) from the mirrors that it chooses
    /// by itself, or from `mirror`.
    pub fn mmdebstrap_args(&self, target: &Path, mirror: Option<&str>) -> Vec<String> {
        let mut args = vec![
            "--mode=root".to_owned(),
            "--format=directory".to_owned(),
            format!("--variant={}", self.variant),
            format!("--components={}", self.components.join(",")),
        ];
        if !self.packages.is_empty() {
            args.push(format!("--include={}", self.packages.join(",")));
        }
        for command in &self.run {
            // mmdebstrap gives a hook with shell characters to sh -c, the tree as $1.
            let quoted = command.replace('\'', r"'\''");
            args.push(format!(r#"--customize-hook=chroot "$1" /bin/sh -ec '{quoted}'"#));
        }
        args.push(self.suite.clone());
        args.push(target.display().to_string());
        args.extend(mirror.map(str::to_owned));
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_that_we_ship() {
        let text = include_str!("../../images/debian.toml");
        let recipe = Recipe::parse(text).unwrap();
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
    fn arguments() {
        let recipe = Recipe::parse("suite = 'sid'\npackages = ['a', 'b']\nrun = [\"echo 'x'\"]").unwrap();
        assert_eq!(
            recipe.mmdebstrap_args(Path::new("/t"), Some("http://deb.debian.org/debian")),
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
    fn wrong_recipes_are_refused() {
        for (text, says) in [
            ("packages = []", "suite"),
            ("suite = 'x'\npackages = []\npackage = []", "package"),
            ("suite = '--x'\npackages = []", "suite: '--x'"),
            ("suite = 'x'\npackages = ['-e']", "packages: '-e'"),
            ("suite = 'x'\npackages = ['a,b']", "packages: 'a,b'"),
            ("suite = 'x'\npackages = []\nrun = ['']", "run"),
        ] {
            let error = Recipe::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
