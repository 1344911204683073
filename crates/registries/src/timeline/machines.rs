//! Which timelines of unknown machines are forgotten first.

use rackstrap_base::clock::Timestamp;
use rackstrap_store::{Store, StoreError, Table};
use rackstrap_wire::HwAddr;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The unknown machines that have timelines, in the order in which they were first heard of.
#[derive(Debug, Default)]
pub(super) struct MachineOrder {
    /// Each machine's number in the order, and whether it accepted an address.
    numbers: HashMap<HwAddr, (u64, bool)>,
    /// Machines that never accepted an address. They are forgotten first, so that a flood of forged senders replaces itself.
    unconfirmed: BTreeMap<u64, HwAddr>,
    confirmed: BTreeMap<u64, HwAddr>,
    next: u64,
}

impl MachineOrder {
    /// The order of the stored timelines: the machines, each with the time at which its timeline began.
    ///
    /// # Errors
    /// Those of the store.
    pub fn load(store: &Store, mut began: Vec<(Timestamp, HwAddr)>) -> Result<Self, StoreError> {
        // Only machines that accepted an address, or that an administrator gave an order about, have rows there.
        let rows: Vec<(Vec<u8>, IgnoredAny)> = store.scan(Table::Machines, b"")?;
        let kept: HashSet<Vec<u8>> = rows.into_iter().map(|(key, _)| key).collect();
        began.sort();
        let mut order = MachineOrder::default();
        for (_, hwaddr) in began {
            order.add(hwaddr, kept.contains(&hwaddr.0[..]));
        }
        Ok(order)
    }

    /// Adds a machine, unless it is there.
    pub fn add(&mut self, hwaddr: HwAddr, confirmed: bool) {
        if self.numbers.contains_key(&hwaddr) {
            return;
        }
        let number = self.next;
        self.next += 1;
        self.put(hwaddr, number, confirmed);
    }

    /// The machine accepted an address. Nothing changes if it has no timeline.
    pub fn confirm(&mut self, hwaddr: HwAddr) {
        if let Some((number, false)) = self.numbers.get(&hwaddr).copied() {
            self.unconfirmed.remove(&number);
            self.put(hwaddr, number, true);
        }
    }

    pub fn remove(&mut self, hwaddr: HwAddr) {
        if let Some((number, _)) = self.numbers.remove(&hwaddr) {
            self.unconfirmed.remove(&number);
            self.confirmed.remove(&number);
        }
    }

    /// Removes and returns the machine to forget if there are more than `limit`: the oldest one without an address, or else the oldest one, and
    /// not `kept`.
    pub fn pop_beyond(&mut self, limit: usize, kept: Option<HwAddr>) -> Option<HwAddr> {
        if self.numbers.len() <= limit.max(1) {
            return None;
        }
        let mut all = self.unconfirmed.values().chain(self.confirmed.values());
        let hwaddr = *all.find(|hwaddr| Some(**hwaddr) != kept)?;
        self.remove(hwaddr);
        Some(hwaddr)
    }

    /// All machines, in the order in which they were first heard of.
    #[cfg(test)]
    pub fn all(&self) -> Vec<HwAddr> {
        let both = self.unconfirmed.iter().chain(&self.confirmed);
        let numbered: BTreeMap<u64, HwAddr> = both.map(|(number, hwaddr)| (*number, *hwaddr)).collect();
        numbered.into_values().collect()
    }

    fn put(&mut self, hwaddr: HwAddr, number: u64, confirmed: bool) {
        self.numbers.insert(hwaddr, (number, confirmed));
        let order = match confirmed {
            true => &mut self.confirmed,
            false => &mut self.unconfirmed,
        };
        order.insert(number, hwaddr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing,
        timeline::{Event, EventKind, Level, Recorder, Subject},
    };
    use rackstrap_site::Limits;
    use rackstrap_store::Batch;

    fn card(n: u8) -> HwAddr {
        HwAddr([0x52, 0x54, 0, 0, 0, n])
    }

    #[test]
    fn a_flood_of_machines_without_an_address_replaces_itself() {
        let dir = tempfile::tempdir().unwrap();
        let store = testing::store(dir.path());
        let limits = Limits {
            unknown_machines: 4,
            ..crate::timeline::tests::LIMITS
        };
        let open = || Recorder::load(store.clone(), limits, Timestamp(0)).unwrap();
        let say = |recorder: &Recorder, n: u8| {
            let event = Event::new(Timestamp(1000 + u64::from(n)), EventKind::Script, Level::Ok, "x");
            recorder.record(Subject::Machine(card(n)), event);
        };
        let recorder = open();
        recorder.confirm(card(1));
        for n in 1..=3 {
            say(&recorder, n);
        }
        // Card 1 had no timeline when it was confirmed, so that this counted for nothing.
        recorder.confirm(card(2));
        recorder.confirm(card(3));
        for n in 10..200 {
            say(&recorder, n);
        }
        assert_eq!(recorder.machines(), [2, 3, 198, 199].map(card));

        // Also after a restart: machines that are on disk have accepted an address.
        for n in [2, 3] {
            store
                .commit_blocking(Batch::new().put(Table::Machines, card(n).0, &"a machine"))
                .unwrap();
        }
        store.flush().unwrap();
        drop(recorder);
        let recorder = open();
        assert_eq!(recorder.machines(), [2, 3, 198, 199].map(card));
        for n in 200..=250 {
            say(&recorder, n);
        }
        assert_eq!(recorder.machines(), [2, 3, 249, 250].map(card));
        // Among machines with addresses, the oldest is forgotten first, and the new one is kept.
        for n in [249, 250] {
            recorder.confirm(card(n));
        }
        say(&recorder, 251);
        assert_eq!(recorder.machines(), [3, 249, 250, 251].map(card));
        say(&recorder, 252);
        assert_eq!(recorder.machines(), [3, 249, 250, 252].map(card));
    }
}
