//! A node's own settings, by the real command: set, shown with their origins, taken away, exported and imported.

use super::daemon::Daemon;
use serde_json::Value;

const PROFILES: &str = "kernel-args = \"quiet\"\nconsole = \"ttyS0,115200\"\n\n[profile.gpu]\nkernel-args = \"iommu=pt\"\n\n\
                        [layout.scratch]";

fn daemon() -> Daemon {
    let daemon = Daemon::start_with(|_, text| text.replacen("\n[layout.scratch]", PROFILES, 1));
    daemon.says("node add r01n01 --hwaddr 52:54:00:01:01:01 --profile gpu");
    daemon.says("node add r01n02 --hwaddr 52:54:00:01:01:02");
    daemon
}

/// The settings of a node: value, origin, addition and hidden values by key.
fn shown(daemon: &Daemon, node: &str) -> Value {
    let answer: Value = serde_json::from_str(&daemon.says(&format!("node show {node} --json"))).unwrap();
    let rows = answer["settings"].as_array().unwrap().iter();
    rows.map(|row| (row["key"].as_str().unwrap().to_owned(), row.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn a_nodes_own_settings_win_and_name_what_they_hide() {
    let daemon = daemon();
    assert_eq!(
        daemon.says("node set r01n01 console=ttyS1,115200 kernel-args+=hugepages=64 image=debian@2"),
        "r01n01: sets console - -> ttyS1,115200, sets image - -> debian@2, adds to kernel-args - -> hugepages=64\n"
    );
    let all = shown(&daemon, "r01n01");
    let console = &all["console"];
    assert_eq!(
        (&console["value"], &console["from"], &console["profile"]),
        (&"ttyS1,115200".into(), &"node".into(), &"".into())
    );
    assert_eq!(
        console["hides"],
        serde_json::json!([{ "from": "default", "value": "ttyS0,115200" }])
    );
    let args = &all["kernel-args"];
    assert_eq!(
        (&args["value"], &args["from"], &args["profile"], &args["added"]),
        (
            &"iommu=pt hugepages=64".into(),
            &"profile gpu".into(),
            &"gpu".into(),
            &"hugepages=64".into()
        )
    );
    assert_eq!(
        args["hides"],
        serde_json::json!([{ "from": "default", "value": "quiet" }])
    );
    assert_eq!(all["layout"]["from"], "default");
    for command in ["node show r01n01", "explain r01n01"] {
        let text = daemon.says(command);
        let row = text
            .lines()
            .find(|line| line.trim_start().starts_with("console "))
            .unwrap_or_else(|| panic!("{text}"));
        assert!(
            row.contains("ttyS1,115200") && row.contains("node"),
            "{command}: {text}"
        );
        assert!(text.contains("ttyS0,115200 (default)"), "{command}: {text}");
    }
    let explained = daemon.says("explain r01n01");
    assert!(
        explained.contains("iommu=pt hugepages=64")
            && explained.contains("settings of the node itself, which win: console, image, kernel-args+"),
        "{explained}"
    );
    assert!(
        explained.contains("image debian@2, which its settings pin, does not exist"),
        "{explained}"
    );
    let status = daemon.says("status");
    assert!(
        status.contains("image debian@2 does not exist; r01n01 cannot boot"),
        "{status}"
    );
    // The profile's value holds again.
    assert_eq!(
        daemon.says("node unset r01n01 console image kernel-args"),
        "r01n01: sets console ttyS1,115200 -> -, sets image debian@2 -> -, adds to kernel-args hugepages=64 -> -\n"
    );
    assert_eq!(shown(&daemon, "r01n01")["console"]["from"], "default");
    let unset = daemon.run("node unset r01n01 console");
    assert!(String::from_utf8_lossy(&unset.stderr).contains("none of these nodes has a setting 'console' of its own"));
    let history = daemon.says("node history r01n01");
    assert!(history.contains("sets console - -> ttyS1,115200"), "{history}");
}

#[test]
fn a_wrong_value_is_refused_for_all_nodes_with_the_site_files_message() {
    let daemon = daemon();
    for (words, says) in [
        (
            "node set r01n[01-02] console=/dev/ttyS0",
            "node r01n01: console = \"/dev/ttyS0\": '/dev/ttyS0' is not a serial console; write console = \"ttyS0\"",
        ),
        (
            "node set r01n01 layout=scrach",
            "layout 'scrach' does not exist; did you mean \"scratch\"?",
        ),
        (
            "node set r01n01 imgae=debian",
            "a node has no setting 'imgae'; did you mean 'image'?",
        ),
        (
            "node set r01n01 image+=debian",
            "image has one value, to which nothing can be added",
        ),
        (
            "node set r01n01 kernel-args-=quiet",
            "the node itself does not have this in kernel-args",
        ),
        ("node set r01n01 check-login=no", "write check-login = false"),
        (
            "node set r01n01 kernel-args=rdinit=/bin/sh",
            "would start another program instead of rackstrap's agent",
        ),
        ("node set r01n01", "nothing to change: name nodes, and KEY=VALUE"),
        ("node set image=debian", "no nodes: name nodes, and KEY=VALUE"),
        ("node unset r01n01 consle", "did you mean console?"),
        ("node unset r01n01", "nothing to remove"),
        (
            "node add r01n03 console=x! --hwaddr 52:54:00:01:01:03",
            "is not a serial console",
        ),
    ] {
        let why = daemon.complains(words);
        assert!(why.contains(says), "{words}: {why}");
    }
    // One of two nodes cannot have it, so neither gets it.
    daemon.says("node set r01n02 kernel-args+=a");
    let why = daemon.complains("node set r01n[01-02] kernel-args-=a");
    assert!(why.contains("node r01n01: kernel-args- = \"a\""), "{why}");
    assert_eq!(shown(&daemon, "r01n02")["kernel-args"]["added"], "a");
    assert!(
        daemon
            .says("node export")
            .contains("[node.r01n01]\nhwaddrs = [\"52:54:00:01:01:01\"]\nprofiles = [\"gpu\"]\ngroups = []\n\n")
    );
    assert!(!daemon.says("node set r01n01 console=ttyS3 --dry-run").is_empty());
    assert_eq!(
        shown(&daemon, "r01n01")["console"]["from"],
        "default",
        "a dry run changes nothing"
    );
}

#[test]
fn settings_are_exported_edited_and_imported() {
    let daemon = daemon();
    daemon.says("node set r01n[01-02] kernel-args+=a templates=[\"base\"] check-login=false");
    let exported = daemon.says("node export");
    let line = "settings = { check-login = false, \"kernel-args+\" = \"a\", templates = [\"base\"] }\n";
    assert_eq!(exported.matches(line).count(), 2, "{exported}");
    let file = daemon.config().with_file_name("nodes.toml");
    std::fs::write(&file, &exported).unwrap();
    let import = format!("node import {}", file.display());
    assert_eq!(daemon.says(&import), "0 added, 0 changed, 2 unchanged\n");
    // A key that is left out of the table is removed; a node without the table keeps its settings.
    let changed = exported.replacen(
        "check-login = false, \"kernel-args+\" = \"a\"",
        "\"kernel-args+\" = \"b\"",
        1,
    );
    let changed = changed.trim_end().strip_suffix(line.trim_end()).unwrap().to_owned();
    std::fs::write(&file, &changed).unwrap();
    assert_eq!(
        daemon.says(&import),
        "r01n01: sets check-login false -> -, adds to kernel-args a -> b\n0 added, 1 changed, 1 unchanged\n"
    );
    assert_eq!(shown(&daemon, "r01n01")["kernel-args"]["value"], "iommu=pt b");
    assert_eq!(shown(&daemon, "r01n02")["kernel-args"]["value"], "quiet a");
    // Problems have their place in the file.
    std::fs::write(&file, changed.replace("\"base\"", "\"ba se\"")).unwrap();
    let why = daemon.complains(&import);
    assert!(
        why.contains(
            "nodes.toml:5:36: node r01n01: templates = [\"ba se\"]: 'ba se' is not the name of a template tree"
        ),
        "{why}"
    );
    let mut edit = daemon.command("node edit r01n01 --yes");
    edit.env("VISUAL", "")
        .env("EDITOR", "sed -i 's/kernel-args+\" = \"b\"/kernel-args\" = \"c\"/'");
    let output = edit.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let args = shown(&daemon, "r01n01")["kernel-args"].clone();
    assert_eq!((&args["value"], &args["from"]), (&"c".into(), &"node".into()));
}
