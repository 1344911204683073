//! Parses the value of `--from`: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker://REGISTRY/REPOSITORY…`.

use super::{Digest, ImportError, Result, registry::Reference};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

/// The place of a container image.
#[derive(Debug)]
pub(super) enum Location {
    /// A layout in a directory.
    Layout { dir: PathBuf, tag: Option<String> },
    /// A layout or an output of `docker save` in an archive.
    Archive { file: PathBuf, tag: Option<String> },
    /// A registry.
    Registry(Reference),
}

impl Location {
    /// None if `text` has none of the three prefixes.
    pub fn parse(text: &OsStr) -> Option<Result<Self>> {
        let bytes = text.as_bytes();
        if let Some(rest) = bytes.strip_prefix(b"docker://") {
            let text = std::str::from_utf8(rest)
                .map_err(|_| ImportError::Request("the name of an image in a registry must be plain ASCII".to_owned()));
            return Some(text.and_then(|text| Ok(Location::Registry(Reference::parse(text)?))));
        }
        let path = |rest: &[u8]| OsString::from_vec(rest.to_vec());
        if let Some(rest) = bytes.strip_prefix(b"oci-archive:") {
            return Some(with_tag(path(rest)).map(|(file, tag)| Location::Archive { file, tag }));
        }
        let rest = bytes.strip_prefix(b"oci:")?;
        Some(with_tag(path(rest)).map(|(dir, tag)| Location::Layout { dir, tag }))
    }

    /// The tag, if the place has several images.
    pub fn tag(&self) -> Option<&str> {
        match self {
            Location::Layout { tag, .. } | Location::Archive { tag, .. } => tag.as_deref(),
            // The registry has resolved the tag already.
            Location::Registry(_) => None,
        }
    }

    /// The same place, with the digest of the image that was read.
    pub fn with_digest(&self, digest: Option<&Digest>) -> String {
        let (word, path, tag) = match self {
            Location::Registry(reference) => return reference.with_digest(digest),
            Location::Layout { dir, tag } => ("oci", dir, tag),
            Location::Archive { file, tag } => ("oci-archive", file, tag),
        };
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let tag = tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{word}:{}{tag}{digest}", path.display())
    }
}

/// Splits the part after the last colon from a path, unless a file has that colon in its name.
fn with_tag(text: OsString) -> Result<(PathBuf, Option<String>)> {
    let bytes = text.as_bytes();
    let whole = PathBuf::from(&text);
    if bytes.is_empty() {
        return Err(ImportError::Request(
            "oci: and oci-archive: must be followed by a path".to_owned(),
        ));
    }
    let Some(at) = bytes.iter().rposition(|b| *b == b':') else {
        return Ok((whole, None));
    };
    let path = PathBuf::from(OsStr::from_bytes(&bytes[..at]));
    let tag = std::str::from_utf8(&bytes[at + 1..]);
    match tag {
        Ok(tag) if !tag.is_empty() && !tag.contains('/') && !whole.exists() && path.exists() => {
            Ok((path, Some(tag.to_owned())))
        }
        _ => Ok((whole, None)),
    }
}
