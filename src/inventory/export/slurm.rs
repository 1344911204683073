//! `NodeName=` lines of slurm.conf(5): nodes of equal hardware share one.
//!
//! Slurm drains a node that registers with less than its line promises, and takes one with more. So what is written is what
//! all nodes of a line have: the same model differs by a few MiB from board to board and from BIOS to BIOS, and such nodes
//! share a line that says what the smallest has. `slurmd` measures as the agent does: processors online, and the kernel's MemTotal.
//!
//! The agent does not look at sockets, cores and threads; without them Slurm schedules processors, which is right for most.

use super::{ExportNode, Format, comment, header};
use rackstrap_hostlist::{Dialect, NodeSet};
use rackstrap_wire::Hardware;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes share a line if they differ by at most this part of the largest: 256 MiB in 64 GiB.
const EQUAL_WITHIN: u64 = 256;
/// A file system is smaller than its partition: ext4 keeps 1.6 % for inodes by default, XFS 0.5 % for its log, and both more for
/// small ones. In percent.
const USABLE: u64 = 95;
/// Slurm 22.05 reads lines of up to 4,095 bytes; a hostlist longer than this goes on in another line.
const LONGEST_LIST: usize = 2000;

/// Makers and products that a comment lists.
const LISTED: usize = 4;

/// A node that has reported.
struct Known<'a> {
    /// Place in the order of the file.
    place: usize,
    name: &'a str,
    hardware: &'a Hardware,
    /// MiB; 0 without.
    tmp: u64,
}

pub(super) fn write(nodes: &[&ExportNode]) -> String {
    let mut unknown = NodeSet::default();
    let mut by_cpus: BTreeMap<u32, Vec<Known>> = BTreeMap::new();
    for (place, node) in nodes.iter().enumerate() {
        match &node.hardware {
            Some(hardware) if hardware.cpus > 0 => by_cpus.entry(hardware.cpus).or_default().push(Known {
                place,
                name: &node.name,
                hardware,
                tmp: (node.scratch.unwrap_or(0) / 100 * USABLE) >> 20,
            }),
            _ => {
                unknown.insert(node.name.as_str());
            }
        }
    }
    let by_memory = (by_cpus.into_values()).flat_map(|nodes| alike(nodes, |node| node.hardware.memory_mib));
    let mut kinds: Vec<Vec<Known>> = by_memory.flat_map(|nodes| alike(nodes, |node| node.tmp)).collect();
    for nodes in &mut kinds {
        nodes.sort_by_key(|node| node.place);
    }
    kinds.sort_by_key(|nodes| nodes[0].place);

    let mut text = header(Format::Slurm, nodes);
    if !unknown.is_empty() {
        text.push_str(&format!(
            "# Hardware unknown, so not defined here before their first boot: {}\n",
            unknown.fold_as(Dialect::Slurm)
        ));
    }
    text.extend(kinds.iter().map(|nodes| kind(nodes)));
    text
}

/// Nodes that differ little in `size`, together.
fn alike<'a>(mut nodes: Vec<Known<'a>>, size: impl Fn(&Known) -> u64) -> Vec<Vec<Known<'a>>> {
    nodes.sort_by_key(&size);
    let mut kinds: Vec<Vec<Known>> = Vec::new();
    for node in nodes {
        match kinds.last_mut() {
            Some(kind) if size(&node) - size(&kind[0]) <= size(&node) / EQUAL_WITHIN => kind.push(node),
            _ => kinds.push(vec![node]),
        }
    }
    kinds
}

/// The lines of nodes that are alike; never empty.
fn kind(nodes: &[Known]) -> String {
    let models: BTreeSet<String> = nodes.iter().map(|node| model(node.hardware)).collect();
    let mut listed: Vec<&str> = models.iter().take(LISTED).map(String::as_str).collect();
    if models.len() > LISTED {
        listed.push("and others");
    }
    let mut what = format!("CPUs={}", nodes[0].hardware.cpus);
    let least = |size: fn(&Known) -> u64| nodes.iter().map(size).min().filter(|least| *least > 0);
    if let Some(memory) = least(|node| node.hardware.memory_mib) {
        what.push_str(&format!(" RealMemory={memory}"));
    }
    if let Some(tmp) = least(|node| node.tmp) {
        what.push_str(&format!(" TmpDisk={tmp}"));
    }
    let names: Vec<&str> = nodes.iter().map(|node| node.name).collect();
    let lists = lists(&names).into_iter();
    let lines = lists.map(|names| format!("NodeName={names} {what} State=UNKNOWN\n"));
    format!(
        "# {} x {}\n{}",
        nodes.len(),
        listed.join("; "),
        lines.collect::<String>()
    )
}

fn model(hardware: &Hardware) -> String {
    let model = format!("{} {}", hardware.vendor.trim(), hardware.product.trim());
    match model.trim() {
        "" => "unnamed hardware".to_owned(),
        model => comment(model),
    }
}

/// Hostlists of `names`, none too long for a line.
fn lists(names: &[&str]) -> Vec<String> {
    let list = names.iter().copied().collect::<NodeSet>().fold_as(Dialect::Slurm);
    if list.len() <= LONGEST_LIST || names.len() == 1 {
        return vec![list];
    }
    let (left, right) = names.split_at(names.len() / 2);
    [lists(left), lists(right)].concat()
}
