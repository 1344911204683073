//! Builds the new root: image and RAM, the disk's file systems at their mount points, and above them the node's own files.
//!
//! No fault of a disk prevents a boot. A disk's file system can be full, damaged or read-only, and its users can have put a file
//! where a directory is needed. Such a fault returns at each attempt and after each restart, and no administrator could log in to
//! repair it. So the root is built again without that file system. Its mount point is then in RAM, the files from the server are
//! there, and the node reports why.

use crate::{
    fail::{Doing, Failure, Res},
    image_files::{self, Owned},
    overlay::Tree,
};
use rackstrap_wire::{ImageList, MountedPartition, OverlayContent, OverlayFile, text::one_line};
use std::{
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// The parts of which a root is built.
pub struct Parts<'a> {
    /// The image's list of files.
    pub list: &'a ImageList<'a>,
    /// The disk's partitions.
    pub partitions: &'a [MountedPartition],
    /// Their file systems are mounted below this directory, each under the name of its partition.
    pub disk: &'a Path,
    /// The files from the server.
    pub files: &'a [OverlayFile],
}

/// A file system of the disk that is not in the new root.
#[derive(Clone, Debug)]
pub struct LeftOut<'a> {
    /// The partition of the file system.
    pub partition: &'a MountedPartition,
    /// The failure on it.
    pub why: String,
}

/// The result of building a root.
#[derive(Debug)]
pub struct Built<'a> {
    /// Number of files that got their capabilities.
    pub given: usize,
    /// The first failure to give a file its capabilities.
    pub problem: Option<String>,
    /// The file systems that the root does not have.
    pub left_out: Vec<LeftOut<'a>>,
}

/// Makes the agent's own files, which record the file systems that were left out.
pub type OwnFiles<'f> = dyn Fn(&[LeftOut<'_>]) -> Res<Vec<(OverlayFile, Vec<u8>)>> + 'f;

/// A file system and its mount point.
#[derive(Clone, Copy)]
struct Place<'a> {
    mount: &'a str,
    partition: &'a MountedPartition,
}

/// A failure, and the path on which it happened.
struct Trouble<'a> {
    path: String,
    /// The place, if it is known: a file system could not be bound to its mount point.
    place: Option<Place<'a>>,
    failure: Failure,
}

/// Builds a root. `fresh` makes an empty one that replaces the one before. An error means that image or RAM failed.
pub fn build<'a>(parts: &Parts<'a>, fresh: &mut dyn FnMut() -> Res<Tree>, own: &OwnFiles<'_>) -> Res<Built<'a>> {
    let mut left_out: Vec<LeftOut<'a>> = Vec::new();
    loop {
        let is_out = |partition: &MountedPartition| left_out.iter().any(|l| l.partition.name == partition.name);
        let used = parts.partitions.iter().filter(|partition| !is_out(partition));
        let mut places: Vec<Place<'a>> = used
            .filter_map(|partition| {
                let mount = partition.mount.as_deref()?;
                Some(Place { mount, partition })
            })
            .collect();
        // /var comes before /var/tmp.
        places.sort_by_key(|place| (place.mount.matches('/').count(), place.mount));
        let tree = fresh()?;
        let trouble = match attempt(parts, &tree, &places, &left_out, own) {
            Ok((given, problem)) => {
                return Ok(Built {
                    given,
                    problem,
                    left_out,
                });
            }
            Err(trouble) => trouble,
        };
        match culprit(parts, &tree, &places, &trouble) {
            Some(place) => left_out.push(LeftOut {
                partition: place.partition,
                why: trouble.failure.to_string(),
            }),
            None => return Err(trouble.failure),
        }
    }
}

/// Fills an empty root. Returns how many files got capabilities, and the first failure to give one.
fn attempt<'a>(
    parts: &Parts<'a>,
    tree: &Tree,
    places: &[Place<'a>],
    left_out: &[LeftOut<'_>],
    own: &OwnFiles<'_>,
) -> Result<(usize, Option<String>), Trouble<'a>> {
    let at = |path: &str, place| {
        let path = path.to_owned();
        move |failure| Trouble { path, place, failure }
    };
    let mounts: Vec<&str> = places.iter().map(|place| place.mount).collect();
    let owned = Owned::open(parts.list, tree, &mounts);
    let given = image_files::give_capabilities(parts.list, tree, &mounts);
    for place in places {
        let source = parts.disk.join(&place.partition.name);
        bind(&source, tree, place.mount).map_err(at(place.mount, Some(*place)))?;
    }
    owned.mount(tree).map_err(|(path, failure)| at(&path, None)(failure))?;
    for file in parts.files {
        let written = match fstab(file, left_out) {
            Some(changed) => tree.write(&changed),
            None => tree.write(file),
        };
        written.map_err(at(&file.path, None))?;
    }
    for (file, bytes) in own(left_out).map_err(at("/", None))? {
        tree.write_bytes(&file, &bytes).map_err(at(&file.path, None))?;
    }
    Ok(given)
}

/// The file system of the disk on which a failure happened; none if it happened in the image or in RAM.
fn culprit<'a>(parts: &Parts<'_>, tree: &Tree, places: &[Place<'a>], trouble: &Trouble<'a>) -> Option<Place<'a>> {
    let path = trouble.path.as_str();
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    // The tree knows where links lead. A file system that has shut down does not even report its device; then the path decides.
    let device = |place: &Place<'_>| {
        let stat = rustix::fs::stat(parts.disk.join(&place.partition.name));
        stat.ok().map(|stat| stat.st_dev)
    };
    let below = |place: &&Place<'_>, path: &str| {
        let rest = path.strip_prefix(place.mount.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let holds = |path: &str| match tree.device(path) {
        Some(found) => {
            let known = places.iter().find(|place| device(place) == Some(found));
            known.or_else(|| {
                let mut dumb = places.iter().rev().filter(|place| device(place).is_none());
                dumb.find(|place| below(place, path))
            })
        }
        None => places.iter().rev().find(|place| below(place, path)),
    };
    holds(parent)
        .copied()
        .or(trouble.place)
        .or_else(|| holds(path).copied())
}

/// The node's fstab without file systems that were left out: init would mount them above the files in RAM.
fn fstab(file: &OverlayFile, left_out: &[LeftOut<'_>]) -> Option<OverlayFile> {
    let OverlayContent::Text(text) = &file.content else {
        return None;
    };
    if left_out.is_empty() || file.path != "/etc/fstab" {
        return None;
    }
    let mut kept = String::new();
    for line in text.lines() {
        let mount = line
            .split_whitespace()
            .nth(1)
            .filter(|_| !line.trim_start().starts_with('#'));
        let out = left_out
            .iter()
            .find(|out| mount.is_some() && out.partition.mount.as_deref() == mount);
        if let Some(out) = out {
            kept += &format!(
                "# rackstrap left this file system out of this boot: {}\n# ",
                one_line(&out.why, usize::MAX)
            );
        }
        kept += line;
        kept.push('\n');
    }
    Some(OverlayFile {
        content: OverlayContent::Text(kept),
        ..file.clone()
    })
}

/// Names the file systems that were left out, for people; empty if none was.
pub fn describe_left_out(left_out: &[LeftOut<'_>]) -> String {
    let one = |out: &LeftOut<'_>| {
        let mount = out.partition.mount.as_deref().unwrap_or_default();
        format!("{mount} is in RAM and not on {}: {}", out.partition.device, out.why)
    };
    left_out.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Binds `source` to a directory of the new root without following a link out of it.
pub fn bind(source: &Path, tree: &Tree, target: &str) -> Res<()> {
    let directory = tree.directory(target)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    rustix::mount::mount_bind_recursive(source, &path).doing(|| format!("mounting {} on {target}", source.display()))
}

#[cfg(test)]
#[path = "new_root_tests.rs"]
mod tests;
