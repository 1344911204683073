//! Requests that may wait: those of nodes overtake all others, so that a flood of unknown machines delays no node.

use std::{collections::VecDeque, net::SocketAddr};

/// Requests that wait at most on one interface; one more is dropped, and its sender asks again. 2 MiB of usual ones.
pub const ROOM: usize = 4096;
/// Largest request that may wait, bytes: an Ethernet frame's.
const LARGEST: usize = 1500;

/// Requests of unknown machines, in the order in which they came.
#[derive(Debug, Default)]
pub struct Crowd {
    waiting: VecDeque<(Vec<u8>, SocketAddr)>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
}

impl Crowd {
    /// Adds a request. False if the queue is full.
    pub fn push(&mut self, bytes: &[u8], from: SocketAddr) -> bool {
        if self.waiting.len() >= ROOM || bytes.len() > LARGEST {
            return false;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.waiting.push_back((buffer, from));
        true
    }

    /// Lets `handle` see the request that waits longest; false if none does.
    pub fn next(&mut self, handle: impl FnOnce(&[u8], SocketAddr)) -> bool {
        let Some((buffer, from)) = self.waiting.pop_front() else {
            return false;
        };
        handle(&buffer, from);
        // After a flood its memory is given back.
        if self.spare.len() < 64 {
            self.spare.push(buffer);
        }
        true
    }

    /// True if no request waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_first_and_there_is_an_end_to_it() {
        let mut crowd = Crowd::default();
        let from = |n: usize| SocketAddr::from(([10, 5, 0, 1], n as u16));
        assert!(!crowd.push(&[0; LARGEST + 1], from(1)));
        for round in 0..2_usize {
            let sent = (0..ROOM + 10)
                .filter(|n| crowd.push(&n.to_be_bytes(), from(*n)))
                .count();
            assert_eq!((sent, crowd.is_empty()), (ROOM, false), "round {round}");
            for n in 0..ROOM {
                assert!(crowd.next(|bytes, at| assert_eq!((bytes, at), (&n.to_be_bytes()[..], from(n)))));
            }
            assert!(!crowd.next(|_, _| unreachable!()) && crowd.is_empty());
        }
        assert!(crowd.spare.len() <= 64);
    }
}
