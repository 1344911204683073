//! `rackstrap overlay`, `users` and `check`, with the real command.

use crate::daemon::Daemon;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// Creates a sealed version, as far as the daemon reads it.
pub(crate) fn image(state: &Path, version: u32) {
    let dir = state.join(format!("images/debian/{version}"));
    fs::create_dir_all(dir.join("root/etc")).unwrap();
    fs::create_dir_all(dir.join("root/usr/sbin")).unwrap();
    fs::create_dir_all(dir.join("root/bin")).unwrap();
    fs::write(dir.join("root/bin/bash"), "").unwrap();
    fs::write(
        dir.join("root/etc/passwd"),
        "root:x:0:0:root:/root:/bin/bash\nsync:x:4:65534::/bin:/bin/sync\n",
    )
    .unwrap();
    fs::write(dir.join("root/etc/group"), "root:x:0:\nusers:x:100:\n").unwrap();
    fs::write(dir.join("root/etc/shadow"), "root:$6$root:1::::::\n").unwrap();
    fs::set_permissions(dir.join("root/etc/shadow"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(dir.join("kernel"), "k").unwrap();
    fs::write(dir.join("initramfs"), "i").unwrap();
    let manifest = format!(
        "image = \"debian@{version}\"\ncreated = 1\nsource = \"test\"\nkernel-release = \"6\"\narch = \"x86_64\"\n\
         init = \"systemd\"\nfiles = 1\nbytes = 1\n"
    );
    fs::write(dir.join("manifest.toml"), manifest).unwrap();
}

/// Creates the site's overlay tree, mounts and users.
fn site(state: &Path) -> String {
    let tree = state.join("templates/site");
    fs::create_dir_all(tree.join("etc/munge")).unwrap();
    fs::write(
        tree.join("etc/motd.j2"),
        "this is {{ node.name }} at {{ net.ipaddr }}\n",
    )
    .unwrap();
    fs::write(tree.join("etc/munge/munge.key"), "very secret\n").unwrap();
    let manifest = "[\"etc/munge/munge.key\"]\nmode = \"0400\"\nuid = 7\ngid = 8\n\
                    [\"etc/localtime\"]\nsymlink = \"/usr/share/zoneinfo/UTC\"\n";
    fs::write(tree.join("overlay.toml"), manifest).unwrap();
    let accounts = state.join("accounts");
    fs::create_dir_all(&accounts).unwrap();
    let passwd = "alice:x:1000:100:Alice:/home/alice:/bin/bash\nbob:x:4:100::/home/bob:/bin/bash\nsync:x:1001:100::/:/bin/sh\nx\n";
    fs::write(accounts.join("passwd"), passwd).unwrap();
    fs::write(accounts.join("group"), "lab:x:1100:alice,sync\n").unwrap();
    fs::write(accounts.join("shadow"), "alice:$6$alice:1::::::\n").unwrap();
    format!(
        "templates-dir = \"{state}/templates\"\n[users]\nuid = \"1000-1999\"\nshadow = true\n\
         from = \"{state}/accounts\"\n[[mount]]\nwhat = \"10.5.0.2:/home/a b\"\nwhere = \"/home\"\ntype = \"nfs\"\n\
         required = true\n",
        state = state.display()
    )
}

fn daemon() -> Daemon {
    daemon_with(1)
}

/// A daemon with that many versions of the image.
fn daemon_with(versions: u32) -> Daemon {
    Daemon::start_with(|state, text| {
        (1..=versions).for_each(|version| image(state, version));
        let more = site(state);
        let (server, sections) = more.split_once("[users]").unwrap();
        text.replace("[server]\n", &format!("[server]\n{server}")).replace(
            "[profile.default]\n",
            "[profile.default]\nimage = \"debian\"\ntemplates = [\"site\"]\n",
        ) + "\n[users]"
            + sections
    })
}

#[test]
fn overlay_render_prints_no_secrets() {
    let daemon = daemon();
    let dir = daemon.config().parent().unwrap().to_owned();
    let shown = |text: String| text.replace(dir.to_str().unwrap(), "DIR");
    daemon.says("node add r01n01 --hwaddr 52:54:00:01:01:01");
    daemon.says("node add r01n02 --hwaddr 52:54:00:01:01:02");
    insta::assert_snapshot!(shown(daemon.says("overlay list")));
    insta::assert_snapshot!(daemon.says("overlay show site"));
    assert_eq!(
        daemon.says("overlay show site etc/motd.j2"),
        "this is {{ node.name }} at {{ net.ipaddr }}\n"
    );
    assert!(
        daemon
            .complains("overlay show site etc/mtod")
            .contains("tree site has no file /etc/mtod")
    );
    assert!(
        daemon
            .complains("overlay show stie")
            .contains("tree 'stie' does not exist; available: base, site")
    );

    assert_eq!(
        daemon.says("overlay render r01n02 etc/motd"),
        "this is r01n02 at 10.5.1.2\n"
    );
    let all = daemon.says("overlay render r01n01");
    let mut ids = all
        .lines()
        .filter(|line| line.len() == 32 && line.chars().all(|c| c.is_ascii_hexdigit()));
    let id = ids.next_back().unwrap().to_owned();
    insta::assert_snapshot!(all.replace(&id, "MACHINE-ID"));
    for secret in ["PRIVATE KEY", "$6$", "very secret"] {
        assert!(!all.contains(secret), "{secret}:\n{all}");
    }
    let secrets = daemon.says("overlay render 52:54:00:01:01:01 --secrets");
    for secret in ["PRIVATE KEY", "$6$alice", "$6$root", "very secret"] {
        assert!(secrets.contains(secret), "{secret}:\n{secrets}");
    }
    let both = daemon.says("overlay render r01n[01-02] etc/motd");
    assert!(
        both.contains("=== r01n01: debian@1") && both.contains("\n\n=== r01n02"),
        "{both}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&daemon.says("overlay render r01n01 etc/localtime --json")).unwrap();
    assert_eq!(json[0]["files"][0]["content"]["symlink"], "/usr/share/zoneinfo/UTC");
    assert!(
        daemon
            .complains("overlay render r01n01 etc/nothing")
            .contains("r01n01 gets no file /etc/nothing")
    );
    assert!(daemon.complains("overlay render r01n05").contains("r01n05"));

    let out = dir.join("out");
    daemon.says(&format!(
        "overlay render r01n[01-02] --output {} --secrets",
        out.display()
    ));
    let key = fs::metadata(out.join("r01n01/etc/munge/munge.key")).unwrap();
    assert_eq!(key.mode() & 0o7777, 0o400);
    assert_eq!(
        fs::read_link(out.join("r01n02/etc/localtime")).unwrap(),
        Path::new("/usr/share/zoneinfo/UTC")
    );
    assert!(out.join("r01n01/home").is_dir());
    let owners = fs::read_to_string(out.join("r01n01.owners")).unwrap();
    assert!(owners.contains("7:8 0400 /etc/munge/munge.key\n"), "{owners}");
    let again = daemon.complains(&format!("overlay render r01n01 --output {}", out.display()));
    assert!(again.contains("name another directory with --output"), "{again}");

    let explained = daemon.says("explain r01n01");
    assert!(
        explained.contains("warning: debian@1 has no mount.nfs, so /home (nfs) is not mounted"),
        "{explained}"
    );
    let node = daemon.says("node show r01n01");
    assert!(node.contains("debian@1: user sync (1001) is left out"), "{node}");
    fs::write(dir.join("images/debian/1/root/usr/sbin/mount.nfs"), "").unwrap();
    assert!(!daemon.says("explain r01n01").contains("mount.nfs"));
}

#[test]
fn checks_and_rollouts_are_explained() {
    let daemon = daemon_with(2);
    daemon.says("image promote debian@1");
    daemon.says("node add r01n01 --hwaddr 52:54:00:01:01:01");
    daemon.says("node add r01n02 --hwaddr 52:54:00:01:01:02");
    let explained = daemon.says("explain r01n01");
    assert!(
        explained
            .lines()
            .any(|line| line.starts_with("checks:") && line.ends_with(" mount /home, login")),
        "{explained}"
    );
    assert!(!explained.contains("rollout of"), "{explained}");
    let shown = daemon.says("node show r01n01");
    assert!(shown.contains("mount /home  unknown  -"), "{shown}");
    // The image has no kernel modules, and the warning says so.
    let begun = daemon
        .command("rollout start debian@2 --nodes r01n01")
        .output()
        .unwrap();
    assert!(begun.status.success(), "{begun:?}");
    let explained = daemon.says("explain r01n01");
    assert!(
        explained.contains("\nrollout of debian@2 (canary): this node is in its canary, and waiting; it waits for"),
        "{explained}"
    );
    let explained = daemon.says("explain r01n02");
    assert!(
        explained
            .contains("\nrollout of debian@2 (canary): this node is not given it yet, and has debian@1 until then"),
        "{explained}"
    );
}

#[test]
fn the_servers_users_are_listed_with_their_problems() {
    let daemon = daemon();
    let dir = daemon.config().parent().unwrap().to_owned();
    insta::assert_snapshot!(daemon.says("users list").replace(dir.to_str().unwrap(), "DIR"));
    let json: serde_json::Value = serde_json::from_str(&daemon.says("sync-users --json")).unwrap();
    assert_eq!(json["users"][0]["name"], "alice");
    assert!(!json.to_string().contains("$6$"), "{json}");
    fs::remove_file(dir.join("accounts/group")).unwrap();
    assert!(daemon.complains("users sync").contains("accounts/group"));
    // Without the section there are no users.
    let plain = Daemon::start();
    assert!(plain.complains("users list").contains("no [users] section"));
}

#[test]
fn check_finds_a_templates_error_before_a_node_boots() {
    let daemon = daemon();
    let dir = daemon.config().parent().unwrap().to_owned();
    let said = |code: i32| {
        let output = daemon.command("check --file-only").output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stdout)
            .unwrap()
            .replace(dir.to_str().unwrap(), "DIR")
    };
    let good = said(0);
    assert!(
        !good.contains("warning: "),
        "nothing but the file and its templates was asked for: {good}"
    );
    // The server's address belongs to another machine, so `check` as a whole fails.
    let here = daemon.command("check").output().unwrap();
    assert_eq!(here.status.code(), Some(1), "{here:?}");
    let here = String::from_utf8(here.stdout)
        .unwrap()
        .replace(dir.to_str().unwrap(), "DIR");
    assert!(
        good.contains("  mount     10.5.0.2:/home/a b on /home (nfs), required\n"),
        "{good}"
    );
    assert!(
        good.contains("  users     1000-1999 and groups 1000-1999 of DIR/accounts, with passwords\n"),
        "{good}"
    );
    for warning in [
        "warning: debian@1 has no mount.nfs",
        "warning: DIR/accounts/passwd:4: left out: it should have 7 fields, and has 1",
        "warning: every local user can read the password hashes in DIR/accounts/shadow (mode 0644)",
    ] {
        assert!(here.contains(warning), "{here}");
    }
    fs::write(dir.join("templates/site/etc/motd.j2"), "welcome\n{{ node.nmae }}\n").unwrap();
    fs::create_dir_all(dir.join("templates/unused/etc")).unwrap();
    fs::write(dir.join("templates/unused/etc/x.j2"), "{% if node.gpu %}x{% endif %}").unwrap();
    let bad = said(1);
    assert!(
        bad.contains("DIR/templates/site/etc/motd.j2:2:4: 'node.nmae' is not defined\n"),
        "{bad}"
    );
    assert!(
        bad.contains("DIR/templates/unused/etc/x.j2:1:7: 'node.gpu' is not defined\n"),
        "{bad}"
    );
    assert!(bad.contains("2 problems in the templates"), "{bad}");
    fs::remove_dir_all(dir.join("templates/site")).unwrap();
    assert!(said(1).contains("template tree 'site' does not exist; [profile.default] names it"));
}
