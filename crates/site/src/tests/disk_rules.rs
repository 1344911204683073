//! `disk` of profiles and nodes.

use super::*;
use crate::own::meant;
use serde_json::json;

fn with(disk: &str) -> String {
    format!("{SMALL}[profile.default]\ndisk = {disk}\n")
}

fn disk(text: &str) -> String {
    site(&with(text)).profiles["default"].disk.clone().unwrap()
}

#[test]
fn a_rule_is_a_table_of_properties_or_their_text() {
    for (written, read) in [
        ("\"auto\"", "auto"),
        ("\"nvme0n1\"", "nvme0n1"),
        ("\"smallest\"", "pick=smallest"),
        ("\"largest\"", "pick=largest"),
        ("\"transport=nvme, pick=first\"", "transport=nvme, pick=first"),
        ("{ serial = \"S4EMNX0R\" }", "serial=S4EMNX0R"),
        (
            "{ pick = \"smallest\", rotational = false, size = \"400GB..\", model = \"Samsung*\" }",
            "model=Samsung*, size=400GB.., rotational=no, pick=smallest",
        ),
    ] {
        assert_eq!(disk(written), read);
    }
}

#[test]
fn wrong_rules_are_refused_with_what_to_write() {
    for (written, parts) in [
        (
            "{}",
            &["a rule without properties fits every disk", "transport = \"nvme\""][..],
        ),
        (
            "{ seriel = \"A\" }",
            &["'seriel' is not a property of disks", "did you mean 'serial'?"],
        ),
        ("{ serial = 12 }", &["'serial' is a string, not an integer"]),
        (
            "{ rotational = \"no\" }",
            &["'rotational' is true or false, not a string"],
        ),
        ("{ size = \"2TB\" }", &["'2TB' is not a range of sizes", "400GB..2TB"]),
        (
            "{ transport = \"scsi\", pick = \"any\" }",
            &["'scsi' is not a transport", "'any' does not say"],
        ),
        ("\"serial=\"", &["'' is not the serial of a disk"]),
        ("\"/dev/disk/by-id/x\"", &["is a path", "transport = \"nvme\""]),
        ("[\"auto\"]", &["'disk' is a string, not a list"]),
    ] {
        let said = said(&with(written));
        assert!(parts.iter().all(|part| said.contains(part)), "{written}: {said}");
    }
}

#[test]
fn a_node_has_a_rule_of_its_own_from_the_command_line() {
    for (text, rule) in [
        ("serial=S4EMNX0R", "serial=S4EMNX0R"),
        (
            "{ transport = \"sata\", pick = \"largest\" }",
            "transport=sata, pick=largest",
        ),
        ("auto", "auto"),
    ] {
        let mut settings = NodeSettings::default();
        settings.change("disk", &meant("disk", text)).unwrap();
        assert_eq!(settings.problems(&site(SMALL)), [], "{text}");
        assert_eq!(settings.set().disk.as_deref(), Some(rule), "{text}");
    }
    // A value that no release writes, as a row of the store could have it.
    let mut settings = NodeSettings::default();
    settings.change("disk", &json!({ "serial": { "a": 1 } })).unwrap();
    assert_eq!(settings.problems(&site(SMALL)).len(), 1);
    assert_eq!(settings.set().disk, None);
}

fn partition(lines: &str) -> String {
    format!(
        "{SMALL}[layout.s]\nversion = 1\n[[layout.s.partition]]\nname = \"a\"\nsize = \"1GiB\"\n{lines}\n[profile.default]\nlayout = \"s\"\n"
    )
}

#[test]
fn owner_and_mode_of_a_mounted_directory_are_not_on_the_disk() {
    let plain = "fs = \"ext4\"\nmount = \"/scratch\"";
    let policy = |lines: &str| site(&partition(lines)).layouts["s"].clone();
    let with = policy(&format!("{plain}\nowner = \"1000:100\"\nmode = \"2775\""));
    let root = with.roots.first().unwrap();
    assert_eq!(
        (root.partition.as_str(), root.owner, root.mode),
        ("a", Some((1000, 100)), Some(0o2775))
    );
    // A change of these must not prepare disks again.
    assert_eq!(with.digest, policy(plain).digest);
    assert!(policy(plain).roots.is_empty());
    assert_eq!(
        policy("fs = \"swap\"\noptions = \"pri=10,discard=once\"")
            .layout
            .partitions[0]
            .options,
        "pri=10,discard=once"
    );
}

#[test]
fn wrong_owners_modes_and_options_of_swap_are_refused() {
    let mounted = "fs = \"ext4\"\nmount = \"/scratch\"\n";
    for (lines, part) in [
        ("owner = \"root\"", "'root' is not an owner"),
        ("owner = \"1000\"", "owner = \"1000:100\""),
        ("owner = \"4294967295:0\"", "is not an owner"),
        ("owner = \"+1:0\"", "is not an owner"),
        ("mode = \"rwx\"", "three or four octal digits"),
        ("mode = \"17777\"", "three or four octal digits"),
        ("mode = \"888\"", "three or four octal digits"),
        ("mode = 755", "mode = \"755\""),
    ] {
        let said = said(&partition(&format!("{mounted}{lines}")));
        assert!(said.contains(part), "{lines}: {said}");
    }
    for (lines, part) in [
        (
            "fs = \"raw\"\nmode = \"755\"",
            "'mode' is for partitions that are mounted",
        ),
        (
            "fs = \"swap\"\nowner = \"0:0\"",
            "'owner' is for partitions that are mounted",
        ),
        (
            "fs = \"swap\"\noptions = \"pri=32768\"",
            "'pri=32768' is not an option of swap",
        ),
        (
            "fs = \"swap\"\noptions = \"noatime\"",
            "'noatime' is not an option of swap",
        ),
    ] {
        let said = said(&partition(lines));
        assert!(said.contains(part), "{lines}: {said}");
    }
}
