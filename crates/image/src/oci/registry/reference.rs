//! Names of images in registries: `registry[:port]/repository[:tag][@digest]` (reference grammar of the distribution project;
//! Docker adds `docker.io` and `library/`).

use crate::{error::ImportError, oci::Digest};
use std::{fmt, net::IpAddr};

/// Longest name of registry and repository together (by the same grammar).
const MOST_NAME: usize = 255;
const DOCKER_HUB: &str = "docker.io";

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Registry as people write it: `docker.io`, `registry.example:5000`.
    pub registry: String,
    /// `library/debian`.
    pub repository: String,
    /// `12`; none if the name only has a digest.
    pub tag: Option<String>,
    /// The digest that the image must have; none if the name has none.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Parses the part after `docker://`.
    pub fn parse(text: &str) -> Result<Self, ImportError> {
        let wrong = |why: &str| {
            ImportError::Request(format!(
                "'docker://{}' is not the name of an image: {why}; write docker://REGISTRY/REPOSITORY:TAG, such as \
                 docker://registry.example:5000/cluster/node:12",
                text.escape_debug()
            ))
        };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) if digest.starts_with("sha256:") => (name, Some(Digest::parse(digest)?)),
            // The text may contain a password, so it is not shown.
            Some(_) => {
                return Err(ImportError::Request(
                    "only a digest, @sha256:…, may follow an image's name; put user and password into a file, see \
                     --credentials"
                        .to_owned(),
                ));
            }
            None => (text, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':', '[']) || host == "localhost" => (host, path),
            _ => (DOCKER_HUB, name),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if !valid_registry(registry) {
            return Err(wrong("the registry must be HOST or HOST:PORT"));
        }
        if !repository.split('/').all(valid_component) || registry.len() + repository.len() >= MOST_NAME {
            return Err(wrong(
                "a repository must have parts of lower-case letters, digits and single '.', '_', '-' between them",
            ));
        }
        if let Some(tag) = tag
            && !valid_tag(tag)
        {
            return Err(wrong("a tag must have up to 128 letters, digits, '_', '.', '-'"));
        }
        let repository = match registry == DOCKER_HUB && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        Ok(Reference {
            registry: registry.to_owned(),
            repository,
            tag: match (tag, digest) {
                (Some(tag), _) => Some(tag.to_owned()),
                (None, Some(_)) => None,
                (None, None) => Some("latest".to_owned()),
            },
            digest,
        })
    }

    /// Host and port to connect to.
    pub fn server(&self) -> &str {
        match self.registry.as_str() {
            DOCKER_HUB | "index.docker.io" => "registry-1.docker.io",
            other => other,
        }
    }

    /// True if the registry is this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(self.server())
    }

    /// The tag or digest with which the manifest is requested.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same image, with the digest of the manifest that was read.
    pub fn with_digest(&self, digest: Option<&Digest>) -> String {
        let mut taken = self.clone();
        taken.digest = digest.copied().or(self.digest);
        taken.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "docker://{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// True if `server`, `HOST` or `HOST:PORT`, is this machine.
pub(super) fn is_loopback(server: &str) -> bool {
    let host = match server.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => server.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn valid_registry(text: &str) -> bool {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((ip, rest)) if ip.parse::<std::net::Ipv6Addr>().is_ok() => ("x", rest),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let valid_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let valid_port = rest.is_empty()
        || rest
            .strip_prefix(':')
            .is_some_and(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    host.split('.').all(valid_label) && valid_port
}

fn valid_component(text: &str) -> bool {
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |s: &str| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(text.chars().next()) && edge(text.chars().last()) && separators.into_iter().all(inner)
}

fn valid_tag(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_get_registry_and_tag_and_malformed_ones_are_refused() {
        for (text, full, server) in [
            (
                "debian",
                "docker://docker.io/library/debian:latest",
                "registry-1.docker.io",
            ),
            ("me/x:1", "docker://docker.io/me/x:1", "registry-1.docker.io"),
            ("localhost/x", "docker://localhost/x:latest", "localhost"),
            ("h:5000/a/b__c:1.2-x", "docker://h:5000/a/b__c:1.2-x", "h:5000"),
            ("[::1]:5000/x", "docker://[::1]:5000/x:latest", "[::1]:5000"),
            ("quay.io/a/b", "docker://quay.io/a/b:latest", "quay.io"),
        ] {
            let read = Reference::parse(text).unwrap();
            assert_eq!((read.to_string().as_str(), read.server()), (full, server));
        }
        let pinned = Reference::parse(&format!("h.example/x:1@{DIGEST}")).unwrap();
        assert_eq!(pinned.wanted(), DIGEST);
        assert_eq!(pinned.to_string(), format!("docker://h.example/x:1@{DIGEST}"));
        let tagged = Reference::parse("h.example/x:1").unwrap();
        assert_eq!(tagged.with_digest(Some(&Digest::of(b""))), pinned.to_string());
        let alone = Reference::parse(&format!("h.example/x@{DIGEST}")).unwrap();
        assert_eq!((alone.tag, alone.digest.is_some()), (None, true));
        for wrong in [
            "",
            "/",
            "h.example/",
            "UP/x",
            "h.example/../x",
            "h.example/a//b",
            "h:0/x",
            "h:99999/x",
            "-h.x/y",
            "a..b.c/x",
            "h.example/x:",
            "h.example/x:a/b:.t",
            "h.example/x y",
            "h.example/x?y",
            "[::1/x",
            "h.example/x:ü",
            "h.example/x.",
            "h.example/a..b",
        ] {
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
        let error = Reference::parse("me:secret@h.example/x").unwrap_err().to_string();
        assert!(error.contains("--credentials") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn loopback_is_recognised() {
        for (server, is) in [
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("127.9.9.9:1", true),
            ("[::1]:80", true),
            ("localhost.example", false),
            ("10.0.0.1", false),
            ("127.0.0.1.example", false),
            ("[::2]", false),
        ] {
            assert_eq!(is_loopback(server), is, "{server}");
        }
    }
}
