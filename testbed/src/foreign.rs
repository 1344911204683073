//! Debian packages of another architecture: downloaded and unpacked into a directory, not installed. The machine's own list of
//! architectures (dpkg --add-architecture) stays as it is, and no script of theirs runs.

use crate::{Result, image, process};
use anyhow::{Context, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Debian's name of the architecture.
pub const ARM64: &str = "arm64";

/// A directory with the content of these packages, made now if it is not in the cache. A package that only depends on others, such as
/// `linux-image-arm64`, brings those whose names begin with its own first two words. `label` names the directory, and `key` is text
/// that changes when newer packages are needed.
pub fn unpacked(label: &str, names: &[&str], key: &str, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let recipe = format!("{ARM64} {names:?} {key}");
    image::tree(label, &recipe, |part| {
        say(&format!(
            "fetching {} for {ARM64}, without installing them",
            names.join(" ")
        ));
        fs::create_dir_all(part)?;
        let private = tempfile::tempdir().context("making a directory for the lists of packages")?;
        let apt = Apt::new(private.path())?;
        let mut all: Vec<String> = Vec::new();
        for name in names {
            all.push((*name).to_owned());
            all.extend(apt.brought(name)?);
        }
        for deb in apt.download(&all)? {
            process::output(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(part))?;
        }
        Ok(())
    })
}

/// apt with lists, a cache and a state of its own, for which the other architecture is the only one.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(dir: &Path) -> Result<Self> {
        for sub in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let apt = Apt { dir: dir.to_owned() };
        process::output(apt.command("apt-get").args(["update", "-q"]))
            .with_context(|| format!("fetching the lists of packages for {ARM64}"))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |sub: &str| self.dir.join(sub).display().to_string();
        for option in [
            format!("APT::Architecture={ARM64}"),
            format!("APT::Architectures::={ARM64}"),
            format!("Dir::State::Lists={}", path("lists")),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Cache={}", path("cache")),
            // Otherwise it downloads as the user _apt, to whom a private directory is closed.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.current_dir(self.dir.join("debs"));
        command
    }

    /// The packages that the package `name` exists to bring.
    fn brought(&self, name: &str) -> Result<Vec<String>> {
        let said = process::output(self.command("apt-cache").args(["depends", "--important", name]))?;
        let stem: String = name.split_inclusive('-').take(2).collect();
        let depends = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(depends
            .filter(|other| name.starts_with("linux-image-") && other.starts_with(&stem))
            .map(str::to_owned)
            .collect())
    }

    fn download(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        process::output(self.command("apt-get").args(["download", "-q"]).args(names))
            .with_context(|| format!("fetching {} for {ARM64}", names.join(" ")))?;
        let mut debs: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(self.dir.join("debs"))? {
            debs.push(entry?.path());
        }
        if debs.len() < names.len() {
            bail!("apt-get download brought {debs:?} for {names:?}");
        }
        debs.sort();
        Ok(debs)
    }
}
