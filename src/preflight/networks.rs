//! Nodes with `[[network]]` whose image has no network service.

use super::{Finding, finding};
use rackstrap_catalog::{Catalog, ImageVersion};
use rackstrap_hostlist::NodeSet;
use rackstrap_model::inventory::{Node, Settings};
use rackstrap_site::Site;
use std::collections::{BTreeMap, BTreeSet};

/// The nodes or the profiles of an image, and their networks.
#[derive(Default)]
struct Concerned<'s> {
    nodes: NodeSet,
    profiles: BTreeSet<&'s str>,
    networks: BTreeSet<&'s str>,
}

/// One finding for each image. A profile that no node has is tried by itself.
pub(super) fn of_nodes<'a>(site: &Site, catalog: &Catalog, nodes: impl Iterator<Item = &'a Node>) -> Vec<Finding> {
    if site.networks.is_empty() {
        return Vec::new();
    }
    let image_of = |settings: &Settings<'_>| -> Option<String> {
        let name = settings.text(|p| &p.image)?;
        let version = match name.parse() {
            Ok(pinned) => catalog.get(&pinned),
            Err(_) => catalog.newest(name),
        };
        version
            .filter(|version| lacks_service(version))
            .map(|version| version.manifest.image.to_string())
    };
    let mut found: BTreeMap<String, Concerned<'_>> = BTreeMap::new();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for node in nodes {
        used.insert("default");
        used.extend(node.profiles.iter().map(String::as_str));
        let networks = networks_of(site, &node.profiles);
        if networks.is_empty() {
            continue;
        }
        if let Some(image) = image_of(&Settings::of_node(site, node, |_| ())) {
            let concerned = found.entry(image).or_default();
            concerned.nodes.insert(node.name.as_str());
            concerned.networks.extend(networks);
        }
    }
    for profile in site.profiles.keys().filter(|profile| !used.contains(profile.as_str())) {
        let networks = networks_of(site, std::slice::from_ref(profile));
        if networks.is_empty() {
            continue;
        }
        if let Some(image) = image_of(&Settings::of(site, std::slice::from_ref(profile), |_| ())) {
            let concerned = found.entry(image).or_default();
            concerned.profiles.insert(profile);
            concerned.networks.extend(networks);
        }
    }
    found
        .into_iter()
        .map(|(image, concerned)| warning(&image, &concerned))
        .collect()
}

/// The names of the networks that the image of nodes with these profiles has to set up: the agent itself makes those on the boot card.
fn networks_of<'s>(site: &'s Site, profiles: &[String]) -> Vec<&'s str> {
    let own = site.networks.iter().filter(|network| network.applies_to(profiles));
    let boot_bond = own.clone().find(|network| network.kind.is_boot_bond());
    let boot_bond = boot_bond.map(|bond| (bond.name.as_str(), &bond.kind));
    own.filter(|network| !network.kind.is_made_by_agent(&network.name, boot_bond))
        .map(|network| network.name.as_str())
        .collect()
}

/// FreeBSD sets no networks up whatever it has: see the profiles with FreeBSD.
fn lacks_service(version: &ImageVersion) -> bool {
    !version.has_network_service && !version.is_freebsd()
}

fn warning(image: &str, concerned: &Concerned<'_>) -> Finding {
    let list = |all: &BTreeSet<&str>| all.iter().copied().collect::<Vec<_>>().join(", ");
    let whose = match (concerned.nodes.is_empty(), concerned.profiles.is_empty()) {
        (false, true) => concerned.nodes.to_string(),
        (true, _) => format!("nodes with the profiles {}", list(&concerned.profiles)),
        (false, false) => format!(
            "{}, and nodes with the profiles {},",
            concerned.nodes,
            list(&concerned.profiles)
        ),
    };
    let message = format!(
        "image {image} starts none of systemd-networkd, NetworkManager and ifupdown: {whose} will be degraded without the networks {}",
        list(&concerned.networks)
    );
    let help =
        format!("rackstrap image clone {image}; install and enable one of these services in the copy, and seal it");
    finding(false, &format!("network service of {image}"), message, help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_catalog::{Manifest, System};
    use rackstrap_model::testing;
    use std::path::PathBuf;

    const NETWORK: &str = "[[network]]\nname = \"ib\"\ntype = \"ethernet\"\nmatch = { driver = \"igb\" }\n\
                           node-address = \"10.6.{rack}.{slot}\"\nprefix = 16\nprofiles = [\"gpu\"]\n";
    const PROFILES: &str = "[profile.default]\nimage = \"debian\"\n[profile.gpu]\n[profile.bsd]\nimage = \"freebsd\"\n";

    fn found(site: &str, has_service: bool, nodes: &[(&str, &[&str])]) -> Vec<String> {
        let site = testing::cluster(site);
        let version = |image: &str, system| {
            let manifest = Manifest {
                system,
                ..Manifest::bare(image.parse().unwrap())
            };
            let mut version = ImageVersion::new(manifest, PathBuf::from("/images"));
            version.has_network_service = has_service && system == System::Linux;
            version
        };
        let catalog = Catalog::new([
            version("debian@1", System::Linux),
            version("freebsd@1", System::FreeBsd),
        ]);
        let nodes: Vec<Node> = nodes
            .iter()
            .map(|(name, profiles)| Node {
                profiles: profiles.iter().map(|&profile| profile.to_owned()).collect(),
                ..testing::node(name)
            })
            .collect();
        let all = of_nodes(&site, &catalog, nodes.iter());
        assert!(all.iter().all(|finding| !finding.fatal));
        all.into_iter()
            .map(|one| format!("{}; {}", one.message, one.help))
            .collect()
    }

    #[test]
    fn an_image_without_a_network_service_is_named_with_its_nodes_and_their_networks() {
        let site = format!("{PROFILES}{NETWORK}");
        let nodes: [(&str, &[&str]); 4] = [
            ("r01n01", &["gpu"]),
            ("r01n02", &["gpu"]),
            ("r01n03", &[]),
            ("r01n04", &["gpu", "bsd"]),
        ];
        assert_eq!(
            found(&site, false, &nodes),
            [
                "image debian@1 starts none of systemd-networkd, NetworkManager and ifupdown: r01n[01-02] will be degraded without \
                 the networks ib; rackstrap image clone debian@1; install and enable one of these services in the copy, and seal it"
            ]
        );
        assert_eq!(found(&site, true, &nodes), [""; 0]);
        assert_eq!(found(PROFILES, false, &nodes), [""; 0]);
        assert_eq!(found(&site, false, &nodes[2..]), [""; 0], "r01n04 is FreeBSD");
    }

    #[test]
    fn what_the_agent_makes_on_the_boot_card_needs_no_service() {
        let of_boot = "[[network]]\nname = \"second\"\ntype = \"ethernet\"\nmatch = { driver = \"ixgbe\" }\n\
                       [[network]]\nname = \"bond0\"\ntype = \"bond\"\nmembers = [\"boot\", \"second\"]\nmode = \"active-backup\"\n\
                       [[network]]\nname = \"v6\"\ntype = \"vlan\"\nparent = \"bond0\"\nid = 6\n\
                       node-address = \"10.8.{rack}.{slot}\"\nprefix = 16\n";
        let site = format!("{PROFILES}{of_boot}");
        assert_eq!(found(&site, false, &[("r01n01", &[])]), [""; 0]);
        let all = found(&(site + NETWORK), false, &[("r01n01", &["gpu"])]);
        assert!(
            all[0].contains("r01n01 will be degraded without the networks ib;"),
            "{all:?}"
        );
    }

    #[test]
    fn a_profile_without_nodes_is_tried_by_itself() {
        let all = found(&format!("{PROFILES}{NETWORK}"), false, &[("r01n03", &[])]);
        assert!(
            all[0].contains("nodes with the profiles gpu will be degraded without the networks ib"),
            "{all:?}"
        );
    }
}
