//! How many connections an address has: one machine must not hold the places of all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Connections by address; those with none have no entry.
#[derive(Debug, Default)]
pub struct Seats(Mutex<HashMap<IpAddr, usize>>);

/// One connection of an address, as long as it is held.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    peer: IpAddr,
}

impl Seats {
    /// A seat for one more connection of `peer`, or none if it has `most` of them already.
    pub fn take(self: &Arc<Self>, peer: IpAddr, most: usize) -> Option<Seat> {
        let mut held = self.lock();
        let count = held.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Seat {
            seats: self.clone(),
            peer,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.seats.lock();
        if let Some(count) = held.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let seats = Arc::new(Seats::default());
        let [one, other] = [1, 2].map(|last| IpAddr::from([10, 5, 1, last]));
        let first = seats.take(one, 2);
        let second = seats.take(one, 2);
        assert!(first.is_some() && second.is_some());
        assert!(seats.take(one, 2).is_none());
        assert!(seats.take(other, 2).is_some(), "another address has its own share");
        drop(first);
        assert!(seats.take(one, 2).is_some(), "a seat that was given back is free");
        drop(second);
        assert!(seats.lock().is_empty(), "{seats:?}");
    }
}
