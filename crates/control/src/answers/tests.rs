//! Answers keep the names that scripts know from `--json` when rows are renamed. Each text is a row as the previous release
//! wrote it.

use crate::api::{self, NodeRow};
use rackstrap_base::{clock::Timestamp, warnings::SiteWarning};
use rackstrap_model::{
    decide::Current,
    disks::NodeDisk,
    inventory::{Change, Entry, Node},
};
use rackstrap_registries::{
    discovery::{Machine, Session},
    restart::Request,
    rollout::{Member, Rollout, Share},
    timeline::{DhcpMessage, Event, EventKind, summarise},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The answer made of the row `row` has the same names and values.
fn keeps<R: DeserializeOwned, A: Serialize>(row: &Value, answer: impl Fn(R) -> A) {
    let read: R = serde_json::from_value(row.clone()).unwrap_or_else(|error| panic!("{error}: {row}"));
    assert_eq!(serde_json::to_value(answer(read)).unwrap(), *row);
}

fn node() -> Value {
    json!({
        "name": "r01n01", "hwaddrs": ["52:54:00:01:01:01"], "ipaddr": "10.5.1.1", "profiles": ["gpu"], "groups": ["new"],
        "attributes": {"location": "row 3"},
    })
}

fn machine() -> Value {
    let place =
        json!({"interface": "eth1", "relay": "10.6.0.1", "network": "10.6.0.0/16", "switch": "sw1", "port": "7"});
    json!({
        "hwaddr": "52:54:00:00:00:09", "number": 4, "uuid": "8e5d3f5e-66a5-4b0c-9f38-0a5b2a8f0001", "arch": 7, "serial": "s",
        "vendor": "v", "product": "p", "place": place, "before": [place, 5], "first_seen": 1, "last_seen": 2, "booting": true,
        "confirmed": true, "no_room": {"network": "10.6.0.0/16", "why": "full", "since": 1, "until": 9}, "ignored": false,
        "held": true,
    })
}

#[test]
fn nodes_and_their_history() {
    keeps(&node(), |node: Node| NodeRow::from(&node));
    let entry = json!({"at": 5, "by": "root (login: alice)", "changed": {"before": null, "after": node()}});
    keeps(&entry, |entry: Entry| api::HistoryRow::from(entry));
    // The way back, for commands that compare.
    let row: NodeRow = serde_json::from_value(node()).unwrap();
    assert_eq!(serde_json::to_value(Node::from(row)).unwrap(), node());
}

#[test]
fn machines_and_racks_that_are_filled() {
    keeps(&machine(), |machine: Machine| api::MachineRow::from(&machine));
    let session = json!({
        "rack": "r03", "network": "10.5.0.0/16", "interface": "eth1", "next": "r03n02", "skip": ["r03n05"],
        "profiles": ["gpu"], "groups": ["new"], "confirm": true, "only": {"relay": null, "switch": "sw1", "port": null},
        "began": 1, "until": 2, "by": "root", "placed": [{"machine": machine(), "node": "r03n01", "at": 7}],
    });
    keeps(&session, |session: Session| api::SessionRow::from(&session));
}

#[test]
fn the_json_of_disks_keeps_its_fields() {
    let disk = json!({
        "state": serde_json::to_value(rackstrap_wire::DiskState::default()).unwrap(),
        "order": {"id": 7, "wipe_foreign": true, "partitions": ["tmp"], "by": "root", "at": 3},
        "health": [{"device": "sda", "serial": "S", "faults": [{"kind": "io-errors", "detail": "d"}], "celsius": 41, "used_percent": 3,
                    "hours": 9, "media_errors": 1, "since": {"io-errors": 5}}],
    });
    keeps(&disk, |disk: NodeDisk| api::NodeDiskRow::from(disk));
    keeps(&disk, |row: api::NodeDiskRow| NodeDisk::from(row));
}

#[test]
fn the_json_of_events_keeps_its_fields() {
    let event = json!({
        "at": 5, "boot": "abc", "step": "agent disk", "level": "degraded", "detail": "vda", "took_ms": 3, "count": 2, "last": 9,
    });
    keeps(&event, |event: Event| api::EventRow::from(event));
}

#[test]
fn the_json_of_restarts_keeps_its_fields() {
    let member = |step: Value| json!({"name": "r01n01", "step": step, "since": 1, "after": 8, "failures": 2, "again": 3, "said": "no"});
    let steps = [
        json!({"is": "waiting"}),
        json!({"is": "draining"}),
        json!({"is": "drained"}),
        json!({"is": "told", "boot": "abc", "last": 4, "noted": true}),
        json!({"is": "late", "told": false}),
        json!({"is": "resuming", "then": "unwell"}),
        json!({"is": "ended", "how": "given-up"}),
    ];
    let request = json!({
        "id": "q7", "wanted": 1, "after": 9, "by": "root", "rollout": "debian", "number": 3, "reason": "kernel", "max_down": 2,
        "drain": true, "within_secs": 900, "stopped": "late", "nodes": steps.map(member),
    });
    keeps(&request, |request: Request| api::RestartRow::from(request));
}

#[test]
fn rollouts_and_current_versions() {
    let current = json!({"image": "debian@4", "before": [1, 3], "since": 5, "by": "root"});
    keeps(&current, |current: Current| api::CurrentVersion::from(current));
    let rollout = json!({
        "number": 3, "image": "debian@4", "from": "debian@3", "by": "root", "began": 1, "message": "m", "stage": "subset",
        "paused": true, "stopped": "2 failed", "batch": "10%", "pause_secs": 60, "ready_within_secs": 900, "max_failures": 1,
        "soak_secs": 5, "reboot": true, "max_down": "8", "round": 2, "settled": 4, "ended": 9, "all": 14,
        "notes": [{"at": 1, "what": "given"}],
        "tally": {"waiting": 1, "booting": 2, "ready": 3, "failed": 4, "gone_back": 5},
    });
    keeps(&rollout, |rollout: Rollout| api::RolloutAnswer::from(rollout));
    for state in [json!({"state": "waiting"}), json!({"state": "gone-back", "why": "no"})] {
        let mut member = json!({
            "since": 1, "round": 2, "counts": true, "was_degraded": true, "good": true, "boots": 3, "boot": "abc", "first": 4,
            "stalled": "dhcp", "ordered": "rescue",
        });
        member
            .as_object_mut()
            .unwrap()
            .extend(state.as_object().unwrap().clone());
        let read: Member = serde_json::from_value(member.clone()).unwrap();
        let answer = api::RolloutNode::of("r01n01".to_owned(), read, "debian@4".parse().ok());
        member["node"] = "r01n01".into();
        member["image"] = "debian@4".into();
        assert_eq!(serde_json::to_value(&answer).unwrap(), member);
    }
}

/// `T` reads and writes exactly that.
fn is<T: Serialize + DeserializeOwned>(text: Value) {
    let read: T = serde_json::from_value(text.clone()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(serde_json::to_value(read).unwrap(), text);
}

#[test]
fn the_json_of_states_and_status_keeps_its_fields() {
    for state in [
        "absent",
        "loading",
        "agent",
        "starting",
        "ready",
        "degraded",
        "stalled",
        "lost",
        "waiting",
        "unmanaged",
        "off",
    ] {
        is::<api::NodeState>(state.into());
    }
    let trouble = json!({"problem": "foreign", "device": "vda"});
    is::<api::DiskTrouble>(trouble.clone());
    let warning = json!({"topic": "t", "message": "m", "help": "h", "fatal": true, "since": 1, "last": 2});
    is::<SiteWarning>(warning.clone());
    let full = json!({"network": "10.5.0.0/16", "why": "the pool is full", "since": 20, "machines": 2});
    is::<api::FullPool>(full.clone());
    let row = json!({
        "node": "r01n01", "state": "degraded", "since": 5, "image": "debian@4", "ipaddr": "10.5.1.1", "disk": "none wanted",
        "next_disk": "n", "disk_trouble": trouble, "last_error": "e", "heard": 6, "boot": "abc", "remark": "SELinux permissive",
    });
    is::<api::StatusAnswer>(json!({
        "cluster": "lab", "now": 9, "nodes": [row], "ignored": 1, "full": [full], "warnings": [warning],
    }));
}

#[test]
fn the_json_of_boots_keeps_its_fields() {
    for level in ["ok", "degraded", "retry", "error"] {
        is::<api::Level>(level.into());
    }
    let event =
        |at: u64, kind: EventKind, level, boot: &str| Event::new(Timestamp(at), kind, level, "d").of_boot(boot).took(3);
    let events = [
        event(1_000, EventKind::Dhcp(DhcpMessage::Discover), api::Level::Retry, ""),
        event(2_000, EventKind::Overlay, api::Level::Degraded, "abc"),
        event(3_000, EventKind::Ready, api::Level::Ok, "abc"),
    ];
    let boots: Vec<api::BootSummary> = summarise(&events).into_iter().map(api::BootSummary::from).collect();
    let step = |name: &str, at: u64, took: u64, level: &str| json!({"step": name, "at_ms": at, "took_ms": took, "count": 1, "detail": "d", "level": level});
    assert_eq!(
        serde_json::to_value(boots).unwrap(),
        json!([{
            "boot": "abc", "began": 1_000, "ready": 3_000, "total_ms": 2_000, "retries": 1, "lacks": ["d"],
            "steps": [
                step("dhcp discover", 0, 3, "retry"), step("overlay", 1_000, 3, "degraded"), step("ready", 2_000, 1_000, "ok"),
            ],
        }])
    );
}

#[test]
fn changes_and_what_they_do_to_disks() {
    let new = json!({
        "name": "r01n01", "hwaddrs": ["52:54:00:01:01:01"], "profiles": ["gpu"], "groups": ["new"], "attributes": {"a": "b"},
    });
    let patch = json!({
        "hwaddrs": null, "profiles": ["gpu"], "drop_profiles": ["a"], "drop_hwaddrs": [], "join": ["b"], "leave": ["c"],
        "attributes": {"d": "e"}, "drop_attributes": ["f"],
    });
    for change in [
        json!({"add": new}),
        json!({"set": {"name": "r01n01", "patch": patch}}),
        json!({"rename": {"from": "r01n01", "to": "r01n02"}}),
        json!({"delete": {"name": "r01n01"}}),
    ] {
        is::<Change>(change);
    }
    for kind in ["prepare", "ordered", "standing", "wipe", "changed", "held"] {
        is::<api::DiskEffect>(json!({
            "node": "r01n01", "kind": kind, "layout": "scratch v2", "now": "scratch v1", "ordered": true,
        }));
    }
}

#[test]
fn files_of_nodes_and_users() {
    let file =
        json!({"tree": "base", "path": "/etc/motd", "mode": 420, "uid": 0, "gid": 0, "content": {"text": "hello"}});
    is::<api::Preview>(json!({
        "node": "r01n01", "image": "debian@4", "templates": ["base"], "disk": "d", "files": [file], "lacks": ["l"], "notes": ["n"],
    }));
    is::<api::TreeRow>(json!({
        "name": "base", "dir": "/etc/trees/base", "profiles": ["default"],
        "files": [{
            "path": "/etc/motd", "kind": "link", "mode": 420, "uid": 0, "gid": 0, "skip_empty": true, "target": "/x", "source": "s",
        }],
    }));
    is::<api::UsersReport>(json!({
        "from": "/etc", "users": [], "groups": [{"name": "g", "gid": 1000, "members": ["alice"]}],
        "refused": [{"file": "passwd", "line": 3, "why": "w"}], "omitted": 2,
        "conflicts": ["c"], "current": ["r01n01"], "behind": ["r01n02"], "stale": ["r01n03"], "own": ["r01n04"],
    }));
}

#[test]
fn what_other_dhcp_servers_need() {
    is::<api::ExportSubnet>(json!({
        "network": "10.5.0.0/16", "server": "10.5.0.1", "base": "http://10.5.0.1:80", "script": "s", "is_proxy": false,
        "files": [{"class": "PXEClient", "archs": [7, 9], "file": "snponly.efi"}], "nodes": ["r01n01"],
    }));
}

#[test]
fn the_json_of_firmware_keeps_its_fields() {
    is::<api::FirmwareRow>(json!({
        "node": "r01n01", "hwaddr": "52:54:00:01:01:01", "arch": 7, "firmware": "x64 UEFI", "vendor_class": "PXEClient:Arch:00007",
        "loader": "x86_64-efi", "file": "snponly.efi", "problem": "p",
    }));
}

#[test]
fn parts_of_all_nodes_and_the_store() {
    is::<Share>("10%".into());
    is::<Share>("8".into());
    let row = json!({"table": "nodes", "key": "r01n01", "reason": "r"});
    let mut aside = row.clone();
    aside["at"] = 5.into();
    aside["stored"] = "00ff".into();
    is::<api::StoreAnswer>(json!({
        "rows": {"nodes": 3}, "needed": [row], "expendable": [], "tables": {"events": "broken"}, "set_aside": [aside],
        "backups": "/var/backups",
    }));
}

/// What another module calls its own is in an answer only on purpose: it is in the list of `api.rs`, and its JSON is pinned here.
#[test]
fn what_is_used_of_other_modules_is_what_the_list_says() {
    let sources: BTreeMap<&str, &str> = [
        ("api", include_str!("../api.rs")),
        ("discovery", include_str!("../api/discovery.rs")),
        ("disks", include_str!("../api/disks.rs")),
        ("orders", include_str!("../api/orders.rs")),
        ("firmware", include_str!("../api/firmware.rs")),
        ("leases", include_str!("../api/leases.rs")),
        ("nodes", include_str!("../api/nodes.rs")),
        ("paths", include_str!("../api/paths.rs")),
        ("power", include_str!("../api/power.rs")),
        ("restarts", include_str!("../api/restarts.rs")),
        ("rollouts", include_str!("../api/rollouts.rs")),
        ("status", include_str!("../api/status.rs")),
        ("timeline", include_str!("../api/timeline.rs")),
        ("watch", include_str!("../api/watch.rs")),
    ]
    .into();
    let files: BTreeSet<&str> = sources["api"]
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(
        files,
        sources.keys().copied().filter(|name| *name != "api").collect(),
        "each file is read here"
    );
    let code = |text: &str| -> String {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines
            .flat_map(|line| [line, " "])
            .collect::<String>()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut used = BTreeSet::new();
    for text in sources.values() {
        for statement in code(text).split("use ").skip(1) {
            let path = statement.split(';').next().unwrap_or_default();
            let ours = [
                "crate::",
                "rackstrap_base::",
                "rackstrap_model::",
                "rackstrap_overlay::",
                "rackstrap_registries::",
                "rackstrap_store::",
            ];
            if ours.iter().any(|prefix| path.starts_with(prefix)) {
                used.insert(path.replace(' ', "").replace(",}", "}"));
            }
        }
        assert_eq!(
            code(text).matches("crate::").count(),
            code(text).matches("use crate::").count(),
            "only by `use`"
        );
    }
    let used: Vec<&str> = used.iter().map(String::as_str).collect();
    assert_eq!(
        used,
        [
            "rackstrap_base::clock::Timestamp",
            "rackstrap_base::{clock::Timestamp,firmware}",
            "rackstrap_base::{clock::Timestamp,warnings::SiteWarning}",
            "rackstrap_model::disks::{DiskEffect,DiskTrouble}",
            "rackstrap_model::inventory::Change",
            "rackstrap_overlay::ListedTree",
            "rackstrap_overlay::{Preview,UsersReport}",
            "rackstrap_registries::rollout::Share",
            "rackstrap_registries::{discovery::FullPool,timeline::{Level,NodeState}}",
            "rackstrap_store::{BadRow,Look}",
        ]
    );
}
