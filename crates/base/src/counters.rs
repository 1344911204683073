//! Counts of what happened, by kind, since the start. The kinds are an enum, and each line of it has the name that
//! administrators and their monitoring read:
//!
//! ```
//! use rackstrap_base::counters::{Counters, counted};
//!
//! counted! {
//!     /// How a packet ended.
//!     pub enum Outcome {
//!         /// Answered.
//!         Answered = "answered",
//!         /// Over the limit.
//!         TooLong = "too-long",
//!     }
//! }
//!
//! let counters = Counters::<Outcome>::default();
//! counters.count(Outcome::TooLong);
//! assert_eq!(counters.read().collect::<Vec<_>>(), [("answered", 0), ("too-long", 1)]);
//! ```

use std::{
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// An enum whose values are counted. [`counted!`] implements it.
pub trait Counted: Copy + 'static {
    /// All values, each at the index that [`Counted::index`] says.
    const ALL: &'static [Self];

    /// Its position in [`Counted::ALL`].
    fn index(self) -> usize;

    /// Its name among the counters.
    fn name(self) -> &'static str;
}

/// Declares an enum whose values are counted: a value is one line, `Variant = "name-of-its-counter"`.
#[macro_export]
#[doc(hidden)]
macro_rules! __counted {
    ($(#[$meta:meta])* $visible:vis enum $kind:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visible enum $kind {
            $($(#[$doc])* $variant,)+
        }

        impl $crate::counters::Counted for $kind {
            const ALL: &'static [Self] = &[$($kind::$variant,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self {
                    $($kind::$variant => $name,)+
                }
            }
        }
    };
}
pub use crate::__counted as counted;

/// Counts that are read by name, whatever their kinds are.
pub trait ReadCounts: Send + Sync {
    /// Each name with its count.
    fn counts(&self) -> Vec<(&'static str, u64)>;
}

impl<K: Counted> ReadCounts for Counters<K> {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.read().collect()
    }
}

/// One count for each value of `K`.
pub struct Counters<K> {
    counts: Box<[AtomicU64]>,
    kind: PhantomData<fn(K)>,
}

impl<K: Counted> Default for Counters<K> {
    fn default() -> Self {
        Counters {
            counts: K::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            kind: PhantomData,
        }
    }
}

impl<K: Counted> Counters<K> {
    /// Adds one to the count of `kind`.
    pub fn count(&self, kind: K) {
        self.add(kind, 1);
    }

    /// Adds `number` to the count of `kind`, and returns the new count.
    pub fn add(&self, kind: K, number: u64) -> u64 {
        self.counts[kind.index()].fetch_add(number, Relaxed) + number
    }

    /// Each name with its count, in the order of the enum.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Relaxed));
        K::ALL.iter().map(|kind| kind.name()).zip(counts)
    }
}

impl<K: Counted> fmt::Debug for Counters<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.read()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    counted! {
        enum Fruit {
            Apple = "apples",
            Pear = "pears",
            Plum = "plums",
        }
    }

    #[test]
    fn each_kind_has_its_count_and_its_name() {
        let counters = Counters::default();
        counters.count(Fruit::Pear);
        assert_eq!(counters.add(Fruit::Pear, 1), 2);
        assert_eq!(counters.add(Fruit::Plum, 5), 5);
        let read: Vec<_> = counters.read().collect();
        assert_eq!(read, [("apples", 0), ("pears", 2), ("plums", 5)]);
        for (index, fruit) in Fruit::ALL.iter().enumerate() {
            assert_eq!(fruit.index(), index);
        }
        assert_eq!(Fruit::Apple.name(), "apples");
    }
}
