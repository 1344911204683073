//! How many nodes are in the same step of a boot, from their script to the end of their initramfs, so that a storm is paced.

use rackstrap_base::{clock::Timestamp, pauses, sync::lock};
use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

/// Nodes that may load at the same time before others wait for a turn. A gigabit link sends two files of 30 MB to so many
/// nodes in about 35 s.
const AT_ONCE: usize = 64;
/// A node that was not heard of within this many seconds after its turn does not load any more.
const FORGOTTEN_SECS: u64 = 180;
/// Bounds of the time that one node takes, milliseconds. Before the first node has loaded, the first bound doubled counts.
const EACH_MS: (u64, u64) = (1_000, 30_000);
/// Nodes whose last time counts. Half of them would have to be slow, each in a turn of its own, to slow down a storm.
const SAMPLES: usize = 31;

/// The nodes that load now; at most one entry for each node of the inventory.
#[derive(Debug, Default)]
pub struct LoadingNodes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Until when each node counts.
    until: HashMap<String, Timestamp>,
    /// When expired nodes were removed last.
    swept: Timestamp,
    /// How long the last nodes took from the kernel to the end of the initramfs, in milliseconds, oldest first. A node is in it once.
    samples: VecDeque<(String, u64)>,
}

/// The turn of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Other nodes that load now.
    pub others: usize,
    /// Seconds that this node waits before it begins; 0 if it begins now.
    pub secs: u32,
}

impl LoadingNodes {
    /// Enters `node`, which gets a script, and returns its turn. A node that asks again goes to the end of the queue.
    pub fn enter(&self, node: &str, now: Timestamp) -> Turn {
        let mut state = lock(&self.0);
        state.until.remove(node);
        // Once a second is enough; each script of a storm would look at all nodes otherwise.
        if !now.is_within(1000, state.swept) {
            state.swept = now;
            // An entry that lies too far ahead is from before the clock was set back.
            let most = (u64::from(pauses::LONGEST_TURN) + FORGOTTEN_SECS) * 1000;
            state.until.retain(|_, until| *until > now && until.since(now) <= most);
        }
        let others = state.until.len();
        let secs = pauses::turn(others, AT_ONCE, state.each_ms());
        let until = now.plus_secs(u64::from(secs) + FORGOTTEN_SECS);
        state.until.insert(node.to_owned(), until);
        Turn { others, secs }
    }

    /// Removes `node`: it has its initramfs, or its agent is heard of. `took_ms` is how long a whole file took; none if that
    /// is unknown. Only the first file of a turn counts: a user of a running node can fetch a file again as often as they want, and as
    /// slowly, and a loader that takes no turn is not paced either.
    pub fn leave(&self, node: &str, took_ms: Option<u64>) {
        let mut state = lock(&self.0);
        let had_turn = state.until.remove(node).is_some();
        if let Some(took_ms) = took_ms.filter(|_| had_turn) {
            state.samples.retain(|(other, _)| other != node);
            if state.samples.len() >= SAMPLES {
                state.samples.pop_front();
            }
            // The kernel is about as large as the initramfs.
            let sample = took_ms.saturating_mul(2).clamp(EACH_MS.0, EACH_MS.1);
            state.samples.push_back((node.to_owned(), sample));
        }
    }

    /// Number of nodes that load, as far as is known.
    pub fn count(&self) -> usize {
        lock(&self.0).until.len()
    }
}

impl State {
    /// The median of the samples, in milliseconds: a few slow nodes do not move it. Of two in the middle, the shorter time.
    fn each_ms(&self) -> u64 {
        let mut all: Vec<u64> = self.samples.iter().map(|(_, took_ms)| *took_ms).collect();
        all.sort_unstable();
        let middle = all.len().saturating_sub(1) / 2;
        all.get(middle).copied().unwrap_or(EACH_MS.0 * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_spread_and_nodes_that_are_done_make_room() {
        let loading = LoadingNodes::default();
        let now = Timestamp(1_000_000);
        let turns: Vec<u32> = (0..1000).map(|n| loading.enter(&format!("n{n}"), now).secs).collect();
        assert_eq!((turns[0], turns[63], turns[64], turns[999]), (0, 0, 2, 30));
        // No more nodes begin in the same second than are served at once.
        for second in 0..=30 {
            assert!(turns.iter().filter(|turn| **turn == second).count() <= AT_ONCE);
        }
        // A node that asks again does not count twice.
        assert_eq!(loading.enter("n5", now).others, 999);
        (0..1000).for_each(|n| loading.leave(&format!("n{n}"), Some(10_000)));
        assert_eq!(loading.count(), 0);
        let turns: Vec<u32> = (0..128).map(|n| loading.enter(&format!("n{n}"), now).secs).collect();
        assert_eq!((turns[0], turns[127]), (0, 20), "twice what one file took");
    }

    #[test]
    fn files_fetched_without_a_turn_and_a_few_slow_nodes_do_not_slow_down_a_storm() {
        let loading = LoadingNodes::default();
        let now = Timestamp(1_000_000);
        let last_turn = |loading: &LoadingNodes| {
            let turns = (0..1000).map(|n| loading.enter(&format!("n{n}"), now).secs).max();
            (0..1000).for_each(|n| loading.leave(&format!("n{n}"), None));
            turns
        };
        assert_eq!(last_turn(&loading), Some(30));
        // Fetched again and again, and by loaders that take no turn.
        for _ in 0..20 {
            loading.leave("r01n01", Some(60_000));
        }
        assert_eq!(last_turn(&loading), Some(30));
        // One node that takes turns is one sample, however often it does.
        let fast = |node: &str| {
            loading.enter(node, now);
            loading.leave(node, Some(1_000));
        };
        ["a", "b", "c"].into_iter().for_each(fast);
        for _ in 0..SAMPLES * 2 {
            loading.enter("slow", now);
            loading.leave("slow", Some(60_000));
        }
        assert_eq!(last_turn(&loading), Some(30));
        // When most nodes are slow, later ones wait for longer, until most are fast again.
        for n in 0..SAMPLES * 2 {
            loading.enter(&format!("slow{n}"), now);
            loading.leave(&format!("slow{n}"), Some(60_000));
        }
        assert_eq!(lock(&loading.0).samples.len(), SAMPLES);
        assert!(last_turn(&loading) > Some(200), "{:?}", last_turn(&loading));
        (0..SAMPLES).for_each(|n| fast(&format!("fast{n}")));
        assert_eq!(last_turn(&loading), Some(30));
    }

    #[test]
    fn nodes_that_were_switched_off_and_a_clock_that_was_set_back_do_not_count() {
        let loading = LoadingNodes::default();
        let now = Timestamp(10_000_000);
        for n in 0..200 {
            loading.enter(&format!("n{n}"), now);
        }
        let later = now.plus_secs(FORGOTTEN_SECS + 10);
        assert_eq!(loading.enter("other", later), Turn::default());
        let back = Timestamp(1_000);
        assert_eq!(loading.enter("n1", back), Turn::default());
    }
}
