//! Orders for one boot over restarts of the daemon, and with administrators and loaders at the same time.

use super::Taken;
use crate::{
    boots::{Boots, Origin},
    testing::{node_with_card, store},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::{
    disks::DiskWish,
    inventory::Changed,
    orders::{BootOrder, OnceBoot},
};
use rackstrap_store::{Store, Table};
use rackstrap_wire::{DiskState, DiskStatus, Hardware, OverlayRequest, testing};

const NODE: &str = "r01n01";
const NOW: Timestamp = Timestamp(1_000_000);

fn give(boots: &Boots, what: Option<&OnceBoot>) -> Vec<(String, BootOrder)> {
    boots.orders().give(&[NODE.to_owned()], what, "root", NOW).unwrap()
}

async fn take(boots: &Boots, failed: bool, now: Timestamp) -> Taken {
    boots.orders().take(NODE, failed, false, now).await.unwrap()
}

/// The order of the node as another daemon would read it.
fn stored(store: &Store) -> Option<BootOrder> {
    store.flush().unwrap();
    store.get(Table::Orders, NODE.as_bytes()).unwrap()
}

/// A boot that carries out `taken`, up to the node's files.
async fn boot(boots: &Boots, taken: &Taken) {
    let once = match taken {
        Taken::Use { order, .. } => Some(order.once()),
        Taken::Nothing | Taken::Over(_) => None,
    };
    let origin = Origin {
        once,
        ..Origin::default()
    };
    let boot = boots.open_on(NOW, origin, testing::plan(NODE).pinned()).await.unwrap();
    let request = OverlayRequest {
        networks: false,
        token: boot.token.clone(),
        disk: DiskState::default(),
        hardware: Hardware::default(),
    };
    boots.redeem(&boot.plan.id, &request, None).await.unwrap();
}

#[tokio::test]
async fn an_order_is_used_by_one_boot_also_over_a_restart_of_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    assert_eq!(take(&boots, false, NOW).await, Taken::Nothing);
    let image = OnceBoot::Image("debian@2".parse().unwrap());
    assert!(give(&boots, Some(&image)).is_empty());
    assert_eq!(stored(&store).map(|order| order.used), Some(None));
    // The daemon restarts before the boot, and in the middle of it.
    let boots = Boots::load(store.clone()).unwrap();
    assert!(matches!(
        take(&boots, false, NOW).await,
        Taken::Use { again: false, .. }
    ));
    assert_eq!(stored(&store).map(|order| order.used), Some(Some(NOW)));
    let boots = Boots::load(store.clone()).unwrap();
    let taken = take(&boots, false, NOW.plus_secs(60)).await;
    assert!(
        matches!(taken, Taken::Use { again: true, .. }),
        "an attempt of the same boot"
    );
    boot(&boots, &taken).await;
    assert_eq!(stored(&store), None);
    assert_eq!(take(&boots, false, NOW.plus_secs(90)).await, Taken::Nothing);
    let boots = Boots::load(store).unwrap();
    assert_eq!(take(&boots, false, NOW.plus_secs(90)).await, Taken::Nothing);
}

#[tokio::test]
async fn a_loader_without_agent_gets_the_order_again_only_if_it_failed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    give(&boots, Some(&OnceBoot::Memtest));
    // A user of the running node may ask in its name.
    let doubted = boots.orders().take(NODE, false, true, NOW).await.unwrap();
    assert!(matches!(doubted, Taken::Use { .. }));
    assert_eq!(boots.orders().get(NODE).unwrap().used, None, "which uses nothing up");
    assert!(matches!(
        take(&boots, false, NOW).await,
        Taken::Use { again: false, .. }
    ));
    assert!(matches!(take(&boots, true, NOW).await, Taken::Use { again: true, .. }));
    assert!(matches!(take(&boots, false, NOW).await, Taken::Over(_)));
    assert_eq!((take(&boots, true, NOW).await, stored(&store)), (Taken::Nothing, None));
}

#[tokio::test]
async fn an_order_is_taken_back_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    give(&boots, Some(&OnceBoot::Rescue));
    let first = take(&boots, false, NOW).await;
    let replaced = give(&boots, Some(&OnceBoot::Local));
    assert_eq!(replaced.len(), 1);
    assert_eq!(replaced[0].1.used, Some(NOW));
    // The agent of the first order ends that one, and not the new one.
    boot(&boots, &first).await;
    assert_eq!(stored(&store).map(|order| order.what), Some(OnceBoot::Local));
    assert_eq!(give(&boots, None).len(), 1);
    assert_eq!((give(&boots, None).len(), stored(&store)), (0, None));
    assert_eq!(take(&boots, false, NOW).await, Taken::Nothing);
}

#[tokio::test]
async fn a_shell_in_ram_leaves_the_disk_and_its_order_alone() {
    let dir = tempfile::tempdir().unwrap();
    let boots = Boots::load(store(dir.path())).unwrap();
    let nodes = [NODE.to_owned()];
    let wish = DiskWish::Prepare { wipe_foreign: false };
    boots.disks().wish(&nodes, wish, "root", NOW).unwrap();
    let before = boots.disks().get(NODE);
    give(&boots, Some(&OnceBoot::Rescue));
    let taken = take(&boots, false, NOW).await;
    boot(&boots, &taken).await;
    assert_eq!(boots.disks().get(NODE), before, "the order waits for the boot after it");
    let usual = take(&boots, false, NOW).await;
    boot(&boots, &usual).await;
    let row = boots.disks().get(NODE).unwrap_or_default();
    assert_eq!((row.order, row.state.status), (None, DiskStatus::NotWanted));
}

#[tokio::test]
async fn an_order_follows_its_node() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let boots = Boots::load(store.clone()).unwrap();
    give(&boots, Some(&OnceBoot::Shell));
    let follow = |changes: &[Changed]| {
        store.commit_blocking(boots.followed_rows(changes)).unwrap();
        boots.publish_followed(changes);
    };
    follow(&[Changed {
        before: Some(node_with_card(NODE, 1)),
        after: Some(node_with_card("r01n02", 1)),
    }]);
    assert_eq!((boots.orders().get(NODE), stored(&store)), (None, None));
    assert!(boots.orders().get("r01n02").is_some());
    assert!(Boots::load(store.clone()).unwrap().orders().get("r01n02").is_some());
    follow(&[Changed {
        before: Some(node_with_card("r01n02", 1)),
        after: None,
    }]);
    assert!(boots.orders().all().is_empty() && store.scan::<BootOrder>(Table::Orders, b"").unwrap().is_empty());
}
