//! Kernel and initramfs, whole, in ranges, and to many clients at once; answers to wrong paths and methods.

use super::{AS_AGENT, BASE, Lab, fetch};
use anyhow::{Context, ensure};
use std::{fs, process::Stdio};
use testbed::{Namespace, Result, process::output};

/// The status and the bytes of a body.
fn body(from: &Namespace, url: &str, more: &[&str]) -> Result<(String, Vec<u8>)> {
    let file = tempfile::NamedTempFile::new()?;
    let mut command = from.command("curl");
    command
        .args(["-sS", "-m", "120", "-w", "%{http_code}", "-o"])
        .arg(file.path());
    if url.contains("/v1/") {
        command.args(AS_AGENT);
    }
    let status = output(command.args(more).arg(url))?;
    Ok((status, fs::read(file.path())?))
}

/// A field of a head that [`fetch`] gave, in lower case.
fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let found = head
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_default()
}

#[test]
fn a_plan_names_the_network_loader_that_the_node_gets() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    let (_, _, plan) = fetch(&node.namespace, &node.plan_url(), &["-H", &node.bearer()])?;
    let plan: serde_json::Value = serde_json::from_str(&plan)?;
    let named = &plan["disk"]["loader"];
    let url = format!("{BASE}/v1/disk-loader/{}", node.boot);
    let (status, mut got) = body(&node.namespace, &url, &["-H", &node.bearer()])?;
    ensure!(
        status == "200" && got.starts_with(b"RKSB"),
        "{status}, {} bytes",
        got.len()
    );
    assert_eq!(named["size"], got.len());
    got[20..24].fill(0);
    assert_eq!(named["crc"], crc32fast::hash(&got));
    Ok(())
}

#[test]
fn curl_gets_whole_files_ranges_and_not_modified() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    for name in ["kernel", "initramfs"] {
        let (url, bytes) = (node.file_url(name), fs::read(lab.image_file(name))?);
        let (status, got) = body(&node.namespace, &url, &[])?;
        assert!(status == "200" && got == bytes, "{name}: {status}, {} bytes", got.len());

        let (status, head, rest) = fetch(&node.namespace, &url, &["--head"])?;
        assert_eq!((status, rest.as_str()), (200, ""));
        assert_eq!(field(&head, "content-length"), bytes.len().to_string());
        assert_eq!(field(&head, "accept-ranges"), "bytes");

        let len = bytes.len();
        for (range, part) in [
            ("0-0", &bytes[..1]),
            ("100-4195", &bytes[100..4196]),
            ("-1000", &bytes[len - 1000..]),
            (&format!("{}-", len - 77), &bytes[len - 77..]),
            (&format!("{}-{}", len - 5, len + 5), &bytes[len - 5..]),
        ] {
            let (status, got) = body(&node.namespace, &url, &["-r", range])?;
            assert!(
                status == "206" && got == part,
                "{name} {range}: {status}, {} bytes",
                got.len()
            );
        }
        // A range after the end of the file, and several ranges (RFC 9110, 14.2: a server may leave those unsupported).
        for range in [&format!("{len}-"), "0-9,20-29"] {
            let (status, head, text) = fetch(&node.namespace, &url, &["-r", range])?;
            assert_eq!(status, 416, "{range}: {text}");
            assert_eq!(field(&head, "content-range"), format!("bytes */{len}"), "{range}");
        }

        let (_, head, _) = fetch(&node.namespace, &url, &["--head"])?;
        let (tag, date) = (field(&head, "etag"), field(&head, "last-modified"));
        assert!(tag.len() > 2 && date.contains("gmt"), "{head}");
        // The head is in lower case here, and dates have capitals: curl writes the date of the file itself.
        let since = lab.image_file(name);
        let since = since.to_str().context("the path is text")?;
        for unchanged in [["-z", since], ["-H", &format!("If-None-Match: {tag}")]] {
            let (status, _, text) = fetch(&node.namespace, &url, &unchanged)?;
            assert_eq!((status, text.as_str()), (304, ""), "{unchanged:?}");
        }
        let (status, got) = body(&node.namespace, &url, &["-H", "If-None-Match: \"another\""])?;
        assert!(status == "200" && got == bytes, "{status}");
        let (status, _, _) = fetch(&node.namespace, &url, &["--head", "-H", "If-Match: \"another\""])?;
        assert_eq!(status, 412);
    }
    lab.expect_counted("refused-bad-range", 4)?;
    assert_eq!(lab.counted("unavailable")?, 0);
    lab.cluster.daemon.stop()
}

#[test]
fn one_connection_serves_several_requests_and_many_clients_get_the_initramfs_at_once() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    let before = lab.counted("connections")?;
    let mut command = node.namespace.command("curl");
    command.args(["-sS", "-f", "-m", "60", "-w", "%{num_connects} ", "-H", &node.bearer()]);
    command.args(AS_AGENT);
    for url in [node.plan_url(), node.file_url("kernel"), node.plan_url()] {
        command.args(["-o", "/dev/null", &url]);
    }
    assert_eq!(output(&mut command)?, "1 0 0 ", "connections made for each");
    assert_eq!(lab.counted("connections")?, before + 1);

    let bytes = fs::read(lab.image_file("initramfs"))?;
    let dir = tempfile::tempdir()?;
    let clients = (0..8).map(|number| {
        let path = dir.path().join(number.to_string());
        let mut command = node.namespace.command("curl");
        command.args(["-sS", "-f", "-m", "300", "-o"]).arg(&path);
        let client = command.arg(node.file_url("initramfs")).stdin(Stdio::null()).spawn()?;
        Ok((path, client))
    });
    for (path, mut client) in clients.collect::<Result<Vec<_>>>()? {
        ensure!(client.wait()?.success(), "a curl failed");
        ensure!(fs::read(&path)? == bytes, "{} differs", path.display());
    }
    lab.cluster.daemon.stop()
}

#[test]
fn answers_to_wrong_paths_methods_and_queries_say_what_is_right() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    let report = format!("{BASE}/v1/report/{}", node.boot);
    for (url, more, expected, says) in [
        (format!("{BASE}/"), &[][..], 404, "/ipxe?mac="),
        (format!("{BASE}/index.html"), &[], 404, "nothing at /index.html"),
        (
            node.file_url("root"),
            &[],
            404,
            "a kernel and an initramfs, but no root",
        ),
        (
            format!("{BASE}/loader/none.efi"),
            &[],
            404,
            "boot loader 'none.efi' does not exist",
        ),
        (
            format!("{BASE}/boot/nosuchboot23/kernel"),
            &[],
            404,
            "restart the machine",
        ),
        (format!("{BASE}/ipxe"), &[], 400, "ask for /ipxe?mac=52-54-00-01-01-01"),
        (format!("{BASE}/ipxe?mac=hello"), &[], 400, "mac: "),
        (report.clone(), &[], 405, "does not take GET"),
        (node.file_url("kernel"), &["-X", "DELETE"], 405, "does not take DELETE"),
        (node.plan_url(), &["-X", "PUT", "-d", "x"], 405, "does not take PUT"),
    ] {
        let (status, head, text) = fetch(&node.namespace, &url, more)?;
        assert!(status == expected && text.contains(says), "{url}: {status}: {text}");
        assert!(field(&head, "content-type").starts_with("text/plain"), "{url}: {head}");
        if expected == 405 {
            let allowed = if url == report { "post" } else { "get,head" };
            assert_eq!(field(&head, "allow"), allowed, "{url}");
        }
    }
    lab.expect_counted("refused-unknown-path", 4)?;
    lab.expect_counted("refused-unknown-boot", 1)?;
    lab.expect_counted("refused-bad-request", 2)?;
    lab.expect_counted("refused-wrong-method", 3)?;
    // The log has the first case of each reason, with the client's address.
    let log = lab.cluster.daemon.log();
    for words in ["refused-wrong-method", "10.5.1.1"] {
        assert!(log.contains(words), "{words} is not in the log:\n{log}");
    }
    lab.expect_served(node)?;
    lab.cluster.daemon.stop()
}
