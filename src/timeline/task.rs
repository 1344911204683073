//! Looks for nodes that fell silent, and keeps the time at which this daemon was there to hear them.

use super::Recorder;
use crate::decide::SharedWorld;
use rackstrap_base::clock::Timestamp;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Between two looks at all nodes.
const LOOK: Duration = Duration::from_secs(1);

/// Looks between two notes that this daemon runs.
const LOOKS_PER_NOTE: u32 = 10;

/// Watches over all nodes until `cancel`.
///
/// # Errors
/// None; what cannot be written is in the log.
pub async fn watch_over(recorder: Recorder, world: SharedWorld, cancel: CancellationToken) -> std::io::Result<()> {
    match recorder.last_alive() {
        Ok(Some(alive)) => recorder.was_away(alive, Timestamp::now()),
        Ok(None) => {}
        Err(error) => tracing::error!("the server's last running time is unknown: {error}"),
    }
    let mut looks = 0;
    loop {
        let now = Timestamp::now();
        recorder.look(now, world.load().site.limits.heartbeat_secs);
        if looks % LOOKS_PER_NOTE == 0 {
            recorder.alive(now);
        }
        looks = looks.wrapping_add(1);
        let asleep = Instant::now();
        tokio::select! {
            () = sleep(LOOK) => {}
            () = cancel.cancelled() => {
                recorder.alive(Timestamp::now());
                return Ok(());
            }
        }
        // A machine that was suspended, or a daemon that was stopped by a signal, heard nobody meanwhile.
        let away = asleep.elapsed().saturating_sub(LOOK).as_millis() as u64;
        let now = Timestamp::now();
        recorder.was_away(Timestamp(now.0.saturating_sub(away)), now);
    }
}
