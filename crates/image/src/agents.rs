//! Where the agent's binary for an architecture is.

use super::{
    error::{ImportError, Result},
    initramfs,
};
use rackstrap_base::arch::Architecture;
use std::path::PathBuf;

/// The directory of an installed agent.
const INSTALLED: &str = "/usr/lib/rackstrap";
/// The name of the agent for the server's own architecture.
const NAME: &str = "rackstrap-agent";

/// The agents that imports and seals can put into an initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agents {
    /// This binary, which a person named.
    Named(PathBuf),
    /// Those in these directories: `rackstrap-agent` for the server's own architecture, else `rackstrap-agent-arm64`. The first that
    /// exists counts.
    Installed(Vec<PathBuf>),
}

impl Agents {
    /// Those that were installed with this program: next to it, else in `/usr/lib/rackstrap`.
    pub fn installed() -> Self {
        let me = std::env::current_exe().ok();
        let beside = me.and_then(|me| Some(me.parent()?.to_owned()));
        Agents::Installed(beside.into_iter().chain([INSTALLED.into()]).collect())
    }

    /// The content of the agent for `arch`, as `uname -m` names it.
    ///
    /// # Errors
    /// The agent does not exist, is for another architecture, or needs libraries.
    pub(crate) fn read(&self, arch: &str) -> Result<Vec<u8>> {
        initramfs::read_agent(&self.find(arch)?, arch)
    }

    /// The path of the agent for `arch`, whose content is not looked at.
    ///
    /// # Errors
    /// The agent does not exist.
    pub(crate) fn find(&self, arch: &str) -> Result<PathBuf> {
        let places = match self {
            Agents::Named(path) if path.is_file() => return Ok(path.clone()),
            // Reading it says why that is not possible.
            Agents::Named(path) => return initramfs::read_agent(path, arch).map(|_| path.clone()),
            Agents::Installed(dirs) => dirs
                .iter()
                .flat_map(|dir| file_names(arch).into_iter().map(|name| dir.join(name))),
        };
        let places: Vec<PathBuf> = places.collect();
        match places.iter().find(|place| place.is_file()) {
            Some(place) => Ok(place.clone()),
            None => {
                let shown: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
                Err(ImportError::Request(format!(
                    "the agent for {} does not exist at {}\nhelp: {}, or name it with --agent PATH",
                    shown_name(arch),
                    shown.join(" or "),
                    how_to_build(arch)
                )))
            }
        }
    }
}

fn shown_name(arch: &str) -> String {
    Architecture::of_machine(arch).map_or_else(|| arch.to_owned(), |known| known.to_string())
}

/// The names under which an agent for `arch` is installed, the preferred one first.
fn file_names(arch: &str) -> Vec<String> {
    let own = Architecture::of_machine(arch) == Architecture::native();
    let plain = own.then(|| NAME.to_owned());
    plain
        .into_iter()
        .chain([format!("{NAME}-{}", shown_name(arch))])
        .collect()
}

/// The command that builds the agent for `arch`.
pub(crate) fn how_to_build(arch: &str) -> String {
    match Architecture::of_machine(arch) {
        Some(Architecture::Arm64) => {
            "build it with `cargo xtask dist --arch arm64`, and install target/dist/arm64/rackstrap-agent-arm64 in \
             /usr/lib/rackstrap"
                .to_owned()
        }
        _ => {
            format!("build it with `cargo build --profile agent -p rackstrap-agent --target {arch}-unknown-linux-gnu`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_architecture_has_an_agent_of_its_own() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let agents = Agents::Installed(vec![first.path().to_owned(), second.path().to_owned()]);
        let why = agents.read("aarch64").unwrap_err().to_string();
        assert!(
            why.contains("the agent for arm64 does not exist")
                && why.contains("cargo xtask dist --arch arm64")
                && why.contains(&second.path().join("rackstrap-agent-arm64").display().to_string()),
            "{why}"
        );
        // The program of this test is for the native architecture, and needs libraries.
        std::fs::copy(
            std::env::current_exe().unwrap(),
            second.path().join("rackstrap-agent-arm64"),
        )
        .unwrap();
        let why = agents.read("aarch64").unwrap_err().to_string();
        assert!(
            why.contains("is built for") && why.contains("the tree is aarch64"),
            "{why}"
        );
        let why = agents.read(std::env::consts::ARCH).unwrap_err().to_string();
        assert!(
            why.contains(&first.path().join("rackstrap-agent").display().to_string()),
            "{why}"
        );
    }
}
