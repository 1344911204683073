//! Rare cases: versions that must not be deleted, nodes that were never ready, exchanged machines, a retry after a stop.

use super::{image, ledger::Rig};
use crate::{
    rollout::{Share, Wish},
    timeline::Subject,
};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::{
    decide::World,
    inventory::{Inventory, Node},
};
use rackstrap_wire::HwAddr;
use std::sync::Arc;

/// The system comes up, and a check fails. The node counts as up; its checks decide about the rest.
fn limps(rig: &Rig, name: &str) {
    let boot = rig.boot(name);
    rig.boots.record_health(&boot.plan.id, &boot.token, false).unwrap();
    let ready = rig.boots.mark_ready(&boot.plan.id, &boot.token, Timestamp::now());
    let boot = rig.runtime.block_on(ready).unwrap();
    rig.rollouts.ready(&boot, Timestamp::now());
    rig.settled();
}

fn holders(rig: &Rig, version: &str) -> String {
    let world = rig.world.load();
    let holds = world.assignments.holds(&world.site, &world.inventory, &world.images);
    holds
        .get(&image(version))
        .map(|reasons| reasons.join("; "))
        .unwrap_or_default()
}

#[test]
fn what_a_node_was_well_on_is_held_for_it() {
    let rig = Rig::new();
    rig.come_up("r01n01");
    let promote = |rig: &Rig, version| {
        let promoted = rig.rollouts.promote_image(&image(version), "tests", Timestamp(1));
        promoted.unwrap();
    };
    promote(&rig, "debian@4");
    assert_eq!(holders(&rig, "debian@3"), "", "its boot holds it, and it alone");
    limps(&rig, "r01n01");
    assert_eq!(holders(&rig, "debian@3"), "r01n01 would go back to it");
    let rig = rig.restart();
    assert_eq!(holders(&rig, "debian@3"), "r01n01 would go back to it");
    promote(&rig, "debian@5");
    rig.boot("r01n01");
    assert_eq!(holders(&rig, "debian@3"), "r01n01 would go back to it", "and not to 4");
    assert_eq!(holders(&rig, "debian@4"), "");
    rig.come_up("r01n01");
    assert_eq!(holders(&rig, "debian@3"), "", "it was ready on 5");
}

#[test]
fn a_node_that_was_never_ready_has_nothing_to_go_back_to_and_fails_in_time() {
    let rig = Rig::new();
    rig.begin(&["r01n05"]).unwrap();
    for _ in 0..5 {
        rig.boot("r01n05");
        assert_eq!(rig.gets("r01n05"), "debian@4");
    }
    rig.rollouts.look(Timestamp(Timestamp::now().0 + 601_000));
    assert_eq!(rig.states(), "n05 failed");
    let rollout = rig.rollouts.all().pop().unwrap();
    assert!(
        rollout.stopped.contains("r01n05 (not ready within 600 s (5 boots))"),
        "{}",
        rollout.stopped
    );
    assert_eq!(rig.gets("r01n05"), "debian@4", "it has begun, and knows no better");
    rig.rollouts.abort(None, "tests", Timestamp::now()).unwrap();
    assert_eq!(rig.gets("r01n05"), "debian@3");
    rig.come_up("r01n05");
}

#[test]
fn after_a_stop_a_retry_and_a_resume_lead_on() {
    let rig = Rig::new();
    for name in ["r01n01", "r01n02"] {
        rig.come_up(name);
    }
    rig.begin(&["r01n01", "r01n02"]).unwrap();
    for _ in 0..4 {
        rig.boot("r01n01");
    }
    assert_eq!(rig.states(), "n01 rolled back, n02 waiting");
    let resume = |rig: &Rig| rig.rollouts.resume(None, None, "tests", Timestamp::now());
    let error = resume(&rig).unwrap_err().to_string();
    assert!(
        error.contains("would stop again at once") && error.contains("rollout retry NODES"),
        "{error}"
    );
    let rig = rig.restart();
    rig.rollouts
        .retry(&["r01n01".into()], "tests", Timestamp::now())
        .unwrap();
    assert_eq!(rig.states(), "n01 waiting, n02 waiting");
    assert_eq!(rig.gets("r01n01"), "debian@3", "it is stopped until somebody says so");
    resume(&rig).unwrap();
    rig.come_up("r01n01");
    rig.come_up("r01n02");
    assert_eq!(rig.states(), "n01 ready, n02 ready");
}

#[test]
fn other_hardware_begins_anew() {
    let rig = Rig::new();
    rig.come_up("r01n01");
    rig.begin(&["r01n01"]).unwrap();
    for _ in 0..4 {
        rig.boot("r01n01");
    }
    assert_eq!(rig.states(), "n01 rolled back");
    let exchange = |rig: &Rig, hwaddrs: Vec<HwAddr>| {
        let world = rig.world.load_full();
        let nodes = world.inventory.iter().map(|node| Node {
            hwaddrs: match node.name == "r01n01" {
                true => hwaddrs.clone(),
                false => node.hwaddrs.clone(),
            },
            ..Node::clone(node)
        });
        rig.world.store(Arc::new(World {
            inventory: Arc::new(Inventory::new(nodes)),
            ..World::clone(&world)
        }));
        rig.rollouts.look(Timestamp::now());
    };
    let (old, new) = (
        HwAddr([0x52, 0x54, 0, 0, 1, 1]),
        HwAddr([0x52, 0x54, 0, 0xff, 0xff, 0xff]),
    );
    exchange(&rig, vec![new, old]);
    assert_eq!(rig.states(), "n01 rolled back", "one more card is no other machine");
    exchange(&rig, vec![new]);
    assert_eq!(rig.states(), "n01 waiting");
    rig.rollouts.resume(None, None, "tests", Timestamp::now()).unwrap();
    assert_eq!(rig.gets("r01n01"), "debian@4");
    for _ in 0..2 {
        rig.boot("r01n01");
    }
    assert_eq!(rig.gets("r01n01"), "debian@4", "its own two boots");
    rig.come_up("r01n01");
    assert_eq!(rig.states(), "n01 ready");
    let line = rig.recorder.of(&Subject::Node("r01n01".into()));
    let said = line
        .iter()
        .filter(|event| event.detail.contains("is other hardware now"));
    assert_eq!(said.count(), 1);
}

#[test]
fn of_two_who_begin_at_the_same_moment_one_does() {
    let rig = Rig::new();
    let begun = std::thread::scope(|scope| {
        let begin = |node: &'static str| {
            let rollouts = rig.rollouts.clone();
            scope.spawn(move || {
                let wish = Wish {
                    image: image("debian@4"),
                    nodes: vec![node.to_owned()],
                    reboot: false,
                    max_down: Share::Nodes(1),
                    ready_within_secs: 600,
                    max_failures: 0,
                    soak_secs: 0,
                    message: String::new(),
                };
                rollouts.begin(&wish, "tests", Timestamp::now()).is_ok()
            })
        };
        let all: Vec<_> = ["r01n01", "r01n02", "r01n03", "r01n04"].map(begin).into();
        all.into_iter()
            .filter_map(|one| one.join().ok())
            .filter(|ok| *ok)
            .count()
    });
    assert_eq!((begun, rig.rollouts.all().len()), (1, 1));
}

#[test]
fn a_panic_of_the_executor_ends_the_daemon_with_its_reason_and_no_rollout() {
    let rig = Rig::new();
    rig.come_up("r01n01");
    rig.come_up("r01n02");
    rig.begin(&["r01n01", "r01n02"]).unwrap();
    rig.come_up("r01n01");
    assert_eq!(rig.states(), "n01 ready, n02 waiting");
    rig.rollouts.panic();
    let ended = rig.runtime.block_on(rig.rollouts.ended()).unwrap_err();
    assert_eq!(
        ended.to_string(),
        "thread rollouts panicked: a test wants it; this is a defect of rackstrap: please report it with the log: journalctl -u rackstrap"
    );
    let rig = rig.restart();
    assert_eq!(
        rig.states(),
        "n01 ready, n02 waiting",
        "what was confirmed is still there"
    );
    rig.come_up("r01n02");
    assert_eq!(rig.states(), "n01 ready, n02 ready");
    assert_eq!(rig.gets("r01n02"), "debian@4");
}

#[test]
fn a_node_that_pins_a_version_itself_is_left_out_and_holds_it() {
    let rig = Rig::new();
    rig.world.rcu(|world| {
        let nodes = world.inventory.iter().map(|node| match node.name.as_str() {
            "r01n01" => Node {
                settings: serde_json::from_value(serde_json::json!({ "image": "debian@3" })).unwrap(),
                ..Node::clone(node)
            },
            _ => Node::clone(node),
        });
        World {
            inventory: Arc::new(Inventory::new(nodes)),
            ..World::clone(world)
        }
    });
    let error = rig.begin(&["r01n01", "r01n02"]).unwrap_err();
    assert!(
        error.contains("r01n01: pinned to debian@3 by its own setting"),
        "{error}"
    );
    assert!(
        holders(&rig, "debian@3").contains("the settings of r01n01 pin it"),
        "{}",
        holders(&rig, "debian@3")
    );
}
