//! `rackstrap node edit`: nodes as text, in the administrator's own editor.

use super::{
    change::send,
    transfer::{inventory, to_toml},
};
use crate::{ask, hostlist::Wanted, output};
use anyhow::{Context, Result, bail};
use clap::Args;
use rackstrap_control::Client;
use rackstrap_exchange::import::{self, Difference, Options};
use rackstrap_site::Site;
use std::{
    fs::OpenOptions,
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

const HEAD: &str = "\
# Save and leave the editor to change nodes; you are asked before anything changes. Text that you delete changes nothing.
# In settings = { } each key that you delete is removed. A new [node.NAME] adds a node. To rename: rackstrap node rename. To delete: rackstrap node delete.

";

#[derive(Debug, Args)]
pub struct EditArgs {
    /// Names or hostlists
    #[arg(required = true, value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Opens the editor again until the text is valid or the user gives up.
pub fn run(config: &Path, client: &Client, args: EditArgs) -> Result<()> {
    let (site, _) = rackstrap_site::load(config)?;
    let wanted = Wanted::new(args.nodes)?;
    wanted.some_names(client)?;
    let before = format!("{HEAD}{}", to_toml(&wanted.nodes(client)?));
    let draft = Draft::new(&before)?;
    loop {
        edit(&draft.path)?;
        let text = std::fs::read_to_string(&draft.path).context("reading the edited text")?;
        if text == before {
            return output::print("nothing to change: the text was not edited");
        }
        match read(client, &site, &text) {
            Ok(difference) if difference.changes.is_empty() => {
                return output::print("nothing to change: the nodes already have these settings");
            }
            Ok(difference) if args.dry_run => {
                send(client, difference.changes.clone(), true, false)?;
                return output::print(&format!("{difference}\nnothing was changed: --dry-run"));
            }
            Ok(difference) => {
                if !args.yes {
                    eprintln!("{difference}");
                    if !ask::yes("make these changes?", false)? {
                        bail!("nothing was changed");
                    }
                }
                let changed = send(client, difference.changes.clone(), false, false)?;
                return output::print(&match args.yes {
                    true => difference.to_string(),
                    false => format!("{} changed", output::count(changed.len(), "node")),
                });
            }
            Err(error) => {
                eprintln!("{error:#}");
                if !ask::yes("edit again?", true).unwrap_or(false) {
                    let kept = draft.keep();
                    bail!("nothing was changed; your text is in {}", kept.display());
                }
            }
        }
    }
}

/// The changes that the text makes.
fn read(client: &Client, site: &Site, text: &str) -> Result<Difference> {
    let options = Options {
        format: Some(import::Format::Toml),
        naming: &site.cluster.naming,
        domain: &site.cluster.domain,
        ports: None,
    };
    const NAME: &str = "nodes.toml";
    // A text without a table matches no format. The user may have deleted the text to delete the nodes.
    if text
        .lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#'))
    {
        bail!(
            "the text names no nodes, and deleting text does not delete nodes\nhelp: `rackstrap node delete NODES` deletes nodes"
        );
    }
    let reading = import::read_some(NAME, text, &options)?;
    Ok(reading.judge(NAME, &inventory(client)?, site, None)?.difference)
}

/// Runs the editor on the terminal. It may be a command line, such as `code --wait`.
fn edit(path: &Path) -> Result<()> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = match set("VISUAL").or_else(|| set("EDITOR")) {
        Some(editor) => editor,
        None if std::io::stdin().is_terminal() => "vi".to_owned(),
        None => bail!(
            "there is no terminal for the editor\nhelp: set a program that needs none, such as EDITOR='sed -i s/old/new/'"
        ),
    };
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$0\""))
        .arg(path)
        .status();
    let status = status.with_context(|| format!("starting the editor '{editor}'"))?;
    match status.success() {
        true => Ok(()),
        false => bail!(
            "the editor '{editor}' ended with {status}: nothing was changed\nhelp: set another editor, such as EDITOR=nano"
        ),
    }
}

/// The file with the text while it is edited; its mode is 0600, and it is removed afterwards.
struct Draft {
    path: PathBuf,
    keep: bool,
}

impl Draft {
    fn new(text: &str) -> Result<Draft> {
        let path = std::env::temp_dir().join(format!("rackstrap-nodes-{:016x}.toml", rand::random::<u64>()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let draft = Draft { path, keep: false };
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("writing {}", draft.path.display()))?;
        Ok(draft)
    }

    fn keep(mut self) -> PathBuf {
        self.keep = true;
        self.path.clone()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
