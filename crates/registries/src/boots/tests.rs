//! Tests of the registry of boots.

use super::*;
use rackstrap_store::{Store, Table};
use rackstrap_wire::{OverlayRequest, testing};
use std::{path::Path, time::Duration};

fn plan(node: &str, image: &str) -> impl FnOnce(&str) -> Plan {
    testing::plan(node).image(image).pinned()
}

fn request(token: &str) -> OverlayRequest {
    OverlayRequest {
        networks: true,
        token: token.into(),
        disk: DiskState::default(),
        hardware: Hardware::default(),
    }
}

fn open(dir: &Path) -> (Store, Boots) {
    let store = crate::testing::store(dir);
    (store.clone(), Boots::load(store).unwrap())
}

const NOW: Timestamp = Timestamp(1_000_000);

#[tokio::test]
async fn a_boot_survives_a_restart_of_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let (store, boots) = open(dir.path());
    let boot = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    assert_eq!(boot.plan.id.len(), 12);
    assert_eq!(boot.token.len(), 32);
    // Nothing is flushed or closed in order: the store has at this moment what a kill would leave.
    let stored: Boot = store.get(Table::Boots, boot.plan.id.as_bytes()).unwrap().unwrap();
    assert_eq!(stored, *boot);
    drop((store, boots));
    let (_store, boots) = open(dir.path());
    assert_eq!(boots.authenticate(&boot.plan.id, &boot.token).unwrap(), boot);
    assert_eq!(boots.current("r01n01").unwrap(), boot);
    assert!(boots.current("r01n02").is_none());
}

#[tokio::test]
async fn secrets_go_out_once_to_the_holder_of_the_token_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, boots) = open(dir.path());
    let boot = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    let id = boot.plan.id.as_str();
    for wrong in ["", "0", &boot.token[..31], &format!("{}0", boot.token), &"0".repeat(32)] {
        assert!(
            matches!(boots.redeem(id, &request(wrong), None).await, Err(Refusal::Token(_))),
            "{wrong}"
        );
    }
    let unknown = boots
        .redeem("\u{1b}[2J", &request(&boot.token), None)
        .await
        .unwrap_err();
    assert!(!unknown.to_string().contains('\u{1b}'), "{unknown}");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (boots, boot) = (boots.clone(), boot.clone());
        tasks.spawn(async move { boots.redeem(&boot.plan.id, &request(&boot.token), None).await.is_ok() });
    }
    let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
    let stored: Boot = store.get(Table::Boots, id.as_bytes()).unwrap().unwrap();
    assert!(stored.redeemed && stored.disk.is_some());
    drop((store, boots));
    let (_store, boots) = open(dir.path());
    let again = boots.redeem(id, &request(&boot.token), None).await.unwrap_err();
    assert!(matches!(again, Refusal::Redeemed(_)), "{again}");
    assert!(again.to_string().contains("restart the machine"), "{again}");
}

#[tokio::test]
async fn boots_of_a_backup_give_no_secrets_away() {
    let dir = tempfile::tempdir().unwrap();
    let (store, boots) = open(dir.path());
    let boot = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    let (id, request) = (boot.plan.id.as_str(), request(&boot.token));
    drop(boots);
    redeem_all(&store).unwrap();
    let boots = Boots::load(store).unwrap();
    assert!(matches!(
        boots.redeem(id, &request, None).await,
        Err(Refusal::Redeemed(_))
    ));
    assert!(boots.may_mount("r01n01", boot.image(), ""), "its root is still its own");
    assert!(
        !boots.may_mount("r01n01", boot.image(), "arm64"),
        "another variant is not"
    );
}

#[tokio::test]
async fn old_boots_are_forgotten_but_never_the_running_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, boots) = open(dir.path());
    let running = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    let ready = boots
        .mark_ready(&running.plan.id, &running.token, Timestamp(5))
        .await
        .unwrap();
    assert_eq!(ready.ready, Some(Timestamp(5)));
    let again = boots
        .mark_ready(&running.plan.id, &running.token, Timestamp(9))
        .await
        .unwrap();
    assert_eq!(again.ready, Some(Timestamp(5)), "the first time counts");
    let mut last = running.clone();
    for _ in 0..10 {
        last = boots.open(NOW, plan("r01n01", "debian@2")).await.unwrap();
    }
    let other = boots.open(NOW, plan("r01n02", "alpine@7")).await.unwrap();
    let kept = boots.of_node("r01n01");
    assert_eq!(kept.len(), KEPT_PER_NODE + 1);
    assert_eq!(kept[0], last);
    assert_eq!(kept.last().unwrap().plan.id, running.plan.id);
    assert!(
        boots.authenticate(&running.plan.id, &running.token).is_ok(),
        "its heartbeats are still heard"
    );
    assert!(boots.may_mount("r01n01", &"debian@1".parse().unwrap(), ""));
    assert!(boots.may_mount("r01n01", &"debian@2".parse().unwrap(), ""));
    assert!(!boots.may_mount("r01n01", &"alpine@7".parse().unwrap(), ""));
    let in_use: Vec<String> = boots.images_in_use().iter().map(ToString::to_string).collect();
    assert_eq!(in_use, ["alpine@7", "debian@1", "debian@2"]);
    // The node is up on the newer version, so the older image is no longer in use.
    boots
        .mark_ready(&last.plan.id, &last.token, Timestamp(6))
        .await
        .unwrap();
    assert!(!boots.may_mount("r01n01", &"debian@1".parse().unwrap(), ""));
    boots.retain_nodes(|name| name != "r01n02");
    assert!(boots.get(&other.plan.id).is_none());
    store.flush().unwrap();
    let mut stored: Vec<String> = store
        .scan::<Boot>(Table::Boots, b"")
        .unwrap()
        .into_iter()
        .map(|(_, b)| b.plan.id)
        .collect();
    let mut known: Vec<String> = boots
        .of_node("r01n01")
        .iter()
        .map(|boot| boot.plan.id.clone())
        .collect();
    stored.sort();
    known.sort();
    assert_eq!(stored, known, "what is forgotten is gone from the disk as well");
}

#[tokio::test]
async fn health_is_what_the_node_said_last() {
    let dir = tempfile::tempdir().unwrap();
    let (store, boots) = open(dir.path());
    let boot = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    let id = boot.plan.id.clone();
    let healthy = |boots: &Boots| boots.get(&id).unwrap().healthy();
    assert!(!healthy(&boots), "it is not even up");
    assert!(matches!(boots.record_health(&id, "0", true), Err(Refusal::Token(_))));
    boots.record_health(&id, &boot.token, false).unwrap();
    boots.mark_ready(&id, &boot.token, NOW).await.unwrap();
    assert!(!healthy(&boots));
    boots.record_health(&id, &boot.token, true).unwrap();
    assert!(healthy(&boots));
    store.flush().unwrap();
    drop((store, boots));
    let (_, boots) = open(dir.path());
    assert!(healthy(&boots));
    // A row that an older release wrote.
    let mut old = serde_json::to_value(&*boots.get(&id).unwrap()).unwrap();
    old.as_object_mut().unwrap().remove("healthy");
    old["plan"].as_object_mut().unwrap().remove("health");
    let old: Boot = serde_json::from_value(old).unwrap();
    assert!(old.healthy() && old.plan.health.checks.is_empty());
}

#[tokio::test]
async fn once_the_files_went_out_the_secret_counts_and_not_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let (store, boots) = open(dir.path());
    let boot = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    let (id, token) = (boot.plan.id.as_str(), boot.token.as_str());
    assert!(boots.authenticate_node(id, token).is_ok());
    assert!(matches!(boots.authenticate_node(id, "5ec2e7"), Err(Refusal::Token(_))));
    boots.redeem(id, &request(token), Some("5ec2e7".into())).await.unwrap();
    let check = |boots: &Boots| {
        for wrong in ["", "5ec2e", "5ec2e70", token] {
            assert!(
                matches!(boots.authenticate_node(id, wrong), Err(Refusal::Secret(_))),
                "{wrong}"
            );
            assert!(
                matches!(boots.record_health(id, wrong, false), Err(Refusal::Secret(_))),
                "{wrong}"
            );
        }
        boots.record_health(id, "5ec2e7", true).unwrap();
    };
    check(&boots);
    assert!(matches!(
        boots.mark_ready(id, token, NOW).await,
        Err(Refusal::Secret(_))
    ));
    store.flush().unwrap();
    drop((store, boots));
    let (_store, boots) = open(dir.path());
    check(&boots);
    // An older agent does not know the secret.
    let boot = boots.open(NOW, plan("r01n02", "debian@1")).await.unwrap();
    boots.redeem(&boot.plan.id, &request(&boot.token), None).await.unwrap();
    boots.mark_ready(&boot.plan.id, &boot.token, NOW).await.unwrap();
}

#[tokio::test]
async fn a_boot_that_began_while_the_system_ran_gets_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let (store, boots) = open(dir.path());
    let running = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    boots
        .redeem(&running.plan.id, &request(&running.token), None)
        .await
        .unwrap();
    let other = boots.open(NOW, plan("r01n02", "debian@1")).await.unwrap();
    let forged = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    boots.runs(&running.plan.id);
    let redeem = async |boots: &Boots, boot: &Boot| boots.redeem(&boot.plan.id, &request(&boot.token), None).await;
    assert!(matches!(redeem(&boots, &forged).await, Err(Refusal::Void(_))));
    store.flush().unwrap();
    drop((store, boots));
    let (_store, boots) = open(dir.path());
    assert!(matches!(redeem(&boots, &forged).await, Err(Refusal::Void(_))));
    // Another node's boot, and a boot that the node begins after its restart, are not affected.
    redeem(&boots, &other).await.unwrap();
    let next = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    redeem(&boots, &next).await.unwrap();
    // A late heartbeat of an earlier boot changes nothing.
    boots.runs(&running.plan.id);
    assert!(boots.authenticate_node(&next.plan.id, &next.token).is_ok());
}

#[tokio::test]
async fn a_system_is_alive_until_it_misses_a_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, boots) = open(dir.path());
    let boot = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    assert!(!boots.is_alive("r01n01", 30), "it began to boot only");
    boots.runs(&boot.plan.id);
    assert!(boots.is_alive("r01n01", 30) && !boots.is_alive("r01n02", 30));
    boots.firmware_speaks("r01n01");
    assert!(!boots.is_alive("r01n01", 30), "its firmware was heard");
}

#[tokio::test]
async fn nodes_with_a_boot_count_as_alive_when_the_daemon_starts() {
    let dir = tempfile::tempdir().unwrap();
    let (store, boots) = open(dir.path());
    for (node, redeemed, ready) in [
        ("r01n01", true, true),
        ("r01n02", true, false),
        ("r01n03", false, false),
    ] {
        let boot = boots.open(NOW, plan(node, "debian@1")).await.unwrap();
        if redeemed {
            boots.redeem(&boot.plan.id, &request(&boot.token), None).await.unwrap();
        }
        if ready {
            boots.mark_ready(&boot.plan.id, &boot.token, NOW).await.unwrap();
        }
        // A request for a script alone proves nothing.
        boots.open(NOW, plan(node, "debian@1")).await.unwrap();
    }
    store.flush().unwrap();
    drop((store, boots));
    let (_store, boots) = open(dir.path());
    let alive = ["r01n01", "r01n02", "r01n03"].map(|node| boots.is_alive(node, 30));
    assert_eq!(alive, [true, true, false]);
}

#[test]
fn a_node_may_be_silent_for_as_long_as_its_own_heartbeat_allows() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, boots) = open(dir.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let boot = runtime.block_on(async {
        let of_100 = |id: &str| Plan {
            heartbeat_secs: 100,
            ..plan("r01n01", "debian@1")(id)
        };
        let boot = boots.open(NOW, of_100).await.unwrap();
        boots.redeem(&boot.plan.id, &request(&boot.token), None).await.unwrap()
    });
    // The site's period is 30 s since then. Before `ready` no heartbeats are due.
    assert_eq!(boots.patience("r01n01", 30), Duration::from_secs(300));
    assert_eq!(boots.patience("r01n02", 30), Duration::from_secs(65));
    runtime
        .block_on(boots.mark_ready(&boot.plan.id, &boot.token, NOW))
        .unwrap();
    let of = |heartbeat_secs| boots.patience("r01n01", heartbeat_secs).as_secs();
    assert_eq!([of(30), of(120), of(3600)], [205, 245, 300]);
    let next = runtime.block_on(async {
        let next = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
        boots.redeem(&next.plan.id, &request(&next.token), None).await.unwrap()
    });
    assert_eq!(boots.patience("r01n01", 30), Duration::from_secs(300), "it comes up");
    runtime
        .block_on(boots.mark_ready(&next.plan.id, &next.token, NOW))
        .unwrap();
    assert_eq!(boots.patience("r01n01", 30), Duration::from_secs(65));
}

#[tokio::test]
async fn a_backup_brings_back_no_boot_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let (store, boots) = open(dir.path());
    let running = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    boots
        .redeem(&running.plan.id, &request(&running.token), None)
        .await
        .unwrap();
    boots.open_on(NOW, BY_RELAY, plan("r01n01", "debian@2")).await.unwrap();
    drop(boots);
    redeem_all(&store).unwrap();
    let boots = Boots::load(store).unwrap();
    let ids: Vec<String> = boots
        .of_node("r01n01")
        .iter()
        .map(|boot| boot.plan.id.clone())
        .collect();
    assert_eq!(ids, [running.plan.id.as_str()]);
}

const BY_RELAY: Origin = Origin {
    uuid: None,
    privileged: true,
    doubted: true,
    settings: None,
    once: None,
};

#[tokio::test]
async fn the_boot_that_the_agent_is_in_is_never_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, boots) = open(dir.path());
    let running = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    boots
        .redeem(&running.plan.id, &request(&running.token), None)
        .await
        .unwrap();
    boots.mark_ready(&running.plan.id, &running.token, NOW).await.unwrap();
    let booting = boots.open(NOW, plan("r01n01", "debian@2")).await.unwrap();
    let secret = Some("secret".to_owned());
    boots
        .redeem(&booting.plan.id, &request(&booting.token), secret)
        .await
        .unwrap();
    // What the agent reports between its files and `ready` is a sign of life. A request with the token only is not.
    boots.firmware_speaks("r01n01");
    boots.hear(&running);
    assert!(!boots.is_alive("r01n01", 30));
    boots.hear(&boots.get(&booting.plan.id).unwrap());
    assert!(boots.is_alive("r01n01", 30));
    for _ in 0..10 {
        boots.open_on(NOW, BY_RELAY, plan("r01n01", "debian@3")).await.unwrap();
    }
    assert_eq!(boots.of_node("r01n01").len(), KEPT_PER_NODE + 2);
    assert_eq!(
        boots.current("r01n01").unwrap().plan.id,
        booting.plan.id,
        "the others are in doubt"
    );
    boots.mark_ready(&booting.plan.id, "secret", NOW).await.unwrap();
    assert!(boots.runs(&booting.plan.id), "its secret says so");
    assert!(!boots.runs(&running.plan.id), "a later boot has got its files");
}

#[tokio::test]
async fn a_boot_in_doubt_of_an_older_agent_waits_for_silence() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, boots) = open(dir.path());
    let running = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    boots.runs(&running.plan.id);
    let older = Origin {
        privileged: false,
        ..BY_RELAY
    };
    let held = boots.open_on(NOW, older, plan("r01n01", "debian@1")).await.unwrap();
    assert!(
        boots
            .held_for(&held, 30)
            .is_some_and(|seconds| (1..=65).contains(&seconds))
    );
    let safe = boots.open_on(NOW, BY_RELAY, plan("r01n01", "debian@1")).await.unwrap();
    let sure = boots.open(NOW, plan("r01n01", "debian@1")).await.unwrap();
    assert_eq!((boots.held_for(&safe, 30), boots.held_for(&sure, 30)), (None, None));
    // The node's firmware is heard.
    boots.firmware_speaks("r01n01");
    assert_eq!(boots.held_for(&held, 30), None);
}
