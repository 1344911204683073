//! Log lines that anybody can cause: the first, second, fourth, eighth ... of a kind is written, so that a peer that means
//! harm cannot fill the disk, and trouble is still seen.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How often something of one kind happened.
#[derive(Debug, Default)]
pub struct Rare(AtomicU64);

impl Rare {
    /// Counts one more. Returns the count if this one should be logged.
    pub fn tell(&self) -> Option<u64> {
        let times = self.0.fetch_add(1, Relaxed) + 1;
        times.is_power_of_two().then_some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_times_are_twenty_lines() {
        let rare = Rare::default();
        let told: Vec<u64> = (0..1_000_000).filter_map(|_| rare.tell()).collect();
        assert_eq!(told[..4], [1, 2, 4, 8]);
        assert_eq!(told.len(), 20);
    }
}
