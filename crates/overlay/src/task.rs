//! Watches the server's users for changes.

use super::Renderer;
use std::{io, sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Time between two checks, of three calls of stat(2) each. A running node learns of a change at its next heartbeat.
const LOOK: Duration = Duration::from_secs(10);
/// Changed files are read after they have been unchanged for this long: useradd(8) writes one after the other, and an
/// incomplete copy would remove users from nodes.
const SETTLE: Duration = Duration::from_secs(1);

/// Keeps the users that running nodes should have up to date with the server's files, until `cancel`.
///
/// # Errors
/// None: files that cannot be read are logged, and nodes keep their users.
pub async fn watch_users(overlays: Arc<Renderer>, cancel: CancellationToken) -> io::Result<()> {
    let mut said = String::new();
    let mut first = true;
    loop {
        let renderer = overlays.clone();
        let looked = tokio::task::spawn_blocking(move || renderer.users_changed()).await;
        let mut wait = LOOK;
        // The panic hook reports a panic, and the next check follows.
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
                    // A site without `[users]` has no users at the first check, which is not a change.
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
