//! Reads a layout in a directory (OCI image specification, "Image Layout").

use super::{Blobs, Digest, Result, Start, blob_path, check_layout, read_small, refused};
use crate::{error::Doing, root::RootDir};
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

/// A layout. Its links are not followed out of it.
pub(super) struct LayoutDir {
    dir: RootDir,
    path: PathBuf,
}

impl LayoutDir {
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let dir = RootDir::open(path).doing(|| format!("opening {shown}"))?;
        let layout = LayoutDir {
            dir,
            path: path.to_owned(),
        };
        let version = layout.file(Path::new("oci-layout")).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => refused(format!(
                "{shown} is not an OCI layout: oci-layout is missing; for a root tree write its path without 'oci:'"
            )),
            _ => refused(format!("{shown}/oci-layout: {e}")),
        })?;
        check_layout(&read_small(version, "oci-layout")?, &shown.to_string())?;
        Ok(layout)
    }

    fn file(&self, path: &Path) -> io::Result<std::fs::File> {
        self.dir.open_file(path)
    }
}

impl Blobs for LayoutDir {
    fn start(&mut self) -> Result<Start> {
        let name = self.path.display().to_string();
        let index = self.file(Path::new("index.json"));
        let index = index.map_err(|e| refused(format!("{name}/index.json: {e}")))?;
        Ok(Start {
            bytes: read_small(index, &format!("{name}/index.json"))?,
            media_type: None,
            digest: None,
            name,
        })
    }

    fn open(&mut self, digest: &Digest, _size: u64, _manifest: bool) -> Result<Box<dyn Read + '_>> {
        let path = blob_path(digest);
        let file = self.file(&path);
        let file = file.map_err(|e| refused(format!("{}/{}: {e}", self.path.display(), path.display())))?;
        Ok(Box::new(file))
    }
}
