//! Sends requests to a registry, with the authentication that it requires.

use super::{
    Reference,
    auth::{Challenge, check_realm, error_text, token},
    credentials::{Credentials, look_up},
    download::Download,
};
use crate::oci::{
    Blobs, Digest, OciOptions, Result, Start, read_small, refused,
    spec::{DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST},
};
use std::{io::Read, time::Duration};
use ureq::{
    Agent, Body,
    config::RedirectAuthHeaders,
    http::{Response, StatusCode, header},
    tls::{Certificate, RootCerts, TlsConfig},
};

/// A connection that is silent for this long is closed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most failures in a row of one request.
pub(super) const ATTEMPTS: u32 = 5;
/// Most bytes of an error's body.
const MOST_ERROR: u64 = 64 << 10;

/// Pause before another attempt; each is twice as long as the one before.
pub(super) fn pause(failures: u32) -> Duration {
    let first = Duration::from_millis(if cfg!(test) { 5 } else { 500 });
    first * 2u32.pow(failures.min(6))
}

/// A registry, connected.
pub(in crate::oci) struct Registry {
    agent: Agent,
    /// `https://host:port`
    base: String,
    reference: Reference,
    insecure: bool,
    credentials: Option<Credentials>,
    credentials_remark: Option<String>,
    /// The current value of the Authorization header.
    authorization: Option<String>,
    /// Remarks for people.
    pub(super) remarks: Vec<String>,
}

impl Registry {
    /// Finds out how to reach the registry of `reference`: by TLS, or by plain HTTP if that is allowed.
    pub fn connect(reference: &Reference, options: &OciOptions) -> Result<Self> {
        let looked = look_up(options.credentials.as_deref(), reference)?;
        let server = reference.server();
        let plain_allowed = options.insecure || reference.is_loopback();
        let mut registry = Registry {
            agent: agent(true, reference.is_loopback())?,
            base: format!("https://{server}"),
            reference: reference.clone(),
            insecure: options.insecure,
            credentials: looked.found,
            credentials_remark: looked.remark,
            authorization: None,
            remarks: Vec::new(),
        };
        let Err(tls) = registry.agent.get(format!("{}/v2/", registry.base)).call() else {
            return Ok(registry);
        };
        // A server with a certificate speaks TLS. Plain HTTP after a wrong certificate would help an attacker.
        let untrusted = is_untrusted(&tls);
        if plain_allowed && !untrusted {
            let agent = agent(false, reference.is_loopback())?;
            let plain = agent.get(format!("http://{server}/v2/")).call();
            match plain {
                Ok(response) if response.status() == StatusCode::BAD_REQUEST => {
                    return Err(refused(format!(
                        "registry {server} does not answer: {tls} by https, 400 by http"
                    )));
                }
                Ok(_) => {
                    registry.agent = agent;
                    registry.base = format!("http://{server}");
                    return Ok(registry);
                }
                Err(plain) => {
                    return Err(refused(format!(
                        "registry {server} does not answer: {tls} by https, {plain} by http"
                    )));
                }
            }
        }
        let hint = match (untrusted, &tls) {
            (true, _) => {
                "; install the certificate of your own CA in /usr/local/share/ca-certificates (then \
                 update-ca-certificates), or in a file that SSL_CERT_FILE names"
            }
            (_, ureq::Error::Io(_) | ureq::Error::Rustls(_) | ureq::Error::ConnectionFailed) => {
                "; a registry without TLS needs --insecure"
            }
            _ => "",
        };
        Err(refused(format!(
            "registry https://{server} does not answer: {tls}{hint}"
        )))
    }

    /// Requests `path` below the repository. Returns a response of 2xx, and retries failures that may be temporary.
    pub(super) fn get(&mut self, path: &str, headers: &[(&str, &str)], what: &str) -> Result<Response<Body>> {
        let url = format!("{}/v2/{}/{path}", self.base, self.reference.repository);
        let mut failures = 0;
        let mut asked_for_token = false;
        loop {
            let mut request = self.agent.get(&url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(authorization) = &self.authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let (error, wait) = match request.call() {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !asked_for_token => {
                    // This also happens in the middle of an image: tokens are valid for minutes.
                    asked_for_token = true;
                    self.authorize(&response)?;
                    continue;
                }
                Ok(response) => {
                    let status = response.status();
                    let after = retry_after(&response);
                    let error = self.explain(status, response, what);
                    let passes = status.is_server_error()
                        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
                    if !passes {
                        return Err(error);
                    }
                    (error, after)
                }
                Err(e) => (refused(format!("asking {} for {what}: {e}", self.base)), None),
            };
            failures += 1;
            if failures >= ATTEMPTS {
                return Err(refused(format!("{error} ({ATTEMPTS} attempts)")));
            }
            std::thread::sleep(wait.unwrap_or_else(|| pause(failures)));
        }
    }

    fn explain(&self, status: StatusCode, response: Response<Body>, what: &str) -> crate::ImportError {
        let mut body = Vec::new();
        // The body is an explanation; reading it may fail.
        let _ = response
            .into_body()
            .into_reader()
            .take(MOST_ERROR)
            .read_to_end(&mut body);
        let said = match error_text(&body) {
            said if said.is_empty() => String::new(),
            said => format!(" ({said})"),
        };
        let server = self.reference.server();
        let refusal = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let hint = match (&self.credentials, &self.credentials_remark) {
                    (Some(_), _) => "the credentials are wrong, or not valid for that repository".to_owned(),
                    (None, Some(remark)) => remark.clone(),
                    (None, None) => {
                        "it requires credentials: `docker login`, or a file like Docker's config.json for --credentials"
                            .to_owned()
                    }
                };
                format!("{server} refuses {what}: {status}{said}; {hint}")
            }
            StatusCode::NOT_FOUND => format!("{what} does not exist at {server}{said}"),
            StatusCode::TOO_MANY_REQUESTS => format!("{server} limits requests{said}; try later, or log in"),
            _ => format!("{server} did not send {what}: {status}{said}"),
        };
        refused(refusal)
    }

    /// Finds the authentication that a refusal requires.
    fn authorize(&mut self, response: &Response<Body>) -> Result<()> {
        let values = response.headers().get_all(header::WWW_AUTHENTICATE);
        let values: Vec<&str> = values.iter().filter_map(|value| value.to_str().ok()).collect();
        match Challenge::parse(values.into_iter()) {
            Some(Challenge::Basic) => self.authorization = self.credentials.as_ref().and_then(Credentials::basic),
            Some(Challenge::Bearer { realm, service, scope }) => {
                check_realm(&realm, self.insecure)?;
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository));
                let service = service.unwrap_or_default();
                self.authorization = Some(format!("Bearer {}", self.token(&realm, &service, &scope)?));
            }
            // The refusal itself is shown to people.
            None => self.authorization = None,
        }
        Ok(())
    }

    fn token(&self, realm: &str, service: &str, scope: &str) -> Result<String> {
        let response = match &self.credentials {
            Some(Credentials::Refresh(refresh)) => self.agent.post(realm).send_form([
                ("grant_type", "refresh_token"),
                ("client_id", "rackstrap"),
                ("service", service),
                ("scope", scope),
                ("refresh_token", refresh),
            ]),
            other => {
                let mut request = self.agent.get(realm).query("service", service).query("scope", scope);
                if let Some(basic) = other.as_ref().and_then(Credentials::basic) {
                    request = request.header(header::AUTHORIZATION, basic);
                }
                request.call()
            }
        };
        let response =
            response.map_err(|e| refused(format!("asking {} for a token: {e}", crate::oci::shown(realm))))?;
        match response.status() {
            status if status.is_success() => {
                let body = response.into_body().into_reader();
                token(&read_small(body, "the token")?)
            }
            status => Err(self.explain(status, response, &format!("a token for {}", self.reference.repository))),
        }
    }

    /// Opens a blob at offset `at`. Returns whether the bytes start there; if false, they start at the blob's beginning.
    pub(super) fn open_blob(&mut self, digest: &Digest, at: u64, size: u64) -> Result<(Box<dyn Read>, bool)> {
        let range = format!("bytes={at}-");
        let headers = [("range", range.as_str())];
        let what = format!("the blob {digest}");
        let response = self.get(&format!("blobs/{digest}"), if at > 0 { &headers } else { &[] }, &what)?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        if partial {
            let begins = response
                .headers()
                .get(header::CONTENT_RANGE)
                .and_then(|value| value.to_str().ok());
            if begins.is_none_or(|range| !range.starts_with(&format!("bytes {at}-"))) {
                return Err(refused(format!(
                    "{} sent another part of {what} than requested",
                    self.reference.server()
                )));
            }
        }
        let expected = if partial { size.saturating_sub(at) } else { size };
        match response.body().content_length() {
            Some(length) if length != expected => Err(refused(format!(
                "{what} does not match the manifest: the registry has {length} bytes, the manifest says {expected}"
            ))),
            _ => Ok((Box::new(response.into_body().into_reader()), partial)),
        }
    }

    fn manifest(&mut self, name: &str) -> Result<(Vec<u8>, Option<String>)> {
        let accept = [INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let what = format!("manifest {}:{name}", self.reference.repository);
        let response = self.get(&format!("manifests/{name}"), &[("accept", &accept)], &what)?;
        let text = |name| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let kind = text("content-type");
        let promised = text("docker-content-digest");
        let bytes = read_small(response.into_body().into_reader(), &what)?;
        if let Some(promised) = promised.and_then(|text| Digest::parse(&text).ok())
            && promised != Digest::of(&bytes)
        {
            return Err(refused(format!(
                "{what} does not match the digest that the registry sent; it was changed or damaged on its way"
            )));
        }
        Ok((bytes, kind))
    }
}

impl Blobs for Registry {
    fn start(&mut self) -> Result<Start> {
        let (bytes, kind) = self.manifest(&self.reference.wanted())?;
        let digest = Digest::of(&bytes);
        if let Some(wanted) = self.reference.digest
            && wanted != digest
        {
            return Err(refused(format!(
                "the manifest of {} does not match its digest: found {digest}",
                self.reference
            )));
        }
        Ok(Start {
            bytes,
            // Parameters may follow.
            media_type: kind.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_owned()),
            digest: Some(digest),
            name: self.reference.to_string(),
        })
    }

    fn open(&mut self, digest: &Digest, size: u64, manifest: bool) -> Result<Box<dyn Read + '_>> {
        match manifest {
            true => Ok(Box::new(std::io::Cursor::new(self.manifest(&digest.to_string())?.0))),
            false => Ok(Box::new(Download::new(self, *digest, size))),
        }
    }

    fn remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }
}

/// True if the server's certificate is not trusted.
fn is_untrusted(error: &ureq::Error) -> bool {
    let cause = match error {
        ureq::Error::Rustls(cause) => Some(cause),
        ureq::Error::Io(e) => e.get_ref().and_then(|cause| cause.downcast_ref()),
        _ => None,
    };
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    const MOST: u64 = 60;
    let seconds: u64 = response
        .headers()
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.min(MOST)))
}

fn agent(tls: bool, loopback: bool) -> Result<Agent> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .https_only(tls)
        .user_agent(concat!("rackstrap/", env!("CARGO_PKG_VERSION")))
        .max_redirects(5)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .timeout_resolve(Some(PATIENCE))
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .timeout_per_write(Some(PATIENCE));
    if loopback {
        // A proxy must not be used for this machine itself.
        config = config.proxy(None);
    }
    if tls {
        // Another thread may have installed it already; it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            return Err(refused(
                "this machine has no trusted certificates, so it can trust no registry: apt install ca-certificates",
            ));
        }
        let roots: Vec<Certificate<'static>> = found
            .certs
            .iter()
            .map(|c| Certificate::from_der(c).to_owned())
            .collect();
        let tls = TlsConfig::builder().root_certs(RootCerts::from(roots)).build();
        config = config.tls_config(tls);
    }
    Ok(Agent::new_with_config(config.build()))
}
