//! `cargo xtask tidy`: the rules of docs/contributing/architecture.md that a program can check.

use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Longest source file, tests included: beyond that a file has more than one subject.
const MAX_LINES: usize = 600;

/// Modules that answer packets. None of them knows the others.
const PROTOCOLS: [&str; 6] = ["dhcp", "dns", "http", "ndp", "nfs", "tftp"];

/// Modules at the outer end, which nothing further in may import.
const OUTER: [&str; 3] = ["cli", "control", "serve"];

/// Modules further in than the protocols: what they know, every protocol may ask.
const INNER: [&str; 19] = [
    "boots",
    "clock",
    "config",
    "decide",
    "discovery",
    "firmware",
    "image",
    "inet",
    "inventory",
    "link",
    "overlay",
    "rare",
    "rollout",
    "seats",
    "store",
    "timeline",
    "users",
    "warnings",
    "words",
];

/// Logic that a simulation runs as well as the daemon does: the modules that each file may use.
const PURE: [(&str, &[&str]); 3] = [
    ("src/rollout/assignments.rs", &["clock", "image"]),
    ("src/rollout/machine.rs", &["clock", "inventory"]),
    ("src/rollout/model.rs", &["clock", "inventory", "words"]),
];

pub fn run() -> Result<()> {
    let problems = problems(&testbed::paths::repo_root())?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{} rules broken", problems.len());
    }
    Ok(())
}

/// All that is wrong in the tree at `root`, one line each.
fn problems(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for folder in ["src", "testbed", "tests", "xtask"] {
        collect(&root.join(folder), &mut files)?;
    }
    let mut problems = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        problems.extend(
            check_file(&name, &text)
                .into_iter()
                .map(|problem| format!("{name}: {problem}")),
        );
    }
    problems.extend(check_wire(&fs::read_to_string(root.join("src/wire/Cargo.toml"))?));
    Ok(problems)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn check_file(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        problems.push(format!(
            "{lines} lines; {MAX_LINES} are the limit: more than one subject?"
        ));
    }
    // Written so that this file does not find itself.
    for marker in [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ] {
        if text.contains(marker) {
            problems.push(format!("'{marker}' is left in it"));
        }
    }
    let Some(module) = module_of(name) else { return problems };
    let code = without_tests_and_comments(text);
    for used in crate_modules(&code) {
        if let Some(why) = forbidden(module, &used) {
            problems.push(format!("uses crate::{used}: {why}"));
        }
    }
    for (_, allowed) in PURE.iter().filter(|(file, _)| *file == name) {
        let others = crate_modules(&code)
            .into_iter()
            .filter(|used| !allowed.contains(&used.as_str()));
        problems.extend(
            others.map(|used| format!("uses crate::{used}: this file is pure and uses {}", allowed.join(", "))),
        );
    }
    if !may_know_the_time(name) {
        for clock in ["Instant::now", "SystemTime::now", "thread::sleep"] {
            if code.contains(clock) {
                problems.push(format!(
                    "{clock}: only tasks, stores, serve and the command line use clocks"
                ));
            }
        }
    }
    problems
}

/// `dhcp` for `src/dhcp/engine.rs`, `decide` for `src/decide.rs`; nothing for other packages.
fn module_of(name: &str) -> Option<&str> {
    let inside = name.strip_prefix("src/")?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    (!["agent", "wire", "lib", "main"].contains(&module)).then_some(module)
}

/// Why `module` may not use `used`.
fn forbidden(module: &str, used: &str) -> Option<&'static str> {
    let outer = OUTER.contains(&used);
    if PROTOCOLS.contains(&module) && used != module {
        return match (PROTOCOLS.contains(&used), outer) {
            (true, _) => Some("protocols never import each other"),
            (_, true) => Some("protocols get what they need by traits; imports point inwards"),
            _ => None,
        };
    }
    match INNER.contains(&module) && (outer || PROTOCOLS.contains(&used)) {
        true => Some("imports point inwards: this module knows no protocol and nothing that serves"),
        false => None,
    }
}

fn may_know_the_time(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    // The client of registries waits between its tries; it runs in the command line.
    let outside = [
        "src/store/",
        "src/cli/",
        "src/serve/",
        "src/control/",
        "src/image/oci/registry/",
    ]
    .iter()
    .any(|folder| name.starts_with(folder));
    outside || ["task.rs", "tests.rs", "clock.rs"].contains(&last) || name.contains("/tests/") || KNOWN.contains(&name)
}

/// Files that use a clock although they hold logic: a download's duration for the timeline, the wait for a lock, a thread's pause after
/// a panic, and a simulation that is test code under another name.
const KNOWN: &[&str] = &[
    "src/http/loader.rs",
    "src/image/locks.rs",
    "src/panics.rs",
    "src/tftp/session/simulation.rs",
];

/// The code that is built without `cfg(test)`, comments taken out. Tests stand last in a file.
fn without_tests_and_comments(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules of our own crate that `code` names: `crate::x` and `crate::{x::…, y}`.
fn crate_modules(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        // `testbed_crate::` is somebody else's.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(group) => modules.extend(top_level_names(group)),
            None => modules.extend(leading_name(rest)),
        }
    }
    modules
}

/// The first names of `a::b, c::{d, e}, f}…`, up to the brace that ends the group.
fn top_level_names(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                names.extend(leading_name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn leading_name(text: &str) -> Option<String> {
    let name: String = text
        .trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

/// What server and agent say to each other is data and nothing else.
fn check_wire(manifest: &str) -> Vec<String> {
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let names = dependencies
        .lines()
        .filter_map(|line| line.split_once(['=', '.']))
        .map(|(name, _)| name.trim());
    let extra = names.filter(|name| *name != "serde" && !name.starts_with('#'));
    extra
        .map(|name| format!("src/wire/Cargo.toml: depends on {name}; wire is plain data, serde only"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let problems = problems(&testbed::paths::repo_root()).unwrap();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    #[test]
    fn imports_are_seen_in_every_spelling() {
        let code = "use crate::clock::Timestamp;\nuse crate::{\n  decide::{World, decide},\n  nfs, tftp::x,\n};\nfn f() { crate::store::open() }\nmy_crate::no()";
        let modules: Vec<String> = crate_modules(code).into_iter().collect();
        assert_eq!(modules, ["clock", "decide", "nfs", "store", "tftp"]);
    }

    #[test]
    fn every_rule_can_fail() {
        let check = |name: &str, text: &str| check_file(name, text).join("; ");
        assert!(check("src/dhcp/engine.rs", "use crate::tftp::Session;").contains("never import each other"));
        assert!(check("src/nfs/task.rs", "use crate::{clock, serve::x};").contains("inwards"));
        assert!(check("src/decide.rs", "use crate::http::Service;").contains("inwards"));
        assert!(check("src/rollout/machine.rs", "use crate::store::Store;").contains("is pure"));
        assert!(check("src/tftp/session.rs", "let now = Instant::now();").contains("clocks"));
        assert!(check("src/tftp/x.rs", concat!("// XX", "X later")).contains("left in it"));
        assert!(check("src/cli/mod.rs", &"\n".repeat(601)).contains("601 lines"));
        assert!(
            check_wire("[dependencies]\nserde = \"1\"\ntokio = \"1\"\n")
                .join("")
                .contains("tokio")
        );
    }

    #[test]
    fn what_is_allowed_passes() {
        for (name, text) in [
            ("src/dhcp/engine.rs", "use crate::{decide::decide, dhcp::guard};"),
            ("src/tftp/task.rs", "let now = Instant::now();"),
            (
                "src/tftp/session.rs",
                "fn f() {}\n#[cfg(test)]\nmod tests {\n use crate::nfs;\n fn t() { Instant::now() }\n}",
            ),
            ("src/serve/mod.rs", "use crate::{dhcp, nfs, tftp};"),
            ("src/agent/src/main.rs", "let now = Instant::now();"),
            ("src/nfs/x.rs", "// unlike crate::tftp"),
        ] {
            assert_eq!(check_file(name, text), Vec::<String>::new(), "{name}");
        }
        assert!(check_wire("[dependencies]\nserde = { version = \"1\" }\n\n[lints]\nworkspace = true").is_empty());
    }
}
