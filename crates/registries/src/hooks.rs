//! The site's own programs, which are run after changes.
//!
//! `on-change` runs once when the daemon starts. It runs again whenever something changes that an export shows (nodes, and
//! what their agents found in them), and whenever a node becomes lost or stalled, or recovers. Changes during a run cause one
//! more run. A hook that fails is run again until it succeeds, so that a scheduler that is being restarted gets the change
//! later.

mod known;
mod process;
#[cfg(test)]
mod tests;

pub use process::{Failed, run};

use crate::{boots::Boots, timeline::Recorder};
pub(crate) use known::variables;
use known::{Differences, Known};
use rackstrap_base::backoff::doubled;
use rackstrap_model::decide::SharedWorld;
use rackstrap_site::Hooks;
use rackstrap_store::{Store, Table};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Changes within this time are one run: a rack that is switched on, an import.
const SETTLE: Duration = Duration::from_millis(500);
/// Time until a failed hook is run again; doubled after each failure.
const RETRY: Duration = Duration::from_secs(10);
/// The longest time until a failed hook is run again.
const LONGEST_RETRY: Duration = Duration::from_secs(600);

/// The state that the hooks observe.
pub struct Watched {
    /// Site file and inventory.
    pub world: SharedWorld,
    /// Reports of agents.
    pub boots: Boots,
    /// The registry of timelines, which knows which nodes are lost or stalled.
    pub recorder: Recorder,
    /// Wakes the hooks when something may have changed.
    pub store: Store,
    /// Signals that the site file was read again.
    pub reloaded: Arc<Notify>,
    /// The site file's path, so that a hook that runs `rackstrap` asks this daemon.
    pub config: PathBuf,
}

/// Runs the hooks until `cancel`.
///
/// # Errors
/// None: a failure is logged, and the hook is run again.
pub async fn serve(watched: Watched, cancel: CancellationToken) -> std::io::Result<()> {
    let mut nodes = watched.store.watch(Table::Nodes);
    let mut boots = watched.store.watch(Table::Boots);
    let mut disks = watched.store.watch(Table::Disks);
    let mut overdue = watched.recorder.watch_overdue();
    // The program that was run last, and the nodes at that time.
    let mut told: Option<(Vec<String>, Known)> = None;
    let mut failures = 0u32;
    loop {
        // Marked first, so that each later change wakes the loop again.
        nodes.mark_unchanged();
        boots.mark_unchanged();
        overdue.mark_unchanged();
        let (hooks, known) = {
            let world = watched.world.load();
            let known = Known::of(&world, &watched.boots, &watched.recorder);
            (world.site.hooks.clone(), known)
        };
        // A different program knows nothing yet, as at the start.
        let told_before = told.as_ref().filter(|(program, _)| *program == hooks.on_change);
        let differences = told_before.map(|(_, told)| told.until(&known));
        if hooks.on_change.is_empty() {
            (told, failures) = (None, 0);
        } else if differences.as_ref().is_none_or(|differences| !differences.is_empty()) {
            let differences = differences.unwrap_or_default();
            let outcome = tokio::select! {
                outcome = run_on_change(&hooks, &watched, &differences, &known) => outcome,
                () = cancel.cancelled() => return Ok(()),
            };
            match outcome {
                Ok(()) => {
                    told = Some((hooks.on_change, known));
                    failures = 0;
                }
                Err(failed) => {
                    failures += 1;
                    let wait = retry_after(failures);
                    tracing::error!("[hooks] on-change: {failed}; it is run again in {} s", wait.as_secs());
                }
            }
        }
        // Changes while a program fails are reported by its next run, and do not make that run earlier: in a cluster that is
        // switched on, something changes all the time.
        if failures > 0 {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(retry_after(failures)) => {}
                () = watched.reloaded.notified() => failures = 0,
            }
            continue;
        }
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = watched.reloaded.notified() => {}
            _ = nodes.changed() => tokio::time::sleep(SETTLE).await,
            _ = boots.changed() => tokio::time::sleep(SETTLE).await,
            _ = disks.changed() => tokio::time::sleep(SETTLE).await,
            _ = overdue.changed() => tokio::time::sleep(SETTLE).await,
        }
    }
}

/// How long after `failures` failures in a row, from 1, a program is run again.
pub fn retry_after(failures: u32) -> Duration {
    doubled(RETRY, LONGEST_RETRY, failures.saturating_sub(1))
}

async fn run_on_change(
    hooks: &Hooks,
    watched: &Watched,
    differences: &Differences,
    known: &Known,
) -> Result<(), Failed> {
    let mut environment = differences.environment();
    environment.extend(known.environment());
    let concerned = differences.added.iter().chain(differences.changed.iter());
    environment.push(variables(&watched.world.load(), concerned));
    environment.push(("RACKSTRAP_CONFIG", watched.config.to_string_lossy().into_owned()));
    let timeout = Duration::from_secs(hooks.timeout_secs.into());
    let said = run(&hooks.on_change, &environment, timeout).await?;
    tracing::info!("[hooks] on-change ran for: {differences}");
    for line in said.lines() {
        tracing::info!("[hooks] on-change printed: {line}");
    }
    Ok(())
}
