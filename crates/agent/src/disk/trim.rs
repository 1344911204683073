//! Discards the blocks of a partition before its file system is made (TRIM), so that a solid-state disk need not keep what was there.
//!
//! Cards and some disks discard slowly, and mkfs would wait for all of it. Here it is done in steps, and ends when it has taken too long: what
//! is left is only slower. It goes through the partition's own device, outside of which the kernel discards nothing.

use crate::sys;
use std::{
    fs::{self, File},
    io,
    path::Path,
    time::{Duration, Instant},
};

/// Time for one partition. A step that has begun is not interrupted.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of the first step: a memory card may need 0.2 s for each MiB.
const FIRST: u64 = 16 << 20;
/// Most bytes of a step.
const MOST: u64 = 64 << 30;
/// A step that was faster than this is followed by one of twice the size.
const FAST: Duration = Duration::from_millis(500);

/// What was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Bytes from the start of the partition.
    pub done: u64,
    /// Bytes of the partition.
    pub of: u64,
}

impl Trimmed {
    /// For the node's timeline.
    pub fn describe(self, name: &str) -> String {
        let mib = |bytes: u64| bytes >> 20;
        match self.done == self.of {
            true => format!("{name}: {} MiB discarded (TRIM)", mib(self.of)),
            false => format!(
                "{name}: {} of {} MiB discarded (TRIM), then the time for it was over",
                mib(self.done),
                mib(self.of)
            ),
        }
    }
}

/// Discards the partition with this node on the disk with that kernel name. None if the disk does not support that, or refuses it.
pub fn trim(disk: &str, node: &Path) -> Option<Trimmed> {
    let most = fs::read_to_string(Path::new("/sys/block").join(disk).join("queue/discard_max_bytes")).ok()?;
    if most.trim().parse::<u64>().ok()? == 0 {
        return None;
    }
    let file = File::options().write(true).open(node).ok()?;
    let of = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).ok()?;
    let began = Instant::now();
    let done = in_steps(
        of,
        || began.elapsed(),
        |start, length| sys::discard(&file, start, length),
    );
    (done > 0).then_some(Trimmed { done, of })
}

/// Calls `discard` for all of `of` bytes in steps, until `elapsed` is past the limit or a step fails. Returns the bytes that were discarded.
fn in_steps(
    of: u64,
    mut elapsed: impl FnMut() -> Duration,
    mut discard: impl FnMut(u64, u64) -> io::Result<()>,
) -> u64 {
    let (mut at, mut step) = (0, FIRST);
    let mut before = elapsed();
    while at < of && before < LIMIT {
        let length = step.min(of - at);
        if discard(at, length).is_err() {
            break;
        }
        at += length;
        let now = elapsed();
        let took = now.saturating_sub(before);
        if took < FAST {
            step = (step * 2).min(MOST);
        } else if took > 4 * FAST {
            step = (step / 2).max(FIRST);
        }
        before = now;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn steps_are_in_order_and_stay_inside(of in 0u64..(1 << 44), millis in 0u64..3000, fails_at in 0usize..400) {
            let (mut clock, mut end, mut steps) = (Duration::ZERO, 0, 0);
            let clocks = std::cell::Cell::new(clock);
            let done = in_steps(of, || clocks.get(), |start, length| {
                assert!(start == end && length > 0 && start + length <= of);
                if steps == fails_at {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                (end, steps) = (start + length, steps + 1);
                clock += Duration::from_millis(millis);
                clocks.set(clock);
                Ok(())
            });
            prop_assert_eq!(done, end);
            // It ended for one of three reasons.
            prop_assert!(done == of || steps == fails_at || clocks.get() >= LIMIT);
            // No step begins after the limit.
            prop_assert!(clocks.get() < LIMIT + Duration::from_millis(millis.max(1)));
        }
    }

    #[test]
    fn a_fast_disk_of_many_terabytes_needs_few_steps_and_a_slow_card_small_ones() {
        let mut steps = Vec::new();
        in_steps(
            16 << 40,
            || Duration::ZERO,
            |_, length| {
                steps.push(length);
                Ok(())
            },
        );
        assert!(steps.len() < 300, "{}", steps.len());
        let clock = std::cell::Cell::new(Duration::ZERO);
        let done = in_steps(
            1 << 40,
            || clock.get(),
            |_, length| {
                assert_eq!(length, FIRST);
                clock.set(clock.get() + Duration::from_millis(200 * (length >> 20)));
                Ok(())
            },
        );
        assert_eq!(done, 10 * FIRST);
        let trimmed = Trimmed { done, of: 1 << 40 };
        assert_eq!(
            trimmed.describe("var"),
            "var: 160 of 1048576 MiB discarded (TRIM), then the time for it was over"
        );
    }
}
