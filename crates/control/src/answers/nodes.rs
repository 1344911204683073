//! Answers about the inventory.

use crate::api::{ExportFile, ExportRow, ExportSubnet, HistoryRow, NodeChange, NodeRow, SettingRow};
use rackstrap_exchange::export::{BootFile, BootSubnet, ExportNode};
use rackstrap_model::inventory::{Changed, Entry, Node, Setting};

impl From<&Node> for NodeRow {
    fn from(node: &Node) -> Self {
        NodeRow {
            name: node.name.clone(),
            hwaddrs: node.hwaddrs.clone(),
            ipaddr: node.ipaddr,
            profiles: node.profiles.clone(),
            groups: node.groups.clone(),
            attributes: node.attributes.clone(),
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
        }
    }
}

impl From<&Changed> for NodeChange {
    fn from(changed: &Changed) -> Self {
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
            profile: setting.profile,
        }
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
        }
    }
}
