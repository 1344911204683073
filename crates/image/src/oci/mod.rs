//! Container images as sources of root trees: OCI layouts as directories and archives, archives of `docker save`, and
//! registries.
//!
//! `choose` finds the wanted image, `spec` reads the documents that lead to it, and bytes come from `layout`, `archive` and
//! `registry`. This module compares all bytes with their digests, before a document is read and while a layer is extracted.

mod archive;
mod choose;
mod digest;
mod layout;
mod location;
mod platform;
mod registry;
mod spec;

pub(crate) use digest::Digest;
pub(crate) use platform::Platform;

use super::{
    error::{ImportError, Result},
    progress::{Progress, Step},
    tar::{Layers, decompress},
    tree::{Remarks, SpaceGuard},
};
use choose::{Chosen, Layer, Place, Start, Wanted};
use digest::Checked;
use location::Location;
use rackstrap_base::{arch::Architecture, text::quoted};
use spec::Descriptor;
use std::{
    cell::{Cell, OnceCell},
    ffi::OsStr,
    io::{self, BufReader, Read},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

/// How to fetch a container image.
#[derive(Clone, Debug, Default)]
pub struct OciOptions {
    /// `linux/arm64`; none for the one of [`super::ImportRequest::architecture`], or this machine's.
    pub platform: Option<String>,
    /// A file like Docker's config.json; none for Docker's own.
    pub credentials: Option<PathBuf>,
    /// Whether plain HTTP is allowed for registries without TLS.
    pub insecure: bool,
}

impl OciOptions {
    /// Fails if options are set that other sources do not use.
    pub(crate) fn check_unused(&self) -> Result<()> {
        let named = [
            (self.platform.is_some(), "--platform"),
            (self.credentials.is_some(), "--credentials"),
            (self.insecure, "--insecure"),
        ];
        match named.iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(ImportError::Request(format!(
                "{option} is for container images: --from docker://…, oci-archive:FILE or oci:DIR"
            ))),
            None => Ok(()),
        }
    }
}

/// A container image to import.
#[derive(Debug)]
pub(crate) struct OciImage {
    location: Location,
    platform: Platform,
    options: OciOptions,
    taken: OnceCell<Digest>,
}

/// A source of documents and layers.
trait Blobs {
    /// The first document.
    fn start(&mut self) -> Result<Start>;
    /// The bytes with that digest, unchecked. `manifest` is true for indexes and manifests, which registries store separately.
    fn open(&mut self, digest: &Digest, size: u64, manifest: bool) -> Result<Box<dyn Read + '_>>;
    /// The bytes of a file of `docker save`.
    fn open_member(&mut self, name: &[u8]) -> Result<Box<dyn Read + '_>> {
        Err(refused(format!("{} does not exist", super::error::show_name(name))))
    }
    /// The image of an archive of `docker save` that is not a layout.
    fn saved(&mut self, _wanted: &Wanted<'_>) -> Option<Result<Chosen>> {
        None
    }
    /// Remarks for people since the last call.
    fn remarks(&mut self) -> Vec<String> {
        Vec::new()
    }
}

fn refused(why: impl Into<String>) -> ImportError {
    ImportError::Container(why.into())
}

/// Text from outside for people: short, and without control characters.
fn shown(text: &str) -> String {
    quoted(text, 200)
}

impl OciImage {
    /// Parses `oci:DIR`, `oci-archive:FILE`, `docker://…`. None if `source` has none of these prefixes.
    pub fn parse(source: &OsStr, options: &OciOptions, architecture: Option<Architecture>) -> Option<Result<Self>> {
        let location = Location::parse(source)?;
        let platform = match (&options.platform, architecture) {
            (Some(text), _) => text.parse(),
            (None, Some(architecture)) => Ok(Platform::of(architecture)),
            (None, None) => Ok(Platform::native()),
        };
        Some(location.and_then(|location| {
            Ok(OciImage {
                location,
                platform: platform?,
                options: options.clone(),
                taken: OnceCell::new(),
            })
        }))
    }

    /// The architecture of its platform; none if it is not known here.
    pub fn architecture(&self) -> Option<Architecture> {
        self.platform.architecture()
    }

    /// The source, with the digest of the image after it was read.
    pub fn taken(&self) -> String {
        self.location.with_digest(self.taken.get())
    }

    /// Extracts the image into the empty directory `root`. `scratch` is a directory for an unnamed file, if one is needed.
    pub fn extract(
        &self,
        root: BorrowedFd<'_>,
        scratch: BorrowedFd<'_>,
        space: &mut SpaceGuard,
        remarks: &mut Remarks,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let wanted = Wanted {
            platform: &self.platform,
            tag: self.location.tag(),
        };
        progress.begin(Step::Layers, None);
        let mut blobs: Box<dyn Blobs> = match &self.location {
            Location::Layout { dir, .. } => Box::new(layout::LayoutDir::open(dir)?),
            Location::Archive { file, .. } => Box::new(archive::Archive::open(file, scratch, space)?),
            Location::Registry(reference) => Box::new(registry::Registry::connect(reference, &self.options)?),
        };
        let chosen = find(blobs.as_mut(), &wanted)?;
        let digest = self.taken.get_or_init(|| chosen.digest);
        tracing::debug!(%digest, layers = chosen.layers.len(), "taking a container image");
        extract_layers(blobs.as_mut(), &chosen.layers, root, space, remarks, progress)
    }
}

/// Finds the wanted image in `blobs`.
fn find(blobs: &mut dyn Blobs, wanted: &Wanted<'_>) -> Result<Chosen> {
    if let Some(saved) = blobs.saved(wanted) {
        return saved;
    }
    let start = blobs.start()?;
    choose::choose(&start, wanted, &mut |descriptor, limit| small(blobs, descriptor, limit))
}

/// Reads a document and compares it with its descriptor.
fn small(blobs: &mut dyn Blobs, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
    let digest = descriptor.digest()?;
    if descriptor.size > limit {
        return Err(refused(format!(
            "{digest} has {} bytes; documents of more than {limit} are not read",
            descriptor.size
        )));
    }
    let is_manifest = descriptor.is_index() || descriptor.is_manifest();
    let mut checked = Checked::new(
        blobs.open(&digest, descriptor.size, is_manifest)?,
        Some(descriptor.size),
    );
    let mut bytes = Vec::new();
    let read = checked.read_to_end(&mut bytes);
    read.map_err(|e| refused(format!("{digest} cannot be read: {e}")))?;
    checked.finish(&digest.to_string(), Some(&digest))?;
    Ok(bytes)
}

/// Counts the bytes that are read.
struct Counted<'a, R> {
    inner: R,
    count: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.count.set(self.count.get() + got as u64);
        Ok(got)
    }
}

fn extract_layers(
    blobs: &mut dyn Blobs,
    layers: &[Layer],
    root: BorrowedFd<'_>,
    space: &mut SpaceGuard,
    remarks: &mut Remarks,
    progress: &mut dyn Progress,
) -> Result<()> {
    let total = layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
    progress.begin(Step::Layers, Some(total));
    let mut tree = Layers::new(root, space, remarks);
    let mut from_blobs = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let number = format!("layer {} of {}", at + 1, layers.len());
        progress.doing(&number);
        let done = extract_layer(blobs, layer, &number, &mut tree, progress);
        from_blobs.extend(blobs.remarks());
        done.map_err(|e| in_layer(e, &number))?;
    }
    tree.finish()?;
    for remark in from_blobs {
        remarks.remark(remark);
    }
    Ok(())
}

fn extract_layer(
    blobs: &mut dyn Blobs,
    layer: &Layer,
    number: &str,
    tree: &mut Layers<'_>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let (bytes, digest) = match &layer.place {
        Place::Blob(digest) => (blobs.open(digest, layer.size, false)?, Some(digest)),
        Place::Member(name) => (blobs.open_member(name)?, None),
    };
    let name = match digest {
        Some(digest) => format!("{number} ({digest})"),
        None => number.to_owned(),
    };
    let count = Cell::new(0);
    let mut shown = 0;
    let counted = Counted {
        inner: bytes,
        count: &count,
    };
    let mut packed = Checked::new(counted, Some(layer.size));
    let mut tell = |files: u64| {
        progress.advance(files, count.get() - shown);
        shown = count.get();
    };
    let extracted = (|| {
        let plain = decompress(BufReader::with_capacity(1 << 18, &mut packed))?;
        let mut plain = Checked::new(BufReader::with_capacity(1 << 16, plain), None);
        tree.add(&mut plain, &mut || tell(1))?;
        plain.finish(&format!("{name} without its compression"), Some(&layer.diff_id))
    })();
    // Changed bytes often are not an archive at all. Reading the rest shows whether the digest differs.
    let damaged = match &extracted {
        Err(error @ ImportError::Io { .. }) => !error.is_full(),
        Err(error) => matches!(error, ImportError::Archive { .. } | ImportError::Container(_)),
        Ok(()) => false,
    };
    if extracted.is_ok() || damaged {
        packed.finish(&name, digest)?;
    }
    tell(0);
    extracted
}

/// Adds the layer to errors about one of its entries.
fn in_layer(error: ImportError, number: &str) -> ImportError {
    match error {
        ImportError::Archive { entry, why } => ImportError::Archive {
            entry: format!("{entry} of {number}"),
            why,
        },
        other => other,
    }
}

/// Reads a small file of a layout completely.
fn read_small(mut from: impl Read, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = spec::MOST_MANIFEST;
    let read = (&mut from).take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|e| refused(format!("{what} cannot be read: {e}")))?;
    match bytes.len() as u64 > limit {
        true => Err(refused(format!(
            "{what} has more than {limit} bytes; such documents are not read"
        ))),
        false => Ok(bytes),
    }
}

/// Refuses layouts of an unknown version.
fn check_layout(bytes: &[u8], what: &str) -> Result<()> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let layout: Layout = spec::json(bytes, &format!("oci-layout in {what}"))?;
    match layout.image_layout_version.starts_with("1.") {
        true => Ok(()),
        false => Err(refused(format!(
            "{what} is a layout of version {}; only version 1 is supported",
            shown(&layout.image_layout_version)
        ))),
    }
}

/// The path of a blob in a layout.
fn blob_path(digest: &Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}

/// Finds the image for `platform` in documents that lead to one another. The search begins with the first document, and each
/// further document stands for the next digest. Returns the number of its layers.
///
/// # Errors
/// None of them is an image for the platform, or one is refused.
pub fn survey_documents(documents: &[&[u8]], platform: &str) -> Result<usize> {
    let (first, mut rest) = match documents {
        [first, rest @ ..] => (*first, rest.iter()),
        [] => (&[][..], [].iter()),
    };
    let start = Start {
        bytes: first.to_vec(),
        media_type: None,
        digest: None,
        name: "it".to_owned(),
    };
    let wanted = Wanted {
        platform: &platform.parse()?,
        tag: None,
    };
    let chosen = choose::choose(&start, &wanted, &mut |_, _| match rest.next() {
        Some(bytes) => Ok(bytes.to_vec()),
        None => Err(refused("a document is missing")),
    })?;
    Ok(chosen.layers.len())
}

#[cfg(test)]
mod tests;
