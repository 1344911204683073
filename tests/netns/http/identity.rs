//! A boot's files and reports belong to its node and its token, and only what the server offers can be fetched.

use super::{BASE, Lab, Node, connect, fetch, status_of, talk};
use serde_json::json;
use std::fs;
use testbed::Result;

#[test]
fn a_boot_needs_its_nodes_address_and_its_token_until_it_ends() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    let mut other = Node::boot(&lab.cluster, 2)?;
    assert_ne!((&node.boot, &node.token), (&other.boot, &other.token));

    // From another address, with the right token: another node's address, an unknown machine's.
    let ready = json!({"token": node.token, "uptime_ms": 1, "detail": ""}).to_string();
    let mut foreign = 0;
    for from in [&other.namespace, &lab.stranger] {
        let bearer = node.bearer();
        for (path, more) in [
            ("/v1/plan/", &["-H", &bearer][..]),
            ("/v1/disk-loader/", &["-H", &bearer][..]),
            ("/v1/ready/", &["-H", "Content-Type: application/json", "-d", &ready]),
            // The body is not parsed: the address and the token are checked first.
            ("/v1/report/", &["-d", "no json"]),
            ("/v1/overlay/", &["-d", "no json"]),
            ("/v1/heartbeat/", &["-d", "no json"]),
        ] {
            let (status, _, text) = fetch(from, &format!("{BASE}{path}{}", node.boot), more)?;
            assert!(status == 403 && text.contains("r01n01's"), "{path}: {status}: {text}");
            assert!(!text.contains(&node.token), "{text}");
            foreign += 1;
        }
        for name in ["kernel", "initramfs"] {
            assert_eq!(fetch(from, &node.file_url(name), &["--head"])?.0, 403, "{name}");
            foreign += 1;
        }
    }
    lab.expect_counted("refused-foreign-boot", foreign)?;
    assert_ne!(lab.cluster.status("r01n01")?["state"], "ready");

    // From the node itself: without a token, with a wrong one, with another node's, with a part of it.
    let tokens = ["", "0", &other.token, &node.token[..31], &format!("{}0", node.token)];
    for token in tokens {
        let bearer = format!("Authorization: Bearer {token}");
        let (status, _, text) = fetch(&node.namespace, &node.plan_url(), &["-H", &bearer])?;
        assert!(
            status == 403 && text.contains("wrong token"),
            "{token:?}: {status}: {text}"
        );
        let loader = format!("{BASE}/v1/disk-loader/{}", node.boot);
        let (status, _, text) = fetch(&node.namespace, &loader, &["-H", &bearer])?;
        assert!(status == 403 && text.contains("wrong token"), "{status}: {text}");
        let bodies = [
            ("ready", json!({"token": token, "uptime_ms": 1, "detail": ""})),
            ("report", json!({"token": token, "events": []})),
            ("heartbeat", json!({"token": token, "uptime_ms": 1, "trouble": ""})),
        ];
        for (what, body) in bodies {
            let (status, text) = node.post(what, &body.to_string())?;
            assert!(
                status == 403 && text.contains("wrong token"),
                "{what}: {status}: {text}"
            );
        }
    }
    assert_eq!(
        fetch(&node.namespace, &node.plan_url(), &[])?.0,
        403,
        "no Authorization at all"
    );
    let basic = ["-H", &format!("Authorization: Basic {}", node.token)];
    assert_eq!(fetch(&node.namespace, &node.plan_url(), &basic)?.0, 403);
    lab.expect_counted("refused-wrong-token", 5 * tokens.len() as u64 + 2)?;
    lab.expect_served(node)?;

    // A node that starts boot after boot: its oldest boots end, and their tokens with them.
    let (first, token) = (other.plan_url(), other.bearer());
    assert_eq!(fetch(&other.namespace, &first, &["-H", &token])?.0, 200);
    for _ in 0..rackstrap_registries::boots::KEPT_PER_NODE {
        other.fetch_script()?;
    }
    let (status, _, text) = fetch(&other.namespace, &first, &["-H", &token])?;
    assert!(
        status == 404 && text.contains("restart the machine"),
        "{status}: {text}"
    );
    lab.expect_served(&other)?;
    lab.cluster.daemon.stop()
}

#[test]
fn no_spelling_of_a_path_leads_outside_the_served_files() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    // A file beside the kernel, which is recognized by its content.
    let manifest = fs::read_to_string(lab.image_file("manifest.toml"))?;
    let secret = manifest.lines().max_by_key(|line| line.len()).unwrap_or_default();
    assert!(secret.len() > 10, "{manifest}");
    let boot = format!("/boot/{}", node.boot);
    let long = "a".repeat(9_000);
    let mut paths = vec![
        format!("{boot}/../../../../../etc/passwd"),
        format!("{boot}/kernel/../manifest.toml"),
        format!("{boot}/kernel/"),
        format!("{boot}//kernel"),
        format!("/{boot}/kernel"),
        format!("{boot}/{long}"),
        format!("/v1/plan/{}%00", node.boot),
        format!("/v1/plan/{}/", node.boot),
        format!("/v1/plan/{long}"),
        format!("/ipxe?mac={long}"),
        // Two conflicting headers.
        format!("/ipxe?mac=52-54-00-00-01-01&failed={long}&mac=1"),
        format!("/ipxe?{}", "x=1&".repeat(2_000)),
        "/ipxe?mac=%".into(),
        "/ipxe?mac=%zz".into(),
        "/ipxe?mac=%ff%fe".into(),
        "/ipxe?mac=52-54-00-00-01-01%00".into(),
        "/%".into(),
        "/%2e%2e/%2e%2e/etc/passwd".into(),
        "/../../etc/passwd".into(),
        "/loader/..".into(),
        "//etc/passwd".into(),
        "http://10.5.0.1/etc/passwd".into(),
    ];
    for name in [
        "manifest.toml",
        "..%2fmanifest.toml",
        "%2e%2e%2f1%2fmanifest.toml",
        "%2e%2e/1/manifest.toml",
        "..%5cmanifest.toml",
        "./manifest.toml",
        "kernel%00",
        "kernel%00.toml",
        "kernel%2f..%2fmanifest.toml",
        "%ff%fe",
        "%c0%ae%c0%ae%c0%afmanifest.toml",
        "%",
        "%1",
        "KERNEL",
        "%1b%5b2J",
        "..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    ] {
        paths.push(format!("{boot}/{name}"));
        paths.push(format!("/loader/{name}"));
    }
    for path in &paths {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = talk(connect(&node.namespace)?, request.as_bytes())?;
        let shown: String = path.chars().take(80).collect();
        let got = status_of(&answer);
        assert!(matches!(got, Some(400 | 403 | 404)), "{shown}: {answer}");
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        assert!(
            !answer.contains(secret) && !answer.contains("root:"),
            "{shown}: {answer}"
        );
        assert!(body.len() < 1_000, "{shown}: {} bytes of text", body.len());
        assert!(!body.trim_end().chars().any(char::is_control), "{shown}: {body:?}");
    }
    assert_eq!(lab.counted("unavailable")?, 0);
    lab.expect_served(node)?;
    lab.cluster.daemon.stop()
}
