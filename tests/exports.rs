//! Exports as the programs that read them take them: Ansible's own reader, and the form that Prometheus' documentation gives for files of
//! targets.

use crate::daemon::Daemon;
use serde_json::{Value, json};
use std::process::Command;

/// Three nodes with groups that Ansible does not take as they are, and with variables of all kinds.
fn daemon() -> Daemon {
    let daemon = Daemon::start_with(|_, text| text.replace("[profile.default]", "[profile.gpu]\n\n[profile.default]"));
    daemon.says("node add r01n01 --hwaddr 52:54:00:01:01:01 --profile gpu --group rack-1");
    daemon.says("node add r01n02 --hwaddr 52:54:00:01:01:02 --group rack-1 --group rack_1");
    daemon.says("node add r02n01 --hwaddr 52:54:00:01:02:01");
    daemon.says("node set r01n01 vars.pdu=pdu2 vars.slots=4 vars.nics=[\"ib0\",\"ib1\"] vars-secret.pin=s3cret --attr owner=physics");
    daemon
}

#[test]
fn ansible_reads_the_inventory_with_its_groups_and_variables_and_without_a_warning() {
    let daemon = daemon();
    let file = daemon.config().with_file_name("nodes.json");
    let exported = daemon.run(&format!("export ansible --output {}", file.display()));
    assert!(exported.status.success(), "{exported:?}");
    let own = daemon.config().with_file_name("ansible.cfg");
    std::fs::write(&own, "").unwrap();
    let done = Command::new("ansible-inventory")
        .arg("-i")
        .arg(&file)
        .arg("--list")
        // Without the configuration and the temporary files of the machine.
        .env("ANSIBLE_CONFIG", own)
        .env("ANSIBLE_LOCAL_TEMP", daemon.config().with_file_name("tmp"))
        .env("HOME", daemon.config().parent().unwrap())
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && !errors.contains("WARNING"), "{errors}");
    let read: Value = serde_json::from_slice(&done.stdout).unwrap();
    let hosts = &read["_meta"]["hostvars"];
    assert_eq!(hosts.as_object().unwrap().len(), 3);
    assert_eq!(
        (&hosts["r01n01"]["ansible_host"], &hosts["r01n01"]["ansible_user"]),
        (&json!("10.5.1.1"), &json!("root"))
    );
    let facts = &hosts["r01n01"]["rackstrap"];
    assert_eq!(
        facts["vars"],
        json!({ "pdu": "pdu2", "slots": 4, "nics": ["ib0", "ib1"] }),
        "as JSON has them, and no secret"
    );
    assert_eq!(facts["attributes"]["owner"], "physics");
    for (group, members) in [
        ("profile_gpu", json!(["r01n01"])),
        ("profile_default", json!(["r01n02", "r02n01"])),
        ("rack_r02", json!(["r02n01"])),
        // `rack-1`, and `rack_1` after it.
        ("rack_1", json!(["r01n01", "r01n02"])),
        ("rack_1_", json!(["r01n02"])),
    ] {
        assert_eq!(read[group]["hosts"], members, "{group}: {read}");
    }
    assert!(!String::from_utf8_lossy(&done.stdout).contains("s3cret"));
}

/// <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config>: a list of groups, each with `targets`, a list
/// of texts, and `labels`, whose values are texts and whose names have letters, digits and `_`.
#[test]
fn the_file_for_prometheus_has_targets_and_labels_only() {
    let daemon = daemon();
    let groups: Value = serde_json::from_str(&daemon.says("export prometheus")).unwrap();
    let groups = groups.as_array().unwrap();
    assert_eq!(groups.len(), 3);
    for group in groups {
        let keys: Vec<&String> = group.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["labels", "targets"]);
        for target in group["targets"].as_array().unwrap() {
            let (address, port) = target.as_str().unwrap().rsplit_once(':').unwrap();
            assert!(
                address.parse::<std::net::Ipv4Addr>().is_ok() && port.parse::<u16>().is_ok(),
                "{target}"
            );
        }
        for (name, value) in group["labels"].as_object().unwrap() {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            assert!(
                name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()),
                "{name}"
            );
            // Names that begin so are removed after relabelling.
            assert!(!name.starts_with("__") && value.is_string(), "{name} {value}");
        }
    }
    assert_eq!(groups[0]["labels"]["instance"], "r01n01");
}
