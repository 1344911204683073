//! Targets for Prometheus' `file_sd_configs`, with the port of node_exporter. Other exporters replace the port by a relabelling rule.

use super::ExportNode;
use serde_json::{Value, json};

/// The port of node_exporter.
const PORT: u16 = 9100;

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let targets: Vec<Value> = nodes.iter().map(|node| target(node)).collect();
    super::json_text(&Value::Array(targets))
}

fn target(node: &ExportNode) -> Value {
    let default = || "default".to_owned();
    // The last profile wins, so that it says most about the node. With commas on both sides, a rule finds each group by `.*,gpu,.*`.
    let mut labels = json!({
        "instance": node.name, "profile": node.profiles.last().cloned().unwrap_or_else(default), "rack": node.rack,
    });
    if let Some(image) = &node.image {
        labels["image"] = json!(image);
    }
    if !node.groups.is_empty() {
        labels["groups"] = json!(format!(",{},", node.groups.join(",")));
    }
    json!({ "targets": [format!("{}:{PORT}", node.ipaddr)], "labels": labels })
}
