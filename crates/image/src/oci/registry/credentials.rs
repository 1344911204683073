//! Reads user and password for a registry from files of `docker login` and `podman login`.

use super::Reference;
use crate::error::{Doing, ImportError, Result};
use base64::Engine;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

/// Most bytes of such a file.
const MOST_BYTES: u64 = 1 << 20;

/// Credentials for a registry. They are neither logged nor shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// User and password.
    Password { user: String, password: String },
    /// A token for requesting tokens (Docker's `identitytoken`).
    Refresh(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// The value of an Authorization header, for user and password.
    pub fn basic(&self) -> Option<String> {
        match self {
            Credentials::Password { user, password } => {
                let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                Some(format!("Basic {text}"))
            }
            Credentials::Refresh(_) => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

/// The result of looking for a registry in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lookup {
    /// The credentials; none if the file has none.
    pub found: Option<Credentials>,
    /// A remark for people, shown if a request is refused.
    pub remark: Option<String>,
}

/// Looks for credentials in `named`, or else in Docker's own file: `$DOCKER_CONFIG/config.json`, `~/.docker/config.json`.
pub(super) fn look_up(named: Option<&Path>, reference: &Reference) -> Result<Lookup> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => match default_file() {
            Some(path) => path,
            None => return Ok(Lookup::default()),
        },
    };
    let doing = || format!("reading the credentials in {}", path.display());
    let mut text = String::new();
    match File::open(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound && named.is_none() => return Ok(Lookup::default()),
        file => file
            .doing(doing)?
            .take(MOST_BYTES)
            .read_to_string(&mut text)
            .doing(doing)?,
    };
    read(&text, &path, reference)
}

fn default_file() -> Option<PathBuf> {
    let dir = match std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => std::env::home_dir()?.join(".docker"),
    };
    Some(dir.join("config.json"))
}

fn read(text: &str, path: &Path, reference: &Reference) -> Result<Lookup> {
    let wrong = |what: String| ImportError::Request(format!("{}: {what}", path.display()));
    // The parser's message could quote a password.
    let file: ConfigFile = serde_json::from_str(text).map_err(|e| {
        wrong(format!(
            "line {}, column {}: this is not a file of `docker login`",
            e.line(),
            e.column()
        ))
    })?;
    let wanted = keys(reference);
    let entry = wanted.iter().find_map(|wanted| {
        let mut entries = file.auths.iter();
        entries.find_map(|(key, entry)| (plain_key(key) == *wanted).then_some(entry))
    });
    let helper = wanted
        .iter()
        .find_map(|key| file.cred_helpers.get(key))
        .or(file.creds_store.as_ref());
    let remark = helper.map(|helper| {
        format!(
            "{} stores the credentials of {} in the helper '{}', which is not supported; write them to a file for \
             --credentials",
            path.display(),
            reference.registry,
            helper.escape_debug()
        )
    });
    let found = match entry {
        Some(entry) => {
            credentials(entry).map_err(|why| wrong(format!("the entry for {}: {why}", reference.registry)))?
        }
        None => None,
    };
    Ok(match found {
        Some(found) => Lookup {
            found: Some(found),
            remark: None,
        },
        None => Lookup { found: None, remark },
    })
}

fn credentials(entry: &Entry) -> std::result::Result<Option<Credentials>, &'static str> {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = filled(&entry.identitytoken) {
        return Ok(Some(Credentials::Refresh(token)));
    }
    if let Some(auth) = filled(&entry.auth) {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(auth.trim())
            .map_err(|_| "'auth' is not base64")?;
        // Docker pads passwords with NUL.
        let text = String::from_utf8(bytes).map_err(|_| "'auth' is not text")?;
        let (user, password) = text.split_once(':').ok_or("'auth' is not USER:PASSWORD in base64")?;
        return Ok(Some(Credentials::Password {
            user: user.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        }));
    }
    Ok(match (filled(&entry.username), filled(&entry.password)) {
        (Some(user), Some(password)) => Some(Credentials::Password { user, password }),
        _ => None,
    })
}

/// Keys of the credentials, most specific first: those of podman may name a part of a registry.
fn keys(reference: &Reference) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = format!("{}/{}", reference.registry, reference.repository);
    loop {
        keys.push(path.clone());
        match path.rfind('/') {
            Some(at) => path.truncate(at),
            None => break,
        }
    }
    if reference.server() != reference.registry {
        keys.extend(["index.docker.io".to_owned(), reference.server().to_owned()]);
    }
    keys
}

/// A key without `https://` and old paths: `https://index.docker.io/v1/` becomes `index.docker.io`.
fn plain_key(key: &str) -> &str {
    let key = key
        .strip_prefix("https://")
        .or(key.strip_prefix("http://"))
        .unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str, image: &str) -> Lookup {
        read(text, Path::new("config.json"), &Reference::parse(image).unwrap()).unwrap()
    }

    fn password(text: &str, image: &str) -> Option<String> {
        match look(text, image).found? {
            Credentials::Password { user, password } => Some(format!("{user} {password}")),
            Credentials::Refresh(token) => Some(token),
        }
    }

    #[test]
    fn files_of_docker_and_podman() {
        // alice:wonder:land and bob:builder
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YWxpY2U6d29uZGVyOmxhbmQ="},
            "h.example:5000": {"auth": "Ym9iOmJ1aWxkZXI="},
            "h.example:5000/team": {"username": "carol", "password": "x"},
            "t.example": {"identitytoken": "refresh", "auth": "PHRva2VuPjo="},
            "e.example": {}
        }, "credsStore": "pass", "unknown": [1]}"#;
        assert_eq!(password(text, "debian").as_deref(), Some("alice wonder:land"));
        assert_eq!(password(text, "h.example:5000/other/x").as_deref(), Some("bob builder"));
        assert_eq!(password(text, "h.example:5000/team/x").as_deref(), Some("carol x"));
        assert_eq!(password(text, "t.example/x").as_deref(), Some("refresh"));
        assert_eq!(password(text, "h.example/x"), None);
        let asked = look(text, "e.example/x");
        assert!(asked.found.is_none() && asked.remark.unwrap().contains("'pass'"));
        assert_eq!(look("{}", "e.example/x"), Lookup::default());
        let basic = look(text, "h.example:5000/x").found.unwrap();
        assert_eq!(basic.basic().unwrap(), "Basic Ym9iOmJ1aWxkZXI=");
        assert_eq!(format!("{basic:?}"), "Credentials(..)");
    }

    #[test]
    fn errors_do_not_quote_them() {
        for text in [
            r#"{"auths": {"h.example": "c2VjcmV0"}}"#,
            r#"{"auths": {"h.example": {"auth": "c2VjcmV0"}}}"#,
            r#"{"auths": {"h.example": {"auth": "secret!"}}}"#,
            "secret",
        ] {
            let error = read(
                text,
                Path::new("config.json"),
                &Reference::parse("h.example/x").unwrap(),
            );
            let error = error.unwrap_err().to_string();
            assert!(
                error.starts_with("config.json: ") && !error.contains("ecret") && !error.contains("c2V"),
                "{error}"
            );
        }
    }
}
