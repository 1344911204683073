//! The facts that a node's templates are rendered from.

use crate::{
    boots::Boot,
    decide::{NodeDecision, World},
    overlay::{Facts, NodeFacts, PeerNode, SshKeys},
};
use rackstrap_wire::DiskState;
use std::collections::BTreeMap;

/// Facts of one boot: image and network as pinned, the rest as decided now.
pub fn facts(
    world: &World,
    decision: &NodeDecision,
    boot: &Boot,
    disk: DiskState,
    ssh: SshKeys,
    cluster_key: &[u8; 32],
) -> Facts {
    let name = &boot.plan.node;
    let cluster = &world.site.cluster;
    let fqdn = if cluster.domain.is_empty() {
        name.clone()
    } else {
        format!("{name}.{}", cluster.domain)
    };
    Facts {
        node: NodeFacts {
            name: name.clone(),
            fqdn,
            profiles: decision.node.profiles.clone(),
            groups: decision.node.groups.iter().cloned().collect(),
            machine_id: machine_id(cluster_key, name),
        },
        cluster: BTreeMap::from([("name", cluster.name.clone()), ("domain", cluster.domain.clone())]),
        server: BTreeMap::from([("ipaddr", boot.plan.root.server)]),
        net: boot.plan.net.clone(),
        image: boot.plan.image.clone(),
        image_digest: world
            .images
            .get(&boot.plan.image)
            .map(|version| version.manifest.digest.clone())
            .unwrap_or_default(),
        disk,
        nodes: world
            .inventory
            .iter()
            .map(|node| PeerNode {
                name: node.name.clone(),
                ipaddr: node.ipaddr,
            })
            .collect(),
        authorized_keys: decision.authorized_keys.clone(),
        ssh,
    }
}

/// machine-id(5): 128 bits as hex, not all zero, and not to be guessed from the node's name.
fn machine_id(cluster_key: &[u8; 32], node: &str) -> String {
    let mut hasher = blake3::Hasher::new_keyed(cluster_key);
    hasher.update(b"machine-id ").update(node.as_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    hex::encode(id)
}
