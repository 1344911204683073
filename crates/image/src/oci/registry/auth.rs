//! Authentication of a registry (RFC 9110, section 11; token authentication of the distribution project).

use super::reference::is_loopback;
use crate::oci::{Result, refused, shown, spec::json};
use http_auth::parse_challenges;
use serde::Deserialize;

/// The authentication that a refused request may try next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from another server.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The first supported challenge in all `WWW-Authenticate` headers; tokens come before passwords.
    pub fn parse<'v>(values: impl Iterator<Item = &'v str>) -> Option<Self> {
        let mut basic = None;
        for value in values {
            let Ok(challenges) = parse_challenges(value) else {
                continue;
            };
            for challenge in challenges {
                let param = |name: &str| {
                    let mut params = challenge.params.iter();
                    params.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.to_unescaped()))
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = param("realm")
                {
                    return Some(Challenge::Bearer {
                        realm,
                        service: param("service"),
                        scope: param("scope"),
                    });
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Challenge::Basic);
                }
            }
        }
        basic
    }
}

/// Refuses a token server to which passwords would be sent in plain text.
pub(super) fn check_realm(realm: &str, insecure: bool) -> Result<()> {
    let plain = realm.strip_prefix("http://");
    let host = plain.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let safe = realm.starts_with("https://") || host.is_some_and(|host| insecure || is_loopback(host));
    match safe {
        true => Ok(()),
        false => Err(refused(format!(
            "the registry requires a token from {}, which is not https; secrets are not sent there (--insecure sends them)",
            shown(realm)
        ))),
    }
}

/// The token in an answer.
pub(super) fn token(bytes: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = match serde_json::from_slice(bytes) {
        Ok(answer) => answer,
        // The parser's message could quote a token.
        Err(_) => return Err(refused("the answer of the registry's token server is not valid")),
    };
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    token.ok_or_else(|| refused("the answer of the registry's token server contains no token"))
}

/// The registry's explanation of a failure (OCI distribution specification, "Error Codes"); empty if it gives none.
pub(super) fn error_text(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(answer) = json::<Answer>(bytes, "") else {
        return String::new();
    };
    let said = answer
        .errors
        .iter()
        .take(3)
        .map(|one| format!("{}: {}", one.code, one.message));
    shown(&said.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bearer_challenge_is_found_among_others() {
        let parse = |values: &[&str]| Challenge::parse(values.iter().copied());
        assert_eq!(parse(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(
            parse(&[
                "Basic realm=\"x\", Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a/b:pull,push\""
            ]),
            Some(Challenge::Bearer {
                realm: "https://a/t".into(),
                service: Some("s".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert!(
            matches!(parse(&["Negotiate", "bearer Realm=\"r\""]), Some(Challenge::Bearer { realm, .. }) if realm == "r")
        );
        for none in [&[][..], &["Negotiate"], &["Bearer service=\"s\""], &["\"", "=,=", ""]] {
            assert_eq!(parse(none), None, "{none:?}");
        }
    }

    #[test]
    fn tokens_are_not_fetched_in_plain_text() {
        assert!(check_realm("https://a.example/token", false).is_ok());
        assert!(check_realm("http://127.0.0.1:5001/token", false).is_ok());
        assert!(check_realm("http://a.example/token", true).is_ok());
        for realm in [
            "http://a.example/token",
            "http://127.0.0.1@a.example/",
            "ftp://x",
            "",
            "http://localhost.a.example",
        ] {
            assert!(check_realm(realm, false).is_err(), "{realm}");
        }
        assert_eq!(token(br#"{"access_token": "t", "expires_in": 3}"#).unwrap(), "t");
        for wrong in [&b"{}"[..], b"secret", br#"{"token": ""}"#, br#"{"token": ["secret"]}"#] {
            let error = token(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
