//! How much of what all share one address has: nobody is to hold all of it.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places for all, of which each address may hold some.
#[derive(Debug)]
pub struct Seats {
    places: Arc<Semaphore>,
    each: usize,
    held: Mutex<HashMap<Ipv4Addr, usize>>,
}

/// One place, as long as it is held.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    client: Ipv4Addr,
    _place: OwnedSemaphorePermit,
}

impl Seats {
    /// `all` places, `each` for one address.
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Seats {
            places: Arc::new(Semaphore::new(all)),
            each,
            held: Mutex::default(),
        })
    }

    /// A place for `client`, if there is one.
    pub fn take(self: &Arc<Self>, client: Ipv4Addr) -> Option<Seat> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let mut held = self.lock();
        let count = held.entry(client).or_default();
        if *count >= self.each {
            return None;
        }
        *count += 1;
        Some(Seat {
            seats: self.clone(),
            client,
            _place: place,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.seats.lock();
        if let Some(count) = held.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_share_and_nobody_all() {
        let seats = Seats::new(3, 2);
        let [one, two, three] = [1, 2, 3].map(|last| Ipv4Addr::new(10, 5, 1, last));
        let first = seats.take(one);
        let second = seats.take(one);
        assert!(first.is_some() && second.is_some() && seats.take(one).is_none());
        let third = seats.take(two);
        assert!(third.is_some() && seats.take(three).is_none(), "all three are taken");
        drop(first);
        assert!(seats.take(three).is_some());
        drop((second, third));
        assert!(seats.lock().is_empty() && seats.places.available_permits() == 3);
    }
}
