//! Timelines on disk: one row for each event, and regular snapshots of the node's state, so that a start reads only the ends
//! of timelines.

use super::{Event, Retries, Standing, Subject};
use rackstrap_store::{Batch, Read, Store, StoreError, Table};
use rackstrap_wire::HwAddr;
use serde::{Deserialize, Serialize};

/// A snapshot is written after this many events of a timeline, so at most this many are read at a start.
const SNAPSHOT_EVERY: u64 = 8;

/// The state of a node after an event of its timeline.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    /// Number of the last event that it includes.
    number: u64,
    /// The state after that event.
    standing: Standing,
    /// Whether it includes everything that had happened, also repetitions that only raised the count of an earlier row, so
    /// that the event must not be applied again. Older releases never wrote true.
    #[serde(default)]
    whole: bool,
    /// The retries up to that event. None from older releases, which did not count them.
    #[serde(default)]
    retries: Option<Retries>,
}

/// The end of a timeline.
#[derive(Debug)]
pub(super) struct Tail {
    pub subject: Subject,
    /// Number of the first event on disk.
    pub first: u64,
    /// The last events, with their numbers.
    pub events: Vec<(u64, Event)>,
    /// The state after all events.
    pub standing: Standing,
    /// The retries in all events.
    pub retries: Retries,
    /// The very first event, for subjects whose order matters.
    pub began: Option<Event>,
}

/// The ends of all timelines, and a batch that deletes rows with invalid keys.
pub(super) fn tails(store: &Store) -> Result<(Vec<Tail>, Batch), StoreError> {
    store.read(|rows| {
        let (mut tails, mut strange) = (Vec::new(), Batch::new());
        let mut from = Vec::new();
        while let Some(found) = rows.next_key(Table::Events, &from)? {
            match parse_key(&found) {
                Some((subject, first)) => {
                    from = prefix(&subject);
                    // This key is after all numbers.
                    from.extend_from_slice(&[0xff; 9]);
                    tails.push(tail(rows, subject, first)?);
                }
                None => {
                    strange = strange.delete(Table::Events, found.clone());
                    from = found;
                    from.push(0);
                }
            }
        }
        Ok((tails, strange))
    })
}

fn tail(rows: &Read<'_>, subject: Subject, first: u64) -> Result<Tail, StoreError> {
    let prefix = prefix(&subject);
    let snapshot: Option<Snapshot> = rows.get(Table::Standings, &prefix)?;
    let (mut standing, mut start, mut whole, counted) = match snapshot {
        Some(mut snapshot) => {
            snapshot.standing.complete_blamed();
            (
                snapshot.standing,
                snapshot.number.max(first),
                snapshot.whole.then_some(snapshot.number),
                snapshot.retries.map(|retries| (snapshot.number, retries)),
            )
        }
        None => (Standing::default(), first, None, None),
    };
    let read = |start| rows.scan_from(Table::Events, &prefix, &key(&subject, start));
    let mut events: Vec<(Vec<u8>, Event)> = read(start)?;
    if events.is_empty() {
        // The row was written by a release without snapshots.
        (standing, start, whole) = (Standing::default(), first, None);
        events = read(start)?;
    }
    let events: Vec<(u64, Event)> = events
        .into_iter()
        .filter_map(|(key, event)| Some((parse_key(&key)?.1, completed(event))))
        .collect();
    // The event of the snapshot may have happened again since. Applying it twice changes nothing.
    for (_, event) in events
        .iter()
        .filter(|(number, _)| whole.is_none_or(|counted| *number > counted))
    {
        if event.last.is_some() {
            // Its first occurrence already had its effects.
            let first = Event {
                last: None,
                ..event.clone()
            };
            let _ = standing.apply(&first);
        }
        let _ = standing.apply(event);
    }
    // Unlike a state, a number changes if an event is applied twice.
    let (counted, mut retries) = match counted {
        Some((number, retries)) => (Some(number), retries),
        None => (None, Retries::default()),
    };
    for (_, event) in (events.iter()).filter(|(number, _)| counted.is_none_or(|counted| *number > counted)) {
        retries.count(event);
    }
    let began = match (&subject, start == first) {
        (Subject::Node(_), _) => None,
        (Subject::Machine(_), true) => events.first().map(|(_, event)| event.clone()),
        (Subject::Machine(_), false) => rows.get(Table::Events, &key(&subject, first))?.map(completed),
    };
    Ok(Tail {
        subject,
        first,
        events,
        standing,
        retries,
        began,
    })
}

/// Events `from` to `until` (exclusive) of a timeline, as far as they are on disk.
pub(super) fn between(store: &Store, subject: &Subject, from: u64, until: u64) -> Result<Vec<Event>, StoreError> {
    let wanted = store.read(|rows| rows.scan_from(Table::Events, &prefix(subject), &key(subject, from)));
    let wanted: Vec<(Vec<u8>, Event)> = wanted?;
    let early = |key: &[u8]| parse_key(key).is_some_and(|(_, number)| number < until);
    Ok(wanted
        .into_iter()
        .filter(|(key, _)| early(key))
        .map(|(_, event)| completed(event))
        .collect())
}

/// A row in the form of this release.
fn completed(mut event: Event) -> Event {
    event.complete_sender();
    event
}

/// What is known after the events of a timeline.
pub(super) type After<'a> = (&'a Standing, &'a Retries);

/// Adds the row of an event; `after` is the state after it.
pub(super) fn put(batch: Batch, subject: &Subject, number: u64, event: &Event, after: After<'_>) -> Batch {
    let batch = batch.put(Table::Events, key(subject, number), event);
    if !(number + 1).is_multiple_of(SNAPSHOT_EVERY) {
        return batch;
    }
    snapshot(batch, subject, number, after, false)
}

/// Writes the row of an earlier event again, which was repeated after event `last`; `after` is the state after everything.
pub(super) fn put_again(
    batch: Batch,
    subject: &Subject,
    (number, event): (u64, &Event),
    last: u64,
    after: After<'_>,
) -> Batch {
    let batch = batch.put(Table::Events, key(subject, number), event);
    snapshot(batch, subject, last, after, true)
}

fn snapshot(batch: Batch, subject: &Subject, number: u64, (standing, retries): After<'_>, whole: bool) -> Batch {
    let snapshot = Snapshot {
        number,
        standing: standing.clone(),
        whole,
        retries: Some(retries.clone()),
    };
    batch.put(Table::Standings, prefix(subject), &snapshot)
}

/// Deletes the row of an event.
pub(super) fn delete(batch: Batch, subject: &Subject, number: u64) -> Batch {
    batch.delete(Table::Events, key(subject, number))
}

/// Deletes events `first` to `next` (exclusive), and their snapshots.
pub(super) fn drop_all(batch: Batch, subject: &Subject, first: u64, next: u64) -> Batch {
    let batch = batch.delete(Table::Standings, prefix(subject));
    (first..next).fold(batch, |batch, number| delete(batch, subject, number))
}

/// The beginning of all keys of a timeline: `n` NAME 0, or `m` HWADDR.
fn prefix(subject: &Subject) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(32);
    match subject {
        Subject::Node(name) => {
            prefix.push(b'n');
            prefix.extend_from_slice(name.as_bytes());
            prefix.push(0);
        }
        Subject::Machine(hwaddr) => {
            prefix.push(b'm');
            prefix.extend_from_slice(&hwaddr.0);
        }
    }
    prefix
}

/// The prefix and the number, big-endian so that numbers sort.
fn key(subject: &Subject, number: u64) -> Vec<u8> {
    let mut key = prefix(subject);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(Subject, u64)> {
    let (rest, number) = key.split_last_chunk::<8>()?;
    let number = u64::from_be_bytes(*number);
    let subject = match rest.split_first()? {
        (b'n', name) => {
            let name = name.strip_suffix(&[0])?;
            Subject::Node(String::from_utf8(name.to_vec()).ok()?)
        }
        (b'm', hwaddr) => Subject::Machine(HwAddr(hwaddr.try_into().ok()?)),
        _ => return None,
    };
    Some((subject, number))
}
