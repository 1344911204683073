//! Answers keep the names that scripts know from `--json` when rows are renamed. Each text is a row as the previous release
//! wrote it.

use crate::{
    boots::NodeDisk,
    control::api::{self, NodeRow},
    decide::Current,
    discovery::{Machine, Session},
    inventory::{Entry, Node},
    restart::Request,
    rollout::{Member, Rollout},
    timeline::Event,
};
use rackstrap_base::clock::Timestamp;
use rackstrap_dhcp::Lease;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

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
fn leases() {
    let lease = json!({
        "ipaddr": "10.5.255.1", "hwaddr": "52:54:00:00:00:09", "uuid": null, "state": "declined", "since": 1, "expires": 9,
        "granted": 2,
    });
    keeps(&lease, |lease: Lease| api::LeaseRow::at(&lease, Timestamp(8)));
    let read: Lease = serde_json::from_value(lease).unwrap();
    let over = api::LeaseRow::at(&read, Timestamp(9));
    assert_eq!(serde_json::to_value(&over).unwrap()["state"], "expired");
}

#[test]
fn disks() {
    let disk = json!({
        "state": serde_json::to_value(rackstrap_wire::DiskState::default()).unwrap(),
        "order": {"id": 7, "wipe_foreign": true, "by": "root", "at": 3},
    });
    keeps(&disk, |disk: NodeDisk| api::NodeDiskRow::from(disk));
    keeps(&disk, |row: api::NodeDiskRow| NodeDisk::from(row));
}

#[test]
fn events() {
    let event = json!({
        "at": 5, "boot": "abc", "step": "agent disk", "level": "degraded", "detail": "vda", "took_ms": 3, "count": 2, "last": 9,
    });
    keeps(&event, |event: Event| api::EventRow::from(event));
}

#[test]
fn restarts() {
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
            "stalled": "dhcp",
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
