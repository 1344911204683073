//! How long boot loaders wait (pure): between attempts, and for their turn when many machines are in the same step.
//!
//! A loader's script has no clock and no random numbers, so the server puts the pauses into the script.

/// How often a pause doubles. The last three steps repeat without end.
const STEPS: usize = 6;
/// The first step, and with [`STEPS`] the last one (64 s), in seconds.
const FIRST: u32 = 2;
/// At most this many seconds of a turn, so that a wrong count delays no machine for long.
pub const LONGEST_TURN: u32 = 300;

/// The pauses of one machine between its attempts, in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// The pauses in their order, each between half and all of a step that doubles: 2, 4, 8, 16, 32 and 64 s.
    pub steps: Vec<u32>,
    /// The first pause that is repeated after the last one, as an index of `steps`.
    pub repeat_from: usize,
}

impl Pauses {
    /// Pauses that differ by machine and by attempt. `seed` is a random number.
    pub fn spread(seed: u64) -> Self {
        let mut random = seed | 1;
        let mut next = |most: u32| {
            // xorshift64 (Marsaglia 2003) is enough, because no secret depends on it.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 33) as u32 % (most + 1)
        };
        let step = |number: usize| FIRST << number;
        // The first one has the widest spread: the machines of a rack that lost their server fail at the same moment.
        let steps = (0..STEPS).map(|number| match number {
            0 => FIRST + next(6),
            _ => step(number) / 2 + next(step(number) / 2),
        });
        Pauses {
            steps: steps.collect(),
            repeat_from: STEPS - 3,
        }
    }

    /// Short first pauses, for a machine at which an administrator is working.
    pub fn eager(seed: u64) -> Self {
        let mut pauses = Pauses::spread(seed);
        pauses.steps[0] = 1;
        pauses
    }

    /// The pauses in rising order, each once, for a language that can only look the next one up by the last one.
    pub fn rising(&self) -> Vec<u32> {
        let mut rising = self.steps.clone();
        rising.sort_unstable();
        rising.dedup();
        rising
    }

    /// The first pause.
    pub fn first(&self) -> u32 {
        self.steps[0]
    }
}

/// The seconds that a machine waits before it loads, if `before` machines load already: `at_once` of them are served at the
/// same time, and each takes `each_ms` milliseconds. 0 if it can begin now, and at most [`LONGEST_TURN`].
pub fn turn(before: usize, at_once: usize, each_ms: u64) -> u32 {
    let rounds = (before / at_once.max(1)) as u64;
    let secs = rounds.saturating_mul(each_ms).div_ceil(1000);
    u32::try_from(secs).unwrap_or(LONGEST_TURN).min(LONGEST_TURN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn pauses_are_bounded_and_grow() {
        for seed in (0..2000).map(|number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let pauses = Pauses::spread(seed);
            assert!((2..=8).contains(&pauses.first()));
            for (number, pause) in pauses.steps.iter().enumerate().skip(1) {
                let step = FIRST << number;
                assert!((step / 2..=step).contains(pause), "{pauses:?}");
            }
            assert!(pauses.steps[pauses.repeat_from] >= 8 && pauses.repeat_from < pauses.steps.len());
            assert_eq!(Pauses::eager(seed).first(), 1);
        }
    }

    #[test]
    fn a_turn_is_bounded_and_grows_with_the_machines() {
        for at_once in [0, 1, 64, usize::MAX] {
            for each_ms in [0, 1, 4000, u64::MAX] {
                for before in [0, 1, 63, 64, 1000, 100_000] {
                    let one = turn(before, at_once, each_ms);
                    assert!(one <= LONGEST_TURN && turn(before + 1, at_once, each_ms) >= one);
                }
            }
        }
    }

    #[test]
    fn pauses_differ_by_machine_and_by_attempt() {
        let all: Vec<Pauses> = (0..1000).map(|seed| Pauses::spread(seed << 20)).collect();
        for number in 0..STEPS {
            let values: BTreeSet<u32> = all.iter().map(|pauses| pauses.steps[number]).collect();
            let possible = if number == 0 { 7 } else { (FIRST << number) / 2 + 1 };
            assert!(values.len() as u32 * 10 >= possible * 9, "step {number}: {values:?}");
        }
        // Two machines with the same first pause part at a later one.
        let after: BTreeSet<&[u32]> = all.iter().map(|pauses| &pauses.steps[1..]).collect();
        assert!(after.len() > 990, "{}", after.len());
    }

    #[test]
    fn machines_beyond_the_first_ones_wait_for_their_turn() {
        let turns = [0, 63, 64, 127, 128, 999].map(|before| turn(before, 64, 4000));
        assert_eq!(turns, [0, 0, 4, 4, 8, 60]);
        assert_eq!(turn(100_000, 64, 30_000), LONGEST_TURN);
    }
}
