//! A timeline cut into boots, each with its times.

use super::{Event, Level};
use crate::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// One boot, from the first packet to `ready`, or as far as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSummary {
    /// Id of the boot, the last one if scripts were fetched several times; empty if it came to none.
    pub boot: String,
    /// The first packet.
    pub began: Timestamp,
    /// When the system was up.
    pub ready: Option<Timestamp>,
    /// Milliseconds from the first packet to `ready`, or to the last event.
    pub total_ms: u64,
    /// Failed attempts in it.
    pub retries: u64,
    /// What it has less than asked for.
    pub lacks: Vec<String>,
    /// Its steps, in the order in which they began.
    pub steps: Vec<StepTime>,
}

/// One step of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    /// Name of the step.
    pub step: String,
    /// Milliseconds after the boot's first packet.
    pub at_ms: u64,
    /// How long it took in milliseconds: as reported, else until the next step began.
    pub took_ms: u64,
    /// Events of it.
    pub count: u64,
    /// The last thing that it said.
    pub detail: String,
    /// The worst level in it.
    pub level: Level,
}

/// How far a boot has come, as far as cutting needs to know.
#[derive(PartialEq)]
enum Part {
    Loader,
    Beyond,
}

/// The boots of a timeline, oldest first. A heartbeat belongs to no boot: these are about the way up.
pub fn summarise(events: &[Event]) -> Vec<BootSummary> {
    let mut boots: Vec<Vec<&Event>> = Vec::new();
    let mut reached = Part::Loader;
    let mut ready = false;
    for event in events.iter().filter(|event| event.step != "heartbeat") {
        let beyond = is_beyond(event);
        let begins = match boots.last() {
            None => true,
            // Whatever a loader does after the agent was there is the next boot; so is the agent of another boot.
            Some(boot) => match (&reached, beyond) {
                (Part::Loader, _) => false,
                (Part::Beyond, false) => !ready || is_firmware(event),
                (Part::Beyond, true) => id_of(boot).is_some_and(|id| !event.boot.is_empty() && id != event.boot),
            },
        };
        if begins {
            boots.push(Vec::new());
            reached = Part::Loader;
            ready = false;
        }
        if beyond {
            reached = Part::Beyond;
        }
        ready |= event.step == "ready";
        if let Some(boot) = boots.last_mut() {
            boot.push(event);
        }
    }
    boots.iter().filter_map(|boot| summary(boot)).collect()
}

/// True for what only the agent and the system do.
fn is_beyond(event: &Event) -> bool {
    matches!(
        event.step.split_whitespace().next(),
        Some("plan" | "agent" | "overlay" | "ready" | "nfs")
    )
}

/// True for what a running system's DHCP client does not do.
fn is_firmware(event: &Event) -> bool {
    event.step == "dhcp discover" || !event.step.starts_with("dhcp")
}

fn id_of<'a>(events: &[&'a Event]) -> Option<&'a str> {
    events.iter().rev().map(|e| e.boot.as_str()).find(|id| !id.is_empty())
}

fn summary(events: &[&Event]) -> Option<BootSummary> {
    let began = events.first()?.at;
    let ready = events.iter().find(|e| e.step == "ready").map(|e| e.at);
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
        step.took_ms = reported[i].unwrap_or(until.saturating_sub(step.at_ms));
    }
    let lacks = events.iter().filter(|e| e.level == Level::Degraded);
    Some(BootSummary {
        boot: id_of(events).unwrap_or_default().to_owned(),
        began,
        ready,
        total_ms: end.since(began),
        retries: events.iter().filter(|e| e.level >= Level::Retry).map(|e| e.count).sum(),
        lacks: lacks.map(|e| e.detail.clone()).collect(),
        steps,
    })
}
