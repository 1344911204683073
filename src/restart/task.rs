//! Running the site's `drain` and `resume`, and looking after requests.

use super::{Restarts, keeper::Job, request::Kind};
use crate::hooks::{retry_after, run};
use rackstrap_base::clock::Timestamp;
use rackstrap_hostlist::{Dialect, NodeSet};
use rackstrap_store::Table;
use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Programs that run at the same time.
const AT_ONCE: usize = 4;
/// While something is to be done: how often time is looked at, and what heartbeats have changed.
const TICK: Duration = Duration::from_secs(2);
/// Nodes that come back together are resumed together.
const SETTLE: Duration = Duration::from_millis(300);

/// Goes on with requests until `cancel`. `config` is the site file's path, for programs that ask this daemon.
///
/// # Errors
/// None: what fails is told, and tried again.
pub async fn serve(restarts: Restarts, config: PathBuf, cancel: CancellationToken) -> std::io::Result<()> {
    let mut boots = restarts.store().watch(Table::Boots);
    let mut running: JoinSet<Result<(), String>> = JoinSet::new();
    let mut jobs_of: HashMap<tokio::task::Id, Job> = HashMap::new();
    let mut waiting: VecDeque<Job> = VecDeque::new();
    loop {
        boots.mark_unchanged();
        let (batch, jobs) = restarts.advance(Timestamp::now());
        waiting.extend(jobs);
        if !batch.is_empty()
            && let Err(error) = restarts.store().commit(batch).await
        {
            // Memory goes on; a restart of the daemon would do a step again, which is written for that.
            tracing::error!("how far restarts are cannot be kept: {error}");
        }
        while running.len() < AT_ONCE
            && let Some(job) = waiting.pop_front()
        {
            let task = running.spawn(program(&restarts, &job, &config));
            jobs_of.insert(task.id(), job);
        }
        let tick = async {
            match restarts.is_busy() {
                true => tokio::time::sleep(TICK).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            // What runs is killed with the task: it is run again by the next daemon.
            () = cancel.cancelled() => return Ok(()),
            () = tick => {}
            () = restarts.woken() => {}
            _ = boots.changed() => tokio::time::sleep(SETTLE).await,
            Some(ended) = running.join_next_with_id() => {
                let (id, outcome) = match ended {
                    Ok((id, outcome)) => (id, outcome),
                    Err(panic) => (panic.id(), Err(panic.to_string())),
                };
                let Some(job) = jobs_of.remove(&id) else { continue };
                let now = Timestamp::now();
                let again = |failures| now.plus_secs(retry_after(failures).as_secs());
                let batch = restarts.ran(&job, &outcome, now, again);
                if let Err(error) = restarts.store().commit(batch).await {
                    tracing::error!("how far restarts are cannot be kept: {error}");
                }
            }
        }
    }
}

/// Runs the program of a job, with the site file of now.
fn program(restarts: &Restarts, job: &Job, config: &Path) -> impl Future<Output = Result<(), String>> + Send + 'static {
    let hooks = restarts.world().load().site.hooks.clone();
    let key = job.kind.as_str();
    let words = match job.kind {
        Kind::Drain => hooks.drain,
        Kind::Resume => hooks.resume,
    };
    let nodes = job.nodes.iter().map(String::as_str).collect::<NodeSet>();
    // Drain and resume programs hand it on to scontrol.
    let nodes = nodes.fold_as(Dialect::Slurm);
    let environment = vec![
        ("RACKSTRAP_NODES", nodes.clone()),
        ("RACKSTRAP_REASON", job.reason.clone()),
        ("RACKSTRAP_CONFIG", config.to_string_lossy().into_owned()),
    ];
    async move {
        if words.is_empty() {
            // Taken out of the site file meanwhile.
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
