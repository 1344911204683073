//! Imports of small images from layouts, archives, and registries. These tests need root, as imports do.

use super::*;
use crate::progress::Quiet;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, io::Write, os::fd::AsFd};

mod archives;
mod documents;
mod layers;

/// Blobs by digest, and the entries of a layout's index.
#[derive(Clone, Default)]
pub(super) struct Images {
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    pub top: Vec<Value>,
}

/// An entry of a layer: type, name, link, content.
pub(super) type Entry<'a> = (u8, &'a str, &'a str, &'a [u8]);

pub(super) fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, name, link, content) in entries {
        let mut header = ::tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(::tar::EntryType::new(*kind));
        header.set_mode(if *kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

impl Images {
    pub fn blob(&mut self, kind: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        self.blobs.insert(digest, bytes.to_vec());
        json!({"mediaType": kind, "digest": digest.to_string(), "size": bytes.len()})
    }

    pub fn document(&mut self, kind: &str, value: &Value) -> Value {
        self.blob(kind, &serde_json::to_vec(value).unwrap())
    }

    /// A manifest of `layers`, which are tar archives. They are stored in turn plain, as gzip and as zstd.
    pub fn image(&mut self, arch: &str, layers: &[Vec<u8>]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({"os": "linux", "architecture": arch, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.document("application/vnd.oci.image.config.v1+json", &config);
        let layers: Vec<Value> = layers
            .iter()
            .enumerate()
            .map(|(i, layer)| match i % 3 {
                0 => self.blob("application/vnd.oci.image.layer.v1.tar", layer),
                1 => self.blob("application/vnd.docker.image.rootfs.diff.tar.gzip", &gzip(layer)),
                _ => self.blob(
                    "application/vnd.oci.image.layer.v1.tar+zstd",
                    &zstd::encode_all(layer.as_slice(), 1).unwrap(),
                ),
            })
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": spec::MANIFEST, "config": config, "layers": layers});
        self.document(spec::MANIFEST, &manifest)
    }

    /// An index of `entries`, each with its platform.
    pub fn index(&mut self, kind: &str, entries: &[(Value, &str)]) -> Value {
        let entries: Vec<Value> = entries
            .iter()
            .map(|(entry, platform)| {
                let mut entry = entry.clone();
                if let Some((os, arch)) = platform.split_once('/') {
                    entry["platform"] = json!({"os": os, "architecture": arch});
                }
                entry
            })
            .collect();
        self.document(
            kind,
            &json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries}),
        )
    }

    pub fn write_layout(&self, at: &Path) {
        fs::create_dir_all(at.join("blobs/sha256")).unwrap();
        fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": self.top});
        fs::write(at.join("index.json"), index.to_string()).unwrap();
        for (digest, bytes) in &self.blobs {
            fs::write(at.join(blob_path(digest)), bytes).unwrap();
        }
    }
}

/// A layout with the native image of these layers.
fn layout_of(layers: &[&[Entry<'_>]]) -> Images {
    let mut images = Images::default();
    let layers: Vec<Vec<u8>> = layers.iter().map(|entries| tar_of(entries)).collect();
    let image = images.image(&Platform::native().architecture, &layers);
    images.top.push(image);
    images
}

/// A directory for a layout and a tree.
pub(super) struct Place {
    dir: tempfile::TempDir,
    pub remarks: std::cell::RefCell<Vec<String>>,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        Place {
            dir,
            remarks: Default::default(),
        }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn extract_with(&self, source: &str, options: &OciOptions) -> Result<String> {
        let open = |at: &Path| rustix::fs::open(at, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let (root, scratch) = (open(&self.at("root")), open(self.dir.path()));
        let mut space = SpaceGuard::new(root.as_fd(), self.dir.path(), None)?;
        let mut remarks = Remarks::default();
        let image = OciImage::parse(OsStr::new(source), options, None).unwrap()?;
        image.extract(root.as_fd(), scratch.as_fd(), &mut space, &mut remarks, &mut Quiet)?;
        self.remarks.replace(remarks.into_lines());
        Ok(image.taken())
    }

    pub fn extract(&self, source: &str) -> Result<String> {
        self.extract_with(source, &OciOptions::default())
    }

    pub fn extract_images(&self, images: &Images) -> Result<String> {
        images.write_layout(&self.at("layout"));
        self.extract(&format!("oci:{}", self.at("layout").display()))
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at("root").join(name)).unwrap()
    }

    /// All paths of the tree.
    pub fn paths(&self) -> Vec<String> {
        let root = self.at("root");
        let entries = walkdir::WalkDir::new(&root).min_depth(1).sort_by_file_name();
        let path = |e: walkdir::DirEntry| e.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        entries.into_iter().map(|e| path(e.unwrap())).collect()
    }
}

const D: &[u8] = b"";
