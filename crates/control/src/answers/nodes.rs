//! Answers about the inventory.

use crate::api::{ExportFile, ExportRow, ExportSubnet, HiddenRow, HistoryRow, NodeChange, NodeRow, SettingRow};
use rackstrap_exchange::export::{BootFile, BootSubnet, ExportNode};
use rackstrap_model::{
    decide::World,
    inventory::{Changed, Entry, Node, Origin, Setting, Settings},
};

impl From<&Node> for NodeRow {
    fn from(node: &Node) -> Self {
        NodeRow {
            name: node.name.clone(),
            hwaddrs: node.hwaddrs.clone(),
            ipaddr: node.ipaddr,
            profiles: node.profiles.clone(),
            groups: node.groups.clone(),
            attributes: node.attributes.clone(),
            settings: node.hide_secrets().settings.written().clone(),
        }
    }
}

/// For commands that compare a file with the inventory.
impl From<NodeRow> for Node {
    fn from(row: NodeRow) -> Self {
        Node {
            name: row.name,
            hwaddrs: row.hwaddrs,
            ipaddr: row.ipaddr,
            profiles: row.profiles,
            groups: row.groups,
            attributes: row.attributes,
            settings: row.settings.into(),
        }
    }
}

impl From<&Changed> for NodeChange {
    fn from(changed: &Changed) -> Self {
        let changed = changed.without_secrets();
        NodeChange {
            before: changed.before.as_ref().map(NodeRow::from),
            after: changed.after.as_ref().map(NodeRow::from),
        }
    }
}

/// For commands that describe a change.
impl From<NodeChange> for Changed {
    fn from(change: NodeChange) -> Self {
        Changed {
            before: change.before.map(Node::from),
            after: change.after.map(Node::from),
        }
    }
}

impl From<Entry> for HistoryRow {
    fn from(entry: Entry) -> Self {
        HistoryRow {
            changed: NodeChange::from(&entry.changed),
            at: entry.at,
            by: entry.by,
        }
    }
}

impl From<Setting> for SettingRow {
    fn from(setting: Setting) -> Self {
        SettingRow {
            key: setting.key,
            value: setting.value,
            profile: match &setting.from {
                Origin::Profile(profile) => profile.clone(),
                Origin::Node | Origin::Cluster | Origin::Name => String::new(),
            },
            from: setting.from.to_string(),
            added: setting.added,
            hides: (setting.hides.into_iter())
                .map(|hidden| HiddenRow {
                    from: hidden.from.to_string(),
                    value: hidden.value,
                })
                .collect(),
        }
    }
}

impl SettingRow {
    /// All settings of a node, with where each comes from.
    pub fn of(world: &World, node: &Node) -> Vec<SettingRow> {
        let all = Settings::of_node(&world.site, node, |_| ()).all();
        all.into_iter().map(SettingRow::from).collect()
    }
}

impl From<ExportSubnet> for BootSubnet {
    fn from(row: ExportSubnet) -> Self {
        BootSubnet {
            network: row.network,
            server: row.server,
            base: row.base,
            script: row.script,
            is_proxy: row.is_proxy,
            files: row.files.into_iter().map(BootFile::from).collect(),
            nodes: row.nodes.into_iter().collect(),
        }
    }
}

impl From<ExportFile> for BootFile {
    fn from(row: ExportFile) -> Self {
        BootFile {
            class: row.class,
            archs: row.archs,
            file: row.file,
        }
    }
}

impl From<ExportRow> for ExportNode {
    fn from(row: ExportRow) -> Self {
        ExportNode {
            name: row.name,
            ipaddr: row.ipaddr,
            hwaddrs: row.hwaddrs,
            domain: row.domain,
            profiles: row.profiles,
            groups: row.groups,
            hardware: row.hardware,
            scratch: row.scratch,
            networks: row.networks,
            rack: row.rack,
            state: row.state.map(|state| state.to_string()).unwrap_or_default(),
            image: row.image.map(|image| image.to_string()),
            attributes: row.attributes,
            settings: row.settings,
            vars: row.vars,
            host_keys: row.host_keys,
        }
    }
}
