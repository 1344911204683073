use super::*;
use crate::testing::{example, store};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::disks::{DiskWish, EffectKind, describe_effects};
use rackstrap_wire::{DiskMarker, DiskPlan, DiskState, DiskStatus, Hardware, OverlayRequest, Wipe, testing};
use std::path::Path;

fn version(version: u32) -> Site {
    example(|text| text.replace("\nversion = 1\n", &format!("\nversion = {version}\n")))
}

fn node(name: &str) -> Arc<Node> {
    Arc::new(crate::testing::node(name))
}

fn open(dir: &Path) -> Boots {
    Boots::load(store(dir)).unwrap()
}

/// Pins a boot of `name` by the rules of `site`, which keeps or prepares its disk.
async fn boot(boots: &Boots, site: &Site, name: &str, at: u64) {
    let policy = &site.layouts["scratch"];
    let disk = DiskPlan {
        layout: policy.layout.clone(),
        digest: policy.digest.clone(),
        wipe: policy.wipe,
        ..testing::disk()
    };
    let plan = testing::plan(name).disk(disk).build();
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
        networks: true,
        token: boot.token.clone(),
        disk,
        hardware: Hardware::default(),
    };
    boots.redeem(&boot.plan.id, &request, None).await.unwrap();
}

/// A daemon that has accepted a site file.
struct Started<'a> {
    boots: &'a Boots,
    site: &'a Site,
    confirmed: Option<Arc<Site>>,
}

fn start<'a>(boots: &'a Boots, site: &'a Site, nodes: &[Arc<Node>]) -> Started<'a> {
    let confirmed = boots.hold_back(site, nodes).unwrap();
    Started { boots, site, confirmed }
}

impl Started<'_> {
    fn rules(&self) -> DiskRules<'_> {
        DiskRules {
            site: self.site,
            confirmed: self.confirmed.as_deref(),
        }
    }

    /// Whether the whole site file is in force.
    fn holds_nothing_back(&self) -> bool {
        self.confirmed.is_none()
    }

    /// The rules for the disk at the node's next boot.
    fn site_of(&self, node: &Node) -> &Site {
        let disk = self.boots.disks().get(&node.name);
        self.rules().instead(node, disk.as_ref()).unwrap_or(self.site)
    }

    /// The version of the layout at the node's next boot.
    fn gets(&self, node: &Node) -> u32 {
        self.site_of(node).layouts["scratch"].layout.version
    }

    fn effect(&self, node: &Node) -> Option<DiskEffect> {
        self.boots.disks().next_effect(self.rules(), node)
    }

    fn effects(&self, nodes: &[Arc<Node>]) -> Vec<DiskEffect> {
        nodes.iter().filter_map(|node| self.effect(node)).collect()
    }

    fn lines(&self, nodes: &[Arc<Node>]) -> Vec<String> {
        describe_effects(&self.effects(nodes), 9)
    }
}

const HELD: &str = "r01n[01-02]: layout scratch v2 would lose scratch v1, and this is not confirmed: the next boot \
                    treats the disk as before; to prepare the disks: rackstrap reload --reprep, or for some nodes: rackstrap node reprep NODES, with \
                    --wipe-foreign where the disk is not ours";

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_new_layout_holds_it_back_until_it_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (version(1), version(2));
    // The first two have reported their disks. The third never did: it may be one of them under another name.
    let nodes = ["r01n01", "r01n02", "r01n03"].map(node);
    let boots = open(dir.path());
    assert!(start(&boots, &old, &nodes).holds_nothing_back(), "a first start");
    boot(&boots, &old, "r01n01", 10).await;
    boot(&boots, &old, "r01n02", 11).await;
    drop(boots);
    // The result does not depend on the number of starts.
    for _ in 0..2 {
        let boots = open(dir.path());
        let started = start(&boots, &new, &nodes);
        assert_eq!(started.lines(&nodes), [HELD]);
        assert_eq!(nodes.each_ref().map(|node| started.gets(node)), [1, 1, 1]);
        assert_eq!(started.effect(&nodes[2]), None, "nothing is known to be lost");
        let told = started.effect(&nodes[0]).unwrap();
        assert_eq!((told.kind, told.loses_data()), (EffectKind::Held, false));
    }
    // An order for one node concerns that node only.
    let boots = open(dir.path());
    let started = start(&boots, &new, &nodes);
    let wish = DiskWish::Prepare { wipe_foreign: false };
    boots
        .disks()
        .wish(&["r01n01".to_owned()], wish, "root", Timestamp(20))
        .unwrap();
    assert_eq!(nodes.each_ref().map(|node| started.gets(node)), [2, 1, 1]);
    // A confirmation lasts.
    boots.disks().confirm(&new).unwrap();
    drop(boots);
    let boots = open(dir.path());
    let started = start(&boots, &new, &nodes);
    assert!(started.holds_nothing_back());
    assert_eq!(started.gets(&nodes[1]), 2);
    // A confirmation also holds for the version after it, because it confirms what the next boot does.
    drop(boots);
    let boots = open(dir.path());
    let newest = version(3);
    let started = start(&boots, &newest, &nodes);
    let told = started.effects(&nodes[1..]);
    assert_eq!(told.len(), 1);
    assert!(
        told.iter()
            .all(|effect| effect.layout == "scratch v2" && effect.loses_data()),
        "{told:?}"
    );
    assert_eq!(started.gets(&nodes[1]), 2);
    // With the old file again, nothing is held back.
    drop(boots);
    let boots = open(dir.path());
    assert!(start(&boots, &new, &nodes).holds_nothing_back());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_layout_of_a_profile_and_a_wipe_are_held_back_too() {
    let dir = tempfile::tempdir().unwrap();
    let old = version(1);
    let nodes = [node("r01n01")];
    let boots = open(dir.path());
    start(&boots, &old, &nodes);
    boot(&boots, &old, "r01n01", 10).await;
    let mut other = old.clone();
    let mut policy = old.layouts["scratch"].clone();
    policy.layout.name = "big".to_owned();
    other.layouts.insert("big".to_owned(), policy);
    other.profiles.get_mut("default").unwrap().layout = Some("big".to_owned());
    let started = start(&boots, &other, &nodes);
    assert_eq!(started.effects(&nodes).len(), 1);
    let rules = started.site_of(&nodes[0]);
    assert_eq!(rules.profiles["default"].layout.as_deref(), Some("scratch"));
    // A layout that was removed from the file remains for the nodes that have it.
    other.layouts.remove("scratch");
    let started = start(&boots, &other, &nodes);
    assert_eq!(started.effects(&nodes).len(), 1);
    let rules = started.site_of(&nodes[0]);
    assert_eq!(rules.layouts["scratch"].layout.version, 1);

    // It does not matter whether the profile was removed from the file or added again: no administrator was asked.
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
        let rules = DiskRules {
            site: after,
            confirmed: Some(&view),
        };
        let (effect, instead) = next_effect(rules, &gpu, Some(&disk));
        let effect = effect.unwrap();
        assert!(
            instead && effect.kind == EffectKind::Held && effect.layout.starts_with(layout),
            "{effect:?}"
        );
        // A machine that never reported a disk gets the new layout.
        let (_, instead) = next_effect(rules, &gpu, None);
        assert_eq!(instead, layout == "scratch");
    }

    // The disk holds data that rackstrap did not write, and the site file now overwrites such data.
    let mut foreign = boots.disks().get("r01n01").unwrap();
    foreign.marker = None;
    foreign.state.facts.problem = Some(rackstrap_wire::DiskProblem::Foreign);
    foreign.state.facts.foreign = "xfs".to_owned();
    let mut wipes = old.clone();
    wipes.layouts.get_mut("scratch").unwrap().wipe = Wipe::Always;
    for (confirmed, held) in [(&old, true), (&wipes, false)] {
        let rules = DiskRules {
            site: &wipes,
            confirmed: Some(confirmed),
        };
        let (effect, instead) = next_effect(rules, &nodes[0], Some(&foreign));
        let kind = if held { EffectKind::Held } else { EffectKind::Wipe };
        assert_eq!((effect.unwrap().kind, instead), (kind, held));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_recorded_rules_the_last_boots_count_and_after_a_restore_the_site_file() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (version(1), version(2));
    let nodes = [node("r01n01"), node("r01n02")];
    let boots = open(dir.path());
    boot(&boots, &old, "r01n01", 10).await;
    boot(&boots, &old, "r01n02", 11).await;
    drop(boots);
    // The layouts of the last boots were in use.
    let boots = open(dir.path());
    let started = start(&boots, &new, &nodes);
    assert_eq!(started.lines(&nodes), [HELD]);
    assert_eq!(started.gets(&nodes[0]), 1);
    drop(boots);
    // After a restore without the old store, the disks may be newer than the backup. The file decides, because nothing else
    // is newer, and an order may have been carried out already.
    let boots = open(dir.path());
    let wish = DiskWish::Prepare { wipe_foreign: false };
    let ordered = ["r01n02".to_owned()];
    boots.disks().wish(&ordered, wish, "root", Timestamp(12)).unwrap();
    drop(boots);
    trust_site_file(&store(dir.path())).unwrap();
    let boots = open(dir.path());
    let started = start(&boots, &new, &nodes);
    assert!(started.holds_nothing_back());
    assert_eq!(started.gets(&nodes[0]), 2);
    let told = started.effect(&nodes[1]).unwrap();
    assert_eq!(told.kind, EffectKind::Prepare, "by the file, and not as ordered");
    drop(boots);
    // The trust was for one start only.
    let boots = open(dir.path());
    boot(&boots, &new, "r01n01", 20).await;
    let newest = version(3);
    assert_eq!(start(&boots, &newest, &nodes).effects(&nodes).len(), 2);
}
