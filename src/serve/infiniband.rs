//! InfiniBand cards that ask for an address: a warning in `status` says which, and whose they are.

use super::attempts::is_over;
use rackstrap_base::{clock::Timestamp, sync::lock, warnings::SiteWarnings};
use rackstrap_dhcp::Guid;
use std::{collections::BTreeMap, sync::Mutex};

/// Topic of the warning.
const TOPIC: &str = "infiniband";
/// A card counts for this long after its last packet, in seconds. Firmware that gets no answer goes on to the next card, and comes back at
/// the machine's next start.
const KEPT_SECS: u64 = 3600;
/// At most this many cards are remembered. Root of any machine can make up more.
const MOST: usize = 256;
/// At most this many cards are named in the warning.
const NAMED: usize = 3;

const HELP: &str = "boot these machines from an Ethernet card, and turn the network boot of the InfiniBand card off in its firmware, which \
                    saves the wait; a port of a VPI card can be Ethernet instead: mlxconfig -d DEVICE set LINK_TYPE_P1=2";

/// The cards that asked within the last hour.
#[derive(Debug, Default)]
pub struct InfinibandCards(Mutex<BTreeMap<Option<Guid>, Seen>>);

#[derive(Clone, Debug)]
struct Seen {
    interface: String,
    /// The node that the card belongs to.
    node: Option<String>,
    last: Timestamp,
}

impl InfinibandCards {
    /// Records that a card asked on `interface`, and raises or renews the warning. `node` is the node that it belongs to. Returns whether
    /// this begins an attempt of the card to boot.
    pub fn asks(
        &self,
        guid: Option<Guid>,
        interface: &str,
        node: Option<String>,
        warnings: &SiteWarnings,
        now: Timestamp,
    ) -> bool {
        let (message, begins) = {
            let mut cards = lock(&self.0);
            cards.retain(|_, seen| now.is_within(KEPT_SECS * 1000, seen.last));
            let known = cards.get(&guid);
            let remembered = cards.len() < MOST || known.is_some();
            let begins = remembered && known.is_none_or(|seen| seen.node != node || is_over(seen.last, now));
            if remembered {
                let interface = interface.to_owned();
                cards.insert(
                    guid,
                    Seen {
                        interface,
                        node,
                        last: now,
                    },
                );
            }
            (describe(&cards), begins)
        };
        if warnings.raise_for(now, KEPT_SECS, TOPIC, &message, HELP) {
            tracing::warn!("{message}; {HELP}");
        }
        begins
    }
}

/// What the timeline of the card's node says.
pub fn refusal(guid: Option<Guid>) -> String {
    let guid = guid.map_or("with an unknown GUID".to_owned(), |guid| {
        format!("with the GUID {guid}")
    });
    format!(
        "its InfiniBand card {guid} asks for an address and gets none: rackstrap does not boot machines by InfiniBand; turn the network \
         boot of the card off in its firmware"
    )
}

fn describe(cards: &BTreeMap<Option<Guid>, Seen>) -> String {
    let of = |(guid, seen): (&Option<Guid>, &Seen)| {
        let guid = guid.map_or("an unknown GUID".to_owned(), |guid| format!("GUID {guid}"));
        let node = seen.node.as_ref().map(|node| format!(", a card of {node}"));
        format!("{guid} on {}{}", seen.interface, node.unwrap_or_default())
    };
    let mut named: Vec<String> = cards.iter().take(NAMED).map(of).collect();
    if cards.len() > NAMED {
        named.push(format!("and {} more", cards.len() - NAMED));
    }
    let (cards, ask) = match cards.len() {
        1 => ("an InfiniBand card", "asks"),
        _ => ("InfiniBand cards", "ask"),
    };
    format!(
        "{cards} ({}) {ask} for an address and get{} none: rackstrap does not boot machines by InfiniBand",
        named.join("; "),
        if ask == "asks" { "s" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guid(n: u8) -> Option<Guid> {
        Some(Guid([0, 2, 0xc9, 3, 0, 0, 0, n]))
    }

    #[test]
    fn one_warning_names_some_cards_and_counts_the_others() {
        let (cards, warnings) = (InfinibandCards::default(), SiteWarnings::default());
        let now = Timestamp(1_000_000_000);
        let said = |at: Timestamp| -> Vec<String> { warnings.list(at).into_iter().map(|w| w.message).collect() };
        cards.asks(guid(1), "eth1", Some("r01n03".to_owned()), &warnings, now);
        let one = "an InfiniBand card (GUID 00:02:c9:03:00:00:00:01 on eth1, a card of r01n03) asks for an address and gets none: \
                   rackstrap does not boot machines by InfiniBand";
        assert_eq!(said(now), [one]);
        assert!(cards.asks(None, "eth1", None, &warnings, now));
        for n in 2..=255 {
            cards.asks(guid(n), "eth1", None, &warnings, now);
        }
        for n in 0..=255 {
            cards.asks(Some(Guid([n; 8])), "eth1", None, &warnings, now);
        }
        let many = said(now);
        assert_eq!(many.len(), 1);
        assert!(
            many[0].starts_with("InfiniBand cards (an unknown GUID on eth1; GUID 00:02"),
            "{many:?}"
        );
        assert!(
            many[0].contains("; and 253 more) ask for an address and get none"),
            "{many:?}"
        );
        // A card that asks again later is named alone, and an hour after its last packet it is forgotten.
        let later = now.plus_secs(KEPT_SECS + 60);
        let again = cards.asks(guid(1), "eth1", Some("r01n03".to_owned()), &warnings, later);
        assert!(again, "the next attempt");
        assert_eq!(said(later), [one]);
        assert!(said(later.plus_secs(KEPT_SECS + 1)).is_empty());
    }

    #[test]
    fn an_attempt_begins_with_a_silence_or_when_the_cards_node_becomes_known() {
        let (cards, warnings) = (InfinibandCards::default(), SiteWarnings::default());
        let begins = |node: Option<&str>, secs: u64| {
            let node = node.map(str::to_owned);
            cards.asks(guid(1), "eth1", node, &warnings, Timestamp(secs * 1000))
        };
        assert!(begins(None, 1000));
        for secs in [1004, 1012, 1028, 1060] {
            assert!(!begins(None, secs), "{secs}: repeated");
        }
        assert!(begins(Some("r01n03"), 1061));
        assert!(!begins(Some("r01n03"), 1062));
        assert!(begins(Some("r01n03"), 1062 + 90));
    }
}
