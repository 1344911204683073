//! The files that a node gets, as they are served: with the site's mounts and the server's users, and as `overlay render` showed them.

use super::Lab;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::fs;
use testbed::{Result, Site};

const MORE: &str = r#"
[[mount]]
what = "10.5.0.9:/home"
where = "/home"
type = "nfs4"
required = true

[[mount]]
what = "tmpfs"
where = "/mnt/fast"
type = "tmpfs"

[users]
uid = "1000-1999"
from = "accounts"
"#;

fn text<'a>(overlay: &'a Value, path: &str) -> Result<&'a str> {
    let files = overlay["files"].as_array().context("no files")?;
    let file = files.iter().find(|file| file["path"] == path);
    file.and_then(|file| file["content"]["text"].as_str())
        .with_context(|| format!("no {path}"))
}

#[test]
fn a_node_is_served_what_was_shown() -> Result {
    let mut site = Site::demo();
    site.more = MORE.to_owned();
    let lab = Lab::with(site)?;
    let (node, daemon) = (&lab.node, &lab.cluster.daemon);
    let accounts = daemon.state_dir().join("accounts");
    fs::create_dir_all(&accounts)?;
    fs::write(
        accounts.join("passwd"),
        "alice:x:1000:1000::/home/alice:/bin/sh\nroot2:x:1001:0::/:/nosuchshell\n",
    )?;
    fs::write(accounts.join("group"), "alice:x:1000:\n")?;

    let mounted = json!({
        "name": "tmp", "device": "/dev/vda3", "fs": "ext4", "uuid": "", "mount": "/tmp", "options": "noatime", "size": 1,
    });
    let disk =
        json!({"status": {"state": "kept", "layout": "scratch v1"}, "device": "vda", "size": 1, "mounts": [mounted]});
    let hardware = json!({"cpus": 1, "memory_mib": 1, "vendor": "", "product": "", "serial": "", "hwaddrs": []});
    let body = json!({"token": node.token, "disk": disk, "hardware": hardware}).to_string();
    let (status, served) = node.post("overlay", &body)?;
    ensure!(status == 200, "{status}: {served}");
    let served: Value = serde_json::from_str(&served)?;
    assert!(
        text(&served, "/etc/fstab")?.ends_with(
            "/dev/vda3 /tmp ext4 noatime,nofail 0 0\n10.5.0.9:/home /home nfs4 _netdev 0 0\ntmpfs /mnt/fast tmpfs nofail 0 0\n"
        ),
        "{}",
        text(&served, "/etc/fstab")?
    );
    let passwd = text(&served, "/etc/passwd")?;
    ensure!(
        passwd.starts_with("root:") && passwd.contains("\nalice:x:1000:1000::/home/alice:/bin/sh\n"),
        "{passwd}"
    );
    ensure!(text(&served, "/etc/shadow")?.contains("\nalice:*:::::::\n"));
    let points: Vec<&Value> = served["files"]
        .as_array()
        .context("files")?
        .iter()
        .filter(|f| f["content"] == "directory")
        .collect();
    assert_eq!(points.len(), 2, "{points:?}");

    // What rackstrap shows is that, to the byte, but for which tree each file is from.
    let mut shown = daemon.json(&["overlay", "render", "r01n01", "--secrets"])?[0].take();
    for file in shown["files"].as_array_mut().context("files")? {
        file.as_object_mut().context("a file")?.remove("tree");
    }
    assert_eq!(shown["files"], served["files"]);
    let hidden = daemon.cli(&["overlay", "render", "r01n01"])?;
    ensure!(!hidden.contains("PRIVATE KEY"), "{hidden}");

    // The node's timeline says what it lacks, and whom.
    let timeline = daemon.cli(&["timeline", "r01n01"])?;
    for said in [
        "debian@1 has no mount.nfs4, so /home (nfs4) is not mounted",
        "has no /nosuchshell, the shell of root2",
    ] {
        ensure!(timeline.contains(said), "{said}:\n{timeline}");
    }

    // Who was given these users has them; who comes later is not among them.
    let synced = daemon.cli(&["sync-users"])?;
    ensure!(synced.ends_with("every running node has them\n"), "{synced}");
    fs::write(accounts.join("passwd"), "carol:x:1002:1000::/home/carol:/bin/sh\n")?;
    let synced = daemon.cli(&["sync-users"])?;
    ensure!(
        synced.ends_with("1 node runs with others, until its next boot: r01n01\n"),
        "{synced}"
    );

    // Once a boot.
    let (status, again) = node.post("overlay", &body)?;
    ensure!(
        status == 409 && again.contains("handed out already"),
        "{status}: {again}"
    );
    daemon.stop()
}
