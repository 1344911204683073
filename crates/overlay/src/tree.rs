//! Template trees: read from the program itself and from the site's directory, compiled once.

use super::problem;
use include_dir::{Dir, include_dir};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, value::ValueKind};
use rackstrap_site::Diagnostic;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

static BUILT_IN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../templates");

/// The file next to the templates with modes, owners and links.
const MANIFEST: &str = "overlay.toml";
/// Largest file of a tree, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// At most this many files in one tree.
const MAX_FILES: usize = 4096;

/// All template trees, compiled.
pub struct Templates {
    pub(super) env: Environment<'static>,
    pub(super) trees: BTreeMap<String, Tree>,
}

/// One tree.
#[derive(Debug)]
pub(super) struct Tree {
    /// Its directory; none for a built-in tree.
    pub(super) dir: Option<PathBuf>,
    /// Its files, sorted by path.
    pub(super) entries: Vec<Entry>,
}

/// One file of a tree.
#[derive(Debug)]
pub(super) struct Entry {
    /// Absolute path on the node.
    pub(super) path: String,
    /// Path in the tree, `etc/motd.j2`.
    pub(super) file: String,
    /// Its text as in the tree; empty for a link.
    pub(super) source: String,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) skip_empty: bool,
    pub(super) body: Body,
}

/// Where a file's content comes from.
#[derive(Debug)]
pub(super) enum Body {
    /// A template of the environment, by its name.
    Template(String),
    /// The source, unchanged.
    Text,
    /// The target of a symbolic link.
    Symlink(String),
}

/// A template tree that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A file could not be read.
    #[error("template {path}: cannot read it: {source}")]
    Read {
        /// File or directory.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A file cannot be part of an overlay.
    #[error("template {path}: {problem}")]
    Unfit {
        /// The file.
        path: String,
        /// The problem and the correction.
        problem: String,
    },
    /// An error at a place in a file.
    #[error("{0}")]
    Place(Box<Diagnostic>),
}

/// `overlay.toml`: one table for each file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Attributes {
    mode: Option<String>,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    symlink: Option<String>,
    #[serde(default)]
    skip_empty: bool,
}

impl Templates {
    /// Reads the built-in trees and then those of `site_dir`. A tree of `site_dir` replaces the built-in tree of the same
    /// name.
    pub fn load(site_dir: Option<&Path>) -> Result<Self, TreeError> {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_formatter(|out, state, value| match value.kind() {
            // Python's notation of a table is in no file on purpose.
            ValueKind::Map => Err(minijinja::Error::new(
                ErrorKind::InvalidOperation,
                "this is a table, and a text is wanted here; write NAME.KEY, or NAME | tojson",
            )),
            _ => minijinja::escape_formatter(out, state, value),
        });
        // Debug output would print the variables of a failing template, and private keys are among them.
        env.set_debug(false);
        let syntax = minijinja::syntax::SyntaxConfig::builder()
            .keep_trailing_newline(true)
            .build();
        env.set_syntax(syntax.expect("the default delimiters are sound"));
        let mut templates = Templates {
            env,
            trees: BTreeMap::new(),
        };
        for tree in BUILT_IN.dirs() {
            let mut files = BTreeMap::new();
            collect_built_in(tree, tree.path(), &mut files);
            templates.add(&tree.path().to_string_lossy(), None, files)?;
        }
        if let Some(dir) = site_dir {
            for name in subdirectories(dir)? {
                let mut files = BTreeMap::new();
                let place = dir.join(&name);
                collect(&place, &place, &mut files)?;
                templates.add(&name, Some(place), files)?;
            }
        }
        Ok(templates)
    }

    /// The names of the trees.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.trees.keys().map(String::as_str)
    }

    /// The names of attributes that templates read as `node.attributes.NAME`; a name may occur several times.
    pub(super) fn attributes(&self) -> impl Iterator<Item = &str> {
        let entries = self.trees.values().flat_map(|tree| &tree.entries);
        entries.flat_map(|entry| {
            let after = entry.source.split("node.attributes.").skip(1);
            after.filter_map(|rest| {
                let end = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                rest.get(..end).filter(|name| !name.is_empty())
            })
        })
    }

    /// How messages name the file of the template `TREE/FILE`: by its path, if it has one.
    pub(super) fn file(&self, name: &str) -> String {
        let (tree, file) = name.split_once('/').unwrap_or((name, ""));
        match self.trees.get(tree).and_then(|tree| tree.dir.as_ref()) {
            Some(dir) => dir.join(file).display().to_string(),
            None => format!("{name} (built in)"),
        }
    }

    /// The file name and text of the template `TREE/FILE`.
    pub(super) fn source(&self, name: &str) -> Option<(String, &str)> {
        let (tree, file) = name.split_once('/')?;
        let entry = self.trees.get(tree)?.entries.iter().find(|entry| entry.file == file)?;
        Some((self.file(name), &entry.source))
    }

    fn add(&mut self, tree: &str, dir: Option<PathBuf>, mut files: BTreeMap<String, String>) -> Result<(), TreeError> {
        let known = Tree {
            dir,
            entries: Vec::new(),
        };
        self.trees.insert(tree.to_owned(), known);
        let manifest = files.remove(MANIFEST).unwrap_or_default();
        let mut attributes: BTreeMap<String, Attributes> = toml::from_str(&manifest).map_err(|e| {
            let file = self.file(&format!("{tree}/{MANIFEST}"));
            let help = "write [\"PATH\"], and below it mode, uid, gid, skip-empty or symlink";
            let place = problem::at(&file, &manifest, e.span().unwrap_or_default(), e.message(), help);
            TreeError::Place(Box::new(place))
        })?;
        let mut entries = Vec::new();
        for (file, source) in files {
            let (path, is_template) = match file.strip_suffix(".j2") {
                Some(path) => (path.to_owned(), true),
                None => (file.clone(), false),
            };
            let attributes = attributes.remove(&path).unwrap_or_default();
            let name = format!("{tree}/{file}");
            let body = if is_template {
                let added = self.env.add_template_owned(name.clone(), source.clone());
                added.map_err(|e| {
                    let place = problem::of_template(self, &name, &source, &e, &minijinja::Value::UNDEFINED);
                    TreeError::Place(Box::new(place))
                })?;
                Body::Template(name)
            } else {
                Body::Text
            };
            entries.push(entry(tree, &path, &file, attributes, body, source)?);
        }
        for (path, mut rest) in attributes {
            let Some(target) = rest.symlink.take() else {
                let problem =
                    format!("{MANIFEST} names it, but the file does not exist; remove the entry or add the file");
                return Err(unfit(&format!("{tree}/{path}"), problem));
            };
            entries.push(entry(tree, &path, &path, rest, Body::Symlink(target), String::new())?);
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].path == pair[1].path) {
            let problem = format!("there is also {}; remove one of the two", twice[1].file);
            return Err(unfit(&format!("{tree}/{}", twice[0].file), problem));
        }
        if let Some(known) = self.trees.get_mut(tree) {
            known.entries = entries;
        }
        Ok(())
    }
}

fn entry(
    tree: &str,
    path: &str,
    file: &str,
    attributes: Attributes,
    body: Body,
    source: String,
) -> Result<Entry, TreeError> {
    let name = format!("{tree}/{path}");
    if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(unfit(&name, "the path must stay below the node's root".to_owned()));
    }
    if attributes.symlink.is_some() {
        return Err(unfit(
            &name,
            "it is a file and a symlink at once; remove one of the two".to_owned(),
        ));
    }
    let mode = match &attributes.mode {
        None => 0o644,
        Some(text) => u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| unfit(&name, format!("mode \"{text}\" is not octal; write it like \"0644\"")))?,
    };
    Ok(Entry {
        path: format!("/{path}"),
        file: file.to_owned(),
        source,
        mode,
        uid: attributes.uid,
        gid: attributes.gid,
        skip_empty: attributes.skip_empty,
        body,
    })
}

fn unfit(path: &str, problem: String) -> TreeError {
    TreeError::Unfit {
        path: path.to_owned(),
        problem,
    }
}

fn collect_built_in(dir: &Dir<'_>, top: &Path, files: &mut BTreeMap<String, String>) {
    for file in dir.files() {
        let path = file.path().strip_prefix(top).unwrap_or(file.path());
        let text = file.contents_utf8().unwrap_or_default();
        files.insert(path.to_string_lossy().into_owned(), text.to_owned());
    }
    for sub in dir.dirs() {
        collect_built_in(sub, top, files);
    }
}

fn subdirectories(dir: &Path) -> Result<Vec<String>, TreeError> {
    let fail = |source| TreeError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_type().map_err(fail)?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn collect(dir: &Path, top: &Path, files: &mut BTreeMap<String, String>) -> Result<(), TreeError> {
    for found in walkdir::WalkDir::new(dir).max_depth(32).sort_by_file_name() {
        let found = found.map_err(|e| TreeError::Read {
            path: e.path().unwrap_or(dir).to_owned(),
            source: e
                .into_io_error()
                .unwrap_or_else(|| std::io::Error::other("a loop of links")),
        })?;
        let path = found.path();
        let shown = path.display().to_string();
        let kind = found.file_type();
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            let problem = format!("it is not a regular file; write links into {MANIFEST} as symlink = \"TARGET\"");
            return Err(unfit(&shown, problem));
        }
        let fail = |source| TreeError::Read {
            path: path.to_owned(),
            source,
        };
        if std::fs::metadata(path).map_err(fail)?.len() > MAX_FILE {
            return Err(unfit(
                &shown,
                "it is larger than 1 MiB; put it in the image instead".to_owned(),
            ));
        }
        if files.len() >= MAX_FILES {
            return Err(unfit(
                &shown,
                format!("the tree has more than {MAX_FILES} files; put them in the image"),
            ));
        }
        let bytes = std::fs::read(path).map_err(fail)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| unfit(&shown, "it is not UTF-8 text; put binary files in the image".to_owned()))?;
        let relative = path.strip_prefix(top).unwrap_or(path);
        let name = relative
            .to_str()
            .ok_or_else(|| unfit(&shown, "its name is not UTF-8".to_owned()))?;
        files.insert(name.to_owned(), text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(files: &[(&str, &[u8])]) -> Result<Templates, TreeError> {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        Templates::load(Some(dir.path()))
    }

    fn problem(files: &[(&str, &[u8])]) -> String {
        site(files).err().expect("a refusal").to_string()
    }

    #[test]
    fn a_tree_of_the_site_adds_to_the_built_in_ones() {
        let templates = site(&[("motd/etc/motd.j2", b"this is {{ node.name }}\n")]).unwrap();
        assert_eq!(templates.names().collect::<Vec<_>>(), ["base", "motd"]);
    }

    #[test]
    fn refusals_name_the_file_and_the_correction() {
        assert!(problem(&[("t/etc/x.j2", b"{% if %}")]).contains("t/etc/x.j2:1"));
        assert!(problem(&[("t/etc/x", b"\xff\xfe")]).contains("is not UTF-8 text; put binary files in the image"));
        assert!(problem(&[("t/overlay.toml", b"[\"etc/x\"]\nmode = \"0600\"")]).contains("the file does not exist"));
        assert!(problem(&[("t/overlay.toml", b"[\"../x\"]\nsymlink = \"/y\"")]).contains("stay below"));
        let files: [(&str, &[u8]); 2] = [("t/etc/x", b""), ("t/overlay.toml", b"[\"etc/x\"]\nmode = \"rw\"")];
        assert!(problem(&files).contains("is not octal"));
    }
}
