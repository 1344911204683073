//! Hostlists, groups, exports and the editor, through the real command.

use crate::daemon::Daemon;
use std::{
    io::Write,
    process::{Output, Stdio},
};

/// Nodes r01n01 to r01n04 and r02n01 to r02n04.
fn racks() -> Daemon {
    let daemon = Daemon::start();
    let mut rows = String::from("name,hwaddr,profiles,groups\n");
    for rack in 1..=2 {
        for slot in 1..=4 {
            let group = if slot % 2 == 0 { "even" } else { "" };
            rows += &format!("r{rack:02}n{slot:02},52:54:00:00:{rack:02x}:{slot:02x},,{group}\n");
        }
    }
    assert!(piped(&daemon, "node import - --type csv", &rows).status.success());
    daemon
}

fn piped(daemon: &Daemon, words: &str, input: &str) -> Output {
    let mut command = daemon.command(words);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn names(daemon: &Daemon, nodes: &str) -> String {
    daemon.says(&format!("node list --names {nodes}")).trim().to_owned()
}

#[test]
fn hostlists_name_nodes_everywhere() {
    let daemon = racks();
    assert_eq!(names(&daemon, ""), "r[01-02]n[01-04]");
    assert_eq!(names(&daemon, "r[01-02]n[02-04/2] !r01n04"), "r01n02,r02n[02,04]");
    assert_eq!(names(&daemon, "@even&r02*"), "r02n[02,04]");
    assert_eq!(names(&daemon, "@rack:r01!@even"), "r01n[01,03]");
    assert_eq!(
        names(&daemon, "@profile:default&*n01"),
        "r[01-02]n[01]",
        "Slurm reads no text behind the last bracket"
    );
    assert_eq!(names(&daemon, "@state:absent"), "r[01-02]n[01-04]");
    assert_eq!(
        daemon.says("node list @state:lost"),
        "no node matches @state:lost (8 nodes in the inventory)\n"
    );
    let groups = daemon.says("node groups");
    assert!(
        groups.contains("@even") && groups.contains("r[01-02]n[02,04]"),
        "{groups}"
    );

    // One hostlist names all nodes that do not exist.
    assert!(
        daemon
            .complains("node list r01n99")
            .contains("node r01n99 is not in the inventory; `rackstrap node list` shows all")
    );
    let missing = daemon.complains("node set r01n[01-06] --join x");
    assert!(
        missing.contains("nodes r01n[05-06] are not in the inventory"),
        "{missing}"
    );
    assert!(
        daemon.complains("status @odd").contains("@even"),
        "the groups that there are"
    );
    assert!(
        daemon
            .complains("node delete @state:lost --yes")
            .contains("no node matches @state:lost (8 nodes in the inventory); nothing to do")
    );

    let said = daemon.says("node set r01n[01-02] --join new");
    assert_eq!(said, "r01n01: groups - -> new\nr01n02: groups even -> even new\n");
    let set = piped(
        &daemon,
        "node set - --join piped",
        "# by hand\nr01n03 r02n[03-04]\n!r02n04\n",
    );
    assert!(set.status.success(), "{set:?}");
    assert_eq!(names(&daemon, "@piped"), "r[01-02]n[03]");
    let nobody = piped(&daemon, "node delete - --yes", "# nobody\n");
    assert_eq!(nobody.status.code(), Some(1), "nothing is not everything: {nobody:?}");
    assert_eq!(daemon.says("node unset @piped --groups").lines().count(), 2);

    let shown = daemon.says("node show r02n[01-02]");
    assert!(shown.contains("r02n01") && shown.contains("\n\nnode:"), "{shown}");
    assert!(daemon.says("explain r02n[01-02]").contains("r02n02:"));
    let status = daemon.says("status r02*");
    assert!(
        status.contains("4 nodes: 4 absent") && !status.contains("r01n01"),
        "{status}"
    );
    assert_eq!(daemon.says("node export r01n[01-02]").matches("[node.").count(), 2);

    // A rack is moved, whole or not at all.
    assert!(
        daemon
            .complains("node rename r02n[01-04] r03n[01-03]")
            .contains("is 3 names")
    );
    assert_eq!(daemon.says("node rename r02n[01-04] r03n[11-14]").lines().count(), 4);
    assert_eq!(names(&daemon, "@rack:r03"), "r03n[11-14]");
    assert_eq!(
        daemon
            .says("node history r02n01 r03n11")
            .matches("r02n01 -> r03n11")
            .count(),
        2
    );
    // Both hostlists are paired in the order as written, also where nodes swap places.
    let hwaddr = |name: &str| {
        let listed = daemon.says(&format!("node list {name} --json"));
        let nodes: serde_json::Value = serde_json::from_str(&listed).unwrap();
        nodes[0]["hwaddrs"][0].as_str().unwrap().to_owned()
    };
    let (first, second) = (hwaddr("r03n11"), hwaddr("r03n12"));
    daemon.says("node rename r03n12,r03n11 r03n[01-02]");
    assert_eq!((hwaddr("r03n02"), hwaddr("r03n01")), (first.clone(), second.clone()));
    daemon.says("node rename r03n01,r03n02 r03n02,r03n01");
    assert_eq!((hwaddr("r03n01"), hwaddr("r03n02")), (first.clone(), second));
    let moved = piped(&daemon, "node rename - r03n09", "r03n01 # the first\n");
    assert!(moved.status.success(), "{moved:?}");
    assert_eq!(hwaddr("r03n09"), first);
    assert!(
        daemon
            .complains("node rename r03n02,r03n02 r03n[21-22]")
            .contains("r03n02 is named twice")
    );
    assert_eq!(daemon.says("node delete @rack:r03 --yes").lines().count(), 4);
    assert_eq!(names(&daemon, ""), "r01n[01-04]");
}

/// The first word of the column PROFILES of `node list`.
fn profiles(daemon: &Daemon, name: &str) -> String {
    let listed = daemon.says(&format!("node list {name}"));
    let row = listed.lines().nth(1).unwrap_or_else(|| panic!("{listed}"));
    row.split_whitespace().nth(3).unwrap().to_owned()
}

#[test]
fn a_single_profile_is_removed() {
    let daemon =
        Daemon::start_with(|_, text| text + "\n[profile.gpu]\n[profile.wipe]\nimage = \"debian\"\n[profile.old]\n");
    let rows = "name,hwaddr,profiles,groups\nr01n01,52:54:00:00:01:01,gpu wipe,big\nr01n02,52:54:00:00:01:02,wipe,\n\
                r01n03,52:54:00:00:01:03,gpu,\nr01n04,52:54:00:00:01:04,,\n";
    assert!(piped(&daemon, "node import - --type csv", rows).status.success());

    // The other profiles remain.
    assert_eq!(
        daemon.says("node unset r01n01 --profile wipe --dry-run"),
        "r01n01: profiles gpu wipe -> gpu\nnothing was changed: --dry-run\n"
    );
    assert_eq!(profiles(&daemon, "r01n01"), "gpu,");
    assert_eq!(
        daemon.says("node unset r01n01 --profile wipe"),
        "r01n01: profiles gpu wipe -> gpu\n"
    );
    assert_eq!(profiles(&daemon, "r01n01"), "gpu");
    // The last profile.
    assert_eq!(
        daemon.says("node unset r01n01 --profile gpu"),
        "r01n01: profiles gpu -> -\n"
    );
    assert_eq!(profiles(&daemon, "r01n01"), "-");
    assert!(daemon.says("node show r01n01").contains("groups:   big"), "groups stay");

    // Of a hostlist, the nodes that have the profile lose it, and the others stay unchanged. Several profiles can be removed
    // at once.
    daemon.says("node set r01n01 --profile old --profile gpu --profile wipe");
    assert_eq!(
        daemon.says("node unset r01n[01-04] --profile wipe --profile old"),
        "r01n01: profiles old gpu wipe -> gpu\nr01n02: profiles wipe -> -\n"
    );
    assert_eq!(names(&daemon, "@profile:gpu"), "r01n[01,03]");

    // No node has the profile: nothing is changed, and a typing error is reported. A script may run twice.
    let unset = |words: &str| {
        let output = daemon.run(words);
        assert!(output.status.success(), "{words}: {output:?}");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let nothing = "nothing to change: the nodes already have these settings\n".to_owned();
    assert_eq!(
        unset("node unset r01n[01-04] --profile wpie --profile gpu --dry-run"),
        (
            "r01n01: profiles gpu -> -\nr01n03: profiles gpu -> -\nnothing was changed: --dry-run\n".to_owned(),
            "warning: none of these nodes has the profile 'wpie'\n".to_owned()
        )
    );
    assert_eq!(
        unset("node unset r01n02 --profile gpu --group bog --hwaddr 52:54:00:00:09:09"),
        (
            nothing,
            "warning: none of these nodes has the profile 'gpu'\nwarning: none of these nodes has the group 'bog'\n\
             warning: none of these nodes has the MAC address 52:54:00:00:09:09\n"
                .to_owned()
        )
    );

    // To remove all profiles there is another option, and the two exclude each other.
    assert_eq!(daemon.says("node unset r01n[01-04] --profiles").lines().count(), 2);
    assert_eq!(
        daemon.run("node unset r01n01 --profiles --profile gpu").status.code(),
        Some(2)
    );
    // A profile that the site file no longer has can still be removed from a node.
    daemon.says("node set r01n01 --profile old --profile gpu");
    let site = std::fs::read_to_string(daemon.config()).unwrap();
    std::fs::write(daemon.config(), site.replace("[profile.old]\n", "")).unwrap();
    assert_eq!(
        daemon.says("node unset r01n01 --profile old"),
        "r01n01: profiles old gpu -> gpu\n"
    );
    assert!(
        daemon
            .complains("node unset r01n01 --profile gpu r09n01")
            .contains("r09n01")
    );
}

#[test]
fn exports_are_what_other_programs_read() {
    let daemon = racks();
    assert_eq!(daemon.says("export hostlist"), "r[01-02]n[01-04]\n");
    assert_eq!(daemon.says("export hostlist @even"), "r[01-02]n[02,04]\n");
    assert!(daemon.says("hosts").contains("10.5.1.1\tr01n01\n"));
    assert!(daemon.says("ethers r01n01").ends_with("52:54:00:00:01:01 r01n01\n"));
    assert!(
        daemon
            .says("dnsmasq")
            .contains("dhcp-host=52:54:00:00:01:01,set:rackstrap0,10.5.1.1,r01n01\n")
    );
    assert!(daemon.says("export genders").contains("r01n02 even\n"));
    let slurm = daemon.says("export slurm");
    assert!(slurm.contains("before their first boot: r[01-02]n[01-04]\n"), "{slurm}");
    let wrong = daemon.command("export nagios").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("write one of hosts, ethers"));
    let file = tempfile::tempdir().unwrap();
    let hosts = file.path().join("hosts").display().to_string();
    assert_eq!(daemon.says(&format!("hosts --output {hosts}")), "");
    assert_eq!(std::fs::read_to_string(&hosts).unwrap(), daemon.says("hosts"));
}

#[test]
fn nodes_are_changed_in_an_editor() {
    let daemon = racks();
    let edit = |editor: &str, words: &str| {
        let mut command = daemon.command(words);
        let output = command.env_remove("VISUAL").env("EDITOR", editor).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, said) = edit("true", "node edit r01n01 --yes");
    assert!(code == Some(0) && said.contains("the text was not edited"), "{said}");
    let (code, said) = edit("sed -i s/even/odd/", "node edit @even --yes");
    assert!(code == Some(0) && said.contains("0 added, 4 changed"), "{said}");
    assert_eq!(names(&daemon, "@odd"), "r[01-02]n[02,04]");
    let (code, said) = edit("sed -i s/odd/even/", "node edit @odd");
    assert!(
        code == Some(1) && said.contains("add --yes"),
        "without a confirmation: {said}"
    );
    assert_eq!(names(&daemon, "@odd"), "r[01-02]n[02,04]");

    // A fault is reported with its line, and the edited text is kept.
    let (code, said) = edit("sed -i s/:01:01/:02:01/", "node edit r01n01 --yes");
    assert!(code == Some(1) && said.contains("already belongs to r02n01"), "{said}");
    let kept = said.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(
        std::fs::read_to_string(&kept).unwrap().contains("52:54:00:00:02:01"),
        "{said}"
    );
    std::fs::remove_file(kept).unwrap();
    let (code, said) = edit("false", "node edit r01n01");
    assert!(code == Some(1) && said.contains("nothing was changed"), "{said}");
}
