//! Extracts layers of a container image, one over the other (OCI image specification, "Image Layer Filesystem Changeset").

use super::{
    extract::{DEFAULT_META, Extractor, about, is_dir, split},
    reader::{Entry, Reader},
};
use crate::{
    error::{Doing, ImportError, Result, show_name},
    tree::{Remarks, SpaceGuard, open_dir, remove_tree},
};
use rustix::{
    fs::{Dir, fstat},
    io::Errno,
};
use std::{
    collections::HashSet,
    ffi::CString,
    hash::{BuildHasher, RandomState},
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Most entries of all layers together. The largest known images have under a million. This limits the memory for them to some 100 MB.
const MOST_ENTRIES: u64 = 10_000_000;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names with this beginning are files of AUFS itself.
const AUFS: &[u8] = b".wh..wh.";

/// The state of the layer that is being extracted.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// Whether it is the lowest layer.
    first: bool,
    /// Names in this layer, as hashes of (inode of the directory, name). Whiteouts hide only files of lower layers. The inode identifies
    /// the directory, whatever links the path to it contains.
    made: HashSet<u64>,
    hasher: RandomState,
}

impl Layer {
    /// True for the lowest layer.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// Records that the layer has `name` in `dir`.
    pub fn made(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        // Below the first layer there is nothing to hide.
        if !self.first {
            let inode = fstat(dir)?.st_ino;
            self.made.insert(self.hasher.hash_one((inode, name)));
        }
        Ok(())
    }

    fn has(&self, inode: u64, name: &[u8]) -> bool {
        self.made.contains(&self.hasher.hash_one((inode, name)))
    }
}

/// Extracts layers, the lowest one first.
pub(crate) struct Layers<'a> {
    extractor: Extractor<'a>,
    entries: u64,
}

impl<'a> Layers<'a> {
    /// Starts with the empty directory `root`.
    pub fn new(root: BorrowedFd<'a>, space: &'a mut SpaceGuard, remarks: &'a mut Remarks) -> Self {
        Layers {
            extractor: Extractor::new(root, space, remarks),
            entries: 0,
        }
    }

    /// Extracts a layer, an uncompressed archive, over those before it. `extracted` is called for every entry.
    pub fn add(&mut self, archive: impl Read, extracted: &mut dyn FnMut()) -> Result<()> {
        let first = self.extractor.layer.is_none();
        self.extractor.layer = Some(Layer {
            first,
            ..Layer::default()
        });
        if first {
            self.extractor.defer_attributes(Vec::new(), &DEFAULT_META)?;
        }
        self.extractor.parent = None;
        let mut reader = Reader::new(archive).ends_anywhere();
        let mut acls = 0;
        while let Some(entry) = reader.next()? {
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Err(ImportError::Request(format!(
                    "the layers have more than {MOST_ENTRIES} entries; such images are not imported"
                )));
            }
            acls += u64::from(entry.text_acl);
            let made = self.extractor.layer_entry(&entry, &mut reader);
            made.map_err(|e| about(&entry, e))?;
            extracted();
        }
        self.extractor.report_lost_acls(acls);
        Ok(())
    }

    /// Sets the attributes of directories, after the last layer.
    pub fn finish(mut self) -> Result<()> {
        self.extractor.finish_dirs()
    }
}

impl Extractor<'_> {
    fn layer_entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let refuse = |why: &str| ImportError::Archive {
            entry: show_name(&entry.path),
            why: why.to_owned(),
        };
        let path = self.clean(&entry.path, "name").map_err(|why| refuse(&why))?;
        let (parent, name) = split(&path);
        let mut above = parent.split(|b| *b == b'/');
        if let Some(odd) = above.find(|part| part.starts_with(WHITEOUT)) {
            return match odd.starts_with(AUFS) {
                true => Ok(()),
                false => Err(refuse("is below a name that is a whiteout")),
            };
        }
        match name.strip_prefix(WHITEOUT) {
            None => self.entry(entry, reader),
            Some(_) if name == OPAQUE => self.hide_all(parent, entry),
            Some(_) if name.starts_with(AUFS) => Ok(()),
            Some(b"" | b"." | b"..") => Err(refuse("is a whiteout without a name")),
            Some(hidden) => self.hide(parent, hidden, entry),
        }
    }

    /// The directory of a whiteout; none if it does not exist, so that there is nothing to hide.
    fn whiteout_dir(&mut self, path: &[u8]) -> Result<Option<OwnedFd>> {
        self.parent = None;
        if self.layer.as_ref().is_none_or(Layer::is_first) {
            return Ok(None);
        }
        match self.open_dir(path) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(e).doing(|| format!("opening {}", show_name(path))),
        }
    }

    /// Hides `name` in `parent` of lower layers.
    fn hide(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Result<()> {
        let Some(dir) = self.whiteout_dir(parent)? else {
            return Ok(());
        };
        let doing = || format!("applying {}", show_name(&entry.path));
        let inode = fstat(&dir).doing(doing)?.st_ino;
        let c_name = CString::new(name).map_err(std::io::Error::from).doing(doing)?;
        let path = if parent.is_empty() {
            name.to_vec()
        } else {
            [parent, b"/", name].concat()
        };
        if !self.layer.as_ref().is_some_and(|layer| layer.has(inode, name)) {
            self.forget(&path);
            return remove_tree(dir.as_fd(), &c_name).doing(doing);
        }
        // This layer also has that name: its own files stay, and older files in such a directory are removed.
        match is_dir(dir.as_fd(), &c_name) {
            true => {
                let below = open_dir(dir.as_fd(), name).doing(doing)?;
                self.hide_below(below, &path, entry)
            }
            false => Ok(()),
        }
    }

    /// Hides everything of lower layers in `path`.
    fn hide_all(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        match self.whiteout_dir(path)? {
            Some(dir) => self.hide_below(dir, path, entry),
            None => Ok(()),
        }
    }

    fn hide_below(&mut self, top: OwnedFd, top_path: &[u8], entry: &Entry) -> Result<()> {
        let doing = || format!("applying {}", show_name(&entry.path));
        let below = |path: &[u8], name: &[u8]| match path.is_empty() {
            true => name.to_vec(),
            false => [path, b"/", name].concat(),
        };
        // Directories are stored as paths from `top`: the image decides their depth, and descriptors are limited.
        let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
        while let Some(path) = todo.pop() {
            let dir = open_dir(top.as_fd(), &path).doing(doing)?;
            let inode = fstat(&dir).doing(doing)?.st_ino;
            for name in names(&dir).doing(doing)? {
                let inner = below(&path, name.to_bytes());
                if !self
                    .layer
                    .as_ref()
                    .is_some_and(|layer| layer.has(inode, name.to_bytes()))
                {
                    self.forget(&below(top_path, &inner));
                    remove_tree(dir.as_fd(), &name).doing(doing)?;
                } else if is_dir(dir.as_fd(), &name) {
                    todo.push(inner);
                }
            }
        }
        Ok(())
    }

    /// Records that the layer has something below `path`, so that opaque whiteouts above do not remove these directories.
    pub(super) fn touch(&mut self, path: &[u8]) -> Result<()> {
        if path.is_empty() || self.layer.as_ref().is_none_or(Layer::is_first) {
            return Ok(());
        }
        let doing = || format!("opening {}", show_name(path));
        let ends = (0..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
        for end in ends {
            let (dir, name) = self.open_parent(&path[..end]).doing(doing)?;
            if let Some(layer) = &mut self.layer {
                layer.made(dir.as_fd(), name).doing(doing)?;
            }
        }
        Ok(())
    }

    /// Drops the attributes of `path` and of directories below it, which are removed.
    pub(super) fn forget(&mut self, path: &[u8]) {
        self.dirs.remove(path);
        let prefix = [path, b"/"].concat();
        let below: Vec<Vec<u8>> = self
            .dirs
            .range(prefix.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&prefix))
            .cloned()
            .collect();
        for path in below {
            self.dirs.remove(&path);
        }
    }
}

fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push(entry.file_name().to_owned());
        }
    }
    Ok(found)
}
