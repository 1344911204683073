//! `rackstrap image exec` and `shell`

use anyhow::{Context, Result};
use clap::Args;
use rackstrap_image::{EnterRequest, enter};
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

/// The arguments with which this program is the first process in a working copy.
const INSIDE: [&str; 2] = ["image", "inside"];

#[derive(Args, Debug)]
pub(super) struct ExecArgs {
    /// Working copy, such as debian-work
    work: String,
    /// Command with its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn exec(args: ExecArgs, images_dir: PathBuf) -> Result<ExitCode> {
    run(args.work, args.command, images_dir)
}

pub(super) fn shell(work: String, images_dir: PathBuf) -> Result<ExitCode> {
    run(work, Vec::new(), images_dir)
}

fn run(work: String, command: Vec<OsString>, images_dir: PathBuf) -> Result<ExitCode> {
    let request = EnterRequest {
        images_dir,
        work,
        command,
    };
    let code = enter(&request, &INSIDE).with_context(|| format!("entering {}", request.work))?;
    Ok(ExitCode::from(code))
}
