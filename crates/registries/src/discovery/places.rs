//! Where nodes are plugged in, as far as their packets show. A node that is found elsewhere was moved, or two machines have
//! its address.

use super::machine::{MOVE, Place};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::HwAddr;
use std::collections::HashMap;

/// At most this many cards are remembered. If there are more, all are forgotten, which costs a remark or two.
const MOST: usize = 65_536;

/// Where each node's card was last seen.
#[derive(Debug, Default)]
pub struct Places(HashMap<HwAddr, Spot>);

#[derive(Debug)]
struct Spot {
    place: Place,
    seen: Timestamp,
    /// When the last event about changing places was recorded.
    flipped: Option<Timestamp>,
}

/// A node's card is not where it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It was carried there: it was silent in between.
    Carried(String),
    /// It is seen in both places within minutes.
    Flips(String),
}

impl Places {
    /// Records a packet of a node that boots. Returns whether it moved; changing places is returned once in ten minutes.
    pub fn observe(&mut self, hwaddr: HwAddr, place: Place, now: Timestamp) -> Option<Moved> {
        if self.0.len() >= MOST && !self.0.contains_key(&hwaddr) {
            self.0.clear();
        }
        let spot = self.0.entry(hwaddr).or_insert_with(|| Spot {
            place: place.clone(),
            seen: now,
            flipped: None,
        });
        let elsewhere = spot.place.is_elsewhere(&place);
        let before = std::mem::replace(&mut spot.place, place);
        let silent = !now.is_within(MOVE, spot.seen);
        spot.seen = now;
        if !elsewhere {
            return None;
        }
        let (before, here) = (before.shown(), spot.place.shown());
        if silent {
            return Some(Moved::Carried(format!("is at {here} now, and was at {before}")));
        }
        if spot.flipped.is_some_and(|at| now.is_within(MOVE, at)) {
            return None;
        }
        spot.flipped = Some(now);
        Some(Moved::Flips(format!(
            "{hwaddr} was seen at {before} and then at {here}: was it moved, do two machines have this address, or is there a loop?"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: &str) -> Place {
        Place {
            interface: "eth1".into(),
            relay: None,
            network: None,
            switch: "sw1".into(),
            port: port.into(),
        }
    }

    #[test]
    fn a_card_that_is_carried_differs_from_one_that_flips() {
        let (mut places, card) = (Places::default(), HwAddr([2, 0, 0, 0, 0, 1]));
        let mut see = |port, at_ms| places.observe(card, at(port), Timestamp(at_ms));
        assert_eq!(see("7", 0), None);
        assert_eq!(see("7", MOVE), None);
        let carried = see("8", 2 * MOVE);
        let text = "is at switch sw1 port 8 now, and was at switch sw1 port 7";
        assert_eq!(carried, Some(Moved::Carried(text.into())));
        let Some(Moved::Flips(text)) = see("9", 2 * MOVE + 5) else {
            panic!("it flips")
        };
        assert!(text.contains("port 8 and then at switch sw1 port 9"), "{text}");
        assert_eq!(see("8", 2 * MOVE + 6), None, "said already");
        assert_eq!(see("", 2 * MOVE + 7), None, "a relay that says less");
        assert_eq!(see("8", 2 * MOVE + 8), None);
        assert!(matches!(see("9", 3 * MOVE + 6), Some(Moved::Flips(_))));
    }

    #[test]
    fn a_pair_of_routers_is_one_place_and_relays_of_two_subnets_are_two_places() {
        let through = |relay: [u8; 4], network: &str| Place {
            relay: Some(relay.into()),
            network: Some(network.parse().unwrap()),
            ..at("7")
        };
        let first = through([10, 6, 0, 2], "10.6.0.0/24");
        assert!(!first.is_elsewhere(&through([10, 6, 0, 3], "10.6.0.0/24")));
        assert!(first.is_elsewhere(&through([10, 7, 0, 2], "10.7.0.0/24")));
    }

    #[test]
    fn a_flood_of_cards_is_bounded() {
        let mut places = Places::default();
        for n in 0..MOST as u32 + 10 {
            let [a, b, c, d] = n.to_be_bytes();
            places.observe(HwAddr([2, 0, a, b, c, d]), at("1"), Timestamp(0));
        }
        assert!(places.0.len() <= MOST);
    }
}
