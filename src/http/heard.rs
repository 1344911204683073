//! Which events of an agent were heard before: a report whose answer was lost is sent again.

use rackstrap_base::sync::lock;
use rackstrap_wire::AgentEvent;
use std::{collections::HashMap, sync::Mutex};

/// Boots remembered. When there are more, all are forgotten: that costs a repeated line on a
/// timeline, if just then an answer is lost.
const MOST: usize = 16_384;

/// The newest event heard of each boot.
#[derive(Debug, Default)]
pub struct Heard(Mutex<HashMap<String, u64>>);

impl Heard {
    /// Those of `events` that are news; from now on they are not.
    pub fn news<'a>(&self, boot: &str, events: &'a [AgentEvent]) -> Vec<&'a AgentEvent> {
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
        }
    }

    #[test]
    fn what_is_said_twice_is_news_once() {
        let heard = Heard::default();
        let news = |boot, seqs: &[u64]| {
            let events: Vec<_> = seqs.iter().map(|seq| event(*seq)).collect();
            heard
                .news(boot, &events)
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
