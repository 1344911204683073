//! Which of the site file's rules for disks an administrator has confirmed, and what they mean for a node.

use super::{DiskEffect, EffectKind, NodeDisk, disk_effect, effects::policy_of};
use crate::inventory::Node;
use rackstrap_site::{LayoutPolicy, Profile, Site};
use rackstrap_wire::DiskPlan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All that a site file says of disks, as it was last confirmed, or did not need to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    layouts: BTreeMap<String, LayoutPolicy>,
    profiles: BTreeMap<String, Choice>,
    /// Take the site file as confirmed, whatever it says: what else is written here is older than the disks may be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trust_site_file: bool,
}

/// What a profile says of disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Choice {
    layout: Option<String>,
    disk: Option<String>,
}

impl Confirmed {
    /// All that `site` says of disks.
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

    /// Of a release that wrote nothing of it: the layouts are those of these plans, which the daemon sent to nodes, the oldest first.
    pub fn of_plans<'a>(site: &Site, plans: impl Iterator<Item = &'a DiskPlan>) -> Confirmed {
        let mut confirmed = Confirmed::of(site);
        for plan in plans.filter(|plan| !plan.again) {
            let policy = LayoutPolicy {
                layout: plan.layout.clone(),
                digest: plan.digest.clone(),
                wipe: plan.wipe,
            };
            confirmed.layouts.insert(policy.layout.name.clone(), policy);
        }
        confirmed
    }

    /// The next site file counts as confirmed, whatever it says.
    pub fn trusting_the_site_file() -> Confirmed {
        Confirmed {
            layouts: BTreeMap::new(),
            profiles: BTreeMap::new(),
            trust_site_file: true,
        }
    }

    /// `site` with the rules that are confirmed, also those of profiles that are no longer in it: nodes may still have them. Of a
    /// profile that is new in it nothing is confirmed, and no more than that its name was left on a node is known. New layouts stay.
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

/// By which rules nodes' disks are treated. Both are of one world: a request that straddles a reload sees the old ones or the new ones.
#[derive(Clone, Copy, Debug)]
pub struct DiskRules<'a> {
    /// The site file that is in use.
    pub site: &'a Site,
    /// The same with the rules that were confirmed last, if `site` has others.
    pub confirmed: Option<&'a Site>,
}

impl<'a> DiskRules<'a> {
    /// The site file with the rules by which the next boot of `node` treats its disk, if these are not those of the one in use.
    pub fn instead(self, node: &Node, disk: Option<&NodeDisk>) -> Option<&'a Site> {
        let (_, instead) = next_effect(self, node, disk);
        self.confirmed.filter(|_| instead)
    }
}

/// What the next boot of `node` does with its disk. True if the boot is by the confirmed rules instead of the site file's.
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

/// True for a node of whose disk nothing is known, so that it may have a layout that `site` would replace: one whose disk was
/// changed or that was deleted and added again. A blank disk loses nothing by the confirmed rules either.
fn is_risky(site: &Site, confirmed: &Site, node: &Node, disk: Option<&NodeDisk>) -> bool {
    if disk.is_some_and(|disk| disk.marker.is_some() || disk.order.is_some()) {
        return false;
    }
    let new_profile = node.profiles.iter().any(|name| {
        let layout = |site: &Site| site.profiles.get(name).and_then(|profile| profile.layout.clone());
        layout(site).is_some() && layout(confirmed).is_none()
    });
    // Nobody had what is new: it is for disks that come.
    !new_profile && policy_of(site, node) != policy_of(confirmed, node)
}
