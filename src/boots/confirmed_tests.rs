use super::*;
use crate::{
    boots::{DiskWish, describe_effects},
    clock::Timestamp,
    config,
};
use rackstrap_wire::{DiskMarker, DiskPlan, DiskState, DiskStatus, Hardware, OverlayRequest, Plan, Wipe};
use std::path::Path;

fn site(change: impl Fn(String) -> String) -> Site {
    let text = change(include_str!("../../rackstrap.example.toml").to_owned());
    config::parse(&text, Path::new("site.toml")).unwrap().0
}

fn version(version: u32) -> Site {
    site(|text| text.replace("\nversion = 1\n", &format!("\nversion = {version}\n")))
}

fn node(name: &str) -> Arc<Node> {
    Arc::new(Node {
        name: name.to_owned(),
        hwaddrs: vec!["52:54:00:01:01:01".parse().unwrap()],
        ipaddr: [10, 5, 1, 1].into(),
        profiles: Vec::new(),
        groups: Default::default(),
    })
}

fn open(dir: &Path) -> Boots {
    Boots::load(Store::open(&dir.join("store.redb")).unwrap()).unwrap()
}

/// A boot of `name` by the rules of `site`, which keeps or prepares its disk.
async fn boot(boots: &Boots, site: &Site, name: &str, at: u64) {
    let policy = &site.layouts["scratch"];
    let json = serde_json::json!({
        "wire": 3, "id": "", "node": name, "image": "debian@1", "init": "/sbin/init", "ram_size": "50%", "heartbeat_secs": 30,
        "net": { "hwaddr": "52:54:00:01:01:01", "ipaddr": "10.5.1.1", "prefix": 16, "router": null, "dns": [], "domain": "" },
        "root": { "server": "10.5.0.1", "port": 2049, "export": "/debian@1", "options": "" },
        "disk": null,
    });
    let mut plan: Plan = serde_json::from_value(json).unwrap();
    plan.disk = Some(DiskPlan {
        layout: policy.layout.clone(),
        digest: policy.digest.clone(),
        device: "auto".to_owned(),
        wipe: policy.wipe,
        loader: None,
        seen: None,
        again: false,
    });
    let boot = boots.open(Timestamp(at), |_| plan).await.unwrap();
    let mut disk = DiskState {
        status: DiskStatus::Kept {
            layout: format!("scratch v{}", policy.layout.version),
        },
        device: "vda".to_owned(),
        ..DiskState::default()
    };
    disk.facts.marker = Some(DiskMarker {
        id: "01".to_owned(),
        layout: "scratch".to_owned(),
        version: policy.layout.version,
        digest: policy.digest.clone(),
    });
    let request = OverlayRequest {
        token: boot.token.clone(),
        disk,
        hardware: Hardware::default(),
    };
    boots.redeem(&boot.plan.id, &request, None).await.unwrap();
}

/// The version of the layout that the node's next boot gets.
fn gets(boots: &Boots, site: &Site, node: &Node) -> u32 {
    let rules = boots.disks().rules_instead(site, node);
    rules.as_deref().unwrap_or(site).layouts["scratch"].layout.version
}

fn lines(effects: &[DiskEffect]) -> Vec<String> {
    describe_effects(effects, 9)
}

const HELD: &str = "r01n[01-02]: layout scratch v2 would lose scratch v1, and nobody confirmed it: the next boot treats the disk as \
                    before; to have the disks prepared: rackstrap reload --reprep, or for some nodes: rackstrap node reprep NODES, with \
                    --wipe-foreign where the disk is not ours";

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_new_layout_holds_it_back_until_it_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (version(1), version(2));
    // The first two have told of their disks. The third one never did: it may be one of them with another name.
    let nodes = ["r01n01", "r01n02", "r01n03"].map(node);
    let boots = open(dir.path());
    assert_eq!(boots.hold_back(&old, &nodes).unwrap(), [], "a first start");
    boot(&boots, &old, "r01n01", 10).await;
    boot(&boots, &old, "r01n02", 11).await;
    drop(boots);
    // However often it is started.
    for _ in 0..2 {
        let boots = open(dir.path());
        assert_eq!(lines(&boots.hold_back(&new, &nodes).unwrap()), [HELD]);
        assert_eq!(nodes.each_ref().map(|node| gets(&boots, &new, node)), [1, 1, 1]);
        assert_eq!(
            boots.disks().next_effect(&new, &nodes[2]),
            None,
            "nothing is known to be lost"
        );
        let told = boots.disks().next_effect(&new, &nodes[0]).unwrap();
        assert_eq!((told.kind, told.loses_data()), (EffectKind::Held, false));
    }
    // An order for one node is about that node only.
    let boots = open(dir.path());
    boots.hold_back(&new, &nodes).unwrap();
    let wish = DiskWish::Prepare { wipe_foreign: false };
    boots
        .disks()
        .wish(&["r01n01".to_owned()], wish, "root", Timestamp(20))
        .unwrap();
    assert_eq!(nodes.each_ref().map(|node| gets(&boots, &new, node)), [2, 1, 1]);
    // Confirmed, for good.
    boots.disks().confirm(&new).unwrap();
    boots.disks().hold_nothing();
    assert_eq!(gets(&boots, &new, &nodes[1]), 2);
    drop(boots);
    let boots = open(dir.path());
    assert_eq!(boots.hold_back(&new, &nodes).unwrap(), []);
    assert_eq!(gets(&boots, &new, &nodes[1]), 2);
    // What was confirmed holds for the version after it too: it is what the next boot does.
    drop(boots);
    let boots = open(dir.path());
    let newest = version(3);
    let told = boots.hold_back(&newest, &nodes).unwrap();
    assert!(
        told.iter()
            .all(|effect| effect.layout == "scratch v2" && effect.loses_data()),
        "{told:?}"
    );
    assert_eq!(gets(&boots, &newest, &nodes[1]), 2);
    // The old file again: nothing is held back.
    drop(boots);
    let boots = open(dir.path());
    assert_eq!(boots.hold_back(&new, &nodes).unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_layout_of_a_profile_and_a_wipe_are_held_back_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let old = version(1);
    let nodes = [node("r01n01")];
    let boots = open(dir.path());
    boots.hold_back(&old, &nodes).unwrap();
    boot(&boots, &old, "r01n01", 10).await;
    let mut other = old.clone();
    let mut policy = old.layouts["scratch"].clone();
    policy.layout.name = "big".to_owned();
    other.layouts.insert("big".to_owned(), policy);
    other.profiles.get_mut("default").unwrap().layout = Some("big".to_owned());
    assert_eq!(boots.hold_back(&other, &nodes).unwrap().len(), 1);
    let rules = boots.disks().rules_instead(&other, &nodes[0]).unwrap();
    assert_eq!(rules.profiles["default"].layout.as_deref(), Some("scratch"));
    // A layout that the file names no more is still there for the nodes that have it.
    other.layouts.remove("scratch");
    assert_eq!(boots.hold_back(&other, &nodes).unwrap().len(), 1);
    let rules = boots.disks().rules_instead(&other, &nodes[0]).unwrap();
    assert_eq!(rules.layouts["scratch"].layout.version, 1);

    // Nor does it matter that the profile left the file, or came (back) to it: nobody was asked.
    let gpu = Arc::new(Node {
        profiles: vec!["gpu".to_owned()],
        ..Node::clone(&nodes[0])
    });
    let mut with = old.clone();
    let mut profile = with.profiles["default"].clone();
    profile.layout = Some("big".to_owned());
    with.layouts.insert("big".to_owned(), other.layouts["big"].clone());
    with.profiles.insert("gpu".to_owned(), profile);
    for (before, after, layout) in [(&old, &with, "big"), (&with, &old, "scratch")] {
        let mut disk = boots.disks().get("r01n01").unwrap();
        disk.marker.as_mut().unwrap().layout = if layout == "big" { "scratch" } else { "big" }.to_owned();
        let view = Confirmed::of(before).view(after);
        let (effect, instead) = next_effect(after, Some(&view), &gpu, Some(&disk));
        let effect = effect.unwrap();
        assert!(
            instead && effect.kind == EffectKind::Held && effect.layout.starts_with(layout),
            "{effect:?}"
        );
        // A machine that never told of a disk gets what is new.
        let (_, instead) = next_effect(after, Some(&view), &gpu, None);
        assert_eq!(instead, layout == "scratch");
    }

    // Somebody else's data on the disk, and a file that would overwrite it from now on.
    let mut foreign = boots.disks().get("r01n01").unwrap();
    foreign.marker = None;
    foreign.state.facts.problem = Some(rackstrap_wire::DiskProblem::Foreign);
    foreign.state.facts.foreign = "xfs".to_owned();
    let mut wipes = old.clone();
    wipes.layouts.get_mut("scratch").unwrap().wipe = Wipe::Always;
    let (effect, instead) = next_effect(&wipes, Some(&old), &nodes[0], Some(&foreign));
    assert!(instead && effect.unwrap().kind == EffectKind::Held);
    let (effect, instead) = next_effect(&wipes, Some(&wipes), &nodes[0], Some(&foreign));
    assert!(!instead && effect.unwrap().kind == EffectKind::Wipe);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_wrote_nothing_of_it_and_a_restored_backup() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (version(1), version(2));
    let nodes = [node("r01n01"), node("r01n02")];
    let boots = open(dir.path());
    boot(&boots, &old, "r01n01", 10).await;
    boot(&boots, &old, "r01n02", 11).await;
    drop(boots);
    // The layouts of the last boots are what was in use.
    let boots = open(dir.path());
    assert_eq!(lines(&boots.hold_back(&new, &nodes).unwrap()), [HELD]);
    assert_eq!(gets(&boots, &new, &nodes[0]), 1);
    drop(boots);
    // Of a backup without its store, the disks may be newer than what it says: the file decides, as nothing else knows better, and an
    // order may have been carried out already.
    let boots = open(dir.path());
    let wish = DiskWish::Prepare { wipe_foreign: false };
    let ordered = ["r01n02".to_owned()];
    boots.disks().wish(&ordered, wish, "root", Timestamp(12)).unwrap();
    drop(boots);
    trust_site_file(&Store::open(&dir.path().join("store.redb")).unwrap()).unwrap();
    let boots = open(dir.path());
    assert_eq!(boots.hold_back(&new, &nodes).unwrap(), []);
    assert_eq!(gets(&boots, &new, &nodes[0]), 2);
    let told = boots.disks().next_effect(&new, &nodes[1]).unwrap();
    assert_eq!(told.kind, EffectKind::Prepare, "by the file, and not as ordered");
    drop(boots);
    // That was for one start.
    let boots = open(dir.path());
    boot(&boots, &new, "r01n01", 20).await;
    assert_eq!(boots.hold_back(&version(3), &nodes).unwrap().len(), 2);
}
