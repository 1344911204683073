//! Looks whether the server's users are others than they were.

use super::Renderer;
use std::{io, sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Between two looks: three calls of stat(2). A running node hears of news with its next heartbeat.
const LOOK: Duration = Duration::from_secs(10);
/// Files that were changed are taken when they have stayed as they are for so long: useradd(8) writes one after the other, and a
/// copy that is not whole yet would take users away from nodes.
const SETTLE: Duration = Duration::from_secs(1);

/// Keeps what running nodes are to have of `[users]` as the server's files are, until `cancel`.
///
/// # Errors
/// None: what cannot be read is said in the log, and nodes keep what they have.
pub async fn watch_users(overlays: Arc<Renderer>, cancel: CancellationToken) -> io::Result<()> {
    let mut said = String::new();
    let mut first = true;
    loop {
        let renderer = overlays.clone();
        let looked = tokio::task::spawn_blocking(move || renderer.users_changed()).await;
        let mut wait = LOOK;
        // A panic is told by its hook, and the next look comes.
        if let Ok((true, stamps)) = looked {
            tokio::select! {
                () = sleep(SETTLE) => {}
                () = cancel.cancelled() => return Ok(()),
            }
            let renderer = overlays.clone();
            let held = tokio::task::spawn_blocking(move || {
                let settled = renderer.users_changed().1 == stamps;
                settled.then(|| renderer.hold_users())
            });
            match held.await.unwrap_or_else(|panic| Some(Err(panic.to_string()))) {
                None => wait = SETTLE,
                Some(Ok(news)) => {
                    said.clear();
                    // A site without `[users]` has no users at the first look, which is not a change.
                    if let Some(users) = news.filter(|users| *users > 0 || !first) {
                        tracing::info!(users, "users changed; running nodes update at their next heartbeat");
                    }
                }
                Some(Err(problem)) => {
                    if said != problem {
                        tracing::warn!("running nodes keep their present users: {problem}");
                    }
                    said = problem;
                }
            }
            first = false;
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}
