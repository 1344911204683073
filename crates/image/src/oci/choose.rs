//! Finds the matching image, starting at the first document, through indexes that may be nested.

use super::{
    Digest, Platform, Result, refused, shown,
    spec::{Config, Descriptor, Document, MOST_CONFIG, MOST_MANIFEST},
};
use std::collections::HashSet;

/// Nested indexes. Two levels are usual (that of a layout, and that of an image for several architectures).
const MOST_DEPTH: usize = 8;
/// Most documents that are read.
const MOST_DOCUMENTS: usize = 200;
/// Annotation of the tag in a layout's index (OCI image specification, "Annotations").
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with the full name, by Docker and containerd.
const FULL_NAME: &str = "io.containerd.image.name";

/// The first document.
pub(super) struct Start {
    pub bytes: Vec<u8>,
    /// Its media type, if known from outside.
    pub media_type: Option<String>,
    /// Its digest; none for the index of a layout.
    pub digest: Option<Digest>,
    /// Its name for people.
    pub name: String,
}

/// An image's layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// The place of its bytes.
    pub place: Place,
    /// Bytes as stored.
    pub size: u64,
    /// Digest of its uncompressed bytes.
    pub diff_id: Digest,
}

/// A place of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A blob with that digest.
    Blob(Digest),
    /// A member of an archive of `docker save`.
    Member(Vec<u8>),
}

/// The image that was found.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Digest of its manifest; in older archives of `docker save` that of its configuration, which is Docker's image ID.
    pub digest: Digest,
    pub layers: Vec<Layer>,
}

/// The image to look for.
pub(super) struct Wanted<'a> {
    pub platform: &'a Platform,
    /// The tag, if a layout has several images.
    pub tag: Option<&'a str>,
}

/// Reads a document, given its descriptor and its most bytes. The reader checks size and digest.
pub(super) type Fetch<'a> = dyn FnMut(&Descriptor, u64) -> Result<Vec<u8>> + 'a;

/// An image for one platform.
struct Leaf {
    platform: Platform,
    digest: Digest,
    config: Option<Config>,
    /// The manifest, if it was read already.
    manifest: Option<(Descriptor, Vec<Descriptor>)>,
    descriptor: Option<Descriptor>,
    names: Vec<String>,
}

struct Search<'a, 'f> {
    fetch: &'a mut Fetch<'f>,
    leaves: Vec<Leaf>,
    seen: HashSet<Digest>,
    documents: usize,
    path: Vec<Digest>,
}

/// Finds the image.
pub(super) fn choose(start: &Start, wanted: &Wanted<'_>, fetch: &mut Fetch<'_>) -> Result<Chosen> {
    let mut search = Search {
        fetch,
        leaves: Vec::new(),
        seen: HashSet::new(),
        documents: 0,
        path: Vec::new(),
    };
    let what = &start.name;
    match Document::parse(&start.bytes, start.media_type.as_deref(), what)? {
        Document::Manifest { config, layers } => {
            let digest = start.digest.unwrap_or_else(|| Digest::of(&start.bytes));
            search.manifest(digest, None, (config, layers), Vec::new())?;
        }
        Document::Index(list) => {
            let list = match wanted.tag {
                Some(tag) => named(list, tag, what)?,
                None => list,
            };
            search.path.extend(start.digest);
            search.index(list, &[])?;
        }
        Document::Artifact(kind) => return Err(no_image(what, &kind)),
    }
    let leaf = pick(&mut search.leaves, wanted, what)?;
    let (config_at, layers) = match leaf.manifest {
        Some(manifest) => manifest,
        None => {
            let descriptor = leaf.descriptor.as_ref().expect("a leaf has a manifest or a descriptor");
            match search.read_manifest(descriptor)? {
                Ok(manifest) => manifest,
                Err(kind) => return Err(no_image(&format!("the manifest {}", leaf.digest), &kind)),
            }
        }
    };
    let config = match leaf.config {
        Some(config) => config,
        None => search.read_config(&config_at, layers.len())?,
    };
    let layers = layers.iter().zip(&config.rootfs.diff_ids).map(|(layer, diff_id)| {
        Ok(Layer {
            place: Place::Blob(layer.digest()?),
            size: layer.size,
            diff_id: Digest::parse(diff_id)?,
        })
    });
    Ok(Chosen {
        digest: leaf.digest,
        layers: layers.collect::<Result<_>>()?,
    })
}

fn no_image(what: &str, kind: &str) -> super::ImportError {
    let kind = if kind.is_empty() { "something else" } else { kind };
    refused(format!("{what} is not a container image, but holds {}", shown(kind)))
}

/// Entries of a layout's index with the name `tag`.
fn named(list: Vec<Descriptor>, tag: &str, what: &str) -> Result<Vec<Descriptor>> {
    let names: Vec<String> = list.iter().flat_map(names_of).collect();
    let is_it = |name: &String| name == tag || name.strip_suffix(tag).is_some_and(|rest| rest.ends_with(':'));
    let found: Vec<Descriptor> = list.into_iter().filter(|d| names_of(d).iter().any(is_it)).collect();
    match found.is_empty() {
        false => Ok(found),
        true if names.is_empty() => Err(refused(format!("{what} has no names; omit ':{}'", shown(tag)))),
        true => Err(refused(format!(
            "{what} does not contain '{}'; it contains {}",
            shown(tag),
            list_of(names)
        ))),
    }
}

fn names_of(descriptor: &Descriptor) -> Vec<String> {
    let found = [FULL_NAME, REF_NAME].map(|key| descriptor.annotation(key));
    found.into_iter().flatten().map(str::to_owned).collect()
}

/// A list of names for people: at most the first few.
pub(super) fn list_of(mut names: Vec<String>) -> String {
    const MOST: usize = 20;
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(MOST);
    let first: Vec<String> = names.iter().take(MOST).map(|name| shown(name)).collect();
    match more {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// The best match among the images found.
fn pick(leaves: &mut Vec<Leaf>, wanted: &Wanted<'_>, what: &str) -> Result<Leaf> {
    let there: Vec<String> = leaves.iter().map(|leaf| leaf.platform.to_string()).collect();
    let ranks = leaves.iter().map(|leaf| leaf.platform.rank(wanted.platform));
    let best = ranks.enumerate().filter_map(|(at, rank)| Some((rank?, at))).min();
    let Some((rank, at)) = best else {
        return Err(refused(match there.is_empty() {
            true => format!("{what} does not contain a container image"),
            false => format!(
                "{what} is not available for {}; it is available for {}; choose with --platform",
                wanted.platform,
                list_of(there)
            ),
        }));
    };
    let same = |leaf: &&Leaf| leaf.platform.rank(wanted.platform) == Some(rank);
    // Of several images in an index for the same platform, the first one is used, as in other programs. But a layout with images of
    // different names is a collection.
    let mut names: Vec<String> = leaves.iter().filter(same).flat_map(|leaf| leaf.names.clone()).collect();
    let digests: HashSet<Digest> = leaves.iter().filter(same).map(|leaf| leaf.digest).collect();
    names.sort();
    names.dedup();
    if digests.len() > 1 && names.len() > 1 && wanted.tag.is_none() {
        return Err(refused(format!(
            "{what} holds several images: {}; choose one by appending ':NAME'",
            list_of(names)
        )));
    }
    Ok(leaves.swap_remove(at))
}

impl Search<'_, '_> {
    fn index(&mut self, list: Vec<Descriptor>, names: &[String]) -> Result<()> {
        for descriptor in list {
            if descriptor.is_attestation() {
                continue;
            }
            let names = match names_of(&descriptor) {
                own if own.is_empty() => names.to_vec(),
                own => own,
            };
            if descriptor.is_index() {
                self.inner_index(&descriptor, &names)?;
            } else if descriptor.is_manifest() {
                let digest = descriptor.digest()?;
                match &descriptor.platform {
                    Some(platform) if !platform.os.is_empty() => self.leaves.push(Leaf {
                        platform: platform.clone(),
                        digest,
                        config: None,
                        manifest: None,
                        descriptor: Some(descriptor),
                        names,
                    }),
                    // Layouts often omit the platform; the configuration has it.
                    _ => {
                        if let Ok(manifest) = self.read_manifest(&descriptor)? {
                            self.manifest(digest, Some(&descriptor), manifest, names)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn inner_index(&mut self, descriptor: &Descriptor, names: &[String]) -> Result<()> {
        let digest = descriptor.digest()?;
        if self.path.contains(&digest) {
            return Err(refused(format!("the index {digest} leads to itself")));
        }
        if self.path.len() >= MOST_DEPTH {
            return Err(refused(format!(
                "indexes are nested deeper than {MOST_DEPTH}; at most that many are followed"
            )));
        }
        if !self.seen.insert(digest) {
            return Ok(());
        }
        let what = format!("the index {digest}");
        match Document::parse(
            &self.read(descriptor, MOST_MANIFEST)?,
            Some(&descriptor.media_type),
            &what,
        )? {
            Document::Index(list) => {
                self.path.push(digest);
                self.index(list, names)?;
                self.path.pop();
                Ok(())
            }
            _ => Err(refused(format!("{what} is a manifest"))),
        }
    }

    /// Adds an image whose platform is only in its configuration.
    fn manifest(
        &mut self,
        digest: Digest,
        descriptor: Option<&Descriptor>,
        (config_at, layers): (Descriptor, Vec<Descriptor>),
        names: Vec<String>,
    ) -> Result<()> {
        let config = self.read_config(&config_at, layers.len())?;
        self.leaves.push(Leaf {
            platform: config.platform.clone(),
            digest,
            config: Some(config),
            manifest: Some((config_at, layers)),
            descriptor: descriptor.cloned(),
            names,
        });
        Ok(())
    }

    fn read(&mut self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        self.documents += 1;
        if self.documents > MOST_DOCUMENTS {
            return Err(refused(format!(
                "more than {MOST_DOCUMENTS} documents lead to images; no more are read"
            )));
        }
        (self.fetch)(descriptor, limit)
    }

    /// The configuration and the layers. An error is the kind of another object.
    fn read_manifest(
        &mut self,
        descriptor: &Descriptor,
    ) -> Result<std::result::Result<(Descriptor, Vec<Descriptor>), String>> {
        let what = format!("the manifest {}", descriptor.digest()?);
        let bytes = self.read(descriptor, MOST_MANIFEST)?;
        match Document::parse(&bytes, Some(&descriptor.media_type), &what)? {
            Document::Manifest { config, layers } => Ok(Ok((config, layers))),
            Document::Artifact(kind) => Ok(Err(kind)),
            Document::Index(_) => Err(refused(format!("{what} is an index"))),
        }
    }

    fn read_config(&mut self, at: &Descriptor, layers: usize) -> Result<Config> {
        let what = format!("the configuration {}", at.digest()?);
        Config::parse(&self.read(at, MOST_CONFIG)?, layers, &what)
    }
}
