//! Answers about timelines.

use crate::{
    control::api::{EventRow, TimelineOf},
    timeline::{Event, Subject},
};

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
