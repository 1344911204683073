//! Which of the site file's rules for disks an administrator has confirmed, and their effect on a node (pure).

use super::{DiskEffect, EffectKind, NodeDisk, disk_effect, effects::policies_of};
use crate::inventory::Node;
use rackstrap_site::{LayoutPolicy, Profile, Site};
use rackstrap_wire::{DiskPlan, Wipe};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All rules of a site file for disks that were last confirmed, or that needed no confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    layouts: BTreeMap<String, LayoutPolicy>,
    profiles: BTreeMap<String, Choice>,
    /// Treat any site file as confirmed: the other fields may be older than the disks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trust_site_file: bool,
}

/// A profile's settings for disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Choice {
    layout: Option<String>,
    disk: Option<String>,
}

impl Confirmed {
    /// The rules of `site` for disks.
    pub fn of(site: &Site) -> Confirmed {
        let choice = |profile: &Profile| Choice {
            layout: profile.layout.clone(),
            disk: profile.disk.clone(),
        };
        Confirmed {
            layouts: site.layouts.clone(),
            profiles: (site
                .profiles
                .iter()
                .map(|(name, profile)| (name.clone(), choice(profile))))
            .collect(),
            trust_site_file: false,
        }
    }

    /// The rules for a store of a release that recorded none: the layouts of these plans, which the daemon sent to nodes. The
    /// oldest plan comes first.
    pub fn of_plans<'a>(site: &Site, plans: impl Iterator<Item = &'a DiskPlan>) -> Confirmed {
        let mut confirmed = Confirmed::of(site);
        let each =
            plans.flat_map(|plan| std::iter::once((plan, false)).chain(plan.more.iter().map(|plan| (plan, true))));
        for (plan, further) in each.filter(|(plan, _)| !plan.again) {
            let policy = LayoutPolicy {
                layout: plan.whole_layout(),
                digest: plan.digest.clone(),
                wipe: if plan.wipe_known { Wipe::Known } else { plan.wipe },
                esp: plan.layout_esp.is_some(),
                roots: plan.roots.clone(),
                contents: plan.site_contents(),
                // The disk of the first layout may be that of a profile.
                disk: (further.then(|| plan.device.clone()))
                    .or_else(|| site.layouts.get(&plan.layout.name)?.disk.clone()),
            };
            confirmed.layouts.insert(policy.layout.name.clone(), policy);
        }
        confirmed
    }

    /// Rules that treat the next site file as confirmed, whatever its content.
    pub fn trusting_the_site_file() -> Confirmed {
        Confirmed {
            layouts: BTreeMap::new(),
            profiles: BTreeMap::new(),
            trust_site_file: true,
        }
    }

    /// `site` with the confirmed rules, also those of profiles that were removed from it, because nodes may still have them.
    /// A profile that is new in `site` has no confirmed rules. New layouts stay.
    pub fn view(&self, site: &Site) -> Site {
        let mut view = site.clone();
        for (name, policy) in &self.layouts {
            view.layouts.insert(name.clone(), policy.clone());
        }
        for (name, profile) in &mut view.profiles {
            if !self.profiles.contains_key(name) {
                profile.layout = None;
                profile.disk = None;
            }
        }
        for (name, choice) in &self.profiles {
            let profile = view.profiles.entry(name.clone()).or_default();
            profile.layout.clone_from(&choice.layout);
            profile.disk.clone_from(&choice.disk);
        }
        view
    }
}

/// The rules for nodes' disks. Both fields come from one world, so that a request during a reload uses the old rules or the
/// new ones, never a mixture.
#[derive(Clone, Copy, Debug)]
pub struct DiskRules<'a> {
    /// The site file in use.
    pub site: &'a Site,
    /// The same site file with the rules that were last confirmed; none if `site` has no unconfirmed rules.
    pub confirmed: Option<&'a Site>,
}

impl<'a> DiskRules<'a> {
    /// The site file by whose rules the next boot of `node` treats its disk; none if that is the site file in use.
    pub fn instead(self, node: &Node, disk: Option<&NodeDisk>) -> Option<&'a Site> {
        let (_, instead) = next_effect(self, node, disk);
        self.confirmed.filter(|_| instead)
    }
}

/// The effect of the next boot of `node` on its disk, and whether the confirmed rules decided that instead of the site file.
pub fn next_effect(rules: DiskRules<'_>, node: &Node, disk: Option<&NodeDisk>) -> (Option<DiskEffect>, bool) {
    let DiskRules { site, confirmed } = rules;
    let effect = disk_effect(site, node, disk);
    let Some(confirmed) = confirmed else {
        return (effect, false);
    };
    let Some(lost) = effect.as_ref().filter(|effect| effect.needs_consent()) else {
        let instead =
            effect.is_none() && is_risky(site, confirmed, node, disk) && disk_effect(confirmed, node, disk).is_none();
        return (effect, instead);
    };
    match disk_effect(confirmed, node, disk) {
        Some(known) if known == *lost => (effect, false),
        Some(known) if known.loses_data() => (Some(known), true),
        _ => {
            let held = DiskEffect {
                kind: EffectKind::Held,
                ..lost.clone()
            };
            (Some(held), true)
        }
    }
}

/// Whether nothing is known of the node's disk, so that it may have a layout that `site` would replace. The node's machine was
/// exchanged, or the node was deleted and added again. A blank disk loses nothing by the confirmed rules either.
fn is_risky(site: &Site, confirmed: &Site, node: &Node, disk: Option<&NodeDisk>) -> bool {
    if disk.is_some_and(|disk| disk.marker.is_some() || disk.order.is_some()) {
        return false;
    }
    // A layout of the node's own is not that of a profile, whether new or not.
    let new_profile = node.settings.set().layout.is_none()
        && node.profiles.iter().any(|name| {
            let layout = |site: &Site| site.profiles.get(name).and_then(|profile| profile.layout.clone());
            layout(site).is_some() && layout(confirmed).is_none()
        });
    // A new profile or layout is on no disk yet.
    !new_profile && policies_of(site, node) != policies_of(confirmed, node)
}
