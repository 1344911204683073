//! The documents of a container image: indexes, manifests, configurations (OCI image specification 1.1; Docker image
//! manifest version 2, schema 2), read from untrusted bytes.

use super::{Digest, Platform, Result, refused, shown};
use serde::{Deserialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// Most bytes of an index or manifest: the minimum that registries must accept (OCI distribution specification, "Pushing Manifests"),
/// and the maximum that most of them accept.
pub(super) const MOST_MANIFEST: u64 = 4 << 20;
/// Most bytes of a configuration.
pub(super) const MOST_CONFIG: u64 = 8 << 20;
/// Layers of an image. Docker stops at 127.
pub(super) const MOST_LAYERS: usize = 1000;

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// A reference from one document to another.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub fn digest(&self) -> Result<Digest> {
        Digest::parse(&self.digest)
    }

    /// True for an index, of OCI or Docker.
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), INDEX | DOCKER_LIST)
    }

    /// True for the manifest of an image.
    pub fn is_manifest(&self) -> bool {
        matches!(self.media_type.as_str(), MANIFEST | DOCKER_MANIFEST)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// True for documents about an image: BuildKit's provenance and lists of materials.
    pub fn is_attestation(&self) -> bool {
        let unknown = |p: &Platform| p.os == "unknown" && p.architecture == "unknown";
        self.platform.as_ref().is_some_and(unknown)
            || self.annotation("vnd.docker.reference.type") == Some("attestation-manifest")
    }
}

/// An index or a manifest.
#[derive(Debug)]
pub(crate) enum Document {
    /// References to other documents.
    Index(Vec<Descriptor>),
    /// An image for one platform.
    Manifest {
        /// The reference to its configuration.
        config: Descriptor,
        /// The references to its layers, the lowest one first.
        layers: Vec<Descriptor>,
    },
    /// Another object of that kind in a registry: a signature, a chart.
    Artifact(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Parses JSON; the error contains `what`.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| refused(format!("{what} is damaged: {}", shown(&e.to_string()))))
}

impl Document {
    /// Parses a document. `media_type` is its type as given outside, if known.
    pub fn parse(bytes: &[u8], media_type: Option<&str>, what: &str) -> Result<Self> {
        let raw: Raw = json(bytes, what)?;
        if raw.fs_layers.is_some() || raw.schema_version == Some(1) {
            return Err(refused(format!(
                "{what} has Docker's schema 1, which is not supported; push the image again with a current Docker"
            )));
        }
        let said = [media_type, raw.media_type.as_deref()];
        let kinds = |kinds: [&str; 2]| said.iter().flatten().any(|said| kinds.contains(said));
        // A document that is both would be another image for each reader (CVE-2021-41190).
        let doubtful = || {
            refused(format!(
                "{what} claims to be both an index and a manifest, so it is ambiguous"
            ))
        };
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => match kinds([MANIFEST, DOCKER_MANIFEST]) {
                true => Err(doubtful()),
                false => Ok(Document::Index(manifests)),
            },
            (None, Some(config), Some(layers)) => {
                if kinds([INDEX, DOCKER_LIST]) {
                    return Err(doubtful());
                }
                if !matches!(config.media_type.as_str(), CONFIG | DOCKER_CONFIG) {
                    return Ok(Document::Artifact(raw.artifact_type.unwrap_or(config.media_type)));
                }
                if layers.len() > MOST_LAYERS {
                    return Err(refused(format!(
                        "{what} has {} layers; at most {MOST_LAYERS} are read",
                        layers.len()
                    )));
                }
                for layer in &layers {
                    check_layer(layer, what)?;
                }
                Ok(Document::Manifest { config, layers })
            }
            (Some(_), ..) => Err(doubtful()),
            _ => Err(refused(format!("{what} is neither an index nor an image's manifest"))),
        }
    }
}

fn check_layer(layer: &Descriptor, what: &str) -> Result<()> {
    let kind = layer.media_type.as_str();
    let tar = kind
        .strip_prefix("application/vnd.oci.image.layer.v1.tar")
        .or_else(|| kind.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar"))
        .or_else(|| kind.strip_prefix("application/vnd.docker.image.rootfs.diff.tar"))
        .or_else(|| kind.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar"));
    match tar {
        Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd") => Ok(()),
        _ => Err(refused(format!(
            "{what} has a layer of the kind '{}', which is not supported; supported are tar archives, plain or compressed by gzip or zstd",
            shown(kind)
        ))),
    }
}

/// The parts of an image's configuration that an import needs.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    #[serde(flatten)]
    pub platform: Platform,
    pub rootfs: RootFs,
}

/// Digests of the uncompressed layers.
#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    pub diff_ids: Vec<String>,
}

impl Config {
    /// Parses a configuration. It must list as many layers as the manifest does.
    pub fn parse(bytes: &[u8], layers: usize, what: &str) -> Result<Self> {
        let config: Config = json(bytes, what)?;
        if config.rootfs.diff_ids.len() != layers {
            return Err(refused(format!(
                "{what} lists {} layers, the manifest {layers}",
                config.rootfs.diff_ids.len()
            )));
        }
        Ok(config)
    }
}
