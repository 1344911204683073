//! One request: a state machine over its nodes. What is seen of them comes in, what is to be said and run goes out.

use crate::timeline::Level;
use rackstrap_base::clock::Timestamp;
use rackstrap_hostlist::NodeSet;
use serde::{Deserialize, Serialize};

/// An order whose answer was lost is given again after so many milliseconds; the node obeys it once.
const TELL_AGAIN_MS: u64 = 60_000;
/// Longest time between two tries of a program, seconds: that of `hooks::retry_after`.
const LONGEST_RETRY_SECS: u64 = 600;

/// Nodes that somebody wants restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its id: letters and digits.
    pub id: String,
    /// Since when.
    pub wanted: Timestamp,
    /// [`crate::boots::Boots::sequence`] at that moment: a node has booted since then if its boot has a higher number. Times cannot
    /// tell, as a clock may be set back. None from an older release, which compared times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Who wants it.
    pub by: String,
    /// The image whose rollout wants it; empty if a person does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rollout: String,
    /// Why, for the drain program, the node and its timeline.
    pub reason: String,
    /// How many of the nodes may be out of service at once, from 1.
    pub max_down: u32,
    /// True if the site's `drain` and `resume` programs are run.
    pub drain: bool,
    /// Seconds within which a node has to be ready again after it was told. For a rollout they count from the node's first boot
    /// after that, as the rollout counts them.
    pub within_secs: u32,
    /// Why no more nodes are restarted; empty while all is well.
    #[serde(default)]
    pub stopped: String,
    /// Its nodes, in the order in which they have their turns. The store keeps each in a row of its own.
    #[serde(default)]
    pub nodes: Vec<Member>,
}

/// A node of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub step: Step,
    /// Since when.
    pub since: Timestamp,
    /// Failed runs of the program that this step waits for.
    #[serde(default)]
    pub failures: u32,
    /// When that program is run again.
    #[serde(default)]
    pub again: Timestamp,
    /// What went wrong last; empty if nothing did.
    #[serde(default)]
    pub said: String,
}

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Step {
    /// Its turn has not come, or it is not up.
    Waiting,
    /// The drain program is to take it out of service.
    Draining,
    /// Its next heartbeat is answered with the order to restart.
    Drained,
    /// It has the order.
    Told {
        /// The boot in which it was told.
        boot: String,
        /// When it was told last.
        last: Timestamp,
        /// True once the node said what it does about it.
        noted: bool,
    },
    /// It was not ready again in time, or could not be told in time.
    Late {
        /// True if it has the order.
        told: bool,
    },
    /// The resume program is to put it back into service.
    Resuming {
        /// What it is then.
        then: End,
    },
    /// Nothing more is to be done.
    Ended {
        /// How it ended.
        how: End,
    },
}

/// How it ended for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It restarted, and is ready.
    Restarted,
    /// It booted without being told, and so need not be.
    Unneeded,
    /// It came back after its time.
    Late,
    /// It restarted and was not well, and another request restarts it once more.
    Unwell,
    /// It was not told: the request was cancelled or stopped, or it is no node any more.
    GivenUp,
}

/// What is seen of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// True if it is up and sends heartbeats.
    pub up: bool,
    /// The boot that its system came up with last.
    pub boot: String,
    /// When that boot began.
    pub opened: Timestamp,
    /// Its number among all boots, in the order in which they began.
    pub sequence: u64,
    /// True if all its checks hold.
    pub healthy: bool,
    /// When each of its boots began, also of those that never came up; in any order.
    pub begun: Vec<Timestamp>,
}

/// What the site file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Programs {
    /// `[hooks] drain`
    pub drain: bool,
    /// `[hooks] resume`
    pub resume: bool,
    /// `[limits] heartbeat`, seconds: a node can be told that often.
    pub heartbeat_secs: u32,
}

/// Something for a node's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The node.
    pub node: String,
    /// How it is to be taken.
    pub level: Level,
    /// What.
    pub text: String,
}

/// Which program is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `[hooks] drain`
    Drain,
    /// `[hooks] resume`
    Resume,
}

impl Kind {
    /// Its key in the site file.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Drain => "drain",
            Kind::Resume => "resume",
        }
    }
}

impl Step {
    /// True if the node is out of service because of the request, or may be.
    pub fn is_down(&self) -> bool {
        !matches!(self, Step::Waiting | Step::Ended { .. })
    }

    /// True if the node does not have the order and is on its way to it: it can still be left alone.
    pub fn is_untold(&self) -> bool {
        matches!(self, Step::Waiting | Step::Draining | Step::Drained)
    }

    /// In a word or two.
    pub fn as_str(&self) -> &'static str {
        match self {
            Step::Waiting => "waiting",
            Step::Draining => "draining",
            Step::Drained => "drained",
            Step::Told { .. } => "restarting",
            Step::Late { .. } => "late",
            Step::Resuming { .. } => "resuming",
            Step::Ended { how } => match how {
                End::Restarted => "restarted",
                End::Unneeded => "booted by itself",
                End::Late => "restarted, late",
                End::Unwell => "restarted, unwell",
                End::GivenUp => "not restarted",
            },
        }
    }
}

impl Member {
    /// A node whose turn has not come.
    pub fn waiting(name: &str, now: Timestamp) -> Self {
        Member {
            name: name.to_owned(),
            step: Step::Waiting,
            since: now,
            failures: 0,
            again: Timestamp(0),
            said: String::new(),
        }
    }

    fn go(&mut self, step: Step, now: Timestamp) {
        self.step = step;
        self.since = now;
        self.failures = 0;
        self.again = now;
    }
}

/// The time from which a node that was told at `told` has to be ready within the time of the request.
fn counts_from(told: Timestamp, seen: &Seen, of_rollout: bool, now: Timestamp) -> Timestamp {
    // Shutting down and the firmware's own tests may take longer than the boot: a rollout does not count them. Times that lie ahead are
    // those of boots from before the clock was set back.
    let counts = told..=now;
    let boots = seen
        .begun
        .iter()
        .copied()
        .filter(|begun| of_rollout && counts.contains(begun));
    boots.min().unwrap_or(told)
}

/// True if a node's system came up in a boot that began after the request.
fn has_booted(after: Option<u64>, wanted: Timestamp, seen: &Seen) -> bool {
    match after {
        Some(after) => seen.sequence > after,
        None => seen.opened > wanted,
    }
}

impl Request {
    /// True if nothing is left to be done.
    pub fn is_over(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.step, Step::Ended { .. }))
    }

    /// True if `node`, one of its nodes, has restarted and is up, but not well: who wants it restarted once more does not wait.
    pub fn is_back_unwell(&self, node: &Member, seen: &Seen) -> bool {
        let restarted = match &node.step {
            Step::Told { boot, .. } => seen.boot != *boot && has_booted(self.after, self.wanted, seen),
            Step::Late { told } => *told && has_booted(self.after, self.wanted, seen),
            _ => false,
        };
        restarted && seen.up && !seen.healthy
    }

    /// Another request has the node in that place from now on, as its `taker`: it was out of service all the time.
    pub fn hand_over(&mut self, place: usize, taker: &mut Member, now: Timestamp) {
        if let Some(node) = self.nodes.get_mut(place) {
            node.said = "its checks did not hold".to_owned();
            node.go(Step::Ended { how: End::Unwell }, now);
            taker.go(Step::Drained, now);
        }
    }

    /// How many are out of service.
    pub fn down(&self) -> usize {
        self.nodes.iter().filter(|node| node.step.is_down()).count()
    }

    /// Times that lie ahead are those of a clock that was set back since: they count from now, or nothing would be late until they
    /// return. Whether a node has booted is not decided by times.
    fn settle_clock(&mut self, now: Timestamp) {
        for node in &mut self.nodes {
            node.since = node.since.min(now);
            node.again = node.again.min(now.plus_secs(LONGEST_RETRY_SECS));
        }
    }

    /// Goes on as far as what is seen allows. `see` answers none for what is no node any more.
    pub fn advance(&mut self, now: Timestamp, programs: Programs, see: impl Fn(&str) -> Option<Seen>) -> Vec<Note> {
        self.settle_clock(now);
        let mut notes = Vec::new();
        let seen: Vec<Option<Seen>> = self.nodes.iter().map(|node| see(&node.name)).collect();
        let mut late = Vec::new();
        let (after, wanted, within) = (self.after, self.wanted, self.within_secs);
        let resumes = self.drain && programs.resume;
        let of_rollout = !self.rollout.is_empty();
        for (node, seen) in self.nodes.iter_mut().zip(&seen) {
            let Some(seen) = seen else {
                if !matches!(node.step, Step::Ended { .. }) {
                    node.said = "it is no node any more".to_owned();
                    node.go(Step::Ended { how: End::GivenUp }, now);
                }
                continue;
            };
            let booted = has_booted(after, wanted, seen);
            let next = match &node.step {
                Step::Waiting if booted => Some(Step::Ended { how: End::Unneeded }),
                Step::Draining | Step::Drained if booted && seen.healthy => Some(back(End::Unneeded, resumes)),
                Step::Told { boot, .. } if seen.boot != *boot && booted && seen.healthy => {
                    Some(back(End::Restarted, resumes))
                }
                Step::Told { .. } if now > counts_from(node.since, seen, of_rollout, now).plus_secs(within.into()) => {
                    late.push(node.name.clone());
                    node.said = match seen.up && booted {
                        true => "it restarted, and its checks do not hold".to_owned(),
                        false => "it was told to restart and is not ready again".to_owned(),
                    };
                    Some(Step::Late { told: true })
                }
                Step::Drained
                    if now
                        > node
                            .since
                            .plus_secs(u64::from(within) + 3 * u64::from(programs.heartbeat_secs)) =>
                {
                    late.push(node.name.clone());
                    node.said = match seen.up && booted {
                        true => "it booted by itself, and its checks do not hold".to_owned(),
                        false => "it could not be told to restart, as it sends no heartbeats".to_owned(),
                    };
                    Some(Step::Late { told: false })
                }
                Step::Late { .. } if booted && seen.healthy => Some(back(End::Late, resumes)),
                Step::Late { told: false } if !booted && seen.up => Some(back(End::GivenUp, resumes)),
                _ => None,
            };
            if let Some(step) = next {
                if matches!(step, Step::Ended { how: End::Restarted } | Step::Resuming { .. }) {
                    node.said.clear();
                }
                node.go(step, now);
            }
        }
        let span = humantime::format_duration(std::time::Duration::from_secs(within.into()));
        if !late.is_empty() && self.stopped.is_empty() {
            let nodes = late.iter().map(String::as_str).collect::<NodeSet>().fold();
            self.stopped = format!("{nodes} not ready within {span} of being told to restart");
        }
        for node in &late {
            let text = match of_rollout {
                true => format!("not ready within {span} of its restart: {}", self.reason),
                false => format!("not ready in time; no more nodes are restarted: {}", self.reason),
            };
            notes.push(Note {
                node: node.clone(),
                level: Level::Error,
                text,
            });
        }
        match self.stopped.is_empty() {
            true => self.next_turns(now, programs, &seen, &mut notes),
            false => drop(self.give_up(|_| true, "others are not ready in time", now, programs, &mut notes)),
        }
        notes
    }

    /// Gives nodes their turns, as many as may be down.
    fn next_turns(&mut self, now: Timestamp, programs: Programs, seen: &[Option<Seen>], notes: &mut Vec<Note>) {
        let mut down = self.down();
        let drains = self.drain && programs.drain;
        for (node, seen) in self.nodes.iter_mut().zip(seen) {
            if down >= self.max_down as usize {
                return;
            }
            // One that is not up cannot be told; when it comes up, it has booted.
            if node.step != Step::Waiting || !seen.as_ref().is_some_and(|seen| seen.up) {
                continue;
            }
            down += 1;
            node.go(if drains { Step::Draining } else { Step::Drained }, now);
            notes.push(Note {
                node: node.name.clone(),
                level: Level::Ok,
                text: match drains {
                    true => format!("is drained first: {}", self.reason),
                    false => format!("is told with its next heartbeat: {}", self.reason),
                },
            });
        }
    }

    /// Does not restart those that `which` means and that were not told yet; true if there were any.
    pub fn give_up(
        &mut self,
        which: impl Fn(&str) -> bool,
        why: &str,
        now: Timestamp,
        programs: Programs,
        notes: &mut Vec<Note>,
    ) -> bool {
        let resumes = self.drain && programs.resume;
        let mut any = false;
        for node in self.nodes.iter_mut().filter(|node| which(&node.name)) {
            match node.step {
                Step::Waiting => node.go(Step::Ended { how: End::GivenUp }, now),
                Step::Draining | Step::Drained => {
                    node.go(back(End::GivenUp, resumes), now);
                    notes.push(Note {
                        node: node.name.clone(),
                        level: Level::Ok,
                        text: format!("is not restarted: {why}"),
                    });
                }
                _ => continue,
            }
            any = true;
        }
        any
    }

    /// True if the node is to be told in this boot, or to be told again; it counts as told from then on.
    pub fn tell(&mut self, name: &str, seen: &Seen, now: Timestamp) -> bool {
        let booted = has_booted(self.after, self.wanted, seen);
        let Some(node) = self.nodes.iter_mut().find(|node| node.name == name) else {
            return false;
        };
        match &mut node.step {
            Step::Drained if !booted => {
                let told = Step::Told {
                    boot: seen.boot.clone(),
                    last: now,
                    noted: false,
                };
                node.go(told, now);
                true
            }
            Step::Told {
                boot,
                last,
                noted: false,
            } if *boot == seen.boot && !now.is_within(TELL_AGAIN_MS, *last) => {
                *last = now;
                true
            }
            _ => false,
        }
    }

    /// The node in that boot does something about its order. True the first time.
    pub fn noted(&mut self, name: &str, in_boot: &str) -> bool {
        let node = self.nodes.iter_mut().find(|node| node.name == name);
        match node.map(|node| &mut node.step) {
            Some(Step::Told { boot, noted, .. }) if *boot == in_boot => !std::mem::replace(noted, true),
            _ => false,
        }
    }

    /// Programs to be run now: nodes whose turns came together are drained together; those of which it failed each by itself.
    pub fn due(&self, now: Timestamp, busy: impl Fn(&str) -> bool) -> Vec<(Kind, Vec<String>)> {
        let mut jobs: Vec<(Kind, Vec<String>)> = Vec::new();
        let mut together = [(Kind::Drain, Vec::new()), (Kind::Resume, Vec::new())];
        for node in self.nodes.iter().filter(|node| node.again <= now && !busy(&node.name)) {
            let slot = match node.step {
                Step::Draining => 0,
                Step::Resuming { .. } => 1,
                _ => continue,
            };
            match node.failures {
                0 => together[slot].1.push(node.name.clone()),
                _ => jobs.push((together[slot].0, vec![node.name.clone()])),
            }
        }
        jobs.extend(together.into_iter().filter(|(_, nodes)| !nodes.is_empty()));
        jobs
    }

    /// A program has ended for a node; `outcome` is what went wrong, and when it is run again.
    pub fn ran(
        &mut self,
        kind: Kind,
        name: &str,
        outcome: &Result<(), String>,
        again: Timestamp,
        now: Timestamp,
    ) -> Option<Note> {
        let node = self.nodes.iter_mut().find(|node| node.name == name)?;
        let next = match (&node.step, kind) {
            (Step::Draining, Kind::Drain) => Step::Drained,
            (Step::Resuming { then }, Kind::Resume) => Step::Ended { how: *then },
            // It was given up meanwhile, or has booted.
            _ => return None,
        };
        match outcome {
            Ok(()) => {
                node.said.clear();
                node.go(next, now);
                let text = match kind {
                    Kind::Drain => "drained; is told with its next heartbeat",
                    Kind::Resume => "back in service",
                };
                Some(Note {
                    node: name.to_owned(),
                    level: Level::Ok,
                    text: text.to_owned(),
                })
            }
            Err(problem) => {
                node.failures = node.failures.saturating_add(1);
                node.again = again;
                node.said = format!("{}: {problem}", kind.as_str());
                Some(Note {
                    node: name.to_owned(),
                    level: Level::Retry,
                    text: format!("{}; again in {} s", node.said, again.since(now) / 1000),
                })
            }
        }
    }
}

/// A node is back, or stays: into service with it, if there is a program for that.
fn back(how: End, resumes: bool) -> Step {
    match resumes {
        true => Step::Resuming { then: how },
        false => Step::Ended { how },
    }
}
