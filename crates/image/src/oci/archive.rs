//! Reads a layout in a tar archive, and archives of `docker save` (Docker image specification 1.2, "Combined Image JSON + Filesystem
//! Changeset Format").

use super::{
    Blobs, Chosen, Digest, ImportError, Layer, Place, Result, Start, Wanted, blob_path, check_layout,
    choose::list_of,
    read_small, refused, shown,
    spec::{Config, MOST_CONFIG, MOST_LAYERS, json},
};
use crate::{
    error::{Doing, show_name},
    tar::{Member, decompress, members},
    tree::SpaceGuard,
};
use rustix::fs::{Mode, OFlags, openat};
use serde::Deserialize;
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Write},
    os::{
        fd::BorrowedFd,
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::Path,
};

/// An archive with its table of members.
pub(super) struct Archive {
    file: File,
    members: HashMap<Vec<u8>, Member>,
    name: String,
}

/// A part of a file.
struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(self.left.try_into().unwrap_or(usize::MAX));
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

/// An image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    /// Opens `path`. A compressed archive is unpacked into an unnamed file in `scratch`.
    pub fn open(path: &Path, scratch: BorrowedFd<'_>, space: &mut SpaceGuard) -> Result<Self> {
        let name = path.display().to_string();
        let opening = || format!("opening {name}");
        if !std::fs::metadata(path).doing(opening)?.is_file() {
            return Err(ImportError::Request(format!(
                "{name} is not a file; for a layout in a directory write oci:{name}"
            )));
        }
        let mut file = File::open(path).doing(opening)?;
        let mut magic = [0; 6];
        let got = file.read_at(&mut magic, 0).doing(opening)?;
        if let [0x1f, 0x8b, ..]
        | [0xfd, b'7', b'z', b'X', b'Z', 0]
        | [0x28, 0xb5, 0x2f, 0xfd, ..]
        | [b'B', b'Z', b'h', ..] = magic[..got]
        {
            file = unpack(file, scratch, space)?;
        }
        let members = members(&file)?;
        let archive = Archive { file, members, name };
        if archive.members.contains_key(b"index.json".as_slice()) {
            if let Ok(version) = archive.member(b"oci-layout") {
                check_layout(&read_small(version, "oci-layout")?, &archive.name)?;
            }
        } else if !archive.members.contains_key(b"manifest.json".as_slice()) {
            return Err(refused(format!(
                "{} is not a container image: it has neither index.json nor manifest.json; for a root tree write its path \
                 without 'oci-archive:'",
                archive.name
            )));
        }
        Ok(archive)
    }

    fn member(&self, path: &[u8]) -> Result<Section<'_>> {
        match self.members.get(path) {
            Some(member) => Ok(Section {
                file: &self.file,
                at: member.offset,
                left: member.size,
            }),
            None => Err(refused(format!("{} does not contain {}", self.name, show_name(path)))),
        }
    }

    fn saved_image(&self, wanted: &Wanted<'_>) -> Result<Chosen> {
        let what = format!("manifest.json in {}", self.name);
        let list: Vec<Saved> = json(&read_small(self.member(b"manifest.json")?, &what)?, &what)?;
        let names = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
        let all = || list_of(list.iter().flat_map(names).collect());
        let is_it = |saved: &&Saved| match wanted.tag {
            None => true,
            Some(tag) => names(saved)
                .iter()
                .any(|name| name == tag || name.strip_suffix(tag).is_some_and(|rest| rest.ends_with(':'))),
        };
        let found: Vec<&Saved> = list.iter().filter(is_it).collect();
        let saved = match found.as_slice() {
            [one] => one,
            [] => {
                return Err(refused(format!(
                    "{} does not contain the image; it contains: {}",
                    self.name,
                    all()
                )));
            }
            _ => {
                return Err(refused(format!(
                    "{} holds several images: {}; choose one by appending ':TAG'",
                    self.name,
                    all()
                )));
            }
        };
        if saved.layers.len() > MOST_LAYERS {
            return Err(refused(format!(
                "the image has {} layers; at most {MOST_LAYERS} are read",
                saved.layers.len()
            )));
        }
        let mut bytes = Vec::new();
        let config = self.member(saved.config.as_bytes())?;
        config
            .take(MOST_CONFIG)
            .read_to_end(&mut bytes)
            .doing(|| "reading the configuration")?;
        // Older archives name the configuration after its digest.
        let digest = Digest::of(&bytes);
        let called = Path::new(&saved.config)
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if let Ok(promised) = Digest::parse(&format!("sha256:{called}"))
            && promised != digest
        {
            return Err(refused(format!(
                "the configuration {} does not match its name; it was changed or damaged",
                shown(&saved.config)
            )));
        }
        let config = Config::parse(
            &bytes,
            saved.layers.len(),
            &format!("the configuration in {}", self.name),
        )?;
        if config.platform.rank(wanted.platform).is_none() {
            return Err(refused(format!(
                "{} is not available for {}; it is available for {}; choose with --platform",
                self.name, wanted.platform, config.platform
            )));
        }
        let layers = saved.layers.iter().zip(&config.rootfs.diff_ids).map(|(name, diff_id)| {
            let member = self.member(name.as_bytes())?;
            Ok(Layer {
                place: Place::Member(name.clone().into_bytes()),
                size: member.left,
                diff_id: Digest::parse(diff_id)?,
            })
        });
        Ok(Chosen {
            digest,
            layers: layers.collect::<Result<_>>()?,
        })
    }
}

impl Blobs for Archive {
    fn start(&mut self) -> Result<Start> {
        let what = format!("index.json in {}", self.name);
        Ok(Start {
            bytes: read_small(self.member(b"index.json")?, &what)?,
            media_type: None,
            digest: None,
            name: self.name.clone(),
        })
    }

    fn open(&mut self, digest: &Digest, _size: u64, _manifest: bool) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.member(blob_path(digest).as_os_str().as_bytes())?))
    }

    fn open_member(&mut self, name: &[u8]) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.member(name)?))
    }

    fn saved(&mut self, wanted: &Wanted<'_>) -> Option<Result<Chosen>> {
        // Docker writes both since version 25. The layout is used then, because its layers have digests of their own.
        let is_layout = self.members.contains_key(b"index.json".as_slice());
        (!is_layout).then(|| self.saved_image(wanted))
    }
}

/// Unpacks `file` into an unnamed file, watched by `space`.
fn unpack(file: File, scratch: BorrowedFd<'_>, space: &mut SpaceGuard) -> Result<File> {
    let doing = || "unpacking the archive";
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mut to = File::from(openat(scratch, c".", flags, Mode::from_raw_mode(0o600)).doing(doing)?);
    let mut from = decompress(BufReader::with_capacity(1 << 18, file))?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let got = match from.read(&mut buffer) {
            Ok(0) => return Ok(to),
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(refused(format!("the archive is damaged: {e}"))),
        };
        to.write_all(&buffer[..got]).doing(doing)?;
        space.wrote(got as u64)?;
    }
}
