//! `NodeName=` lines of slurm.conf(5): nodes with equal hardware share a line.
//!
//! Slurm drains a node that registers with less than its line promises, and accepts one with more. So a line has what all its
//! nodes have: boards of one model differ by a few MiB, also by their BIOS, and such nodes share a line with the smallest
//! value. `slurmd` measures as the agent does: processors online, and the kernel's MemTotal.
//!
//! The agent does not report sockets, cores and threads. Without them Slurm schedules processors, which is right for most
//! sites.

use super::{ExportNode, Format, comment, header};
use rackstrap_hostlist::{Dialect, NodeSet};
use rackstrap_wire::Hardware;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes share a line if they differ by at most this part of the largest value: 256 MiB in 64 GiB.
const EQUAL_WITHIN: u64 = 256;
/// A file system is smaller than its partition: ext4 reserves 1.6 % for inodes by default, XFS 0.5 % for its log, and both
/// more on small partitions. In percent.
const USABLE: u64 = 95;
/// Slurm 22.05 reads lines of up to 4,095 bytes; a hostlist longer than this continues in another line.
const LONGEST_LIST: usize = 2000;

/// A comment lists at most this many models.
const LISTED: usize = 4;

/// A node whose agent has reported its hardware.
struct Known<'a> {
    /// Position in the order of the file.
    place: usize,
    name: &'a str,
    hardware: &'a Hardware,
    /// Size in MiB; 0 if there is none.
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

/// Groups of nodes that differ little in `size`.
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

/// The lines of nodes with equal hardware, at least one.
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

/// Hostlists of `names`, each short enough for a line.
fn lists(names: &[&str]) -> Vec<String> {
    let list = names.iter().copied().collect::<NodeSet>().fold_as(Dialect::Slurm);
    if list.len() <= LONGEST_LIST || names.len() == 1 {
        return vec![list];
    }
    let (left, right) = names.split_at(names.len() / 2);
    [lists(left), lists(right)].concat()
}
