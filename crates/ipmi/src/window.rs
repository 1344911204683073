//! Which packets of a session were received already (pure).

/// How far below the newest packet one is still accepted (6.12.13 of "IPMI Specification, v2.0, rev. 1.1").
const BELOW: u32 = 16;
/// How far above it.
const ABOVE: u32 = 15;

/// The sliding window of the sequence numbers of one session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    /// The highest number so far; 0 = none.
    newest: u32,
    /// Bit N: the number N below the newest was received.
    seen: u32,
}

impl Window {
    /// Whether a packet with this number is new. It counts as received from then on.
    pub(crate) fn accept(&mut self, number: u32) -> bool {
        if number == 0 {
            return false;
        }
        if self.newest == 0 || number.wrapping_sub(self.newest).wrapping_sub(1) < ABOVE {
            let step = number.wrapping_sub(self.newest);
            self.seen = if self.newest == 0 || step >= u32::BITS {
                0
            } else {
                self.seen << step
            };
            self.seen |= 1;
            self.newest = number;
            return true;
        }
        let below = self.newest.wrapping_sub(number);
        let bit = 1u32.checked_shl(below).filter(|_| below <= BELOW);
        let is_new = bit.is_some_and(|bit| self.seen & bit == 0);
        self.seen |= bit.unwrap_or_default();
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_accepted_once_and_near_the_newest() {
        let mut window = Window::default();
        for (number, accepted) in [
            (0, false),
            (5, true),
            (5, false),
            (7, true),
            (6, true),
            (6, false),
            (7 + 15, true),
            (22 + 16, false),
            (22 - 16, false),
            (8, true),
            (8, false),
            (5, false),
            (23, true),
            (0, false),
        ] {
            assert_eq!(window.accept(number), accepted, "{number}");
        }
        // It wraps around.
        let mut window = Window::default();
        assert!(window.accept(u32::MAX) && window.accept(1) && !window.accept(u32::MAX) && window.accept(2));
    }
}
