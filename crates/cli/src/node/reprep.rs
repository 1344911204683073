//! `rackstrap node reprep`: orders about nodes' disks at their next boots.

use crate::{ask, hostlist::Wanted, output};
use anyhow::{Result, bail};
use clap::Args;
use rackstrap_control::{
    Client,
    api::{self, DiskWish},
};
use rackstrap_hostlist::NodeSet;
use rackstrap_model::disks::disk_now;

#[derive(Debug, Args)]
pub struct ReprepArgs {
    /// Names or hostlists
    #[arg(required = true, value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    /// Use the disk that is there, because that of the last boot is gone; a disk with the layout keeps its data
    #[arg(long)]
    new_disk: bool,
    /// Overwrite the disk even if it holds data that rackstrap did not write
    #[arg(long)]
    wipe_foreign: bool,
    /// Only the disk of this layout, for nodes with several layouts; repeat it for several
    #[arg(long, value_name = "NAME", conflicts_with_all = ["partition", "cancel"], add = crate::complete::layouts())]
    layout: Vec<String>,
    /// Make only this partition's file system again, such as tmp; repeat it for several
    #[arg(long, value_name = "NAME", conflicts_with_all = ["new_disk", "wipe_foreign", "cancel"])]
    partition: Vec<String>,
    /// Cancel an earlier order that no boot has carried out yet
    #[arg(long, conflicts_with_all = ["new_disk", "wipe_foreign"])]
    cancel: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

impl ReprepArgs {
    fn wish(&self) -> DiskWish {
        let wipe_foreign = self.wipe_foreign;
        match (self.cancel, self.new_disk) {
            (true, _) => DiskWish::Cancel,
            (false, true) => DiskWish::NewDisk { wipe_foreign },
            (false, false) => DiskWish::Prepare { wipe_foreign },
        }
    }
}

/// Runs the command.
pub fn run(client: &Client, args: ReprepArgs) -> Result<()> {
    let nodes = Wanted::new(args.nodes.clone())?.some_names(client)?;
    let loses_data = !args.cancel && (!args.new_disk || args.wipe_foreign);
    if loses_data && !args.yes {
        let rows: Vec<api::DiskRow> = client.get(api::paths::DISKS)?;
        for row in rows.iter().filter(|row| nodes.contains(&row.node.name)) {
            let now = (row.disk.clone()).map_or("no known data".to_owned(), |disk| disk_now(&disk.into()));
            eprintln!("{}: {now}", row.node.name);
        }
        let what = match (args.partition.as_slice(), args.layout.as_slice()) {
            ([], []) => "the disks".to_owned(),
            ([], layouts) => format!("the disks of layout {}", layouts.join(", ")),
            (partitions, _) => partitions.join(", "),
        };
        let question = format!(
            "erase {what} of {} at their next boots?",
            output::count(nodes.len(), "node")
        );
        if !ask::yes(&question, false)? {
            bail!("nothing was ordered");
        }
    }
    let folded = nodes.iter().cloned().collect::<NodeSet>().fold();
    let asked = api::WishDisks {
        nodes,
        wish: args.wish(),
        layouts: args.layout.clone(),
        partitions: args.partition.clone(),
    };
    let done: api::Done = client.post(api::paths::DISKS_WISH, &asked)?;
    output::print(&format!("{folded}: {}", done.message))
}
