//! Which of our packages may depend on which: the one table of directions. `cargo xtask tidy` compares it with the manifests.
//!
//! Cargo refuses circles, and imports of packages that a manifest does not name. It cannot say which ones a manifest should not name.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    env,
    path::Path,
    process::{Command, Stdio},
};

/// Packages, each with names of others.
type Table = [(&'static str, &'static [&'static str])];

/// Where the table is, for messages.
const HERE: &str = "xtask/src/directions.rs";

/// Engines know what all share, and the words of server and agent. They know neither the site file nor nodes, nor each other: the program
/// answers what they ask by their traits.
const OF_ENGINES: &[&str] = &["rackstrap-base", "rackstrap-wire"];

/// Each package, with the packages of ours that it may depend on, its tests included.
const MAY_USE: &Table = &[
    // What all share.
    ("rackstrap-wire", &[]),
    ("rackstrap-modindex", &[]),
    ("rackstrap-base", &["rackstrap-wire"]),
    // What decisions are made from, and the decisions.
    ("rackstrap-hostlist", &["rackstrap-base"]),
    ("rackstrap-catalog", &["rackstrap-base", "rackstrap-wire"]),
    (
        "rackstrap-site",
        &["rackstrap-base", "rackstrap-hostlist", "rackstrap-wire"],
    ),
    (
        "rackstrap-model",
        &[
            "rackstrap-base",
            "rackstrap-catalog",
            "rackstrap-hostlist",
            "rackstrap-site",
            "rackstrap-wire",
        ],
    ),
    (
        "rackstrap-lifecycle",
        &["rackstrap-base", "rackstrap-hostlist", "rackstrap-wire"],
    ),
    // Text of other programs in, text for them out.
    (
        "rackstrap-exchange",
        &[
            "rackstrap-base",
            "rackstrap-hostlist",
            "rackstrap-model",
            "rackstrap-site",
            "rackstrap-wire",
        ],
    ),
    // The protocol engines.
    ("rackstrap-dhcp", OF_ENGINES),
    ("rackstrap-dns", OF_ENGINES),
    ("rackstrap-ipmi", &[]),
    ("rackstrap-ndp", OF_ENGINES),
    ("rackstrap-nfs", OF_ENGINES),
    ("rackstrap-tftp", OF_ENGINES),
    // What keeps and makes things.
    ("rackstrap-store", &["rackstrap-base"]),
    (
        "rackstrap-image",
        &[
            "rackstrap-base",
            "rackstrap-catalog",
            "rackstrap-modindex",
            "rackstrap-wire",
        ],
    ),
    // The files that firmware loads: read here, served by the program.
    (
        "rackstrap-loaders",
        &["rackstrap-base", "rackstrap-model", "rackstrap-site", "rackstrap-wire"],
    ),
    // What the daemon knows and keeps. No engine is known there.
    (
        "rackstrap-registries",
        &[
            "rackstrap-base",
            "rackstrap-catalog",
            "rackstrap-hostlist",
            "rackstrap-lifecycle",
            "rackstrap-model",
            "rackstrap-site",
            "rackstrap-store",
            "rackstrap-wire",
        ],
    ),
    // The files that a node gets, from what is known of it.
    (
        "rackstrap-overlay",
        &[
            "rackstrap-base",
            "rackstrap-catalog",
            "rackstrap-image",
            "rackstrap-model",
            "rackstrap-registries",
            "rackstrap-site",
            "rackstrap-store",
            "rackstrap-wire",
        ],
    ),
    // What the command line and the daemon say to each other, and the commands. No engine is known there: a change of one compiles only the
    // daemon.
    (
        "rackstrap-control",
        &[
            "rackstrap-base",
            "rackstrap-catalog",
            "rackstrap-exchange",
            "rackstrap-image",
            "rackstrap-model",
            "rackstrap-overlay",
            "rackstrap-registries",
            "rackstrap-store",
            "rackstrap-wire",
        ],
    ),
    (
        "rackstrap-cli",
        &[
            "rackstrap-base",
            "rackstrap-catalog",
            "rackstrap-control",
            "rackstrap-exchange",
            "rackstrap-hostlist",
            "rackstrap-image",
            "rackstrap-loaders",
            "rackstrap-model",
            "rackstrap-overlay",
            "rackstrap-registries",
            "rackstrap-site",
            "rackstrap-store",
            "rackstrap-wire",
        ],
    ),
    // The agent travels to each node: it stays small.
    ("rackstrap-agent", &["rackstrap-modindex", "rackstrap-wire"]),
    // The program ties everything together. The agent and the test bed are for its tests.
    (
        "rackstrap",
        &[
            "rackstrap-agent",
            "rackstrap-base",
            "rackstrap-catalog",
            "rackstrap-cli",
            "rackstrap-control",
            "rackstrap-dhcp",
            "rackstrap-dns",
            "rackstrap-exchange",
            "rackstrap-hostlist",
            "rackstrap-image",
            "rackstrap-ipmi",
            "rackstrap-lifecycle",
            "rackstrap-loaders",
            "rackstrap-model",
            "rackstrap-modindex",
            "rackstrap-ndp",
            "rackstrap-nfs",
            "rackstrap-overlay",
            "rackstrap-registries",
            "rackstrap-site",
            "rackstrap-store",
            "rackstrap-tftp",
            "rackstrap-wire",
            "testbed",
        ],
    ),
    // What developers run.
    ("testbed", &[]),
    ("xtask", &["testbed"]),
];

/// Packages of plain data and pure logic, each with the crates of others that it may depend on; tests may have more. None of these crates
/// opens files or sockets.
const PURE: &Table = &[
    ("rackstrap-wire", &["serde", "serde_json"]),
    ("rackstrap-modindex", &[]),
    ("rackstrap-hostlist", &["ipnet", "thiserror"]),
    ("rackstrap-catalog", &["serde"]),
    (
        "rackstrap-site",
        &[
            "blake3",
            "hex",
            "humantime",
            "ipnet",
            "serde",
            "serde_json",
            "ssh-key",
            "thiserror",
            "toml",
        ],
    ),
    (
        "rackstrap-model",
        &["arc-swap", "blake3", "ipnet", "serde", "thiserror"],
    ),
    ("rackstrap-lifecycle", &["humantime", "serde"]),
    (
        "rackstrap-exchange",
        &[
            "csv",
            "ipnet",
            "saphyr-parser",
            "serde",
            "serde_json",
            "strsim",
            "toml",
            "toml_edit",
        ],
    ),
];

/// The feature of `rackstrap-base` that brings tasks, threads and sockets, which pure packages do without.
const TASKS: &str = "tasks";

/// One entry of a manifest's tables of dependencies.
#[derive(Debug)]
struct Dependency {
    of: String,
    on: String,
    /// True for a package of this workspace.
    ours: bool,
    for_tests: bool,
    features: Vec<String>,
}

/// All that is wrong with the manifests of the workspace at `root`, one line each.
///
/// # Errors
/// Cargo cannot read the manifests.
pub fn problems(root: &Path) -> Result<Vec<String>> {
    let (packages, dependencies) = read(root)?;
    let mut problems: Vec<String> = dependencies.iter().filter_map(wrong).collect();
    let without_row = packages.iter().filter(|package| row(MAY_USE, package).is_none());
    problems.extend(without_row.map(|package| {
        format!("{package} is not in the table of {HERE}: write down which of our packages it may depend on")
    }));
    let named = MAY_USE.iter().chain(PURE).map(|(package, _)| *package);
    let gone: BTreeSet<&str> = named.filter(|package| !packages.contains(*package)).collect();
    problems.extend(
        gone.iter()
            .map(|package| format!("{package}, which {HERE} names, does not exist")),
    );
    Ok(problems)
}

/// Why a package may not have this dependency.
fn wrong(dependency: &Dependency) -> Option<String> {
    let Dependency { of, on, .. } = dependency;
    if dependency.ours {
        let allowed = row(MAY_USE, of)?;
        let list = match allowed {
            [] => "none of our packages".to_owned(),
            _ => allowed.join(", "),
        };
        if !allowed.contains(&on.as_str()) {
            return Some(format!("{of} depends on {on}: it may depend on {list} ({HERE})"));
        }
        let has_tasks = dependency.features.iter().any(|feature| feature == TASKS);
        return (has_tasks && !dependency.for_tests && row(PURE, of).is_some())
            .then(|| format!("{of} depends on the feature '{TASKS}' of {on}: it is pure ({HERE})"));
    }
    let allowed = row(PURE, of).filter(|_| !dependency.for_tests)?;
    (!allowed.contains(&on.as_str()))
        .then(|| format!("{of} depends on {on}: it is pure, and this crate is not in its row ({HERE})"))
}

fn row(table: &Table, package: &str) -> Option<&'static [&'static str]> {
    let row = table.iter().find(|(name, _)| *name == package);
    row.map(|(_, packages)| *packages)
}

/// The packages of the workspace at `root`, and what their manifests say that they depend on.
fn read(root: &Path) -> Result<(BTreeSet<String>, Vec<Dependency>)> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", output.status);
    let metadata: Value = serde_json::from_slice(&output.stdout).context("reading what cargo metadata says")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut packages = BTreeSet::new();
    let mut dependencies = Vec::new();
    for package in list(&metadata["packages"]) {
        let of = text(&package["name"]);
        for dependency in list(&package["dependencies"]) {
            dependencies.push(Dependency {
                of: of.clone(),
                on: text(&dependency["name"]),
                ours: dependency["path"].is_string(),
                for_tests: dependency["kind"] == "dev",
                features: list(&dependency["features"]).iter().map(text).collect(),
            });
        }
        packages.insert(of);
    }
    ensure!(!packages.is_empty(), "cargo metadata names no packages");
    Ok((packages, dependencies))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_manifests_keep_to_the_table() {
        assert_eq!(problems(&testbed::paths::repo_root()).unwrap(), [] as [String; 0]);
    }

    /// A workspace of packages with these names, each with lines for its manifest.
    fn said(packages: &[(&str, &str)]) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        fs::write(
            root.path().join("Cargo.toml"),
            "[workspace]\nmembers = [\"packages/*\"]\n",
        )
        .unwrap();
        for (name, lines) in packages {
            let dir = root.path().join("packages").join(name);
            fs::create_dir_all(dir.join("src")).unwrap();
            fs::write(dir.join("src/lib.rs"), "").unwrap();
            let manifest = format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{lines}\n");
            fs::write(dir.join("Cargo.toml"), manifest).unwrap();
        }
        problems(root.path()).unwrap()
    }

    fn on(kind: &str, name: &str) -> String {
        format!("[{kind}]\n{name} = {{ path = \"../{name}\" }}")
    }

    #[test]
    fn a_wrong_dependency_is_named() {
        for (package, other) in [
            ("rackstrap-dhcp", "rackstrap-site"),
            ("rackstrap-nfs", "rackstrap-tftp"),
            ("rackstrap-dns", "rackstrap-model"),
            ("rackstrap-model", "rackstrap-store"),
            ("rackstrap-registries", "rackstrap-dhcp"),
            ("rackstrap-base", "rackstrap-hostlist"),
            ("rackstrap-agent", "rackstrap-base"),
        ] {
            for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let problems = said(&[(package, &on(kind, other)), (other, "")]);
                let start = format!("{package} depends on {other}: it may depend on ");
                assert!(
                    problems.iter().any(|problem| problem.starts_with(&start)),
                    "{problems:?}"
                );
            }
        }
        // Cargo refuses circles itself, but for those of tests.
        let allowed = said(&[
            ("rackstrap-model", &on("dependencies", "rackstrap-site")),
            ("rackstrap-site", ""),
        ]);
        assert!(
            !allowed.iter().any(|problem| problem.contains("depends on")),
            "{allowed:?}"
        );
    }

    #[test]
    fn pure_packages_stay_pure_but_for_their_tests() {
        let problem = "rackstrap-model depends on tokio: it is pure, and this crate is not in its row";
        let with = |kind: &str| said(&[("rackstrap-model", &format!("[{kind}]\ntokio = \"1\""))]);
        let base = "[features]\ntasks = []";
        let lines = "[dependencies]\nrackstrap-base = { path = \"../rackstrap-base\", features = [\"tasks\"] }";
        for (package, is_wrong) in [("rackstrap-site", true), ("rackstrap-nfs", false)] {
            let problems = said(&[(package, lines), ("rackstrap-base", base)]);
            let wanted = format!("{package} depends on the feature 'tasks' of rackstrap-base: it is pure");
            let found = problems.iter().any(|found| found.starts_with(&wanted));
            assert_eq!(found, is_wrong, "{problems:?}");
        }
        assert!(with("dependencies").iter().any(|found| found.starts_with(problem)));
        assert!(!with("dev-dependencies").iter().any(|found| found.starts_with(problem)));
        assert!(
            !said(&[("rackstrap-nfs", "[dependencies]\ntokio = \"1\"")])
                .iter()
                .any(|found| found.contains("tokio"))
        );
    }

    #[test]
    fn packages_and_rows_belong_together() {
        let problems = said(&[("rackstrap-new", "")]);
        assert!(
            problems[0].starts_with("rackstrap-new is not in the table"),
            "{problems:?}"
        );
        assert!(
            problems
                .iter()
                .any(|problem| problem.starts_with("rackstrap-nfs, which")),
            "{problems:?}"
        );
    }
}
