//! Compares the platforms of an image's variants with that of the nodes.

use super::{Result, refused};
use rackstrap_base::arch::Architecture;
use serde::Deserialize;
use std::{fmt, str::FromStr};

/// A platform, as in container images (OCI image index specification; values as Go's GOOS and GOARCH).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Platform {
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// `v8`, if an architecture has several.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    pub fn native() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
    }

    /// That of Linux on machines of this architecture.
    pub fn of(architecture: Architecture) -> Self {
        let name = match architecture {
            Architecture::I386 => "386".to_owned(),
            other => other.to_string(),
        };
        Platform {
            os: "linux".to_owned(),
            architecture: name,
            variant: None,
        }
    }

    /// The architecture of its machines; none if it is not known here.
    pub fn architecture(&self) -> Option<Architecture> {
        match self.architecture.as_str() {
            "386" => Some(Architecture::I386),
            name => Architecture::of_name(name),
        }
    }

    /// How well the image's platform `self` fits `wanted`: 0 is best, none means not at all.
    pub fn rank(&self, wanted: &Platform) -> Option<u8> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        let own = self.variant.as_deref().filter(|v| !v.is_empty());
        match (wanted.variant.as_deref(), own) {
            (Some(wanted), Some(own)) => (wanted == own).then_some(0),
            (Some(wanted), None) => (self.base_variant() == Some(wanted)).then_some(1),
            (None, None) => Some(0),
            // On 32-bit ARM, every server has v7. On other architectures, the plain variant runs everywhere.
            (None, Some(own)) => match (self.architecture.as_str(), own) {
                ("arm", own) => Some(match own {
                    "v7" => 1,
                    "v6" => 2,
                    _ => 3,
                }),
                (_, own) if self.base_variant() == Some(own) => Some(0),
                (_, own) => own.bytes().last().map(|b| b.clamp(b'0', b'9') - b'0' + 1),
            },
        }
    }

    /// The variant of an image that names none (containerd's platforms package, normalisation).
    fn base_variant(&self) -> Option<&'static str> {
        match self.architecture.as_str() {
            "amd64" => Some("v1"),
            "arm64" => Some("v8"),
            "arm" => Some("v7"),
            _ => None,
        }
    }
}

impl FromStr for Platform {
    type Err = super::ImportError;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let plain = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
        let (2 | 3, true) = (parts.len(), parts.iter().all(plain)) else {
            return Err(refused(format!(
                "'{}' is not a platform; write it as linux/amd64, linux/arm64 or linux/arm/v7",
                text.escape_debug()
            )));
        };
        Ok(Platform {
            os: parts[0].to_owned(),
            architecture: parts[1].to_owned(),
            variant: parts.get(2).map(|v| (*v).to_owned()),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = format!("{}/{}", self.os, self.architecture);
        f.write_str(&super::shown(&shown))?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{}", super::shown(variant)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plainest_matching_platform_is_best() {
        let p = |text: &str| text.parse::<Platform>().unwrap();
        let rank = |own: &str, wanted: &str| p(own).rank(&p(wanted));
        assert_eq!(rank("linux/amd64", "linux/amd64"), Some(0));
        assert!(rank("linux/amd64/v3", "linux/amd64") > rank("linux/amd64/v2", "linux/amd64"));
        assert_eq!(rank("linux/amd64/v3", "linux/amd64/v3"), Some(0));
        assert_eq!(rank("linux/amd64/v2", "linux/amd64/v3"), None);
        assert_eq!(rank("linux/arm64/v8", "linux/arm64"), Some(0));
        assert_eq!(rank("linux/arm64", "linux/arm64/v8"), Some(1));
        assert!(rank("linux/arm/v7", "linux/arm") < rank("linux/arm/v5", "linux/arm"));
        assert_eq!(rank("linux/arm/v7", "linux/arm64"), None);
        assert_eq!(rank("windows/amd64", "linux/amd64"), None);
        assert_eq!(rank("unknown/unknown", "linux/amd64"), None);
        for wrong in ["", "linux", "linux/", "a/b/c/d", "linux/a b"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
        assert_eq!(Platform::native().rank(&Platform::native()), Some(0));
        for architecture in Architecture::ALL {
            assert_eq!(Platform::of(architecture).architecture(), Some(architecture));
        }
        assert_eq!(Platform::of(Architecture::I386), p("linux/386"));
        assert_eq!(Some(Platform::native()), Architecture::native().map(Platform::of));
    }
}
