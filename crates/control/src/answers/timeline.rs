//! Answers about timelines.

use crate::api::{BootStep, BootSummary, EventRow, RetriesRow, TimelineOf};
use rackstrap_registries::timeline::{self, Event, Retries, StepTime, Subject};

impl From<Subject> for TimelineOf {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Node(name) => TimelineOf::Node(name),
            Subject::Machine(hwaddr) => TimelineOf::Machine(hwaddr),
        }
    }
}

impl From<Event> for EventRow {
    fn from(event: Event) -> Self {
        EventRow {
            at: event.at,
            boot: event.boot,
            step: event.step.to_string(),
            level: event.level,
            detail: event.detail,
            took_ms: event.took_ms,
            count: event.count,
            last: event.last,
        }
    }
}

impl From<Retries> for RetriesRow {
    fn from(retries: Retries) -> Self {
        RetriesRow {
            current: retries.current,
            all: retries.all,
        }
    }
}

impl From<timeline::BootSummary> for BootSummary {
    fn from(boot: timeline::BootSummary) -> Self {
        BootSummary {
            boot: boot.boot,
            began: boot.began,
            ready: boot.ready,
            total_ms: boot.total_ms,
            retries: boot.retries,
            lacks: boot.lacks,
            steps: boot.steps.into_iter().map(BootStep::from).collect(),
        }
    }
}

impl From<StepTime> for BootStep {
    fn from(step: StepTime) -> Self {
        BootStep {
            step: step.step.to_string(),
            at_ms: step.at_ms,
            took_ms: step.took_ms,
            count: step.count,
            detail: step.detail,
            level: step.level,
        }
    }
}
