//! A node's own settings and variables, by the real command: set, shown with their origins, taken away, exported and imported.

use super::{daemon::Daemon, overlays::image};
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

/// A site whose templates, kernel arguments and mount read variables.
fn with_variables() -> Daemon {
    let daemon = Daemon::start_with(|dir, text| {
        image(dir, 1);
        let tree = dir.join("templates/site/etc");
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(
            tree.join("pdu.j2"),
            "{{ vars.pdu }} {{ vars.nics | join(',') }} {{ vars.pin }}\n",
        )
        .unwrap();
        text.replace("[server]\n", "vars = { pdu = \"none\", nics = [] }\nvars-secret = { pin = \"0000\" }\n\n[server]\ntemplates-dir = \"templates\"\n")
            .replace(
                "[profile.default]\n",
                "[[mount]]\nwhat = \"{{ vars.pdu }}:/home\"\nwhere = \"/home\"\ntype = \"nfs\"\n\n[profile.gpu.vars]\npdu = \"pdu1\"\n\n\
                 [profile.default]\nimage = \"debian\"\ntemplates = [\"site\"]\nkernel-args = \"pdu={{ vars.pdu }}\"\n",
            )
    });
    daemon.says("node add r01n01 --hwaddr 52:54:00:01:01:01 --profile gpu");
    daemon.says("node add r01n02 --hwaddr 52:54:00:01:01:02");
    daemon
}

#[test]
fn variables_are_merged_by_name_and_read_everywhere() {
    let daemon = with_variables();
    assert_eq!(daemon.says("overlay render r01n02 etc/pdu --secrets"), "none  0000\n");
    assert_eq!(
        daemon.says("node set r01n01 vars.pdu=pdu2 vars.nics=[\"ib0\",\"ib1\"] vars-secret.pin=s3cret"),
        "r01n01: sets vars-secret.pin - -> (hidden), sets vars.nics - -> [\"ib0\", \"ib1\"], sets vars.pdu - -> pdu2\n"
    );
    assert_eq!(
        daemon.says("overlay render r01n01 etc/pdu --secrets"),
        "pdu2 ib0,ib1 s3cret\n"
    );
    assert_eq!(
        daemon.says("overlay render r01n01 etc/pdu"),
        "pdu2 ib0,ib1 (hidden; --secrets shows it)\n"
    );
    assert!(
        daemon
            .says("overlay render r01n01 etc/fstab")
            .contains("\npdu2:/home /home nfs ")
    );
    let all = shown(&daemon, "r01n01");
    assert_eq!(
        (&all["vars.pdu"]["value"], &all["vars.pdu"]["from"]),
        (&"\"pdu2\"".into(), &"node".into())
    );
    assert_eq!(
        all["vars.pdu"]["hides"],
        serde_json::json!([{ "from": "profile gpu", "value": "\"pdu1\"" }, { "from": "cluster", "value": "\"none\"" }])
    );
    assert_eq!(all["vars-secret.pin"]["value"], "(hidden)");
    let explained = daemon.says("explain r01n01");
    assert!(explained.contains("pdu=pdu2"), "{explained}");
    assert!(
        daemon
            .says("overlay render r01n01")
            .contains("\n    vars.nics: [\"ib0\", \"ib1\"]\n    vars.pdu: \"pdu2\"\n")
    );
    daemon.says("node unset r01n01 vars.pdu");
    assert_eq!(
        daemon.says("overlay render r01n01 etc/pdu --secrets"),
        "pdu1 ib0,ib1 s3cret\n",
        "its profile's"
    );
    // A table is no text.
    daemon.says("node set r01n01 vars.pdu={a=1}");
    let explained = daemon.says("explain r01n01");
    assert!(
        explained.contains("kernel-args: vars.pdu is a table, and a text is wanted here"),
        "{explained}"
    );
    for (words, says) in [
        ("node set r01n01 vars.a-b=1", "'a-b' is not the name of a variable"),
        (
            "node set r01n01 vars.a+=1",
            "vars.a is a variable, to which nothing can be added",
        ),
        (
            "node set r01n01 vars.a=@/nonexistent",
            "reading the value of a variable from /nonexistent",
        ),
        ("node set r01n01 kernel-args={{vars.pin", "has {{ without }}"),
    ] {
        let why = daemon.complains(words);
        assert!(why.contains(says), "{words}: {why}");
    }
    daemon.says("node set r01n01 vars.pdu=x kernel-args=pin={{vars.pin}}");
    assert!(
        daemon
            .says("explain r01n01")
            .contains("vars.pin is secret, and this is no place for a secret")
    );
}

#[test]
fn a_secret_variable_is_in_no_listing_and_stays_when_files_are_imported() {
    let daemon = with_variables();
    let file = daemon.config().with_file_name("pin");
    std::fs::write(&file, "s3cret\n").unwrap();
    daemon.says(&format!(
        "node set r01n01 vars.pdu=pdu2 vars-secret.pin=@{}",
        file.display()
    ));
    std::fs::write(&file, "s3cret2\n").unwrap();
    assert_eq!(
        daemon.says(&format!("node set r01n01 vars-secret.pin=@{}", file.display())),
        "r01n01: sets vars-secret.pin (hidden) -> (hidden, new)\n"
    );
    let exported = daemon.says("node export");
    let file = daemon.config().with_file_name("nodes.toml");
    std::fs::write(&file, exported.replace("pdu2", "pdu3")).unwrap();
    let imported = daemon.says(&format!("node import {}", file.display()));
    assert!(
        imported.starts_with("r01n01: sets vars.pdu pdu2 -> pdu3\n"),
        "{imported}"
    );
    assert_eq!(
        daemon.says("overlay render r01n01 etc/pdu --secrets"),
        "pdu3  s3cret2\n"
    );
    let history = daemon.says("node history r01n01");
    assert!(
        history.contains("sets vars-secret.pin (hidden) -> (hidden, new)"),
        "{history}"
    );
    for command in [
        "node show r01n01",
        "node show r01n01 --json",
        "node list --json",
        "node export",
        "node history r01n01",
        "node history r01n01 --json",
        "explain r01n01",
        "explain r01n01 --json",
        "status --json",
        "overlay render r01n01",
        "overlay render r01n01 --json",
        "timeline r01n01 --json",
        "node set r01n01 vars.x=1 --json",
        "node edit r01n01 --dry-run",
        "node list",
        "status",
        "timeline r01n01",
        "check",
        "export all",
        "export ansible",
        "export prometheus",
        "export genders",
        "export slurm",
        "hosts",
        "dnsmasq",
        "node boot --list --json",
        "rollout list --json",
    ] {
        let output = daemon
            .command(command)
            .env("VISUAL", "")
            .env("EDITOR", "cat >&2")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("s3cret"), "{command}: {said}");
    }
}

#[test]
fn an_undefined_variable_is_an_error_with_its_place_and_its_nodes() {
    let daemon = with_variables();
    let check = || {
        let output = daemon.run("check");
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    std::fs::write(
        daemon.config(),
        text.replace("pdu={{ vars.pdu }}", "pdu={{ vars.pud }}"),
    )
    .unwrap();
    let (good, said) = check();
    let line = text.lines().position(|line| line.starts_with("kernel-args")).unwrap() + 1;
    let place =
        format!("site.toml:{line}:15: kernel-args of profile default: vars.pud is not defined, for r01n[01-02]");
    assert!(!good && said.contains(&place), "{said}");
    std::fs::write(daemon.config(), text.replace("pdu = \"none\", ", "")).unwrap();
    let (_, said) = check();
    assert!(
        said.contains("kernel-args of profile default: vars.pdu is not defined, for r01n02;")
            || said.contains("vars.pdu is not defined, for r01n02\n"),
        "{said}"
    );
    assert!(
        said.contains("the mount on /home: vars.pdu is not defined, for r01n02"),
        "{said}"
    );
    assert!(
        said.contains("templates/site/etc/pdu.j2:1:4: 'vars.pdu' is not defined"),
        "{said}"
    );
    std::fs::write(daemon.config(), &text).unwrap();
    let (_, said) = check();
    assert!(!said.contains("is not defined"), "{said}");
}

#[test]
fn a_node_that_pins_a_version_is_left_out_of_the_rollout_by_name() {
    let daemon = Daemon::start_with(|dir, text| {
        image(dir, 1);
        image(dir, 2);
        text.replace("[profile.default]\n", "[profile.default]\nimage = \"debian\"\n")
    });
    daemon.says("node add r01n01 image=debian@1 --hwaddr 52:54:00:01:01:01");
    daemon.says("node add r01n02 --hwaddr 52:54:00:01:01:02");
    daemon.says("image promote debian@1");
    let why = daemon.complains("rollout start debian@2 --nodes r01n[01-02]");
    assert!(why.contains("r01n01: pinned to debian@1 by its own setting"), "{why}");
    let begun = daemon.run("rollout start debian@2 --nodes r01n02");
    let said = String::from_utf8_lossy(&begun.stdout) + String::from_utf8_lossy(&begun.stderr);
    assert!(
        begun.status.success() && said.contains("r01n01: left out, because their settings pin debian@1"),
        "{said}"
    );
    let explained = daemon.says("explain r01n01");
    assert!(
        explained.contains("this node is left out, because its settings pin debian@1"),
        "{explained}"
    );
}

#[test]
fn a_node_that_no_pattern_names_has_its_own_address() {
    let daemon = daemon();
    let added = daemon.says("node add login01 ipaddr=10.5.0.4 --hwaddr 52:54:00:01:00:04");
    assert!(
        added.starts_with("login01 added: address 10.5.0.4, hwaddr 52:54:00:01:00:04\n"),
        "{added}"
    );
    assert_eq!(shown(&daemon, "login01")["ipaddr"]["from"], "node");
    let explained = daemon.says("explain login01");
    assert!(
        explained.contains("address 10.5.0.4 in subnet 10.5.0.0/16, its own setting"),
        "{explained}"
    );
    // Every listing finds it by its name and by its address, also in a hostlist.
    assert!(daemon.says("node show 10.5.0.4").contains("login01"));
    assert!(daemon.says("hosts login01,r01n01").contains("10.5.0.4\tlogin01"));
    let unknown = daemon.complains("node list @rack:logi");
    assert!(unknown.contains("@rack:logi"), "its name says no rack: {unknown}");
    // A name of the pattern moves away from its address, and back.
    assert_eq!(
        daemon.says("node set r01n01 ipaddr=10.5.200.9"),
        "r01n01: address 10.5.1.1 -> 10.5.200.9, sets ipaddr - -> 10.5.200.9\n"
    );
    let explained = daemon.says("explain r01n01");
    assert!(
        explained.contains("its own setting, instead of 10.5.1.1 of its name"),
        "{explained}"
    );
    let exported = daemon.says("node export");
    assert!(exported.contains("settings = { ipaddr = \"10.5.0.4\" }"), "{exported}");
    let file = daemon.config().with_file_name("nodes.toml");
    std::fs::write(&file, &exported).unwrap();
    assert_eq!(
        daemon.says(&format!("node import {}", file.display())),
        "0 added, 0 changed, 3 unchanged\n"
    );
    for (command, why) in [
        ("node set login01 ipaddr=10.5.200.9", "which r01n01 already has"),
        (
            "node set login01 ipaddr=192.0.2.1",
            "which is in none of the site's networks (10.5.0.0/16)",
        ),
        (
            "node unset login01 ipaddr",
            "needs an address of its own: ipaddr=ADDRESS",
        ),
        (
            "node add login02 --hwaddr 52:54:00:01:00:05",
            "needs an address of its own: ipaddr=ADDRESS",
        ),
    ] {
        let refused = daemon.complains(command);
        assert!(refused.contains(why), "{command}: {refused}");
    }
    assert_eq!(
        daemon.says("node unset r01n01 ipaddr"),
        "r01n01: address 10.5.200.9 -> 10.5.1.1, sets ipaddr 10.5.200.9 -> -\n"
    );
}
