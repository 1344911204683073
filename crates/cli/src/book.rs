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
