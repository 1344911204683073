//! Where a node is: follows from its events, one after the other.

use super::{Event, Level, Pace, Stage, State};
use rackstrap_base::clock::{Timestamp, duration};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Boots whose late reports are recognised as such.
const BOOTS_SEEN: usize = 4;

/// Heartbeats that may fail to come before a node counts as lost.
pub const MISSED_HEARTBEATS: u64 = 3;

/// Where one node is, why, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The state. `Lost` and `Stalled` are brought about by events too, which the daemon records when [`Standing::overdue`].
    pub state: State,
    /// Since when; of a node that is lost or stalled, when it was last heard of or got further.
    pub since: Timestamp,
    /// The last failure, retry or lack; cleared when the node is up and nothing is missing.
    pub last_error: String,
    /// The last event or heartbeat.
    pub heard: Timestamp,
    /// Boot that the node is in, empty if none is pinned.
    pub boot: String,
    /// What the boot has less than asked for, empty if nothing.
    lacks: String,
    /// What the last heartbeat complained of, empty if nothing.
    trouble: String,
    /// The boots before, the newest last.
    seen: VecDeque<String>,
    /// What the boots before lacked, where they lacked something: a node may still be in one of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    lacked: BTreeMap<String, String>,
    /// How far the machine has come since it was last up, however often it began again.
    #[serde(default)]
    progress: Option<Progress>,
    /// What it does while it is stalled: it may begin again and again.
    #[serde(default)]
    below: Option<State>,
}

/// The furthest step of a machine that boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    stage: Stage,
    /// When the stage was reached first.
    at: Timestamp,
    step: String,
    /// What the step said.
    detail: String,
}

impl Progress {
    fn note(&mut self, event: &Event) {
        self.step.clone_from(&event.step);
        self.detail = event.detail.chars().take(80).collect();
    }
}

/// A machine that was silent for longer begins from the start, milliseconds; one that comes back sooner repeats itself.
const LOOP_GAP_MS: u64 = 300_000;

impl Default for Standing {
    fn default() -> Self {
        Standing {
            state: State::Absent,
            since: Timestamp(0),
            last_error: String::new(),
            heard: Timestamp(0),
            boot: String::new(),
            lacks: String::new(),
            trouble: String::new(),
            seen: VecDeque::new(),
            lacked: BTreeMap::new(),
            progress: None,
            below: None,
        }
    }
}

/// What a step says about where the node is.
enum Meaning {
    /// A new beginning: firmware asks.
    Begins,
    /// Firmware, a loader, or also the kernel's or the system's own DHCP client.
    MayLoad,
    /// A loader.
    Loads,
    /// The agent.
    Agent,
    /// The agent's last words.
    HandsOver,
    /// The system is up.
    Ready,
    /// The running system, also where a later boot was begun in its name.
    Heartbeat,
    /// Anything else: no matter.
    Nothing,
}

fn meaning(event: &Event) -> Meaning {
    let step = event.step.as_str();
    match step.split_whitespace().next().unwrap_or_default() {
        "dhcp" if step == "dhcp discover" => Meaning::Begins,
        "dhcp" => Meaning::MayLoad,
        "tftp" | "http" | "script" | "kernel" | "initramfs" => Meaning::Loads,
        // The phase begins with `started`; only its end, which has a duration, hands over.
        "agent" if step == "agent switch-root" && event.took_ms.is_some() && event.level <= Level::Degraded => {
            Meaning::HandsOver
        }
        "agent" | "plan" | "overlay" => Meaning::Agent,
        "ready" => Meaning::Ready,
        "heartbeat" | "running" => Meaning::Heartbeat,
        _ => Meaning::Nothing,
    }
}

impl Standing {
    /// True if nothing is different but the time at which the machine was last heard of.
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

    /// Takes note of one event. Answers how long the boot was in the stage that it leaves by this event, in milliseconds.
    pub fn apply(&mut self, event: &Event) -> Option<(Stage, u64)> {
        let at = event.latest();
        match event.step.as_str() {
            // Somebody else asked for what is this node's: not a sign of life of it.
            "refused" => {
                if self.boot == event.boot && !self.past(State::Starting) {
                    self.complain(event);
                }
                return None;
            }
            // What the daemon says of the node: no sign of life of it either.
            "rollout" => {
                self.complain(event);
                return None;
            }
            "server" => return None,
            "lost" | "stalled" => {
                self.overdue_since(event);
                return None;
            }
            _ => {}
        }
        match event.kind() {
            // Of a boot in doubt (`Boot::doubted`), which the node is in once its agent is heard of.
            "script-client" | "kernel-client" | "initramfs-client" | "agent-client" => return None,
            // Any user of the node can do that; it is neither a sign of life nor a fault of the node.
            "tftp-client" | "nfs-client" => return None,
            "dhcp-first" if self.past(State::Loading) || self.state == State::Lost => return None,
            // So can a relay, for any node; and a running system does well without DHCP.
            "dhcp-client" if self.past(State::Starting) => return None,
            _ => {}
        }
        // Of an event that was repeated, the time between two of them.
        let gap = match event.last {
            Some(last) if event.count > 1 => last.since(event.at) / (event.count - 1),
            _ => at.since(self.heard),
        };
        self.heard = self.heard.max(at);
        if event.step == "running" {
            self.go_back_to(&event.boot);
        } else if !self.enter(&event.boot) {
            return None;
        }
        let stalled = self.below.take().map(|below| (below, self.since));
        if let Some((below, _)) = stalled {
            self.state = below;
        }
        self.follow(event, at);
        let (further, sample) = self.note_progress(event, at, gap);
        if let Some((_, since)) = stalled {
            let booting = matches!(
                self.state,
                State::Absent | State::Loading | State::Agent | State::Starting
            );
            if booting && !further {
                self.below = Some(std::mem::replace(&mut self.state, State::Stalled));
                self.since = since;
            } else {
                self.since = at;
            }
        }
        sample
    }

    /// The event of a node that is lost or stalled at `now`, if it is. `listening` is the time from which this daemon could have heard it.
    pub fn overdue(&self, now: Timestamp, listening: Timestamp, heartbeat_secs: u32, pace: &Pace) -> Option<Event> {
        match self.state {
            State::Ready | State::Degraded => {
                let silence = u64::from(heartbeat_secs) * MISSED_HEARTBEATS;
                if now <= self.heard.max(listening).plus_secs(silence) {
                    return None;
                }
                let silent = now.since(self.heard);
                let detail = format!("no heartbeat for {}", duration(silent));
                Some(Event::new(now, "lost", Level::Error, detail).took(silent))
            }
            State::Loading | State::Agent | State::Starting => {
                let progress = self.progress.as_ref()?;
                let due = pace.due(progress.stage)?;
                if now.since(progress.at.max(listening)) <= due {
                    return None;
                }
                let silent = now.since(progress.at);
                // Without its age, which would be that of this moment for ever: who shows it has `took_ms` and the time.
                let causes = progress.stage.likely_causes(&progress.detail);
                let mut detail = format!("{}: {causes}", progress.step);
                if !self.last_error.is_empty() {
                    detail = format!("{detail}; last failure: {}", self.last_error);
                }
                Some(Event::new(now, "stalled", Level::Error, detail).took(silent))
            }
            State::Absent | State::Stalled | State::Lost | State::Waiting => None,
        }
    }

    /// Becomes lost or stalled, as the event says; since `took_ms` before it.
    fn overdue_since(&mut self, event: &Event) {
        let since = Timestamp(event.at.0.saturating_sub(event.took_ms.unwrap_or(0)));
        match (event.step.as_str(), self.state) {
            ("lost", State::Ready | State::Degraded) => {
                self.state = State::Lost;
                self.since = since;
            }
            ("stalled", State::Loading | State::Agent | State::Starting) => {
                self.below = Some(std::mem::replace(&mut self.state, State::Stalled));
                self.since = since;
                self.last_error.clone_from(&event.detail);
            }
            _ => {}
        }
    }

    /// Takes note how far the machine has come. True if that is further than before, with the time in the stage before.
    fn note_progress(&mut self, event: &Event, at: Timestamp, gap: u64) -> (bool, Option<(Stage, u64)>) {
        let Some(stage) = Stage::of(event) else {
            return (false, None);
        };
        let before = self.progress.as_ref().map(|before| (before.stage, before.at));
        let (further, sample) = match before {
            // A running system renews its lease, and the like.
            Some((Stage::Up, _)) if stage < Stage::Up => (self.state == State::Loading, None),
            None => (true, None),
            Some(_) if gap > LOOP_GAP_MS && stage < Stage::Up && stage <= Stage::LoaderRuns => (true, None),
            Some((known, since)) if stage > known => (true, Some((known, at.since(since)))),
            Some((known, _)) => {
                // The step that is told is the last one of the stage; its time is that of the first.
                if stage == known
                    && let Some(progress) = &mut self.progress
                {
                    progress.note(event);
                }
                (false, None)
            }
        };
        if further {
            let mut progress = Progress {
                stage,
                at,
                step: String::new(),
                detail: String::new(),
            };
            progress.note(event);
            self.progress = Some(progress);
        }
        (further, sample)
    }

    fn follow(&mut self, event: &Event, at: Timestamp) {
        match meaning(event) {
            Meaning::Begins => self.go(State::Loading, at),
            Meaning::Loads => {
                // A kernel that is fetched while the agent of the same boot reports: reports overtake each other.
                if event.boot.is_empty() || !self.past(State::Loading) {
                    self.go(State::Loading, at);
                }
            }
            Meaning::MayLoad => {
                if matches!(self.state, State::Absent | State::Lost) {
                    self.go(State::Loading, at);
                }
            }
            Meaning::Agent if !self.past(State::Agent) => self.go(State::Agent, at),
            Meaning::HandsOver if !self.past(State::Starting) => self.go(State::Starting, at),
            // Both say what is missing now; the next heartbeat may say that it is there again.
            Meaning::Ready | Meaning::Heartbeat => {
                self.trouble = match event.level {
                    Level::Ok => String::new(),
                    _ => event.detail.clone(),
                };
                self.up(at);
            }
            Meaning::Agent | Meaning::HandsOver | Meaning::Nothing => {}
        }
        self.complain(event);
    }

    /// A heartbeat without an event of its own.
    pub fn heartbeat(&mut self, at: Timestamp) {
        self.heard = self.heard.max(at);
    }

    /// True if a heartbeat of `boot` that says `trouble` (empty: all is well) changes nothing but the time.
    pub fn expects(&self, boot: &str, trouble: &str) -> bool {
        self.boot == boot && matches!(self.state, State::Ready | State::Degraded) && self.trouble == trouble
    }

    /// Not silent at `at`, though this daemon's memory of its last heartbeat is gone.
    pub fn was_alive(&mut self, at: Timestamp) {
        if matches!(self.state, State::Ready | State::Degraded) {
            self.heard = self.heard.max(at);
        }
    }

    /// Takes in that the clock was set back: nothing was heard at a time that lies ahead, or silence would go unnoticed until that returns.
    pub fn settle(&mut self, now: Timestamp) {
        self.heard = self.heard.min(now);
        self.since = self.since.min(now);
    }

    /// True if `boot` is one that the node counts as having left for another.
    pub(super) fn left(&self, boot: &str) -> bool {
        self.boot != boot && self.seen.iter().any(|seen| seen == boot)
    }

    /// Enters a boot that the node never left: the one since was not its own.
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
        // What comes now is of another boot than the state is: it may go back.
        match self.state {
            State::Loading => {}
            State::Stalled => self.below = Some(State::Absent),
            _ => self.state = State::Absent,
        }
        true
    }

    fn past(&self, state: State) -> bool {
        rank(self.state) > rank(state)
    }

    fn up(&mut self, at: Timestamp) {
        let state = if self.lacks.is_empty() && self.trouble.is_empty() {
            State::Ready
        } else {
            State::Degraded
        };
        self.go(state, at);
        self.last_error = self.missing();
    }

    /// What is missing of a node that is up.
    fn missing(&self) -> String {
        match self.trouble.is_empty() {
            false => self.trouble.clone(),
            true => self.lacks.clone(),
        }
    }

    fn go(&mut self, state: State, at: Timestamp) {
        if self.state != state {
            self.state = state;
            self.since = at;
        }
    }

    fn complain(&mut self, event: &Event) {
        // A drain that failed, and succeeds or is not wanted any more: the node itself had no trouble.
        if event.level == Level::Ok && event.step == "restart" && self.last_error.starts_with("restart: ") {
            self.last_error = self.missing();
        }
        if event.level == Level::Ok || matches!(event.step.as_str(), "heartbeat" | "running" | "ready") {
            return;
        }
        let text = match event.detail.is_empty() {
            true => event.step.clone(),
            false => format!("{}: {}", event.step, event.detail),
        };
        if event.level == Level::Degraded && !event.boot.is_empty() {
            // What follows from the first lack (an overlay without the disk's mounts) says less.
            if self.lacks.is_empty() {
                self.lacks.clone_from(&text);
            }
            if self.state == State::Ready {
                self.go(State::Degraded, event.latest());
            }
        }
        self.last_error = text;
    }
}

/// Progress of a boot.
fn rank(state: State) -> u8 {
    match state {
        State::Absent | State::Waiting | State::Lost | State::Stalled => 0,
        State::Loading => 1,
        State::Agent => 2,
        State::Starting => 3,
        State::Ready | State::Degraded => 4,
    }
}
