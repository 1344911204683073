//! Runs the site's `drain` and `resume` programs.

use super::Restarts;
use crate::hooks::{retry_after, run, variables};
use rackstrap_base::clock::Timestamp;
use rackstrap_hostlist::{Dialect, NodeSet};
use rackstrap_lifecycle::{Job, restart::Program};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

/// At most this many programs run at the same time.
const AT_ONCE: usize = 4;

/// Runs the programs that the planner wants, until `cancel`. `config` is the path of the site file, for programs that ask
/// this daemon.
///
/// # Errors
/// A panic of a change. Failures are logged, and the programs are run again.
pub async fn serve(restarts: Restarts, config: PathBuf, cancel: CancellationToken) -> std::io::Result<()> {
    let mut running: JoinSet<Result<(), String>> = JoinSet::new();
    let mut jobs_of: HashMap<tokio::task::Id, Job> = HashMap::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(job) = restarts.next_job()
        {
            let task = running.spawn(program(&restarts, &job, &config));
            jobs_of.insert(task.id(), job);
        }
        tokio::select! {
            // Running programs are killed with the task. The next daemon runs them again.
            () = cancel.cancelled() => return Ok(()),
            () = restarts.shared.jobs.notified() => {}
            Some(ended) = running.join_next_with_id() => {
                let (id, outcome) = match ended {
                    Ok((id, outcome)) => (id, outcome),
                    Err(panic) => (panic.id(), Err(panic.to_string())),
                };
                let Some(job) = jobs_of.remove(&id) else { continue };
                tokio::select! {
                    () = cancel.cancelled() => return Ok(()),
                    kept = keep(&restarts, job, outcome) => kept?,
                }
                restarts.wake_planner();
            }
        }
    }
}

/// Records the end of a job's program, again and again until the disk takes it: a program that is not on disk as ended would run again at
/// once.
///
/// # Errors
/// A panic of the change.
async fn keep(restarts: &Restarts, job: Job, outcome: Result<(), String>) -> std::io::Result<()> {
    let ended = Arc::new((job, outcome));
    for attempt in 1.. {
        let now = Timestamp::now();
        let again = move |failures| now.plus_secs(retry_after(failures).as_secs());
        let (restarts, ended) = (restarts.clone(), ended.clone());
        let kept = spawn_blocking(move || restarts.ran(&ended.0, &ended.1, now, again)).await;
        match kept.map_err(std::io::Error::other)? {
            Ok(()) => break,
            Err(error) => tracing::error!("the end of a drain or resume program cannot be written: {error}"),
        }
        tokio::time::sleep(retry_after(attempt)).await;
    }
    Ok(())
}

/// Runs the program of a job, as the present site file names it.
fn program(restarts: &Restarts, job: &Job, config: &Path) -> impl Future<Output = Result<(), String>> + Send + 'static {
    let world = restarts.shared.world.load();
    let hooks = world.site.hooks.clone();
    let key = job.program.as_str();
    let words = match job.program {
        Program::Drain => hooks.drain,
        Program::Resume => hooks.resume,
    };
    let nodes = job.nodes.iter().map(String::as_str).collect::<NodeSet>();
    // Drain and resume programs pass the list to scontrol.
    let nodes = nodes.fold_as(Dialect::Slurm);
    let environment = vec![
        ("RACKSTRAP_NODES", nodes.clone()),
        ("RACKSTRAP_REASON", job.reason.clone()),
        variables(&world, job.nodes.iter().map(String::as_str)),
        ("RACKSTRAP_CONFIG", config.to_string_lossy().into_owned()),
    ];
    async move {
        if words.is_empty() {
            // The program was removed from the site file meanwhile.
            return Ok(());
        }
        let said = run(&words, &environment, Duration::from_secs(hooks.timeout_secs.into())).await;
        let said = said.map_err(|failed| failed.to_string())?;
        tracing::info!("[hooks] {key} was run for {nodes}");
        for line in said.lines() {
            tracing::info!("[hooks] {key} said: {line}");
        }
        Ok(())
    }
}
