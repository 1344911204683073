//! Tests of nodes' own settings: the messages of the site file, and what adding and taking away do.

use super::*;
use crate::parse;
use proptest::prelude::*;
use serde_json::json;
use std::path::Path;

fn site() -> Site {
    let text = "[cluster]\nnode-name = \"n{n:02}\"\nnode-address = \"10.5.1.{n}\"\nreserved = [\"10.5.1.250\"]\n\
                [[subnet]]\nnetwork = \"10.5.1.0/24\"\ninterface = \"eth1\"\nserver = \"10.5.1.250\"\n\
                [profile.default]\nlayout = \"scratch\"\n[layout.scratch]\nversion = 1\ntable = \"gpt\"\n\
                partition = [{ name = \"scratch\", size = \"rest\", fs = \"ext4\", mount = \"/scratch\" }]\n";
    parse(text, Path::new("/site.toml")).unwrap_or_else(|e| panic!("{e}")).0
}

fn settings(all: Value) -> NodeSettings {
    let written: BTreeMap<String, Value> = serde_json::from_value(all).unwrap();
    written.into()
}

fn problems(all: Value) -> Vec<String> {
    settings(all)
        .problems(&site())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_setting_is_refused_as_the_site_file_refuses_it() {
    for (all, says) in [
        (
            json!({ "image": "De bian" }),
            "image = \"De bian\": 'De bian' is not an image; write a name",
        ),
        (
            json!({ "layout": "scrach" }),
            "layout = \"scrach\": layout 'scrach' does not exist; did you mean \"scratch\"?",
        ),
        (
            json!({ "check-login": "no" }),
            "check-login = \"no\": 'check-login' is true or false, not a string; write check-login = false",
        ),
        (
            json!({ "console": 7 }),
            "console = 7: 'console' is a string, not an integer; write console = \"ttyS0,115200\"",
        ),
        (
            json!({ "ram-size": "5GB" }),
            "ram-size = \"5GB\": '5GB' is not a size for tmpfs; write ram-size = \"5g\"",
        ),
        (
            json!({ "imgae": "debian" }),
            "imgae: a node has no setting 'imgae'; did you mean 'image'?",
        ),
        (
            json!({ "nonsense": 1 }),
            "nonsense: a node has no setting 'nonsense'; the settings are image, layout, disk,",
        ),
        (
            json!({ "image+": "debian" }),
            "image+: image has one value, to which nothing can be added; write image=VALUE; += and -= are for",
        ),
        (
            json!({ "kernel-args+": "rdinit=/x" }),
            "kernel-args+ = \"rdinit=/x\": 'rdinit=/x' would start another program",
        ),
        (json!({ "checks+": ["unit"] }), "checks+ = [\"unit\"]: "),
    ] {
        let found = problems(all.clone());
        assert_eq!(found.len(), 1, "{all}: {found:?}");
        assert!(found[0].starts_with(says), "{}", found[0]);
    }
    // All of them, and the valid one has its effect.
    let three = json!({ "image": "", "console": "ttyS0,115200", "init": "sh", "x\ny": "\u{1b}[2J" });
    assert_eq!(problems(three.clone()).len(), 3);
    let three = settings(three);
    assert_eq!(
        (three.set().console.as_deref(), three.set().init.as_deref()),
        (Some("ttyS0,115200"), None)
    );
    assert!(problems(json!({ "layout": "" })).is_empty(), "it leaves disks alone");
}

#[test]
fn every_setting_of_the_table_can_be_set_on_a_node() {
    let text = json!({
        "image": "debian@2", "layout": "scratch", "disk": "nvme0n1", "firmware": "network-first", "boot": "local", "kernel-args": "quiet",
        "templates": ["site"], "authorized-keys": [], "console": ["ttyS1,115200", "ttyS0"], "init": "/sbin/runit",
        "ram-size": "2g", "mtu": 9000, "dhcp-options": ["150 address 10.5.0.1"], "checks": ["unit sshd.service"], "check-login": false,
        "bmc-address": "10.6.200.3", "bmc-user": "admin", "bmc-password-file": "/etc/rackstrap/bmc.password"
    });
    let all = settings(text.clone());
    assert_eq!(all.problems(&site()), []);
    for setting in &SETTINGS {
        assert!(
            text.get(setting.key).is_some(),
            "give {} a value in this test",
            setting.key
        );
        assert!((setting.shown)(all.set()).is_some(), "{}", setting.key);
    }
}

#[test]
fn adding_and_taking_away_are_of_the_node_itself() {
    let mut own = NodeSettings::default();
    let mut change = |key: &str, value: Value| match own.change(key, &value) {
        Ok(()) => json!(own.written()).to_string(),
        Err(problem) => problem.to_string(),
    };
    assert_eq!(
        change("kernel-args+", json!("a b=\"c d\"")),
        r#"{"kernel-args+":"a b=\"c d\""}"#
    );
    assert_eq!(
        change("kernel-args+", json!("b=\"c d\" e")),
        r#"{"kernel-args+":"a b=\"c d\" e"}"#
    );
    assert_eq!(change("kernel-args-", json!("b=\"c d\"")), r#"{"kernel-args+":"a e"}"#);
    assert_eq!(change("kernel-args-", json!("a e")), "{}");
    assert!(
        change("kernel-args-", json!("quiet")).contains("the node itself does not have this in kernel-args; -= takes")
    );
    assert_eq!(change("templates", json!(["x"])), r#"{"templates":["x"]}"#);
    assert_eq!(change("templates+", json!(["x", "y"])), r#"{"templates":["x","y"]}"#);
    assert_eq!(change("templates-", json!(["x"])), r#"{"templates":["y"]}"#);
    assert_eq!(
        change("templates-", json!(["y"])),
        r#"{"templates":[]}"#,
        "its own list is empty, and hides others"
    );
    assert!(change("image+", json!("x")).contains("image has one value"));
    assert!(change("imgae", json!("x")).contains("did you mean 'image'?"));
    assert!(own.remove("templates") && own.is_empty() && !own.remove("templates"));
}

#[test]
fn words_of_the_command_line_become_values_of_the_settings_kind() {
    for (key, text, value) in [
        ("image", "debian@2", json!("debian@2")),
        ("image", "\"debian\"", json!("\"debian\"")),
        ("console", "ttyS1,115200", json!("ttyS1,115200")),
        ("console", "[\"ttyS1\", \"ttyS0\"]", json!(["ttyS1", "ttyS0"])),
        ("templates+", "site", json!(["site"])),
        ("templates-", "[\"site\"]", json!(["site"])),
        ("templates", "", json!([])),
        ("check-login", "false", json!(false)),
        ("check-login", "no", json!("no")),
        ("kernel-args+", "dyndbg=\"file x +p\"", json!("dyndbg=\"file x +p\"")),
        ("unknown", "7", json!("7")),
    ] {
        assert_eq!(meant(key, text), value, "{key}={text}");
    }
}

proptest! {
    /// What a row of the store has, whoever wrote it, is read, and written back unchanged.
    #[test]
    fn any_row_is_read_and_kept(
        all in prop::collection::btree_map(
            prop_oneof![prop::sample::select(&KEYS[..]).prop_map(str::to_owned), "[a-z+.-]{0,12}", ".{0,6}"],
            prop_oneof![
                ".{0,20}".prop_map(Value::from),
                any::<i64>().prop_map(Value::from),
                any::<u64>().prop_map(Value::from),
                any::<bool>().prop_map(Value::from),
                prop::collection::vec(".{0,8}", 0..3).prop_map(Value::from),
                Just(Value::Null),
            ],
            0..6,
        ),
    ) {
        let text = serde_json::to_string(&all).unwrap();
        let own: NodeSettings = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(serde_json::to_string(&own).unwrap(), text);
        for problem in own.problems(&site()) {
            prop_assert!(all.contains_key(&problem.key), "{:?}", problem);
            prop_assert!(!problem.to_string().contains(|c: char| c.is_control()), "{:?}", problem);
        }
    }

    /// Words that are added can be taken away again.
    #[test]
    fn what_is_added_is_taken_away(before in "[a-d]( [a-d]){0,3}", more in "[e-h=\"]{1,6}( [i-k]){0,2}") {
        prop_assume!(more.matches('"').count() % 2 == 0 && !words(&more).is_empty());
        let mut own = NodeSettings::default();
        own.change("kernel-args+", &json!(before)).unwrap();
        let once = own.clone();
        own.change("kernel-args+", &json!(more)).unwrap();
        let again = own.clone();
        own.change("kernel-args+", &json!(more)).unwrap();
        prop_assert_eq!(&own, &again, "twice is once");
        own.change("kernel-args-", &json!(more)).unwrap();
        prop_assert_eq!(&own, &once);
    }
}
