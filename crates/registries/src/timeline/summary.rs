//! Splits a timeline into boots, each with its times.

use super::{Event, EventKind, Level, kind::Part};
use rackstrap_base::clock::Timestamp;
use std::collections::BTreeSet;

/// One boot, from the first packet to `ready`, or to its last step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootSummary {
    /// Id of the boot; the last one if scripts were fetched several times, empty if none was pinned.
    pub boot: String,
    /// When its first packet came.
    pub began: Timestamp,
    /// When its system was up; none if it never was.
    pub ready: Option<Timestamp>,
    /// Milliseconds from the first packet to `ready`, or to the last event.
    pub total_ms: u64,
    /// Number of failures before it was ready; 0 if nothing failed.
    pub retries: u64,
    /// The missing parts; empty if the boot is complete.
    pub lacks: Vec<String>,
    /// Its steps, in the order in which they began.
    pub steps: Vec<StepTime>,
}

/// One step of a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// The kind of its events.
    pub step: EventKind,
    /// Milliseconds after the boot's first packet.
    pub at_ms: u64,
    /// How long it took in milliseconds: as reported, else until the next step began.
    pub took_ms: u64,
    /// Number of its events, from 1.
    pub count: u64,
    /// The detail of its last event.
    pub detail: String,
    /// The worst level in it.
    pub level: Level,
}

/// The boots of a timeline, oldest first.
pub fn summarise(events: &[Event]) -> Vec<BootSummary> {
    let mut boots: Vec<Vec<&Event>> = Vec::new();
    let mut beyond = false;
    // A boot in doubt (`Boot::doubted`) was the node's own if its agent was heard of.
    let real: BTreeSet<&str> = (events.iter().filter(|event| part(event) == Part::Beyond))
        .map(|event| event.boot.as_str())
        .collect();
    let of_boots = |event: &&Event| match part(event) {
        Part::DoubtedLoader | Part::Doubted => real.contains(event.boot.as_str()),
        Part::Outside => false,
        Part::Loader | Part::Beyond | Part::Within | Part::Beside | Part::Foreign => true,
    };
    for event in events.iter().filter(of_boots) {
        let part = part(event);
        let begins = boots.last().map_or(part != Part::Foreign, |boot| {
            let other = !event.boot.is_empty() && id_of(boot) != Some(&event.boot);
            match part {
                // After the agent, each step of a loader belongs to the next boot, unless it has this boot's id.
                Part::Loader | Part::DoubtedLoader => beyond && (event.boot.is_empty() || other),
                Part::Beyond => beyond && other,
                Part::Within | Part::Beside | Part::Foreign | Part::Doubted | Part::Outside => false,
            }
        });
        if begins {
            boots.push(Vec::new());
            beyond = false;
        }
        beyond |= part == Part::Beyond;
        if let Some(boot) = boots.last_mut() {
            boot.push(event);
        }
    }
    boots.iter().filter_map(|boot| summary(boot)).collect()
}

fn part(event: &Event) -> Part {
    event.step.row().part
}

fn id_of<'a>(events: &[&'a Event]) -> Option<&'a str> {
    events.iter().rev().map(|e| e.boot.as_str()).find(|id| !id.is_empty())
}

fn summary(events: &[&Event]) -> Option<BootSummary> {
    let began = events.first()?.at;
    let ready = events.iter().find(|e| e.step == EventKind::Ready).map(|e| e.at);
    let end = ready.unwrap_or(events.last()?.latest());
    let mut steps: Vec<StepTime> = Vec::new();
    let mut reported: Vec<Option<u64>> = Vec::new();
    for event in events {
        let position = steps.iter().position(|step| step.step == event.step);
        let position = position.unwrap_or_else(|| {
            steps.push(StepTime {
                step: event.step.clone(),
                at_ms: event.at.since(began),
                took_ms: 0,
                count: 0,
                detail: String::new(),
                level: Level::Ok,
            });
            reported.push(None);
            steps.len() - 1
        });
        let step = &mut steps[position];
        step.count += event.count;
        step.detail.clone_from(&event.detail);
        step.level = step.level.max(event.level);
        if let Some(took) = event.took_ms {
            *reported[position].get_or_insert(0) += took;
        }
    }
    let starts: Vec<u64> = steps.iter().map(|step| step.at_ms).collect();
    for (i, step) in steps.iter_mut().enumerate() {
        let until = starts.get(i + 1).copied().unwrap_or(end.since(began));
        step.took_ms = match ready.filter(|_| step.step == EventKind::Ready) {
            // The agent reports the kernel's uptime. The step itself took the start of the system, since the last event.
            Some(at) => at.since(
                events
                    .iter()
                    .map(|e| e.latest())
                    .filter(|t| *t < at)
                    .max()
                    .unwrap_or(at),
            ),
            None => reported[i].unwrap_or(until.saturating_sub(step.at_ms)),
        };
    }
    let mut lacks: Vec<String> = Vec::new();
    for event in events.iter().filter(|e| e.level == Level::Degraded) {
        // An overlay repeats what the disk lacks, after some words.
        if !lacks.iter().any(|known| event.detail.ends_with(known)) {
            lacks.push(event.detail.clone());
        }
    }
    Some(BootSummary {
        boot: id_of(events).unwrap_or_default().to_owned(),
        began,
        ready,
        total_ms: end.since(began),
        retries: events
            .iter()
            .filter(|event| is_retry(event, ready))
            .map(|e| e.count)
            .sum(),
        lacks,
        steps,
    })
}

/// Whether the boot itself failed at this event. The timeline also has requests of the node's users, and orders of
/// administrators and rollouts.
fn is_retry(event: &Event, ready: Option<Timestamp>) -> bool {
    let of_boot = matches!(part(event), Part::Loader | Part::Beyond | Part::Within);
    // A system that is up may lose its NFS connection, which is not part of its start.
    of_boot && event.level >= Level::Retry && ready.is_none_or(|ready| event.at <= ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::DhcpMessage;

    #[test]
    fn retries_are_those_of_the_boot_and_not_of_a_user() {
        use Level::{Error, Ok, Retry};
        let rows = [
            ("dhcp discover", Retry, "no room"),
            ("script", Retry, "asks again: its kernel did not load"),
            ("kernel", Retry, "broken off 5 bytes before its end"),
            ("agent root", Retry, "attempt 1: refused"),
            ("nfs mount", Error, "/debian@1: not there"),
            ("checks", Retry, "waits for the fabric"),
            ("dhcp-first", Retry, "r01n01 has to ask DHCP before it boots"),
            ("refused", Error, "10.5.1.1 asked for boot b, which is r01n02's"),
            ("nfs-client", Error, "nfs mount: /debian@1: no"),
            ("tftp-client", Error, "x: not found"),
            ("dhcp-client request", Retry, "nak"),
            ("restart", Error, "drain: no"),
            ("ready", Ok, ""),
            ("nfs", Retry, "connection ended"),
            ("dhcp-first", Retry, "r01n01 has to ask DHCP before it boots"),
        ];
        let rows = (1_u64..).zip(rows);
        let event = |(second, (step, level, detail)): (u64, (&str, Level, &str))| {
            Event::new(Timestamp(second * 1000), step.parse().unwrap(), level, detail)
        };
        let boots = summarise(&rows.map(event).collect::<Vec<_>>());
        assert_eq!((boots.len(), boots[0].retries), (1, 6));
    }

    #[test]
    fn what_the_machine_did_not_do_is_no_boot() {
        let event = |second: u64, step: EventKind, level| Event::new(Timestamp(second * 1000), step, level, "x");
        let orders = [
            event(1, EventKind::Reprep, Level::Ok),
            event(2, EventKind::Restart, Level::Retry),
            event(3, EventKind::Lease, Level::Ok),
            event(4, EventKind::Refused, Level::Error),
        ];
        assert_eq!(summarise(&orders), []);
        let mut events = orders.to_vec();
        events.extend([
            event(10, EventKind::Dhcp(DhcpMessage::Discover), Level::Ok),
            event(20, EventKind::Ready, Level::Ok),
            event(30, EventKind::Reprep, Level::Ok),
            event(40, EventKind::Restart, Level::Retry),
        ]);
        let boots = summarise(&events);
        assert_eq!(
            (boots.len(), boots[0].began, boots[0].retries),
            (1, Timestamp(10_000), 0)
        );
        let steps: Vec<String> = boots[0].steps.iter().map(|step| step.step.to_string()).collect();
        assert_eq!(steps, ["dhcp discover", "ready"]);
    }
}
