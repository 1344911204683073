//! `cargo xtask tidy`: the rules of docs/contributing/architecture.md that a program can check.

use crate::directions;
use anyhow::{Context, Result, bail};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Most lines of a source file, including tests. A longer file has more than one subject.
const MAX_LINES: usize = 600;

/// Packages and modules that answer packets. Cargo keeps packages from importing each other, as the manifests say which they use, but
/// a module of the program could import each of them.
const PROTOCOLS: [&str; 6] = [
    "http",
    "rackstrap_dhcp",
    "rackstrap_dns",
    "rackstrap_ndp",
    "rackstrap_nfs",
    "rackstrap_tftp",
];

/// Outer modules, which inner ones must not import.
const OUTER: [&str; 3] = ["cli", "control", "serve"];

/// The package beside the program whose modules must not import each other in a circle. The others are small.
const REGISTRIES: &str = "crates/registries/";

/// Files whose logic also runs in a simulation, with the modules and packages of ours that each may use.
const PURE: [(&str, &[&str]); 1] = [(
    "crates/model/src/decide/assignments.rs",
    &["rackstrap_base", "rackstrap_catalog"],
)];

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

/// All faults in the tree at `root`, one line each.
fn problems(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for folder in ["crates", "src", "testbed", "tests", "xtask"] {
        collect(&root.join(folder), &mut files)?;
    }
    let (mut problems, mut imports, mut locks) = (Vec::new(), BTreeMap::new(), Vec::new());
    for path in files {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        record_imports(&mut imports, &name, &text);
        if is_of_the_daemon(&name) {
            let found = locks_of(&without_tests_and_comments(&text));
            locks.extend(found.into_iter().map(|lock| (name.clone(), lock)));
        }
        problems.extend(
            check_file(&name, &text)
                .into_iter()
                .map(|problem| format!("{name}: {problem}")),
        );
    }
    problems.extend(circles(&imports));
    let page = fs::read_to_string(root.join(LOCKS_PAGE)).with_context(|| format!("reading {LOCKS_PAGE}"))?;
    problems.extend(locks.iter().filter_map(|(file, name)| check_lock(&page, file, name)));
    problems.extend(directions::problems(root)?);
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
    // The markers are written so that this file does not match itself.
    for marker in [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ] {
        if text.contains(marker) {
            problems.push(format!("it contains '{marker}'"));
        }
    }
    let code = without_tests_and_comments(text);
    if let Some(module) = module_of(name) {
        for used in our_modules(&code) {
            if let Some(why) = forbidden(module, &used) {
                problems.push(format!("uses {used}: {why}"));
            }
        }
    }
    for (_, allowed) in PURE.iter().filter(|(file, _)| *file == name) {
        let others = our_modules(&code)
            .into_iter()
            .filter(|used| !allowed.contains(&used.as_str()));
        problems.extend(others.map(|used| format!("uses {used}: this file is pure and uses {}", allowed.join(", "))));
    }
    if is_ours_to_time(name) && !may_know_the_time(name) {
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

/// `http` for `src/http/answer.rs`, `preflight` for `src/preflight.rs`. None for other packages, whose manifests list what they use.
fn module_of(name: &str) -> Option<&str> {
    let inside = name.strip_prefix("src/")?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    (!["lib", "main"].contains(&module)).then_some(module)
}

/// Why `module` must not use `used`.
fn forbidden(module: &str, used: &str) -> Option<&'static str> {
    if !PROTOCOLS.contains(&module) || used == module {
        return None;
    }
    match (PROTOCOLS.contains(&used), OUTER.contains(&used)) {
        (true, _) => Some("protocols never import each other"),
        (_, true) => Some("protocols use traits for what they need; imports point inwards"),
        _ => None,
    }
}

/// Modules of the program and of the registries (`src/http`), each with those of its package that it uses. Cargo prevents circles of
/// packages, but not of modules.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Records the imports of a file. Tests may use any module.
fn record_imports(imports: &mut Imports, name: &str, text: &str) {
    let for_tests = ["tests.rs", "/testing.rs", "/testkit.rs"];
    if for_tests.iter().any(|end| name.ends_with(end)) || name.contains("/tests/") {
        return;
    }
    let package = if name.starts_with(REGISTRIES) { REGISTRIES } else { "" };
    if let Some(module) = module_of(&name[package.len()..]) {
        let used = our_modules(&without_tests_and_comments(text));
        let used = used.into_iter().map(|used| format!("{package}src/{used}"));
        imports
            .entry(format!("{package}src/{module}"))
            .or_default()
            .extend(used);
    }
}

/// The modules that import themselves through others.
fn circles(imports: &Imports) -> Vec<String> {
    let mut reached = imports.clone();
    for (module, used) in &mut reached {
        used.remove(module);
        let mut ahead: Vec<String> = used.iter().cloned().collect();
        while let Some(next) = ahead.pop() {
            let further = imports
                .get(&next)
                .into_iter()
                .flatten()
                .filter(|further| **further != next);
            ahead.extend(further.filter(|further| used.insert((*further).clone())).cloned());
        }
    }
    let of_itself = reached.iter().filter(|(module, used)| used.contains(*module));
    of_itself
        .map(|(module, used)| {
            let back = used
                .iter()
                .filter(|other| reached.get(*other).is_some_and(|used| used.contains(module)));
            let back: Vec<&str> = back.map(String::as_str).filter(|other| other != module).collect();
            format!("{module}: imports itself through {}", back.join(", "))
        })
        .collect()
}

/// True for files of the program and of its packages. The agent is one task with its own clock.
fn is_ours_to_time(name: &str) -> bool {
    let package = name.strip_prefix("crates/").and_then(|rest| rest.split_once("/src/"));
    module_of(name).is_some() || package.is_some_and(|(package, _)| package != "agent")
}

fn may_know_the_time(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    // The client of registries waits between its attempts; it runs in the command line.
    let outside = [
        "crates/store/",
        "src/cli/",
        "crates/cli/",
        "crates/control/",
        "src/serve/",
        "src/control/",
        "crates/image/src/oci/registry/",
    ]
    .iter()
    .any(|folder| name.starts_with(folder));
    outside
        || ["task.rs", "tests.rs", "testing.rs", "clock.rs"].contains(&last)
        || name.contains("/tests/")
        || KNOWN.contains(&name)
}

/// Files with logic that use a clock: for a download's duration on the timeline, the wait for a lock, a thread's pause after a panic, and a
/// simulation that is test code under another name.
const KNOWN: &[&str] = &[
    "crates/base/src/panics.rs",
    "crates/image/src/locks.rs",
    "crates/tftp/src/session/simulation.rs",
    "src/http/loader.rs",
];

/// The code that is built without `cfg(test)`, without comments. Tests are at the end of a file.
fn without_tests_and_comments(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules of the program in `code` (`crate::x` and `crate::{x::…, y}`), and our packages (`rackstrap_x`) except those that server and
/// agent share.
fn our_modules(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        // `testbed_crate::` is another crate.
        if code[..at].ends_with(is_of_a_name) {
            continue;
        }
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(group) => modules.extend(top_level_names(group)),
            None => modules.extend(leading_name(rest)),
        }
    }
    let packages = code
        .match_indices("rackstrap_")
        .filter(|(at, _)| !code[..*at].ends_with(is_of_a_name));
    modules.extend(
        packages
            .filter_map(|(at, _)| leading_name(&code[at..]))
            .filter(|name| name != "rackstrap_wire"),
    );
    modules
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first names of `a::b, c::{d, e}, f}…`, up to the closing brace of the group.
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
    let name: String = text.trim_start().chars().take_while(|c| is_of_a_name(*c)).collect();
    (!name.is_empty()).then_some(name)
}

/// The page with all locks of the daemon and their order.
const LOCKS_PAGE: &str = "docs/contributing/concurrency.md";

/// True if the locks of a file belong to the daemon, and not to the agent, the command line or tests.
fn is_of_the_daemon(name: &str) -> bool {
    let others = ["crates/agent/", "crates/cli/", "src/cli/"];
    let is_test = name.contains("/tests") || name.ends_with("tests.rs") || name.ends_with("/testing.rs");
    (name.starts_with("src/") || name.starts_with("crates/")) && !is_test && !others.iter().any(|o| name.starts_with(o))
}

/// The names of fields and tuple structs that are locks.
fn locks_of(code: &str) -> Vec<String> {
    let declares = |line: &&str| {
        let locks = line.contains("Mutex<") || line.contains("RwLock<");
        locks && !line.contains("fn ") && !line.contains("Guard<") && !line.contains("let ")
    };
    let names = code.lines().map(str::trim).filter(declares).filter_map(|line| {
        if let Some((_, named)) = line.split_once("struct ") {
            return leading_name(named);
        }
        let (field, _) = line.strip_suffix(',')?.split_once(": ")?;
        field.rsplit(' ').next().map(str::to_owned)
    });
    names.collect()
}

fn check_lock(page: &str, file: &str, name: &str) -> Option<String> {
    let is_named = |row: &str| row.contains(&format!("`{name}`")) || row.contains(&format!("::{name}`"));
    let mut rows = page.lines().filter(|row| row.starts_with('|'));
    let is_there = rows.any(|row| row.contains(&format!("`{file}`")) && is_named(row));
    (!is_there).then(|| {
        format!(
            "{file}: the lock '{name}' is not in the table of {LOCKS_PAGE}; add it with what it guards and its place in the order"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_the_page_does_not_have_is_found() {
        let code = "struct Shared {\n    floor: Mutex<Floor>,\n    pub(super) by: Arc<RwLock<u8>>,\n    other: u8,\n}\n\
                    pub struct Windows(Mutex<u8>);\nfn lock(mutex: &Mutex<u8>) -> MutexGuard<'_, u8> {\n";
        assert_eq!(locks_of(code), ["floor", "by", "Windows"]);
        let page = "| `Shared::floor`, `Windows` | `src/a.rs` | x |\n| `Shared::by` | `src/b.rs` | x |\n";
        assert_eq!(check_lock(page, "src/a.rs", "floor"), None);
        assert_eq!(check_lock(page, "src/a.rs", "Windows"), None);
        let missing = check_lock(page, "src/a.rs", "by").unwrap();
        assert!(
            missing.starts_with("src/a.rs: the lock 'by' is not in the table of"),
            "{missing}"
        );
        assert!(is_of_the_daemon("src/preflight.rs") && is_of_the_daemon("crates/store/src/writer.rs"));
        assert!(
            !is_of_the_daemon("crates/agent/src/reporter.rs") && !is_of_the_daemon("crates/store/src/tests/panics.rs")
        );
    }

    #[test]
    fn the_tree_is_tidy() {
        let problems = problems(&testbed::paths::repo_root()).unwrap();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    #[test]
    fn imports_are_found_in_every_spelling() {
        let code = "use crate::clock::Timestamp;\nuse crate::{\n  decide::{World, decide},\n  nfs, tftp::x,\n};\nfn f() { crate::store::open(); rackstrap_dhcp::x(rackstrap_wire::y) }\nmy_crate::no(my_rackstrap_no::x)\nuse rackstrap_ndp::{a, b};";
        let modules: Vec<String> = our_modules(code).into_iter().collect();
        assert_eq!(
            modules,
            [
                "clock",
                "decide",
                "nfs",
                "rackstrap_dhcp",
                "rackstrap_ndp",
                "store",
                "tftp"
            ]
        );
    }

    #[test]
    fn every_rule_can_fail() {
        let check = |name: &str, text: &str| check_file(name, text).join("; ");
        assert!(check("src/http/task.rs", "use rackstrap_dns::View;").contains("never import each other"));
        assert!(check("src/http/task.rs", "use rackstrap_nfs::Exports;").contains("never import each other"));
        assert!(check("src/http/task.rs", "use crate::{preflight, serve::x};").contains("inwards"));
        let assignments = "crates/model/src/decide/assignments.rs";
        assert!(check(assignments, "use rackstrap_site::Site;").contains("is pure"));
        assert!(check(assignments, "use crate::inventory::Node;").contains("is pure"));
        assert!(check("crates/registries/src/rollout/health.rs", "let now = Instant::now();").contains("clocks"));
        assert!(check("crates/tftp/src/session.rs", "let now = Instant::now();").contains("clocks"));
        assert!(check("crates/tftp/src/x.rs", concat!("// XX", "X later")).contains("it contains"));
        assert!(check("crates/cli/src/lib.rs", &"\n".repeat(601)).contains("601 lines"));
        assert!(check("crates/nfs/src/lib.rs", &"\n".repeat(601)).contains("601 lines"));
    }

    #[test]
    fn circles_of_modules_are_found() {
        let mut imports = Imports::new();
        for (name, text) in [
            ("src/config/mod.rs", "use crate::inventory::Node;"),
            ("src/inventory/mod.rs", "use crate::{inventory::x, decide::World};"),
            ("src/decide.rs", "use crate::config::Site;"),
            ("src/serve/mod.rs", "use crate::decide::decide;"),
            ("src/decide/tests.rs", "use crate::serve::x;"),
            ("src/lib.rs", "use crate::serve::x;"),
            ("crates/registries/src/boots/kept.rs", "use crate::nodes::Nodes;"),
            ("crates/registries/src/nodes.rs", "use crate::boots::Boots;"),
            ("crates/registries/src/testing.rs", "use crate::boots::Boots;"),
        ] {
            record_imports(&mut imports, name, text);
        }
        let found = circles(&imports);
        assert_eq!(
            found,
            [
                "crates/registries/src/boots: imports itself through crates/registries/src/nodes",
                "crates/registries/src/nodes: imports itself through crates/registries/src/boots",
                "src/config: imports itself through src/decide, src/inventory",
                "src/decide: imports itself through src/config, src/inventory",
                "src/inventory: imports itself through src/config, src/decide",
            ]
        );
        imports.retain(|module, _| !module.ends_with("/decide") && !module.ends_with("/boots"));
        assert!(circles(&imports).is_empty());
    }

    #[test]
    fn allowed_code_passes() {
        for (name, text) in [
            (
                "src/http/loader.rs",
                "use crate::http::answer; use rackstrap_loaders::Loaders;",
            ),
            ("src/http/task.rs", "let now = Instant::now();"),
            ("crates/tftp/src/task.rs", "let now = Instant::now();"),
            (
                "crates/tftp/src/session.rs",
                "fn f() {}\n#[cfg(test)]\nmod tests {\n use crate::nfs;\n fn t() { Instant::now() }\n}",
            ),
            (
                "src/serve/mod.rs",
                "use crate::http; use {rackstrap_dhcp::x, rackstrap_nfs::y};",
            ),
            ("crates/agent/src/main.rs", "let now = Instant::now();"),
            ("crates/nfs/examples/nfs.rs", "let now = Instant::now();"),
            ("src/http/x.rs", "// unlike rackstrap_tftp"),
        ] {
            assert_eq!(check_file(name, text), Vec::<String>::new(), "{name}");
        }
    }
}
