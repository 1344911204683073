//! Trees, as `rackstrap overlay list` shows them.

use super::tree::{Body, Templates};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedTree {
    /// The tree's name, as `templates` in the site file has it.
    pub name: String,
    /// Its directory; none for a built-in tree.
    pub dir: Option<PathBuf>,
    /// Its files, by path.
    pub files: Vec<ListedFile>,
}

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// Absolute path on the node.
    pub path: String,
    /// `template`, `plain` or `link`.
    pub kind: String,
    /// Permission bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Whether it is left out if it is empty after rendering.
    pub skip_empty: bool,
    /// The target of a link; none for other files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The text as it is in the tree.
    pub source: String,
}

impl Templates {
    /// All trees, by name.
    pub fn list(&self) -> Vec<ListedTree> {
        let trees = self.trees.iter().map(|(name, tree)| {
            let files = tree.entries.iter().map(|entry| {
                let (kind, target) = match &entry.body {
                    Body::Template(_) => ("template", None),
                    Body::Text => ("plain", None),
                    Body::Symlink(target) => ("link", Some(target.clone())),
                };
                ListedFile {
                    path: entry.path.clone(),
                    kind: kind.to_owned(),
                    mode: entry.mode,
                    uid: entry.uid,
                    gid: entry.gid,
                    skip_empty: entry.skip_empty,
                    target,
                    source: entry.source.clone(),
                }
            });
            ListedTree {
                name: name.clone(),
                dir: tree.dir.clone(),
                files: files.collect(),
            }
        });
        trees.collect()
    }
}
