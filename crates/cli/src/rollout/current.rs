//! `rackstrap image promote` and `rackstrap image rollback`: a version for all nodes of an image at once.

use crate::{
    connection::connect,
    output::{self, Format},
};
use anyhow::Result;
use clap::{Args, Subcommand};
use rackstrap_control::api::{self, CurrentVersion};
use rackstrap_wire::ImageRef;
use std::{path::Path, process::ExitCode};

/// A change of an image's current version.
#[derive(Debug, Subcommand)]
pub enum Order {
    /// Make a version current: all nodes of its image get it at their next boots
    #[command(after_help = "\
Nodes whose profile pins a version keep that one. `rackstrap rollout start` tries a version on canaries first.

Example:
  rackstrap image promote debian@2")]
    Promote(PromoteArgs),
    /// Make the version before current again: all nodes of the image get it at their next boots
    #[command(after_help = "\
Examples:
  rackstrap image rollback debian
  rackstrap image rollback debian && rackstrap status @profile:default")]
    Rollback(RollbackArgs),
}

/// Arguments of `rackstrap image promote`.
#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// Version, such as debian@4
    #[arg(value_name = "IMAGE", add = crate::complete::images())]
    image: ImageRef,
    #[command(flatten)]
    format: Format,
}

/// Arguments of `rackstrap image rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Name of the image
    #[arg(value_name = "IMAGE", add = crate::complete::images())]
    name: String,
    #[command(flatten)]
    format: Format,
}

/// Has the daemon carry the order out.
pub fn carry_out(config: &Path, order: &Order) -> Result<ExitCode> {
    let client = connect(config)?;
    let (current, format): (CurrentVersion, Format) = match order {
        Order::Promote(args) => {
            let asked = api::PromoteImage {
                image: args.image.clone(),
            };
            (client.post(api::paths::IMAGE_PROMOTE, &asked)?, args.format)
        }
        Order::Rollback(args) => {
            let asked = api::RollBack {
                name: args.name.clone(),
            };
            let done: api::RolledBack = client.post(api::paths::IMAGE_ROLLBACK, &asked)?;
            if args.format.json {
                output::print_json(&done)?;
                return Ok(ExitCode::SUCCESS);
            }
            if let Some(ended) = &done.ended {
                output::print(&format!(
                    "the rollout of {ended} has ended: its nodes return to {}, the current version{}",
                    done.current.image,
                    super::restarts(&done.restarts)
                ))?;
            }
            (done.current, args.format)
        }
    };
    match format.json {
        true => output::print_json(&current)?,
        false => output::print(&format!(
            "{} is current: nodes of {} get it at their next boots",
            current.image, current.image.name
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}
