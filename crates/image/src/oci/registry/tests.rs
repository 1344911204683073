//! Small simulated registries that behave like real registries and networks, with their faults.

use crate::{
    ImportError,
    oci::{
        Digest, OciOptions, Platform, Result, spec,
        tests::{Images, Place, tar_of},
    },
};
use serde_json::json;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A request: its path with the query, and the relevant headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Request {
    line: String,
    path: String,
    authorization: Option<String>,
    range: Option<String>,
    host: String,
}

type Answer = dyn FnMut(&Request) -> Vec<u8> + Send;

struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Serves on loopback until the process ends. `answer` returns the bytes. Each connection has one request.
    fn start(mut answer: Box<Answer>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let Some(request) = read_request(&connection) else {
                    continue;
                };
                log.lock().unwrap().push(request.clone());
                let _ = connection.write_all(&answer(&request));
            }
        });
        Server { port, seen }
    }

    fn source(&self, name: &str) -> String {
        format!("docker://127.0.0.1:{}/{name}", self.port)
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

/// None if it is not HTTP: an attempt to speak TLS.
fn read_request(connection: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(connection).lines();
    let line = lines.next()?.ok()?;
    let mut request = Request {
        path: line.split(' ').nth(1)?.to_owned(),
        line,
        ..Request::default()
    };
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            return Some(request);
        }
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = Some(value.to_owned()),
            "range" => request.range = Some(value.to_owned()),
            "host" => request.host = value.to_owned(),
            _ => {}
        }
    }
    None
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An image with one uncompressed layer, which has a file of `size` bytes.
fn image(size: usize) -> (Images, Vec<u8>, Digest) {
    let content: Vec<u8> = (0..size as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let layer = tar_of(&[(b'0', "file", "", &content)]);
    let mut images = Images::default();
    let manifest = images.image(&Platform::native().architecture, std::slice::from_ref(&layer));
    let digest = Digest::parse(manifest["digest"].as_str().unwrap()).unwrap();
    (images, layer, digest)
}

/// The answer of a registry without faults.
fn plain(images: &Images, manifest: &Digest, request: &Request) -> Vec<u8> {
    let name = request.path.rsplit('/').next().unwrap_or_default();
    let kind = format!("content-type: {}; charset=utf-8\r\n", spec::MANIFEST);
    match request.path.as_str() {
        "/v2/" => reply("200 OK", "", b"{}"),
        path if path.contains("/manifests/") && (name == "12" || name == manifest.to_string()) => {
            reply("200 OK", &kind, &images.blobs[manifest])
        }
        path if path.contains("/blobs/") => match Digest::parse(name).ok().and_then(|d| images.blobs.get(&d)) {
            Some(bytes) => reply("200 OK", "", bytes),
            None => reply(
                "404 Not Found",
                "",
                br#"{"errors": [{"code": "BLOB_UNKNOWN", "message": "gone\u001b[2J"}]}"#,
            ),
        },
        _ => reply(
            "404 Not Found",
            "",
            br#"{"errors": [{"code": "NAME_UNKNOWN", "message": "no such name"}]}"#,
        ),
    }
}

fn pull_with(source: &str, credentials: &str) -> (Place, Result<String>) {
    let place = Place::new();
    fs::write(place.at("credentials"), credentials).unwrap();
    let options = OciOptions {
        credentials: Some(place.at("credentials")),
        ..OciOptions::default()
    };
    let taken = place.extract_with(source, &options);
    (place, taken)
}

fn pull(source: &str) -> (Place, Result<String>) {
    pull_with(source, "{}")
}

#[test]
fn the_source_of_an_import_contains_the_digest() {
    let (images, layer, digest) = image(1000);
    let server = Server::start(Box::new(move |request| plain(&images, &digest, request)));
    let (place, taken) = pull(&server.source("team/node:12"));
    let taken = taken.unwrap();
    assert_eq!(taken, server.source(&format!("team/node:12@{digest}")));
    assert_eq!(fs::read(place.at("root/file")).unwrap(), layer[512..1512]);
    // The source in the manifest can be imported again.
    let (_, again) = pull(&taken);
    assert_eq!(again.unwrap(), taken);
    let (_, other) = pull(&server.source(&format!("team/node@{}", Digest::of(b"other"))));
    let error = other.unwrap_err().to_string();
    assert!(
        error.contains("manifest team/node:sha256:") && error.contains("does not exist at"),
        "{error}"
    );
    let (_, missing) = pull(&server.source("team/node:13"));
    let error = missing.unwrap_err().to_string();
    assert!(
        error.contains("manifest team/node:13 does not exist at") && error.contains("(NAME_UNKNOWN: no such name)"),
        "{error}"
    );
}

#[test]
fn tokens_are_fetched_and_sent_only_to_their_registry() {
    let (images, _, digest) = image(1000);
    let mut port = 0;
    let mut tokens = 0;
    let server = Server::start(Box::new(move |request| {
        if request.path == "/v2/" {
            port = request.host.rsplit(':').next().unwrap().parse().unwrap();
        }
        if request.path.starts_with("/token?") {
            let wanted = "/token?service=a%20registry&scope=repository%3Ateam%2Fnode%3Apull";
            assert_eq!(request.path.replace('+', "%20"), wanted);
            // bob:builder
            return match request.authorization.as_deref() {
                Some("Basic Ym9iOmJ1aWxkZXI=") => {
                    tokens += 1;
                    reply("200 OK", "", format!(r#"{{"token": "token{tokens}"}}"#).as_bytes())
                }
                _ => reply("401 Unauthorized", "", b""),
            };
        }
        if request.path.starts_with("/elsewhere/") {
            return plain(&images, &digest, request);
        }
        // The first token is valid for the manifest only.
        let good = match request.path.contains("/blobs/") {
            true => "Bearer token2",
            false => "Bearer token1",
        };
        if request.authorization.as_deref() != Some(good) {
            let challenge = format!(
                "www-authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"a registry\",\
                 scope=\"repository:team/node:pull\"\r\n"
            );
            return reply("401 Unauthorized", &challenge, b"");
        }
        match request.path.strip_prefix("/v2/team/node/blobs/") {
            Some(name) => {
                let place = format!("location: http://localhost:{port}/elsewhere/blobs/{name}\r\n");
                reply("307 Temporary Redirect", &place, b"")
            }
            None => plain(&images, &digest, request),
        }
    }));
    let credentials = |auth: &str| json!({"auths": {format!("127.0.0.1:{}", server.port): {"auth": auth}}}).to_string();
    let (_, taken) = pull_with(&server.source("team/node:12"), &credentials("Ym9iOmJ1aWxkZXI="));
    taken.unwrap();
    let seen = server.seen();
    let elsewhere: Vec<&Request> = seen.iter().filter(|r| r.path.starts_with("/elsewhere/")).collect();
    assert_eq!(elsewhere.len(), 2, "{seen:?}");
    assert!(
        elsewhere
            .iter()
            .all(|r| r.authorization.is_none() && r.host.starts_with("localhost:"))
    );
    // eve:secret
    let (_, refused) = pull_with(&server.source("team/node:12"), &credentials("ZXZlOnNlY3JldA=="));
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("the credentials are wrong") && !error.contains("secret"),
        "{error}"
    );
    let (_, refused) = pull(&server.source("team/node:12"));
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("it requires credentials: `docker login`")
    );
}

#[test]
fn a_refresh_token_is_exchanged() {
    let (images, _, digest) = image(10);
    let mut port = 0;
    let server = Server::start(Box::new(move |request| {
        if request.path == "/v2/" {
            port = request.host.rsplit(':').next().unwrap().parse().unwrap();
        }
        if request.line.starts_with("POST /token ") {
            return reply("200 OK", "", br#"{"access_token": "good"}"#);
        }
        if request.authorization.as_deref() == Some("Bearer good") {
            return plain(&images, &digest, request);
        }
        let challenge = format!("www-authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\"\r\n");
        reply("401 Unauthorized", &challenge, b"")
    }));
    let credentials =
        json!({"auths": {format!("127.0.0.1:{}", server.port): {"identitytoken": "refresh"}}}).to_string();
    pull_with(&server.source("node:12"), &credentials).1.unwrap();
    assert!(
        server
            .seen()
            .iter()
            .all(|r| r.authorization.as_deref().is_none_or(|a| a == "Bearer good"))
    );
}

#[test]
fn a_token_server_without_tls_gets_no_secrets() {
    let server = Server::start(Box::new(|_| {
        reply(
            "401 Unauthorized",
            "www-authenticate: Bearer realm=\"http://192.0.2.1/token\"\r\n",
            b"",
        )
    }));
    let (_, refused) = pull(&server.source("node:12"));
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("http://192.0.2.1/token, which is not https"), "{error}");
}

/// Serves the layer with `serve`, which gets the bytes, the requested offset, and the number of requests so far.
fn with_layer(
    size: usize,
    mut serve: impl FnMut(&[u8], usize, usize) -> Vec<u8> + Send + 'static,
) -> (Server, Vec<u8>, Digest) {
    let (images, layer, digest) = image(size);
    let layer_digest = Digest::of(&layer);
    let bytes = layer.clone();
    let mut count = 0;
    let server = Server::start(Box::new(move |request| {
        if !request.path.ends_with(&layer_digest.hex()) {
            return plain(&images, &digest, request);
        }
        count += 1;
        let range = request.range.as_deref().unwrap_or("bytes=0-");
        let at = range
            .trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse()
            .unwrap();
        serve(&bytes, at, count)
    }));
    (server, layer, digest)
}

/// The answer to a range, cut off after `sent` bytes.
fn part(bytes: &[u8], at: usize, sent: usize) -> Vec<u8> {
    let range = format!("content-range: bytes {at}-{}/{}\r\n", bytes.len() - 1, bytes.len());
    let status = if at > 0 { "206 Partial Content" } else { "200 OK" };
    let mut whole = reply(status, &range, &bytes[at..]);
    let missing = (bytes.len() - at).saturating_sub(sent);
    whole.truncate(whole.len() - missing);
    whole
}

#[test]
fn a_broken_download_is_continued() {
    // More breaks than attempts, each after enough bytes.
    let (server, layer, _) = with_layer(10 << 20, |bytes, at, _| part(bytes, at, (5 << 20) / 4));
    let (place, taken) = pull(&server.source("node:12"));
    taken.unwrap();
    assert_eq!(fs::read(place.at("root/file")).unwrap(), layer[512..512 + (10 << 20)]);
    let ranges = server.seen().into_iter().filter(|r| r.range.is_some()).count();
    assert!((7..=9).contains(&ranges), "{ranges}");
    let remarks = place.remarks.borrow();
    assert_eq!(remarks.len(), ranges, "{remarks:?}");
    assert!(remarks[0].contains("was continued"), "{remarks:?}");

    // A server without ranges.
    let (server, layer, _) = with_layer(1 << 20, |bytes, _, count| match count {
        1 | 2 => part(bytes, 0, 300_000),
        _ => part(bytes, 0, usize::MAX),
    });
    let (place, taken) = pull(&server.source("node:12"));
    taken.unwrap();
    assert_eq!(fs::read(place.at("root/file")).unwrap(), layer[512..512 + (1 << 20)]);
}

#[test]
fn downloads_that_keep_breaking_are_abandoned() {
    let (server, ..) = with_layer(1 << 20, |bytes, at, _| part(bytes, at, 1000));
    let (_, taken) = pull(&server.source("node:12"));
    let error = taken.unwrap_err().to_string();
    assert!(error.contains("the download broke 5 times"), "{error}");
    assert!(error.contains("layer 1 of 1"), "{error}");
    assert!(server.seen().len() < 12);
}

#[test]
fn changed_bytes_after_a_break_are_found() {
    let (server, ..) = with_layer(1 << 20, |bytes, at, count| {
        let mut bytes = bytes.to_vec();
        if count > 1 {
            bytes[900_000] ^= 1;
        }
        part(&bytes, at, if count == 1 { 500_000 } else { usize::MAX })
    });
    let error = pull(&server.source("node:12")).1.unwrap_err().to_string();
    assert!(error.contains("does not match its digest"), "{error}");
    // Another range than the requested one.
    let (server, ..) = with_layer(1 << 20, |bytes, at, count| match count {
        1 => part(bytes, at, 500_000),
        _ => part(bytes, 7, usize::MAX),
    });
    let error = pull(&server.source("node:12")).1.unwrap_err().to_string();
    assert!(error.contains("another part"), "{error}");
    // More or fewer bytes than in the manifest.
    let (server, ..) = with_layer(1 << 20, |bytes, _, _| reply("200 OK", "", &bytes[1..]));
    let error = pull(&server.source("node:12")).1.unwrap_err().to_string();
    assert!(error.contains("does not match the manifest"), "{error}");
}

#[test]
fn temporary_failures_are_retried_and_others_are_not() {
    let (images, _, digest) = image(10);
    let mut count = 0;
    let server = Server::start(Box::new(move |request| {
        count += 1;
        match count {
            2 => reply("503 Service Unavailable", "", b""),
            3 => reply("429 Too Many Requests", "retry-after: 0\r\n", b""),
            4 => Vec::new(),
            _ => plain(&images, &digest, request),
        }
    }));
    pull(&server.source("node:12")).1.unwrap();
    let broken = Server::start(Box::new(|request| match request.path.as_str() {
        "/v2/" => reply("200 OK", "", b""),
        _ => reply("500 Internal Server Error", "", b"<html>"),
    }));
    let error = pull(&broken.source("node:12")).1.unwrap_err().to_string();
    assert!(error.contains("500 Internal Server Error (5 attempts)"), "{error}");
    assert_eq!(broken.seen().len(), 6);
    let forbidden = Server::start(Box::new(|_| reply("403 Forbidden", "", b"")));
    assert!(
        pull(&forbidden.source("node:12"))
            .1
            .unwrap_err()
            .to_string()
            .contains("403 Forbidden")
    );
    assert_eq!(forbidden.seen().len(), 2);
}

#[test]
fn hostile_answers_are_refused() {
    let answers: [(Vec<u8>, &str); 5] = [
        (
            reply("200 OK", "", &vec![b' '; (4 << 20) + 1]),
            "more than 4194304 bytes",
        ),
        (reply("200 OK", "", b"{"), "is damaged"),
        (
            reply(
                "200 OK",
                &format!("docker-content-digest: {}\r\n", Digest::of(b"other")),
                b"{}",
            ),
            "does not match the digest that the registry sent",
        ),
        (
            reply("302 Found", "location: /v2/node/manifests/12\r\n", b""),
            "redirects",
        ),
        (b"nonsense\r\n\r\n".to_vec(), "5 attempts"),
    ];
    for (answer, says) in answers {
        let server = Server::start(Box::new(move |request| match request.path.as_str() {
            "/v2/" => reply("200 OK", "", b""),
            _ => answer.clone(),
        }));
        let error = pull(&server.source("node:12")).1.unwrap_err();
        assert!(matches!(error, ImportError::Container(_)), "{error}");
        let error = error.to_string();
        assert!(error.contains(says), "{says}: {error}");
        assert!(!error.chars().any(|c| c.is_control()), "{error:?}");
    }
    let (images, layer, digest) = image(1000);
    let mut without = images.clone();
    without.blobs.remove(&Digest::of(&layer));
    let server = Server::start(Box::new(move |request| plain(&without, &digest, request)));
    let error = pull(&server.source("node:12")).1.unwrap_err().to_string();
    assert!(
        error.contains("BLOB_UNKNOWN: gone\\u{1b}[2J") && error.contains("layer 1 of 1"),
        "{error}"
    );
    // No server, and a name that needs TLS.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = pull(&format!("docker://{free}/node")).1.unwrap_err().to_string();
    assert!(
        error.contains("does not answer") && error.contains("by https") && error.contains("by http"),
        "{error}"
    );
}
