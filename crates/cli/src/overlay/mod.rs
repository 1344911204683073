//! `rackstrap overlay`

mod save;

use super::{
    connection::connect,
    hostlist::{self, Wanted},
    output::{self, Format},
};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use rackstrap_control::{Client, api, segment};
use rackstrap_overlay::{ListedFile, Placed, Preview};
use rackstrap_site::{harmless, value::to_toml};
use rackstrap_wire::{OverlayContent, OverlayFile};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Arguments of `rackstrap overlay`.
#[derive(Debug, Args)]
pub struct OverlayArgs {
    #[command(subcommand)]
    command: OverlayCommand,
}

#[derive(Debug, Subcommand)]
enum OverlayCommand {
    /// List the trees, built in and your own, and the profiles whose nodes get them
    #[command(after_help = "\
A tree is a directory below templates-dir. It replaces the built-in tree of the same name.

Example:
  rackstrap overlay list")]
    List(Format),
    /// Show the files of a tree, or the source of one file
    #[command(after_help = "\
Examples:
  rackstrap overlay show base
  rackstrap overlay show base etc/fstab")]
    Show(ShowArgs),
    /// Print the files that nodes would get if they booted now
    #[command(after_help = format!("{}\n\n\
The daemon renders the files with the same code as for a booting node. Private keys, password hashes, and files of
your trees that only their owner may read are printed only with --secrets.

Examples:
  rackstrap overlay render r01n01
  rackstrap overlay render r01n01 etc/fstab
  rackstrap overlay render 'r01n[01-04]' --output /tmp/nodes     (one directory per node)", hostlist::HELP))]
    Render(RenderArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Tree
    tree: String,
    /// Path on the node, such as etc/fstab
    file: Option<String>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct RenderArgs {
    /// Nodes
    nodes: String,
    /// Print only this path, such as etc/fstab
    file: Option<String>,
    /// Write the files below this directory, one directory per node
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Include private keys and password hashes
    #[arg(long)]
    secrets: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(config: &Path, args: OverlayArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    match args.command {
        OverlayCommand::List(format) => {
            let trees: Vec<api::TreeRow> = client.get(api::paths::TREES)?;
            match format.json {
                true => output::print_json(&trees)?,
                false => output::print(&list(&trees))?,
            }
        }
        OverlayCommand::Show(args) => show(&client, &args)?,
        OverlayCommand::Render(args) => render(&client, args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(trees: &[api::TreeRow]) -> String {
    let mut table = output::table(["tree", "files", "profiles", "from"]);
    for row in trees {
        table.add_row(vec![
            comfy_table::Cell::new(&row.tree.name),
            output::right(row.tree.files.len()),
            comfy_table::Cell::new(output::list(&row.profiles)),
            comfy_table::Cell::new(
                row.tree
                    .dir
                    .as_ref()
                    .map_or("built in".to_owned(), |dir| dir.display().to_string()),
            ),
        ]);
    }
    output::render(&table)
}

fn show(client: &Client, args: &ShowArgs) -> Result<()> {
    let trees: Vec<api::TreeRow> = client.get(api::paths::TREES)?;
    let Some(row) = trees.iter().find(|row| row.tree.name == args.tree) else {
        bail!(
            "tree '{}' does not exist; available: {}",
            args.tree,
            output::list(trees.iter().map(|row| &row.tree.name))
        );
    };
    let Some(wanted) = &args.file else {
        return match args.format.json {
            true => output::print_json(row),
            false => output::print(&files_of_tree(&row.tree.files)),
        };
    };
    let path = absolute(wanted.strip_suffix(".j2").unwrap_or(wanted));
    let Some(file) = row.tree.files.iter().find(|file| file.path == path) else {
        bail!(
            "tree {} has no file {path}\nhelp: `rackstrap overlay show {}` lists its files",
            args.tree,
            args.tree
        );
    };
    match (args.format.json, &file.target) {
        (true, _) => output::print_json(file),
        (false, Some(target)) => output::print(&format!("{path} -> {target}")),
        (false, None) => output::print_exactly(&file.source),
    }
}

fn files_of_tree(files: &[ListedFile]) -> String {
    let mut table = output::table(["mode", "owner", "kind", "path"]);
    for file in files {
        let mode = if file.target.is_some() {
            String::new()
        } else {
            format!("{:04o}", file.mode)
        };
        let path = match &file.target {
            Some(target) => format!("{} -> {target}", file.path),
            None if file.skip_empty => format!("{} (unless it is empty)", file.path),
            None => file.path.clone(),
        };
        table.add_row([mode, owner(file.uid, file.gid), file.kind.clone(), path]);
    }
    output::render(&table)
}

fn render(client: &Client, args: RenderArgs) -> Result<()> {
    let nodes = Wanted::new(vec![args.nodes.clone()])?.subjects(client)?;
    let mut previews = Vec::new();
    for node in &nodes {
        let path = format!("{}{}?secrets={}", api::paths::OVERLAY, segment(node), args.secrets);
        let mut preview: Preview = client.get(&path)?;
        if let Some(wanted) = &args.file {
            let path = absolute(wanted);
            preview.files.retain(|placed| placed.file.path == path);
            if preview.files.is_empty() {
                bail!(
                    "{} gets no file {path}\nhelp: `rackstrap overlay render {}` prints all its files",
                    preview.node,
                    preview.node
                );
            }
        }
        previews.push(preview);
    }
    if let Some(dir) = &args.output {
        return save::save(dir, &previews);
    }
    if args.format.json {
        return output::print_json(&previews);
    }
    let several = previews.len() > 1;
    for (index, preview) in previews.iter().enumerate() {
        match (&args.file, several, preview.files.first()) {
            // A single file is printed unchanged, so that it can be compared or piped.
            (
                Some(_),
                false,
                Some(Placed {
                    file:
                        OverlayFile {
                            content: OverlayContent::Text(text),
                            ..
                        },
                    ..
                }),
            ) => {
                output::print_exactly(text)?;
            }
            _ => {
                let gap = if index > 0 { "\n" } else { "" };
                output::print_exactly(&format!("{gap}{}", section(preview)))?;
            }
        }
    }
    Ok(())
}

/// All files of one node, for people.
fn section(preview: &Preview) -> String {
    let mut text = format!(
        "=== {}: {}, from the trees {}\n",
        preview.node,
        preview.image,
        output::list(&preview.templates)
    );
    text.push_str(&format!("    disk: {}\n", preview.disk));
    for (name, value) in &preview.vars {
        let value: String = to_toml(value).chars().map(harmless).collect();
        text.push_str(&format!("    vars.{name}: {value}\n"));
    }
    for warning in preview.lacks.iter().chain(&preview.notes) {
        text.push_str(&format!(
            "    warning: {}\n",
            warning.chars().map(harmless).collect::<String>()
        ));
    }
    for placed in &preview.files {
        let OverlayFile {
            path,
            mode,
            uid,
            gid,
            content,
        } = &placed.file;
        let owner = owner(*uid, *gid);
        match content {
            OverlayContent::Text(body) => {
                text.push_str(&format!("\n--- {path}  {mode:04o} {owner}  {}\n", placed.tree));
                // Control characters are replaced on a terminal; --output and a single file give the bytes.
                text.extend(
                    body.chars()
                        .map(|c| if matches!(c, '\n' | '\t') { c } else { harmless(c) }),
                );
                if !body.is_empty() && !body.ends_with('\n') {
                    text.push_str("\n(no newline at its end)\n");
                }
            }
            OverlayContent::Symlink(target) => text.push_str(&format!("\n--- {path} -> {target}  {}\n", placed.tree)),
            OverlayContent::Directory => {
                text.push_str(&format!("\n--- {path}/  {mode:04o} {owner}  {}\n", placed.tree))
            }
        }
    }
    text
}

fn owner(uid: u32, gid: u32) -> String {
    match (uid, gid) {
        (0, 0) => "root:root".to_owned(),
        _ => format!("{uid}:{gid}"),
    }
}

fn absolute(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}
