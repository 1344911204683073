//! Where a node is: derived from its events, one after the other.

use super::{BootPace, BootStage, Event, EventKind, Level, NodeState, kind::Effect};
use rackstrap_base::clock::{Timestamp, duration};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// At most this many earlier boots are remembered, to recognise their late reports.
const BOOTS_SEEN: usize = 4;

/// A node counts as lost when this many heartbeats are missing.
pub(crate) const MISSED_HEARTBEATS: u64 = 3;

/// Where one node is, and why, according to its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The state. `Lost` and `Stalled` follow from events, too, which the daemon records when [`Standing::overdue`] returns
    /// one.
    pub state: NodeState,
    /// When the state began: for a lost node when it was last heard of, for a stalled node when it last progressed.
    pub since: Timestamp,
    /// The last failure, retry or lack; cleared when the node is up and nothing is missing.
    pub last_error: String,
    /// The kind of event that caused `last_error`; none if there is no error, or if the error names what a node that is up
    /// lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blamed: Option<EventKind>,
    /// When the last event or heartbeat came; 0 if none did.
    pub heard: Timestamp,
    /// Boot that the node is in, empty if none is pinned.
    pub boot: String,
    /// The missing parts; empty if the boot is complete.
    lacks: String,
    /// The problem in the last heartbeat; empty if there was none.
    trouble: String,
    /// Ids of earlier boots, the newest last.
    seen: VecDeque<String>,
    /// What earlier boots lacked, by boot: the node may still be in one of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    lacked: BTreeMap<String, String>,
    /// The furthest progress since the machine was last up, over all its attempts.
    #[serde(default)]
    progress: Option<Progress>,
    /// Its state while it is stalled: it may start again and again.
    #[serde(default)]
    below: Option<NodeState>,
    /// The boot whose initramfs was sent and whose agent was not heard of yet; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    loaded: String,
    /// When a system asked for the node's address while the node counted as up; 0 if none did since its last heartbeat with an event.
    #[serde(default, skip_serializing_if = "is_zero")]
    asked: Timestamp,
}

fn is_zero(at: &Timestamp) -> bool {
    at.0 == 0
}

/// The furthest step of a machine that boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    stage: BootStage,
    /// When the stage was reached first.
    at: Timestamp,
    step: EventKind,
    /// The detail of the step, at most 80 characters.
    detail: String,
}

impl Progress {
    fn record(&mut self, event: &Event) {
        self.step.clone_from(&event.step);
        self.detail = event.detail.chars().take(80).collect();
    }
}

/// After this many milliseconds of silence, a machine starts from the beginning. A machine that is heard of earlier repeats
/// its attempts.
const LOOP_GAP_MS: u64 = 300_000;

impl Default for Standing {
    fn default() -> Self {
        Standing {
            state: NodeState::Absent,
            since: Timestamp(0),
            last_error: String::new(),
            blamed: None,
            heard: Timestamp(0),
            boot: String::new(),
            lacks: String::new(),
            trouble: String::new(),
            seen: VecDeque::new(),
            lacked: BTreeMap::new(),
            progress: None,
            below: None,
            loaded: String::new(),
            asked: Timestamp(0),
        }
    }
}

impl Standing {
    /// Whether only the time at which the machine was last heard of differs.
    pub(super) fn says_the_same_as(&self, later: &Standing) -> bool {
        let heard = later.heard;
        Standing { heard, ..self.clone() } == *later
    }

    /// Where a node is after these events, oldest first.
    #[cfg(test)]
    pub fn after<'a>(events: impl IntoIterator<Item = &'a Event>) -> Standing {
        let mut standing = Standing::default();
        for event in events {
            standing.apply(event);
        }
        standing
    }

    /// Applies one event. Returns the stage of the boot that ends with it, and how many milliseconds that stage took.
    pub fn apply(&mut self, event: &Event) -> Option<(BootStage, u64)> {
        let at = event.latest();
        let effect = event.step.row().effect;
        match effect {
            Effect::Nothing => return None,
            Effect::Refused => {
                if self.boot == event.boot && !self.past(NodeState::Starting) {
                    self.complain(event);
                }
                return None;
            }
            Effect::Said => {
                if event.step == EventKind::NoAgent {
                    self.loaded.clear();
                }
                self.complain(event);
                return None;
            }
            Effect::SwitchedOn => {
                if self.state == NodeState::Off {
                    self.go(NodeState::Loading, at);
                }
                return None;
            }
            Effect::SwitchedOff => {
                self.progress = None;
                self.below = None;
                self.loaded.clear();
                self.last_error.clear();
                self.blamed = None;
                self.go(NodeState::Off, at);
                return None;
            }
            Effect::Lost => {
                if self.state.is_up() {
                    self.overdue_since(NodeState::Lost, event);
                    if self.asked > self.heard {
                        self.complain(event);
                    }
                }
                return None;
            }
            Effect::Stalled => {
                if self.state.is_booting() {
                    self.below = Some(self.state);
                    self.overdue_since(NodeState::Stalled, event);
                    self.last_error.clone_from(&event.detail);
                    self.blamed = Some(event.step.clone());
                }
                return None;
            }
            Effect::AliveWhileLoading if self.past(NodeState::Loading) || self.state == NodeState::Lost => return None,
            Effect::AliveWhileBooting if self.past(NodeState::Starting) => {
                if event.step.starts_system() {
                    self.asked = at;
                }
                return None;
            }
            Effect::Begins
            | Effect::MayLoad
            | Effect::Loads
            | Effect::Agent
            | Effect::HandsOver
            | Effect::Leaves
            | Effect::Up
            | Effect::StillUp
            | Effect::Alive
            | Effect::AliveWhileLoading
            | Effect::AliveWhileBooting => {}
        }
        // For a repeated event, the time between two repetitions.
        let gap = match event.last {
            Some(last) if event.count > 1 => last.since(event.at) / (event.count - 1),
            _ => at.since(self.heard),
        };
        self.heard = self.heard.max(at);
        if effect == Effect::StillUp {
            self.go_back_to(&event.boot);
        } else if !self.enter(&event.boot) {
            return None;
        }
        let stalled = self.below.take().map(|below| (below, self.since));
        if let Some((below, _)) = stalled {
            self.state = below;
        }
        self.follow(event, effect, at);
        let (further, sample) = self.record_progress(event, at, gap);
        if let Some((_, since)) = stalled {
            if (self.state.is_booting() || self.state == NodeState::Absent) && !further {
                self.below = Some(std::mem::replace(&mut self.state, NodeState::Stalled));
                self.since = since;
            } else {
                self.since = at;
            }
        }
        sample
    }

    /// The event of a node that is lost or stalled at `now`; none if it is neither. `listening` is the time from which this
    /// daemon could have heard of it.
    pub fn overdue(&self, now: Timestamp, listening: Timestamp, heartbeat_secs: u32, pace: &BootPace) -> Option<Event> {
        match self.state {
            NodeState::Ready | NodeState::Degraded => {
                let silence = u64::from(heartbeat_secs) * MISSED_HEARTBEATS;
                if now <= self.heard.max(listening).plus_secs(silence) {
                    return None;
                }
                let silent = now.since(self.heard);
                let mut detail = format!("no heartbeat for {}", duration(silent));
                if self.asked > self.heard {
                    detail.push_str(
                        "; then a system that sends none asked for its address: it may have started from its own disk",
                    );
                }
                Some(Event::new(now, EventKind::Lost, Level::Error, detail).took(silent))
            }
            NodeState::Loading | NodeState::Agent | NodeState::Starting => {
                let progress = self.progress.as_ref()?;
                let due = pace.due(progress.stage)?;
                if now.since(progress.at.max(listening)) <= due {
                    return None;
                }
                let silent = now.since(progress.at);
                // Without the age, which would not change any more. Views compute it from `took_ms` and the time.
                let causes = progress.stage.likely_causes(&progress.detail);
                let mut detail = format!("{}: {causes}", progress.step);
                if !self.last_error.is_empty() {
                    detail = format!("{detail}; last failure: {}", self.last_error);
                }
                Some(Event::new(now, EventKind::Stalled, Level::Error, detail).took(silent))
            }
            NodeState::Absent
            | NodeState::Unmanaged
            | NodeState::Off
            | NodeState::Stalled
            | NodeState::Lost
            | NodeState::Waiting => None,
        }
    }

    /// Whether a system that asks for the node's address did not come from this daemon: the node is not up, and got no kernel.
    pub fn got_no_system(&self) -> bool {
        let state = self.below.unwrap_or(self.state);
        let stage = self.progress.as_ref().map(|progress| progress.stage);
        match state {
            NodeState::Absent | NodeState::Off | NodeState::Lost => self.loaded.is_empty(),
            NodeState::Loading => self.loaded.is_empty() && stage.is_none_or(|stage| stage < BootStage::Kernel),
            NodeState::Unmanaged
            | NodeState::Stalled
            | NodeState::Waiting
            | NodeState::Agent
            | NodeState::Starting
            | NodeState::Ready
            | NodeState::Degraded => false,
        }
    }

    /// The event of a machine whose firmware asks again after it had kernel and initramfs, although its agent was not heard of;
    /// none if `event` is something else. The server learns of such a panic only in this way.
    pub(super) fn silent_kernel(&self, event: &Event) -> Option<Event> {
        if self.loaded.is_empty() || event.step.row().effect != Effect::Begins {
            return None;
        }
        let detail = format!(
            "boot {}: it had its kernel, and its agent was not heard of before it asked again: a panic, a network card without \
             a driver, or a reset? Its serial console shows it",
            self.loaded
        );
        let event = Event::new(event.at, EventKind::NoAgent, Level::Error, detail);
        Some(event.of_boot(&self.loaded))
    }

    /// Makes the node lost or stalled, since `took_ms` before the event.
    fn overdue_since(&mut self, state: NodeState, event: &Event) {
        self.state = state;
        self.since = Timestamp(event.at.0.saturating_sub(event.took_ms.unwrap_or(0)));
    }

    /// Records the progress of the machine. Returns whether it is further than before, with the milliseconds in the stage
    /// before.
    fn record_progress(&mut self, event: &Event, at: Timestamp, gap: u64) -> (bool, Option<(BootStage, u64)>) {
        let Some(stage) = BootStage::of(event) else {
            return (false, None);
        };
        let before = self.progress.as_ref().map(|before| (before.stage, before.at));
        let (further, sample) = match before {
            // A running system renews its lease and sends similar requests.
            Some((BootStage::Up, _)) if stage < BootStage::Up => (self.state == NodeState::Loading, None),
            None => (true, None),
            Some(_) if gap > LOOP_GAP_MS && stage < BootStage::Up && stage <= BootStage::LoaderRuns => (true, None),
            Some((known, since)) if stage > known => (true, Some((known, at.since(since)))),
            Some((known, _)) => {
                // The reported step is the last one of the stage; the time is that of its first one.
                if stage == known
                    && let Some(progress) = &mut self.progress
                {
                    progress.record(event);
                }
                (false, None)
            }
        };
        if further {
            let mut progress = Progress {
                stage,
                at,
                step: event.step.clone(),
                detail: String::new(),
            };
            progress.record(event);
            self.progress = Some(progress);
        }
        (further, sample)
    }

    fn follow(&mut self, event: &Event, effect: Effect, at: Timestamp) {
        match effect {
            Effect::Begins => self.go(NodeState::Loading, at),
            Effect::Loads => {
                // Reports may overtake each other: the kernel may be recorded after the agent of the same boot has reported.
                if event.boot.is_empty() || !self.past(NodeState::Loading) {
                    self.go(NodeState::Loading, at);
                    match (&event.step, event.level) {
                        (EventKind::Initramfs, Level::Ok) => self.loaded.clone_from(&event.boot),
                        // The loader still runs.
                        (EventKind::Script | EventKind::Retry(_), _) => self.loaded.clear(),
                        _ => {}
                    }
                }
            }
            Effect::MayLoad => {
                if matches!(self.state, NodeState::Absent | NodeState::Off | NodeState::Lost) {
                    self.go(NodeState::Loading, at);
                }
            }
            Effect::HandsOver | Effect::Agent | Effect::Up | Effect::StillUp if !self.loaded.is_empty() => {
                self.loaded.clear();
                self.follow(event, effect, at);
                return;
            }
            Effect::HandsOver if BootStage::of(event) == Some(BootStage::HandedOver) => {
                if !self.past(NodeState::Starting) {
                    self.go(NodeState::Starting, at);
                }
            }
            Effect::Agent | Effect::HandsOver => {
                if !self.past(NodeState::Agent) {
                    self.go(NodeState::Agent, at);
                }
            }
            Effect::Leaves => {
                self.progress = None;
                self.loaded.clear();
                self.last_error.clear();
                self.blamed = None;
                self.go(NodeState::Unmanaged, at);
                return;
            }
            // Both report what is missing now; the next heartbeat may report that it is there again.
            Effect::Up | Effect::StillUp => {
                self.trouble = match event.level {
                    Level::Ok => String::new(),
                    _ => event.detail.clone(),
                };
                self.up(at);
                return;
            }
            Effect::Alive
            | Effect::AliveWhileLoading
            | Effect::AliveWhileBooting
            | Effect::Refused
            | Effect::Said
            | Effect::SwitchedOn
            | Effect::SwitchedOff
            | Effect::Lost
            | Effect::Stalled
            | Effect::Nothing => {}
        }
        self.complain(event);
    }

    /// Records a heartbeat that has no event of its own.
    pub fn heartbeat(&mut self, at: Timestamp) {
        self.heard = self.heard.max(at);
    }

    /// Whether a heartbeat of `boot` that reports `trouble` (empty: no problem) changes only the time.
    pub fn expects(&self, boot: &str, trouble: &str) -> bool {
        self.boot == boot && self.state.is_up() && self.trouble == trouble
    }

    /// Counts the node as heard of at `at`, because this daemon does not remember its last heartbeat.
    pub(crate) fn was_alive(&mut self, at: Timestamp) {
        if self.state.is_up() {
            self.heard = self.heard.max(at);
        }
    }

    /// Completes a snapshot of an older release, which did not record the kind of event that caused `last_error`: its text begins
    /// with the kind. For rows that are read; only restarts need it.
    pub(super) fn complete_blamed(&mut self) {
        let text = self.last_error.split_once(": ").map(|(kind, _)| kind);
        if let (None, Some(text)) = (&self.blamed, text)
            && text == EventKind::Restart.to_string()
        {
            self.blamed = Some(EventKind::Restart);
        }
    }

    /// Handles a clock that was set back: no event may lie in the future, or silence would not be noticed until that time
    /// returns.
    pub fn settle(&mut self, now: Timestamp) {
        self.heard = self.heard.min(now);
        self.since = self.since.min(now);
    }

    /// Whether the node left `boot` for another one.
    pub(super) fn left(&self, boot: &str) -> bool {
        self.boot != boot && self.seen.iter().any(|seen| seen == boot)
    }

    /// Enters a boot that the node never left: the later boot was not its own.
    fn go_back_to(&mut self, boot: &str) {
        if self.boot == boot {
            return;
        }
        self.seen.retain(|seen| seen != boot);
        let lacks = self.lacked.remove(boot).unwrap_or_default();
        self.enter(boot);
        self.lacks = lacks;
    }

    /// Enters the boot of an event; false if the event is a late one of an older boot.
    fn enter(&mut self, boot: &str) -> bool {
        if boot.is_empty() || boot == self.boot {
            return true;
        }
        if self.seen.iter().any(|seen| seen == boot) {
            return false;
        }
        let before = std::mem::replace(&mut self.boot, boot.to_owned());
        let lacks = std::mem::take(&mut self.lacks);
        if !before.is_empty() {
            if !lacks.is_empty() {
                self.lacked.insert(before.clone(), lacks);
            }
            self.seen.push_back(before);
            if self.seen.len() > BOOTS_SEEN
                && let Some(oldest) = self.seen.pop_front()
            {
                self.lacked.remove(&oldest);
            }
        }
        self.trouble.clear();
        // The event belongs to another boot than the state does, so the state may go back.
        match self.state {
            NodeState::Loading => {}
            NodeState::Stalled => self.below = Some(NodeState::Absent),
            _ => self.state = NodeState::Absent,
        }
        true
    }

    fn past(&self, state: NodeState) -> bool {
        rank(self.state) > rank(state)
    }

    fn up(&mut self, at: Timestamp) {
        let state = if self.lacks.is_empty() && self.trouble.is_empty() {
            NodeState::Ready
        } else {
            NodeState::Degraded
        };
        self.go(state, at);
        self.last_error = self.missing();
        self.blamed = None;
    }

    /// The missing parts of a node that is up.
    fn missing(&self) -> String {
        match self.trouble.is_empty() {
            false => self.trouble.clone(),
            true => self.lacks.clone(),
        }
    }

    fn go(&mut self, state: NodeState, at: Timestamp) {
        if self.state != state {
            self.state = state;
            self.since = at;
        }
    }

    fn complain(&mut self, event: &Event) {
        // A failed drain has succeeded now, or is not wanted any more: the node itself had no problem.
        if event.level == Level::Ok && event.step == EventKind::Restart && self.blamed == Some(EventKind::Restart) {
            self.last_error = self.missing();
            self.blamed = None;
        }
        if event.level == Level::Ok {
            return;
        }
        let text = match event.detail.is_empty() {
            true => event.step.to_string(),
            false => format!("{}: {}", event.step, event.detail),
        };
        if event.level == Level::Degraded && !event.boot.is_empty() {
            // Consequences of the first lack (an overlay without the disk's mounts) say less than the first one.
            if self.lacks.is_empty() {
                self.lacks.clone_from(&text);
            }
            if self.state == NodeState::Ready {
                self.go(NodeState::Degraded, event.latest());
            }
        }
        self.last_error = text;
        self.blamed = Some(event.step.clone());
    }
}

/// The position of a state in a boot; 0 if the boot has not begun or its progress is unknown.
fn rank(state: NodeState) -> u8 {
    match state {
        NodeState::Absent
        | NodeState::Unmanaged
        | NodeState::Off
        | NodeState::Waiting
        | NodeState::Lost
        | NodeState::Stalled => 0,
        NodeState::Loading => 1,
        NodeState::Agent => 2,
        NodeState::Starting => 3,
        NodeState::Ready | NodeState::Degraded => 4,
    }
}
