//! Places that all addresses share, of which none may have all: connections of HTTP, NFS and DNS, and what they hold.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Places for all, of which each address may hold some. Addresses that hold none have no entry.
#[derive(Debug)]
pub struct Seats {
    all: usize,
    each: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    count: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One place, as long as it is held.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All places are taken: so many.
    All(usize),
    /// This address has as many as it may.
    Share(usize),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Full::All(count) => write!(f, "{count} are open, and no more are allowed"),
            Full::Share(count) => write!(f, "{count} of this address are open, and no more are allowed"),
        }
    }
}

impl Seats {
    /// `all` places, `each` for one address.
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Seats {
            all,
            each,
            held: Mutex::default(),
        })
    }

    /// A place for `address`.
    ///
    /// # Errors
    /// There is none, or none for this address.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Full> {
        let mut held = self.lock();
        if held.count >= self.all {
            return Err(Full::All(held.count));
        }
        let count = held.by_address.entry(address).or_default();
        if *count >= self.each {
            return Err(Full::Share(*count));
        }
        *count += 1;
        held.count += 1;
        Ok(Seat {
            seats: self.clone(),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.seats.lock();
        held.count -= 1;
        if let Some(count) = held.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.by_address.remove(&self.address);
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
        let [one, two, three] = [1, 2, 3].map(|last| IpAddr::from([10, 5, 1, last]));
        let first = seats.take(one).unwrap();
        let second = seats.take(one).unwrap();
        assert_eq!(seats.take(one).unwrap_err(), Full::Share(2));
        let third = seats.take(two).unwrap();
        assert_eq!(seats.take(three).unwrap_err(), Full::All(3));
        drop(first);
        let fourth = seats.take(three).unwrap();
        drop((second, third, fourth));
        let held = seats.lock();
        assert!(held.count == 0 && held.by_address.is_empty(), "{held:?}");
    }
}
