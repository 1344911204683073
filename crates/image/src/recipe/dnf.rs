//! Recipes for trees of Fedora and its derivatives, by dnf.

use super::{RecipeError, check, check_run, word};
use rackstrap_base::arch::Architecture;
use serde::Deserialize;
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// A recipe for a tree of Fedora, Rocky Linux, AlmaLinux and so on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Dnf {
    /// `dnf`.
    #[serde(rename = "kind")]
    _kind: String,
    /// Release, which replaces `$releasever` in addresses: `9`.
    pub releasever: String,
    /// Repositories of packages, by name.
    pub repo: BTreeMap<String, Repo>,
    /// Packages to install, and groups: `@core`.
    pub packages: Vec<String>,
    /// Whether weak dependencies (packages that are only recommended) are installed.
    #[serde(default)]
    pub weak_deps: bool,
    /// Whether documentation is installed.
    #[serde(default)]
    pub docs: bool,
    /// Commands for `/bin/sh -e`, executed in the tree in this order after the packages are installed.
    #[serde(default)]
    pub run: Vec<String>,
}

/// A repository of packages (dnf.conf(5), "Repo Options").
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repo {
    /// Its address.
    pub baseurl: Option<String>,
    /// Address of a list of mirrors, in place of `baseurl`.
    pub mirrorlist: Option<String>,
    /// Address of a list of mirrors as a metalink, in place of `baseurl`.
    pub metalink: Option<String>,
    /// Address of the key with which its packages are signed.
    pub gpgkey: Option<String>,
    /// Whether packages must be signed. Without signatures, an attacker on the way to the mirror chooses what nodes run.
    #[serde(default = "yes")]
    pub gpgcheck: bool,
}

fn yes() -> bool {
    true
}

impl Repo {
    fn source(&self) -> Option<(&'static str, &str)> {
        let all = [
            ("baseurl", &self.baseurl),
            ("mirrorlist", &self.mirrorlist),
            ("metalink", &self.metalink),
        ];
        let mut given = all
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_deref()?)));
        let first = given.next()?;
        given.next().is_none().then_some(first)
    }

    fn check(&self, name: &str) -> Result<(), RecipeError> {
        let refuse = |what| {
            Err(RecipeError::Repo {
                name: name.to_owned(),
                what,
            })
        };
        check("repo", name, word(name, "_"), "a name for a repository, such as baseos")?;
        if self.source().is_none() {
            return refuse("give one of baseurl, mirrorlist and metalink");
        }
        if self.gpgcheck && self.gpgkey.is_none() {
            return refuse(
                "gpgkey, the address of the key with which its packages are signed, is missing; for unsigned packages write \
                 gpgcheck = false",
            );
        }
        let addresses = [&self.baseurl, &self.mirrorlist, &self.metalink, &self.gpgkey];
        for address in addresses.into_iter().flatten() {
            let scheme = ["https://", "http://", "file:///"]
                .iter()
                .any(|s| address.starts_with(s));
            let plain = !address.chars().any(|c| c.is_whitespace() || c.is_control());
            let wanted = "an address that begins with https://, http:// or file:///";
            check("repo", address, scheme && plain, wanted)?;
        }
        Ok(())
    }
}

impl Dnf {
    pub(super) fn parse(text: &str) -> Result<Self, RecipeError> {
        let recipe: Dnf = toml::from_str(text)?;
        let releasever = &recipe.releasever;
        check("releasever", releasever, word(releasever, "_"), "a release, such as 9")?;
        recipe.repo.iter().try_for_each(|(name, repo)| repo.check(name))?;
        if recipe.repo.is_empty() || recipe.packages.is_empty() {
            let (field, wanted) = match recipe.repo.is_empty() {
                true => ("repo", "a repository: write [repo.NAME] with a baseurl"),
                false => ("packages", "a list with at least one package"),
            };
            check(field, "", false, wanted)?;
        }
        for name in &recipe.packages {
            // Allowed are names of packages with or without version, globs, and groups and environments by id.
            let bare = name.strip_prefix("@^").or(name.strip_prefix('@')).unwrap_or(name);
            let wanted = "the name of a package, such as openssh-server, or of a group, such as @core";
            check("packages", name, word(bare, "_:~^*"), wanted)?;
        }
        check_run(&recipe.run)?;
        Ok(recipe)
    }

    /// The configuration for dnf, which replaces this machine's. No value contains a line break.
    pub fn config(&self) -> String {
        let flag = |on: bool| if on { "True" } else { "False" };
        let mut text = format!(
            "[main]\nplugins=False\nbest=True\nkeepcache=False\nskip_if_unavailable=False\ninstall_weak_deps={}\n",
            flag(self.weak_deps)
        );
        if !self.docs {
            text.push_str("tsflags=nodocs\n");
        }
        for (name, repo) in &self.repo {
            let (key, address) = repo.source().expect("the recipe was checked after parsing");
            let _ = write!(text, "\n[{name}]\nname={name}\nenabled=True\n{key}={address}\n");
            let _ = writeln!(text, "gpgcheck={}", flag(repo.gpgcheck));
            if let Some(key) = &repo.gpgkey {
                let _ = writeln!(text, "gpgkey={key}");
            }
        }
        text
    }

    /// Arguments for `dnf`, which makes the tree in `target`. `dir` is a directory with [`Dnf::config`] in `dnf.conf`, and for dnf's
    /// downloads and logs. Paths on the command line are of this machine, not of the tree (dnf(8), `--installroot`).
    pub fn args(&self, architecture: Option<Architecture>, target: &Path, dir: &Path) -> Vec<String> {
        let mut args = vec![
            "--assumeyes".to_owned(),
            format!("--config={}", dir.join("dnf.conf").display()),
            format!("--installroot={}", target.display()),
            format!("--releasever={}", self.releasever),
        ];
        if let Some(architecture) = architecture {
            // RPM's names are those of uname(2), but for 32-bit ARM.
            let name = match architecture {
                Architecture::Arm => "armv7hl",
                other => other.machine(),
            };
            args.push(format!("--forcearch={name}"));
        }
        for (option, name) in [
            ("cachedir", "cache"),
            ("logdir", "log"),
            ("reposdir", "repos"),
            ("varsdir", "vars"),
        ] {
            args.push(format!("--setopt={option}={}", dir.join(name).display()));
        }
        args.push("install".to_owned());
        args.extend(self.packages.iter().cloned());
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_recipe_is_valid() {
        let recipe = Dnf::parse(include_str!("../../../../images/rocky.toml")).unwrap();
        assert_eq!(recipe.releasever, "9");
        for package in [
            "systemd",
            "openssh-server",
            "kernel-core",
            "kernel-modules",
            "e2fsprogs",
        ] {
            assert!(recipe.packages.iter().any(|p| p == package), "{package}");
        }
        assert!(recipe.repo.values().all(|repo| repo.gpgcheck));
    }

    #[test]
    fn the_configuration_and_arguments_for_dnf() {
        let text = "kind = 'dnf'\nreleasever = '9'\npackages = ['bash', '@core']\n[repo.a]\nbaseurl = 'file:///a'\n\
            gpgcheck = false\n[repo.b]\nmirrorlist = 'https://b/$basearch'\ngpgkey = 'https://b/key'\n";
        let recipe = Dnf::parse(text).unwrap();
        assert_eq!(
            recipe.config(),
            "[main]\nplugins=False\nbest=True\nkeepcache=False\nskip_if_unavailable=False\ninstall_weak_deps=False\n\
             tsflags=nodocs\n\n[a]\nname=a\nenabled=True\nbaseurl=file:///a\ngpgcheck=False\n\n[b]\nname=b\nenabled=True\n\
             mirrorlist=https://b/$basearch\ngpgcheck=True\ngpgkey=https://b/key\n"
        );
        let other = recipe.args(Some(Architecture::Arm64), Path::new("/t"), Path::new("/d"));
        assert_eq!(other[4], "--forcearch=aarch64");
        let args = recipe.args(None, Path::new("/t"), Path::new("/d"));
        assert_eq!(
            args[1..4],
            ["--config=/d/dnf.conf", "--installroot=/t", "--releasever=9"]
        );
        assert_eq!(args[args.len() - 3..], ["install", "bash", "@core"]);
    }

    #[test]
    fn wrong_recipes_are_refused() {
        let base = "kind = 'dnf'\nreleasever = '9'\npackages = ['bash']\n";
        let repo = "[repo.a]\nbaseurl = 'file:///a'\ngpgcheck = false\n";
        assert!(Dnf::parse(&format!("{base}{repo}")).is_ok());
        for (text, says) in [
            (base.to_owned(), "repo"),
            (format!("{base}[repo]\n"), "a repository"),
            (format!("{base}[repo.a]\ngpgcheck = false\n"), "one of baseurl"),
            (format!("{base}[repo.a]\nbaseurl = 'http://a'\n"), "repo.a: gpgkey"),
            (format!("{base}{repo}metalink = 'http://a'\n"), "one of baseurl"),
            (
                format!("{base}[repo.a]\nbaseurl = '/a'\ngpgcheck = false\n"),
                "'/a' is not an address",
            ),
            (
                format!("{base}[repo.a]\nbaseurl = \"http://a\\nexclude=*\"\ngpgcheck = false\n"),
                "is not an address",
            ),
            (
                format!("{base}[repo.'a]b']\nbaseurl = 'http://a'\ngpgcheck = false\n"),
                "'a]b'",
            ),
            (base.replace("bash", "--nogpgcheck") + repo, "'--nogpgcheck'"),
            (base.replace("'bash'", "") + repo, "at least one package"),
            (base.replace("'9'", "'9 --x'") + repo, "releasever"),
            (base.replace("packages", "package") + repo, "package"),
        ] {
            let error = Dnf::parse(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
