//! The facts that a node's templates are rendered from.

use super::render::{DnsFacts, Facts, KeyPair, MountFacts, NodeFacts, PeerAddress, PeerNode, SshKeys};
use rackstrap_model::{
    decide::{NodeDecision, World, hosts_of},
    inventory::{Node, Settings},
};
use rackstrap_site::{Site, value::Value};
use rackstrap_wire::{
    ContentOf, DiskState, DiskStatus, FileSystem, ImageRef, Layout, MountedPartition, NetPlan, Plan, Root, content_of,
    label_of,
};
use std::{collections::BTreeMap, net::Ipv4Addr};

/// Facts of one boot: image and network as pinned, everything else as decided now.
pub(super) fn facts(
    world: &World,
    decision: &NodeDecision,
    plan: &Plan,
    disk: DiskState,
    (ssh, vars): (SshKeys, BTreeMap<String, Value>),
    cluster_key: &[u8; 32],
    mounts: Vec<MountFacts>,
) -> Facts {
    let server = match &plan.root {
        Root::Nfs(root) => root.server,
    };
    let nodes = world.inventory.iter().map(|node| PeerNode {
        name: node.name.clone(),
        ipaddr: node.ipaddr,
        networks: peer_addresses(&world.site, node),
    });
    Facts {
        node: NodeFacts {
            name: plan.node.clone(),
            fqdn: fqdn(&world.site, &plan.node),
            profiles: decision.node.profiles.clone(),
            groups: decision.node.groups.iter().cloned().collect(),
            attributes: decision.node.attributes.clone(),
            machine_id: machine_id(cluster_key, &plan.node),
        },
        vars,
        cluster: cluster(&world.site),
        server: BTreeMap::from([("ipaddr", server)]),
        net: plan.net.clone(),
        networks: plan.networks.clone(),
        dns: DnsFacts::of(&plan.net, &plan.networks),
        image: plan.image.clone(),
        image_digest: (world.images.of_plan(plan))
            .map(|version| version.manifest.digest.clone())
            .unwrap_or_default(),
        disk,
        mounts,
        nodes: nodes.collect(),
        authorized_keys: decision.authorized_keys.clone(),
        ssh,
    }
}

/// Facts of an example node of the site with this profile, `attributes` and `vars`, so that templates can be rendered before such a
/// node exists.
pub(super) fn example(
    site: &Site,
    profile: &str,
    mounts: Vec<MountFacts>,
    attributes: BTreeMap<String, String>,
    vars: BTreeMap<String, Value>,
) -> Facts {
    let naming = &site.cluster.naming;
    let first = naming.first_address(Default::default(), &site.cluster.reserved);
    let ipaddr = first.unwrap_or(Ipv4Addr::new(192, 0, 2, 1));
    let name = naming.address_to_name(ipaddr).unwrap_or_else(|| "node1".to_owned());
    let subnet = site.subnet_of(ipaddr).or(site.subnets.first());
    let profiles: Vec<String> = [profile]
        .iter()
        .filter(|p| **p != "default")
        .map(|p| (*p).to_owned())
        .collect();
    let settings = Settings::of(site, &profiles, |_| ());
    let layouts = site.layouts_of(settings.text(|p| &p.layout).unwrap_or_default());
    let image = settings.text(|p| &p.image).unwrap_or("image");
    let key = || KeyPair {
        private: "PRIVATE".to_owned(),
        public: "PUBLIC".to_owned(),
    };
    let image = image.parse().unwrap_or_else(|_| ImageRef {
        name: image.to_owned(),
        version: 1,
    });
    let net = NetPlan {
        hwaddr: rackstrap_wire::HwAddr([0x52, 0x54, 0, 1, 1, 1]),
        ipaddr,
        prefix: subnet.map_or(24, |subnet| subnet.network.prefix_len()),
        router: subnet.and_then(|subnet| subnet.router),
        dns: subnet.map(|subnet| subnet.dns.clone()).unwrap_or_default(),
        domain: site.cluster.domain.clone(),
        mtu: settings
            .get(|p| p.mtu.as_ref())
            .copied()
            .or(subnet.and_then(|subnet| subnet.mtu)),
        vlan: subnet.and_then(|subnet| subnet.vlan),
    };
    Facts {
        node: NodeFacts {
            fqdn: fqdn(site, &name),
            name: name.clone(),
            groups: Vec::new(),
            attributes,
            machine_id: "0".repeat(32),
            profiles,
        },
        vars,
        cluster: cluster(site),
        server: BTreeMap::from([("ipaddr", subnet.map_or(ipaddr, |subnet| subnet.server))]),
        networks: Vec::new(),
        dns: DnsFacts::of(&net, &[]),
        net,
        image,
        image_digest: String::new(),
        disk: expected_disk(layouts.map(|policy| (policy.layout.clone(), &policy.contents[..]))),
        mounts,
        nodes: vec![PeerNode {
            name,
            ipaddr,
            networks: Vec::new(),
        }],
        authorized_keys: settings
            .get(|p| p.authorized_keys.as_ref())
            .cloned()
            .unwrap_or_default(),
        ssh: SshKeys {
            ed25519: key(),
            ecdsa: key(),
        },
    }
}

fn peer_addresses(site: &Site, node: &Node) -> Vec<PeerAddress> {
    let all = hosts_of(site, node).into_iter();
    all.map(|(name, ipaddr)| PeerAddress { name, ipaddr }).collect()
}

/// The state of a disk that is left alone.
pub(super) fn no_disk() -> DiskState {
    DiskState::default()
}

/// The disks as the layouts and the contents of their partitions describe them, as the disk of the first one. Their devices are unknown before
/// the agent has inspected the node.
pub(super) fn expected_disk<'a>(layouts: impl Iterator<Item = (Layout, &'a [ContentOf])>) -> DiskState {
    let layouts: Vec<(Layout, &[ContentOf])> = layouts.collect();
    let Some((first, _)) = layouts.first() else {
        return no_disk();
    };
    let used = layouts
        .iter()
        .flat_map(|(layout, contents)| layout.partitions.iter().map(move |partition| (partition, *contents)));
    let used = used.filter(|(partition, _)| partition.fs != FileSystem::Raw);
    let mounts = used.map(|(partition, contents)| {
        let encrypted = content_of(contents, &partition.name).is_some_and(|content| content.encrypt.is_some());
        MountedPartition {
            name: partition.name.clone(),
            device: match encrypted {
                true => format!("/dev/mapper/rackstrap-{}", partition.name),
                false => format!("LABEL={}", label_of(contents, partition)),
            },
            fs: partition.fs,
            uuid: String::new(),
            mount: partition.mount.clone(),
            options: partition.options.clone(),
            size: 0,
            encrypted,
        }
    });
    DiskState {
        status: DiskStatus::Kept {
            layout: format!("{} v{}", first.name, first.version),
        },
        mounts: mounts.collect(),
        ..DiskState::default()
    }
}

fn cluster(site: &Site) -> BTreeMap<&'static str, String> {
    let cluster = &site.cluster;
    BTreeMap::from([("name", cluster.name.clone()), ("domain", cluster.domain.clone())])
}

fn fqdn(site: &Site, name: &str) -> String {
    match site.cluster.domain.as_str() {
        "" => name.to_owned(),
        domain => format!("{name}.{domain}"),
    }
}

/// machine-id(5): 128 bits as hex digits, not all zero, and not to be guessed from the node's name.
fn machine_id(cluster_key: &[u8; 32], node: &str) -> String {
    let mut hasher = blake3::Hasher::new_keyed(cluster_key);
    hasher.update(b"machine-id ").update(node.as_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    hex::encode(id)
}
