//! Which events of an agent were recorded before: an agent sends a report again if the answer was lost.

use rackstrap_base::sync::lock;
use rackstrap_wire::AgentEvent;
use std::{collections::HashMap, sync::Mutex};

/// Boots remembered. If there are more, all are forgotten: then a report that is sent again at that moment repeats a line of
/// a timeline.
const MOST: usize = 16_384;

/// The number of the newest recorded event of each boot.
#[derive(Debug, Default)]
pub struct ReportedEvents(Mutex<HashMap<String, u64>>);

impl ReportedEvents {
    /// The events that are new. From now on they are not.
    pub fn new_events<'a>(&self, boot: &str, events: &'a [AgentEvent]) -> Vec<&'a AgentEvent> {
        let mut boots = lock(&self.0);
        if boots.len() >= MOST {
            boots.clear();
        }
        let newest = boots.entry(boot.to_owned()).or_default();
        let news: Vec<_> = events
            .iter()
            .filter(|event| event.seq == 0 || event.seq > *newest)
            .collect();
        *newest = events.iter().map(|event| event.seq).fold(*newest, u64::max);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_wire::{Outcome, Phase};

    fn event(seq: u64) -> AgentEvent {
        AgentEvent {
            seq,
            phase: Phase::Disk,
            outcome: Outcome::Done,
            uptime_ms: 0,
            took_ms: 0,
            attempt: 1,
            detail: String::new(),
            console: None,
        }
    }

    #[test]
    fn a_repeated_event_is_new_once() {
        let reported = ReportedEvents::default();
        let news = |boot, seqs: &[u64]| {
            let events: Vec<_> = seqs.iter().map(|seq| event(*seq)).collect();
            reported
                .new_events(boot, &events)
                .iter()
                .map(|event| event.seq)
                .collect::<Vec<_>>()
        };
        assert_eq!(news("a", &[1, 2]), [1, 2]);
        assert_eq!(news("a", &[1, 2, 3]), [3]);
        assert_eq!(news("b", &[1]), [1]);
        assert_eq!(news("a", &[0, 0]), [0, 0], "an agent that does not count is believed");
        assert_eq!(news("a", &[4]), [4]);
    }
}
