//! The node's networks besides the boot network: which card each is, and the files by which the image's network service sets them up.
//!
//! The agent gives each card that it finds its name at once. The files name it again: by udev's for systems that have it, and for cards
//! that get their driver only from the image.

pub mod cards;
mod names;
mod render;
pub mod watch;

use crate::{
    boot_bond::{self, BootBond},
    network, root,
};
use cards::Card;
use rackstrap_wire::{BOOT_NETWORK, HwAddr, NetworkKind, NetworkPlan, OverlayFile, Plan, network_service, text::cut};
use std::{path::Path, time::Duration};
use watch::WatchedNetwork;

/// Longest wait for cards that no network finds: drivers may load firmware.
const CARD_WAIT: Duration = Duration::from_secs(10);
/// Bytes of a problem (the wire's limit of a check's detail).
const PROBLEM: usize = 200;

/// A network that the node can have.
#[derive(Clone, Debug)]
pub struct Network<'p> {
    /// As the server has it.
    pub plan: &'p NetworkPlan,
    /// Its card; none for bonds, VLANs and bridges.
    pub card: Option<&'p Card>,
    /// The interfaces that it joins.
    members: Vec<&'p str>,
    /// The bond or bridge that joins it.
    joined_by: Option<&'p NetworkPlan>,
    /// Bytes; members have that of their bond or bridge.
    mtu: Option<u16>,
    /// Whether the agent itself makes it: the bond of the boot card, its other members, and VLANs on the boot card or its bond. Network services
    /// leave it alone.
    of_boot: bool,
}

/// What the cards of a node make of its plan.
#[derive(Debug, Default)]
pub struct Resolved<'p> {
    networks: Vec<Network<'p>>,
    /// By network; also of bonds that lack a member.
    problems: Vec<(&'p str, String)>,
}

impl Resolved<'_> {
    /// The networks with a card that are members of a bond.
    pub fn members_of(&self, bond: &str) -> impl Iterator<Item = &Network<'_>> {
        let joins = move |network: &&Network<'_>| network.joined_by.is_some_and(|other| other.name == bond);
        self.networks.iter().filter(joins)
    }
}

/// What the agent does for a node's networks.
#[derive(Debug, Default)]
pub struct SetUp {
    /// Files for the new root.
    pub files: Vec<OverlayFile>,
    /// What the checks of the running node expect.
    pub watched: Vec<WatchedNetwork>,
    /// Which card each network has, one line for each.
    pub done: Vec<String>,
    /// What the node does not get, one line for each.
    pub problems: Vec<String>,
}

/// The cards of the node, after a wait for those that no network finds.
pub fn wait_for_cards(plan: &Plan) -> Vec<Card> {
    let look = || cards::read(Path::new("/sys"));
    let complete = || {
        let cards = look();
        resolve(&plan.networks, &cards, plan.net.hwaddr)
            .problems
            .is_empty()
            .then_some(cards)
    };
    network::wait_for(CARD_WAIT, complete).unwrap_or_else(look)
}

/// Finds the cards, names them, and renders the files. `files` are the node's own from the server, `bond` is the one of the boot card.
pub fn set_up(plan: &Plan, files: &[OverlayFile], bond: &BootBond) -> SetUp {
    if plan.networks.is_empty() {
        return SetUp {
            files: render::boot_vlan(plan.net.vlan),
            ..SetUp::default()
        };
    }
    let cards = wait_for_cards(plan);
    let mut resolved = resolve(&plan.networks, &cards, plan.net.hwaddr);
    if let (Some(plan), Some(problem)) = (boot_bond::of(&plan.networks), &bond.problem) {
        resolved.problems.push((&plan.name, problem.clone()));
    }
    let parent = bond.name.clone().or_else(|| network::card_of(plan.net.hwaddr));
    for network in &resolved.networks {
        if let (true, NetworkKind::Vlan { id, .. }, Some(parent)) = (network.of_boot, &network.plan.kind, &parent)
            && let Err(failure) = network::add_further_vlan(parent, *id, network.plan)
        {
            resolved.problems.push((&network.plan.name, failure.to_string()));
        }
        let interface = network.card.and_then(|card| card.interface.as_deref());
        if let Some(interface) = interface.filter(|interface| *interface != network.plan.name)
            && let Err(failure) = network::rename(interface, &network.plan.name)
        {
            resolved.problems.push((&network.plan.name, failure.to_string()));
        }
    }
    // Links of an image lead to paths in the image, so their targets are not looked at.
    let exists = |path: &str| Path::new(root::IMAGE).join(path).symlink_metadata().is_ok();
    let services = network_service::find(exists, files);
    let mut files = match services.choose() {
        Some(service) => render::files(service, services, &resolved.networks),
        None => {
            let why = "the image has neither systemd-networkd nor NetworkManager nor ifupdown, so it does not set the network up";
            let theirs = resolved.networks.iter().filter(|network| !network.of_boot);
            let all = theirs.map(|network| network.plan.name.as_str());
            let all: Vec<(&str, String)> = all.map(|name| (name, why.to_owned())).collect();
            resolved.problems.extend(all);
            Vec::new()
        }
    };
    files.extend(render::boot_vlan(plan.net.vlan));
    let service = services.choose().map(|service| format!(" by {service}"));
    let by = |network: &Network<'_>| match network.of_boot {
        true => " by the agent",
        false => service.as_deref().unwrap_or_default(),
    };
    SetUp {
        files,
        watched: watched(&plan.networks, &resolved),
        done: resolved
            .networks
            .iter()
            .map(|network| format!("{}{}", describe(network), by(network)))
            .collect(),
        problems: resolved
            .problems
            .iter()
            .map(|(name, why)| format!("network {name}: {why}"))
            .collect(),
    }
}

/// `network ib is 0000:81:00.0 mlx5_core, 10.6.1.3/16`
fn describe(network: &Network<'_>) -> String {
    let kind = || network.plan.kind.as_str().to_owned();
    let what = network.card.map_or_else(kind, Card::describe);
    let address = network
        .plan
        .address
        .map(|(address, prefix)| format!(", {address}/{prefix}"));
    format!("network {} is {what}{}", network.plan.name, address.unwrap_or_default())
}

/// The card of each network, and what is missing (pure). Each network comes after those that it is made of.
pub fn resolve<'p>(plans: &'p [NetworkPlan], cards: &'p [Card], boot: HwAddr) -> Resolved<'p> {
    let mut resolved = Resolved::default();
    let boot_bond = boot_bond::of(plans);
    for plan in plans {
        let has = |name: &str| resolved.networks.iter().any(|network| network.plan.name == name);
        let joined_by = plans.iter().find(|other| {
            let joins = matches!(other.kind, NetworkKind::Bond { .. } | NetworkKind::Bridge { .. });
            joins && other.kind.below().contains(&plan.name)
        });
        let mut network = Network {
            plan,
            card: None,
            members: Vec::new(),
            joined_by,
            mtu: joined_by.and_then(|other| other.mtu).or(plan.mtu),
            of_boot: plan
                .kind
                .is_made_by_agent(&plan.name, boot_bond.map(|bond| (bond.name.as_str(), &bond.kind))),
        };
        let mut problem = None;
        match &plan.kind {
            NetworkKind::Ethernet { card } | NetworkKind::Infiniband { card } => {
                let infiniband = matches!(plan.kind, NetworkKind::Infiniband { .. });
                match cards::choose(card, infiniband, cards, boot) {
                    Ok(card) => {
                        let taken = resolved
                            .networks
                            .iter()
                            .find(|other| other.card.is_some_and(|other| std::ptr::eq(other, card)));
                        if let Some(other) = taken {
                            problem = Some(format!(
                                "{} is already the card of {}",
                                card.describe(),
                                other.plan.name
                            ));
                        } else {
                            network.card = Some(card);
                        }
                    }
                    Err(why) => problem = Some(why),
                }
            }
            NetworkKind::Vlan { parent, .. } if !has(parent) && !network.of_boot => {
                problem = Some(format!("{parent}, which it is made of, does not exist"));
            }
            NetworkKind::Vlan { .. } => {}
            NetworkKind::Bond { members, .. } | NetworkKind::Bridge { members } => {
                // The boot card is there, since the agent booted by it.
                let has = |name: &str| (network.of_boot && name == BOOT_NETWORK) || has(name);
                let missing: Vec<&str> = members.iter().map(String::as_str).filter(|name| !has(name)).collect();
                let there: Vec<&str> = members.iter().map(String::as_str).filter(|name| has(name)).collect();
                network.members = there;
                // A bond of fewer cards still carries what it can.
                if !missing.is_empty() && !network.members.is_empty() {
                    let why = format!("it lacks its member {}", missing.join(" and "));
                    resolved.problems.push((&plan.name, why));
                } else if network.members.is_empty() && matches!(plan.kind, NetworkKind::Bond { .. }) {
                    problem = Some("none of its members exists".to_owned());
                }
            }
            NetworkKind::Unknown => {
                problem = Some("the agent of this image does not know its type; seal the image again".to_owned());
            }
        }
        match problem {
            Some(why) => resolved.problems.push((&plan.name, why)),
            None => resolved.networks.push(network),
        }
    }
    resolved
}

/// What the checks of the running node expect (pure).
fn watched(plans: &[NetworkPlan], resolved: &Resolved<'_>) -> Vec<WatchedNetwork> {
    let one = |plan: &NetworkPlan| {
        let network = resolved.networks.iter().find(|network| network.plan.name == plan.name);
        let problem = resolved.problems.iter().find(|(name, _)| *name == plan.name);
        WatchedNetwork {
            name: plan.name.clone(),
            address: plan.address.map(|(address, _)| address),
            mtu: network.map_or(plan.mtu, |network| network.mtu),
            speed: plan.speed,
            problem: problem.map(|(_, why)| cut(&format!("network {}: {why}", plan.name), PROBLEM).to_owned()),
        }
    };
    plans.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::{render::testing::plans, *};
    use rackstrap_wire::CardMatch;

    const BOOT: HwAddr = HwAddr([0x52, 0x54, 0, 1, 1, 1]);

    fn card(last: u8) -> Card {
        Card {
            pci: format!("0000:00:0{last}.0"),
            driver: "ixgbe".to_owned(),
            interface: Some(format!("eth{last}")),
            mac: Some(HwAddr([0x52, 0x54, 0, 1, 1, last])),
            ..Card::default()
        }
    }

    #[test]
    fn a_bond_of_two_cards_carries_a_vlan() {
        let plans = plans();
        let cards = [card(1), card(2), card(3)];
        let resolved = resolve(&plans, &cards, BOOT);
        assert_eq!(resolved.problems, []);
        let said: Vec<String> = resolved.networks.iter().map(describe).collect();
        assert_eq!(
            said,
            [
                "network left is 0000:00:02.0 ixgbe 52:54:00:01:01:02 eth2",
                "network right is 0000:00:03.0 ixgbe 52:54:00:01:01:03 eth3",
                "network fast is bond, 10.7.1.3/16",
                "network v100 is vlan, 10.8.1.3/24",
            ]
        );
        assert_eq!(resolved.networks[0].mtu, Some(9000), "that of its bond");
        let watched = watched(&plans, &resolved);
        assert!(watched.iter().all(|network| network.problem.is_none()));
        assert_eq!(
            (watched[0].mtu, watched[3].address),
            (Some(9000), Some([10, 8, 1, 3].into()))
        );
    }

    #[test]
    fn a_bond_works_with_the_cards_that_exist_and_reports_the_others() {
        let plans = plans();
        let cards = [card(1), card(2)];
        let resolved = resolve(&plans, &cards, BOOT);
        assert_eq!(resolved.networks.len(), 3);
        assert_eq!(resolved.networks[1].members, ["left"]);
        assert_eq!(resolved.problems.len(), 2, "{:?}", resolved.problems);
        assert!(
            resolved.problems[0]
                .1
                .starts_with("driver ixgbe, port 3 does not exist: 2 fit")
        );
        assert_eq!(resolved.problems[1], ("fast", "it lacks its member right".to_owned()));
        let watched = watched(&plans, &resolved);
        assert_eq!(
            watched[2].problem.as_deref(),
            Some("network fast: it lacks its member right")
        );
        assert!(
            watched
                .iter()
                .all(|one| one.problem.as_ref().is_none_or(|text| text.len() <= PROBLEM))
        );

        let resolved = resolve(&plans, &cards[..1], BOOT);
        assert!(resolved.networks.is_empty());
        let why: Vec<&str> = resolved.problems.iter().skip(2).map(|(_, why)| why.as_str()).collect();
        assert_eq!(
            why,
            [
                "none of its members exists",
                "fast, which it is made of, does not exist"
            ]
        );
    }

    #[test]
    fn the_bond_of_the_boot_card_is_the_agents_and_works_without_its_other_member() {
        let mut plans = plans();
        plans.truncate(3);
        plans.remove(1);
        plans[1].kind = NetworkKind::Bond {
            members: vec![BOOT_NETWORK.to_owned(), "left".to_owned()],
            mode: "active-backup".to_owned(),
        };
        plans.push(NetworkPlan::new(
            "other",
            NetworkKind::Ethernet {
                card: CardMatch {
                    port: Some(3),
                    ..CardMatch::default()
                },
            },
        ));
        let cards = [card(1), card(2), card(3)];
        let resolved = resolve(&plans, &cards, BOOT);
        assert_eq!(resolved.problems, []);
        let of_boot: Vec<(&str, bool)> = resolved
            .networks
            .iter()
            .map(|network| (network.plan.name.as_str(), network.of_boot))
            .collect();
        assert_eq!(of_boot, [("left", true), ("fast", true), ("other", false)]);
        assert_eq!(resolved.networks[1].members, [BOOT_NETWORK, "left"]);
        let members: Vec<&str> = resolved
            .members_of("fast")
            .filter_map(|network| network.card?.interface.as_deref())
            .collect();
        assert_eq!(members, ["eth2"], "the boot card has no network");

        let on = |parent: &str, id| NetworkKind::Vlan {
            parent: parent.to_owned(),
            id,
        };
        let mut with_vlans = plans.clone();
        for (name, parent) in [("v6", "fast"), ("v7", BOOT_NETWORK), ("v8", "other"), ("v9", "gone")] {
            with_vlans.push(NetworkPlan::new(name, on(parent, 6)));
        }
        let vlans = resolve(&with_vlans, &cards, BOOT);
        let of_boot: Vec<bool> = vlans.networks[3..].iter().map(|network| network.of_boot).collect();
        assert_eq!(of_boot, [true, true, false]);
        assert_eq!(vlans.problems[0].0, "v9");

        let resolved = resolve(&plans[..2], &cards[..1], BOOT);
        assert_eq!(resolved.networks[0].members, [BOOT_NETWORK]);
        assert!(
            resolved.problems[0]
                .1
                .starts_with("driver ixgbe, port 2 does not exist"),
            "{resolved:?}"
        );
        assert_eq!(resolved.problems[1], ("fast", "it lacks its member left".to_owned()));
    }

    #[test]
    fn a_card_is_for_one_network_and_a_newer_type_is_refused() {
        let mut plans = plans();
        plans.truncate(2);
        plans[1].kind = NetworkKind::Ethernet {
            card: CardMatch {
                name: Some("eth2".to_owned()),
                ..CardMatch::default()
            },
        };
        let cards = [card(1), card(2)];
        let resolved = resolve(&plans, &cards, BOOT);
        assert!(
            resolved.problems[0].1.ends_with("is already the card of left"),
            "{resolved:?}"
        );
        plans[1].kind = NetworkKind::Unknown;
        let resolved = resolve(&plans, &cards, BOOT);
        assert!(resolved.problems[0].1.contains("seal the image again"), "{resolved:?}");
    }
}
