//! A test of the README and the book in `docs/`: all links and paths in them lead to something that exists.
//!
//! If a page is renamed or a file is moved, the links and paths to it break, and no reader notices before they are needed.

use super::named::{code_and_prose, documents, files, quoted, root};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// The beginnings of paths of the project in texts.
const FOLDERS: &[&str] = &[
    "src/",
    "crates/",
    "docs/",
    "templates/",
    "tests/",
    "bootscripts/",
    "images/",
];

/// The targets of a page's links, without those to other sites.
fn links(text: &str) -> Vec<String> {
    let prose = code_and_prose(text).1;
    // Brackets between backquotes are code.
    let plain: String = prose
        .split("\n\n")
        .flat_map(|paragraph| paragraph.split('`').step_by(2))
        .collect();
    let behind = plain.split("](").skip(1);
    let targets = behind.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .map(str::to_owned)
        .collect()
}

/// The anchor of a heading, as GitHub and mdbook make it.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        letter if letter.is_alphanumeric() => Some(letter.to_ascii_lowercase()),
        _ => None,
    });
    letters.collect()
}

/// All anchors of a page. The second heading with the same text gets an anchor that ends with a number.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = code_and_prose(text).1;
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut all = BTreeSet::new();
    for line in prose.lines().filter(|line| line.starts_with('#')) {
        let anchor = anchor(line.trim_start_matches('#'));
        let before = times.entry(anchor.clone()).or_default();
        all.insert(match *before {
            0 => anchor,
            number => format!("{anchor}-{number}"),
        });
        *before += 1;
    }
    all
}

/// `path` without `.` and `..`. It need not exist.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// The problem of the link `target` on the page at `page`; none if it is correct.
fn broken(page: &Path, target: &str) -> Option<String> {
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let file = match path {
        "" => page.to_owned(),
        path => normal(&page.parent()?.join(path)),
    };
    if !file.exists() {
        return Some(format!("{target}: there is no {}", file.display()));
    }
    // The website has only the pages.
    let docs = root().join("docs");
    if page.starts_with(&docs) && !file.starts_with(&docs) {
        return Some(format!("{target}: it leads out of the book"));
    }
    if heading.is_empty() {
        return None;
    }
    let there = fs::read_to_string(&file).map(|text| anchors(&text)).unwrap_or_default();
    (!there.contains(heading)).then(|| format!("{target}: {} has no such heading", file.display()))
}

/// Paths of the project that a page names between backquotes.
fn paths(text: &str) -> Vec<String> {
    let prose = code_and_prose(text).1;
    let mut found = Vec::new();
    for paragraph in prose.split("\n\n") {
        for code in quoted(paragraph) {
            let word = code.split_whitespace().next().unwrap_or_default();
            if FOLDERS.iter().any(|folder| word.starts_with(folder)) {
                found.push(word.to_owned());
            }
        }
    }
    found
}

#[test]
fn links_lead_to_pages_and_headings_that_exist() {
    let (mut followed, mut wrong) = (0, Vec::new());
    for (name, text) in documents() {
        for target in links(&text) {
            followed += 1;
            wrong.extend(broken(Path::new(&name), &target).map(|what| format!("{name}: {what}")));
        }
    }
    assert!(followed > 100, "only {followed} were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_is_in_the_summary_once() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let mut listed = links(&summary);
    listed.sort();
    let mut found = Vec::new();
    files(docs.clone(), &mut found);
    let mut pages: Vec<String> = found
        .iter()
        .filter_map(|path| path.strip_prefix(&docs).ok()?.to_str())
        .filter(|name| name.ends_with(".md") && *name != "SUMMARY.md")
        .map(str::to_owned)
        .collect();
    pages.sort();
    assert!(pages.len() > 25, "only {} were found", pages.len());
    assert_eq!(listed, pages);
}

#[test]
fn paths_that_pages_name_exist() {
    let (mut named, mut wrong) = (0, BTreeSet::new());
    for (name, text) in documents() {
        for path in paths(&text) {
            named += 1;
            if !root().join(&path).exists() {
                wrong.insert(format!("{name}: there is no {path}"));
            }
        }
    }
    assert!(named > 100, "only {named} were found");
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

/// The path of the module in the file at `path` as the test runner shows it: `vm::uefi` for tests/vm/uefi.rs, `dhcp::tests::boot` for
/// crates/dhcp/src/tests/boot.rs. `mod.rs` and `lib.rs` belong to their directory.
fn module_of(path: &Path) -> String {
    let path = path.with_extension("");
    let words = path.iter().filter_map(|part| part.to_str());
    // A test's own folder is the only `tests` that is not a module.
    let words: Vec<String> = words
        .enumerate()
        .filter(|(at, word)| !matches!(*word, "crates" | "src" | "mod" | "lib") && (*at, *word) != (0, "tests"))
        .map(|(_, word)| word.replace('-', "_"))
        .collect();
    words.join("::")
}

/// The names of the tests in a file: functions with `#[test]`, and rows `name => …` of a table of tests.
fn tests_in(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let name = match line {
            "#[test]" => lines
                .find_map(|line| line.strip_prefix("fn "))
                .and_then(|rest| rest.split('(').next()),
            row => row.split_once(" => ").map(|(name, _)| name),
        };
        found.extend(name.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')));
    }
    found
}

/// All tests of the project, such as `vm::unknown::an_unknown_machine_waits`. `mod tests` in a file is left out.
fn tests() -> BTreeSet<String> {
    let mut sources = Vec::new();
    for folder in ["tests", "src", "crates"] {
        files(root().join(folder), &mut sources);
    }
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut all = BTreeSet::new();
    for path in sources {
        let module = module_of(path.strip_prefix(root()).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        all.extend(tests_in(&text).into_iter().map(|name| format!("{module}::{name}")));
    }
    all
}

/// Readers trust this page about what is tested, so a test that is renamed or removed must not stay there.
#[test]
fn tests_that_the_page_about_firmware_names_exist() {
    let page = fs::read_to_string(root().join("docs/reference/firmware.md")).unwrap();
    let all = tests();
    let named: Vec<&str> = quoted(&page)
        .filter(|code| code.contains("::") && !code.ends_with(':'))
        .collect();
    assert!(named.len() > 12, "only {named:?} were found");
    let is_module = |name: &str| all.iter().any(|test| test.starts_with(&format!("{name}::")));
    let exists = |name: &str| all.contains(name) || is_module(name);
    let wrong: Vec<&str> = named.iter().copied().filter(|name| !exists(name)).collect();
    assert!(
        wrong.is_empty(),
        "these are neither tests nor modules of tests: {wrong:?}"
    );
    // Each row of a table says what tests it, or that nothing does.
    for row in page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.contains("Tested by"))
    {
        assert!(row.contains("::") || row.contains("| nothing |"), "{row}");
    }
}

#[test]
fn tests_are_found_by_the_names_that_the_runner_shows() {
    for (path, module) in [
        ("tests/vm/uefi.rs", "vm::uefi"),
        ("tests/netns/mod.rs", "netns"),
        ("crates/dhcp/src/tests/boot.rs", "dhcp::tests::boot"),
        ("crates/lease-file/src/lib.rs", "lease_file"),
    ] {
        assert_eq!(module_of(Path::new(path)), module);
    }
    let text =
        "#[test]\n#[ignore]\nfn one() {\n}\nfn two() {\n    match x {\n        three => 3,\n        Some(_) => 4,\n";
    assert_eq!(tests_in(text), BTreeSet::from(["one", "three"]));
}

#[test]
fn wrong_links_and_paths_are_found() {
    let text = "# One `[two]`: three\n\nSee [a](b.md#c), [`[x](y)`](#one-two-three), [site](https://example.org/)\n\n```\n[no](link)\n# no heading\n```\n\n## Twice\n\n## Twice\n\n`src/none.rs -v` and `other/none.rs`\n";
    assert_eq!(links(text), ["b.md#c", "#one-two-three"]);
    let all: Vec<String> = anchors(text).into_iter().collect();
    assert_eq!(all, ["one-two-three", "twice", "twice-1"]);
    assert_eq!(paths(text), ["src/none.rs"]);
    let page = root().join("docs/glossary.md");
    for good in ["index.md", "#glossary", "how-to/images.md#delete-and-rename"] {
        assert_eq!(broken(&page, good), None);
    }
    for bad in ["none.md", "#none", "index.md#none", "../README.md", "how-to/../none.md"] {
        assert!(broken(&page, bad).is_some(), "{bad}");
    }
}
