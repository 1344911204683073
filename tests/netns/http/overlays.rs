//! The overlay that a node gets, with the site's mounts and the server's users, and its comparison with the output of
//! `overlay render`.

use super::{BASE, Lab, Node, PATIENCE, fetch};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};
use testbed::{Result, Site, timeline::poll};

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

fn request(node: &Node) -> String {
    let mounted = json!({
        "name": "tmp", "device": "/dev/vda3", "fs": "ext4", "uuid": "", "mount": "/tmp", "options": "noatime", "size": 1,
    });
    let disk =
        json!({"status": {"state": "kept", "layout": "scratch v1"}, "device": "vda", "size": 1, "mounts": [mounted]});
    let hardware = json!({"cpus": 1, "memory_mib": 1, "vendor": "", "product": "", "serial": "", "hwaddrs": []});
    json!({"token": node.token, "disk": disk, "hardware": hardware}).to_string()
}

/// A daemon with mounts and users, a node during its boot, and the directory with the users' files.
fn lab(more: &str) -> Result<(Lab, PathBuf)> {
    let mut site = Site::demo();
    site.heartbeat_secs = 60;
    site.more = format!("{MORE}{more}");
    let lab = Lab::with(site)?;
    let accounts = lab.cluster.daemon.state_dir().join("accounts");
    fs::create_dir_all(&accounts)?;
    fs::write(
        accounts.join("passwd"),
        "alice:x:1000:1000::/home/alice:/bin/sh\nroot2:x:1001:0::/:/nosuchshell\n",
    )?;
    fs::write(accounts.join("group"), "alice:x:1000:\n")?;
    Ok((lab, accounts))
}

#[test]
fn the_served_overlay_is_the_shown_one() -> Result {
    let (lab, accounts) = lab("")?;
    let (node, daemon) = (&lab.node, &lab.cluster.daemon);

    let body = request(node);
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

    // rackstrap shows the same bytes, and for each file the tree it is from.
    let mut shown = daemon.json(&["overlay", "render", "r01n01", "--secrets"])?[0].take();
    for file in shown["files"].as_array_mut().context("files")? {
        file.as_object_mut().context("a file")?.remove("tree");
    }
    assert_eq!(shown["files"], served["files"]);
    let hidden = daemon.cli(&["overlay", "render", "r01n01"])?;
    ensure!(!hidden.contains("PRIVATE KEY"), "{hidden}");

    // The node's timeline lists the missing files and users.
    let timeline = daemon.cli(&["timeline", "r01n01"])?;
    for said in [
        "debian@1 has no mount.nfs4, so /home (nfs4) is not mounted",
        "has no /nosuchshell, the shell of root2",
    ] {
        ensure!(timeline.contains(said), "{said}:\n{timeline}");
    }

    // The boot keeps the users that it got; a user who was added later is not among them.
    let synced = daemon.cli(&["sync-users"])?;
    ensure!(synced.ends_with("all running nodes have these users\n"), "{synced}");
    fs::write(accounts.join("passwd"), "carol:x:1002:1000::/home/carol:/bin/sh\n")?;
    let synced = daemon.cli(&["sync-users"])?;
    ensure!(
        synced.ends_with("1 node runs with older users, until the next heartbeat: r01n01\n"),
        "{synced}"
    );

    // The event is recorded once for each boot.
    let (status, again) = node.post("overlay", &body)?;
    ensure!(
        status == 409 && again.contains("have been sent already"),
        "{status}: {again}"
    );
    daemon.stop()
}

/// Sends a heartbeat of a node that has the users with `digest`; returns the digest of the answer.
fn beat(node: &Node, digest: &str) -> Result<Option<String>> {
    let body = json!({"token": node.token, "uptime_ms": 1, "trouble": "", "users": {"digest": digest}});
    let (status, said) = node.post("heartbeat", &body.to_string())?;
    match status {
        204 => Ok(None),
        _ => {
            let said: Value = serde_json::from_str(&said).with_context(|| format!("{status}: {said}"))?;
            Ok(said["users"].as_str().map(str::to_owned))
        }
    }
}

#[test]
fn users_reach_a_running_node_and_hashes_only_its_root() -> Result {
    let (mut lab, accounts) = lab("shadow = true\n")?;
    fs::write(accounts.join("shadow"), "alice:$6$alice:1::::::\n")?;
    let daemon = &lab.cluster.daemon;
    let (status, served) = lab.node.post("overlay", &request(&lab.node))?;
    ensure!(status == 200, "{status}: {served}");
    let served: Value = serde_json::from_str(&served)?;
    let (secret, given) = (served["secret"].as_str().context("no secret")?, &served["users"]);
    assert_eq!(given["added"]["users"], json!(["alice", "root2"]));
    let token = std::mem::replace(&mut lab.node.token, secret.to_owned());
    let had = given["digest"].as_str().context("no digest")?.to_owned();
    assert_eq!(beat(&lab.node, &had)?, None, "it has what it is to have");

    // A user is added on the server, and nothing tells the daemon.
    let passwd = "alice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1002:1000::/home/bob:/bin/sh\n";
    fs::write(accounts.join("passwd"), passwd)?;
    fs::write(accounts.join("shadow"), "alice:$6$alice:1::::::\nbob:$6$bob:1::::::\n")?;
    let wanted = poll(PATIENCE, || beat(&lab.node, &had))?.context("the node is never told")?;
    assert_ne!(wanted, had);
    let listed = daemon.json(&["users", "list"])?;
    assert_eq!(listed["behind"], json!(["r01n01"]), "{listed}");

    // The boot's token, which every user of the node can read, does not suffice; nor does the secret from another machine.
    let url = format!("{BASE}/v1/users/{}", lab.node.boot);
    let get =
        |who: &testbed::Namespace, token: &str| fetch(who, &url, &["-H", &format!("Authorization: Bearer {token}")]);
    for (who, token) in [
        (&*lab.node.namespace, token.as_str()),
        (&lab.node.namespace, ""),
        (&lab.node.namespace, &secret[..63]),
        (&lab.stranger, secret),
    ] {
        let (status, _, said) = get(who, token)?;
        ensure!(status == 403 && !said.contains("$6$"), "{status}: {said}");
    }
    let (status, _, users) = get(&lab.node.namespace, secret)?;
    ensure!(status == 200, "{status}: {users}");
    let users: Value = serde_json::from_str(&users)?;
    assert_eq!(users["digest"], wanted.as_str());
    assert_eq!(users["passwd"], passwd);
    assert_eq!(users["shadow"], "alice:$6$alice:1::::::\nbob:$6$bob:1::::::\n");

    // The node's report is on its timeline, and the list of users shows that the node has them, also after a restart of the
    // daemon.
    let note = json!({"digest": wanted, "detail": "the server's users were updated: bob is new"});
    let body = json!({"token": lab.node.token, "uptime_ms": 1, "trouble": "", "users": note});
    assert_eq!(lab.node.post("heartbeat", &body.to_string())?.0, 204);
    let timeline = daemon.cli(&["timeline", "r01n01"])?;
    ensure!(
        timeline.contains("users") && timeline.contains("bob is new"),
        "{timeline}"
    );
    let listed = daemon.json(&["users", "list"])?;
    assert_eq!(
        (&listed["current"], &listed["behind"], &listed["stale"]),
        (&json!(["r01n01"]), &json!([]), &json!([]))
    );
    // A removed user is removed at once on request; without the section there are no users.
    fs::write(accounts.join("passwd"), "bob:x:1002:1000::/home/bob:/bin/sh\n")?;
    ensure!(daemon.cli(&["users", "sync"])?.contains("1 node runs with older users"));
    let wanted = beat(&lab.node, &wanted)?.context("without a wait")?;
    let (_, _, users) = get(&lab.node.namespace, secret)?;
    ensure!(!users.contains("/home/alice"), "{users}");
    // A file that cannot be read removes no user.
    fs::remove_file(accounts.join("passwd"))?;
    ensure!(daemon.cli(&["users", "sync"]).is_err());
    assert_eq!(beat(&lab.node, &wanted)?, None);
    daemon.reload(&Site {
        heartbeat_secs: 60,
        ..Site::demo()
    })?;
    let nobody = poll(PATIENCE, || Ok(beat(&lab.node, &wanted)?.filter(String::is_empty)))?;
    assert_eq!(nobody.as_deref(), Some(""));

    // The secret is valid for one boot.
    let before = lab.node.boot.clone();
    let has = lab.node.player.dhcp()?;
    ensure!(has.address.octets() == [10, 5, 1, 1], "{has:?}");
    lab.node.fetch_script()?;
    ensure!(lab.node.boot != before);
    let url = format!("{BASE}/v1/users/{}", lab.node.boot);
    let (status, _, said) = fetch(
        &lab.node.namespace,
        &url,
        &["-H", &format!("Authorization: Bearer {secret}")],
    )?;
    ensure!(status == 403, "{status}: {said}");
    lab.cluster.daemon.stop()
}

#[test]
fn older_agents_are_answered_in_their_format_and_too_old_ones_are_refused() -> Result {
    let (lab, _) = lab("")?;
    let (node, daemon) = (&lab.node, &lab.cluster.daemon);
    let plan = |wire: &str| fetch(&node.namespace, &node.plan_url(), &["-H", &node.bearer(), "-H", wire]);
    for (header, wire) in [
        ("X-Nothing: 1", 1),
        ("Rackstrap-Wire: 1", 1),
        ("Rackstrap-Wire: 2", 2),
        ("Rackstrap-Wire: 3", 3),
        ("Rackstrap-Wire: 4", 4),
        ("Rackstrap-Wire: 5", 5),
        ("Rackstrap-Wire: 99", 5),
    ] {
        let (status, _, text) = plan(header)?;
        ensure!(status == 200, "{header}: {status}: {text}");
        assert_eq!(serde_json::from_str::<Value>(&text)?["wire"], wire, "{header}");
    }
    assert_eq!(plan("Rackstrap-Wire: two")?.0, 400);
    let (status, _, said) = plan("Rackstrap-Wire: 0")?;
    let why = "image debian@1 was sealed with an agent of wire version 0, and this daemon speaks 1 to 5; seal it again with this release: rackstrap image clone debian@1";
    ensure!(status == 410 && said.contains(why), "{status}: {said}");
    let timeline = daemon.cli(&["timeline", "r01n01"])?;
    ensure!(
        timeline.contains(why) && timeline.contains("was sealed with an agent of wire version 1"),
        "{timeline}"
    );

    // Mount points are files of the overlay, and the unit that reports `ready` starts the required mounts.
    let (status, served) = node.post_with("overlay", &request(node), &[])?;
    ensure!(status == 200 && !served.contains("\"directory\""), "{status}: {served}");
    let served: Value = serde_json::from_str(&served)?;
    assert_eq!(text(&served, "/home/.rackstrap-mount-point")?, "");
    let unit = text(&served, "/etc/systemd/system/rackstrap-voice.service.d/mounts.conf")?;
    ensure!(unit.contains("mount -- ") && unit.contains("/home"), "{unit}");
    ensure!(served["secret"].is_null() && served["users"].is_null());
    // It gets changed users at its next boot.
    let synced = daemon.cli(&["sync-users"])?;
    ensure!(synced.ends_with("all running nodes have these users\n"), "{synced}");
    fs::write(
        daemon.state_dir().join("accounts/passwd"),
        "carol:x:1002:1000::/home/carol:/bin/sh\n",
    )?;
    let synced = daemon.cli(&["sync-users"])?;
    ensure!(
        synced.contains(
            "1 node runs with older users, until the next boot (the image has an older agent: clone and seal it again): r01n01"
        ),
        "{synced}"
    );
    daemon.stop()
}
