//! Looks for silent nodes, and records regularly that this daemon runs.

use super::{Recorder, node_status::heartbeats};
use crate::boots::Boots;
use rackstrap_base::clock::Timestamp;
use rackstrap_model::decide::SharedWorld;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Time between two looks at all nodes.
const LOOK: Duration = Duration::from_secs(1);

/// The daemon records that it runs after this many looks.
const LOOKS_PER_RECORD: u32 = 10;

/// Watches over all nodes until `cancel`.
///
/// # Errors
/// None; what cannot be written is in the log.
pub async fn watch_over(
    recorder: Recorder,
    boots: Boots,
    world: SharedWorld,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    match recorder.last_alive() {
        Ok(Some(alive)) => recorder.record_absence(alive, Timestamp::now()),
        Ok(None) => {}
        Err(error) => tracing::error!("the server's last running time is unknown: {error}"),
    }
    let mut looks = 0;
    loop {
        let now = Timestamp::now();
        recorder.record_overdue(now, heartbeats(&world.load(), &boots));
        if looks % LOOKS_PER_RECORD == 0 {
            recorder.record_alive(now);
        }
        looks = looks.wrapping_add(1);
        let asleep = Instant::now();
        tokio::select! {
            () = sleep(LOOK) => {}
            () = cancel.cancelled() => {
                recorder.record_alive(Timestamp::now());
                return Ok(());
            }
        }
        // If the machine was suspended, or the daemon stopped by a signal, it heard of no node meanwhile.
        let away = asleep.elapsed().saturating_sub(LOOK).as_millis() as u64;
        let now = Timestamp::now();
        recorder.record_absence(Timestamp(now.0.saturating_sub(away)), now);
    }
}
