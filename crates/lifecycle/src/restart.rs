//! A request for restarts, and how far each of its nodes is. What is observed comes in; what to record and to run goes out.

mod advance;
mod table;
#[cfg(test)]
mod tests;

pub use advance::Frame;
pub use table::{Cause, Goal, Phase, TRANSITIONS};

use crate::{Level, Note, Observed};
use rackstrap_base::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// An order whose answer was lost is given again after so many milliseconds; the node obeys it once.
const TELL_AGAIN_MS: u64 = 60_000;

/// Nodes to restart, for an administrator or for a rollout, with one limit on how many are down and one deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its id: letters and digits.
    pub id: String,
    /// When it was made.
    pub wanted: Timestamp,
    /// Number of the newest boot of all at that moment: a node has booted since then if its boot has a higher number. Times cannot
    /// tell, as a clock may be set back. None from an older release, which compared times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// The administrator who made it, or `rollout`.
    pub by: String,
    /// The image whose rollout owns it; empty if an administrator made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rollout: String,
    /// Number of the rollout that owns it; 0 if an administrator made it, or an older release.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub number: u64,
    /// Why, for the drain program, the node and its timeline.
    pub reason: String,
    /// How many nodes may be out of service at once, from 1; of a rollout, its own limit as it was looked at last.
    pub max_down: u32,
    /// True if the site's `drain` and `resume` programs are run.
    pub drain: bool,
    /// Seconds within which a node has to be ready again after it got the order. For a rollout they count from the node's first boot
    /// after that: it is the rollout's `ready-within`.
    pub within_secs: u32,
    /// Why no more nodes are restarted; empty if they are.
    #[serde(default)]
    pub stopped: String,
    /// Its nodes, in the order of their turns. The store keeps each in a row of its own.
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
    /// When it came to that step.
    pub since: Timestamp,
    /// As [`Request::after`], if it came later than the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Failed runs of the program that this step waits for.
    #[serde(default)]
    pub failures: u32,
    /// When that program is run again.
    #[serde(default)]
    pub again: Timestamp,
    /// The last failure; empty if there was none.
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
    /// It gets the order to restart as soon as it can: with its next heartbeat.
    Drained,
    /// It has the order.
    Told {
        /// The boot in which it was told.
        boot: String,
        /// When it was told last.
        last: Timestamp,
        /// True once the node answered it.
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
    /// It had no order: the request was cancelled or stopped, or the node was deleted.
    GivenUp,
}

/// What the site file says about restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Programs {
    /// `[hooks] drain`
    pub drain: bool,
    /// `[hooks] resume`
    pub resume: bool,
    /// `[limits] heartbeat`, seconds: a node can be told that often.
    pub heartbeat_secs: u32,
}

/// A program of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// `[hooks] drain`
    Drain,
    /// `[hooks] resume`
    Resume,
}

impl Program {
    /// Its key in the site file.
    pub fn as_str(self) -> &'static str {
        match self {
            Program::Drain => "drain",
            Program::Resume => "resume",
        }
    }
}

impl Step {
    /// True if the node is out of service because of the request, or may be.
    pub fn is_down(&self) -> bool {
        !matches!(self, Step::Waiting | Step::Ended { .. })
    }

    /// True if the node has the order and has not come back.
    pub fn has_order(&self) -> bool {
        matches!(self, Step::Told { .. } | Step::Late { told: true })
    }

    /// True if nothing is left to be done.
    pub fn is_over(&self) -> bool {
        matches!(self, Step::Ended { .. })
    }

    /// True if the node is on its way to the order and does not have it: its restart can still be cancelled.
    pub fn is_untold(&self) -> bool {
        matches!(self, Step::Waiting | Step::Draining | Step::Drained)
    }

    /// The step without what belongs to it.
    pub fn phase(&self) -> Phase {
        match self {
            Step::Waiting => Phase::Waiting,
            Step::Draining => Phase::Draining,
            Step::Drained => Phase::Drained,
            Step::Told { .. } => Phase::Told,
            Step::Late { .. } => Phase::Late,
            Step::Resuming { .. } => Phase::Resuming,
            Step::Ended { .. } => Phase::Ended,
        }
    }

    /// For people, in a word or two.
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
            after: None,
            failures: 0,
            again: Timestamp(0),
            said: String::new(),
        }
    }

    /// Goes where the table says that `cause` leads; `resumes` is true if a node that comes back is resumed. True if it leads anywhere.
    pub fn go(&mut self, cause: Cause, resumes: bool, now: Timestamp) -> bool {
        let back = |how| match resumes {
            true => Step::Resuming { then: how },
            false => Step::Ended { how },
        };
        let Some(goal) = table::goal(self.step.phase(), cause) else {
            return false;
        };
        self.step = match (goal, &self.step) {
            (Goal::Waiting, _) => Step::Waiting,
            (Goal::Draining, _) => Step::Draining,
            (Goal::Drained, _) => Step::Drained,
            (Goal::Told, _) => Step::Told {
                boot: String::new(),
                last: now,
                noted: false,
            },
            (Goal::Late(told), _) => Step::Late { told },
            (Goal::Back(how), _) => back(how),
            (Goal::Ended(how), _) => Step::Ended { how },
            (Goal::EndedAsDecided, Step::Resuming { then }) => Step::Ended { how: *then },
            (Goal::EndedAsDecided, _) => return false,
        };
        self.since = now;
        self.failures = 0;
        self.again = now;
        true
    }

    /// The order to leave `boot` goes out.
    fn order(&mut self, boot: &str, now: Timestamp) -> bool {
        let goes = self.go(Cause::Ordered, false, now);
        if let Step::Told { boot: told, .. } = &mut self.step {
            boot.clone_into(told);
        }
        goes
    }

    /// A node that has its order already: an older release gave it at `asked`, in `boot`.
    pub fn told(name: &str, boot: &str, asked: Timestamp) -> Self {
        let mut member = Member::waiting(name, asked);
        member.order(boot, asked);
        member
    }

    /// The boot in which it got its order; none if it has none.
    pub fn told_in(&self) -> Option<&str> {
        match &self.step {
            Step::Told { boot, .. } => Some(boot),
            _ => None,
        }
    }

    /// Has it restart again, though it has restarted. `after` is the number of the newest boot of all.
    pub(crate) fn want_again(&mut self, after: u64, now: Timestamp) -> bool {
        let goes = self.go(Cause::WantedAgain, false, now);
        if goes {
            self.after = Some(after);
            self.said.clear();
        }
        goes
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Request {
    /// True if nothing is left to be done.
    pub fn is_over(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.step, Step::Ended { .. }))
    }

    /// True if a rollout owns it.
    pub fn is_of_rollout(&self) -> bool {
        !self.rollout.is_empty()
    }

    /// True if the system of a node came up in a boot that began after its restart was wanted.
    fn has_booted(&self, node: &Member, observed: &Observed) -> bool {
        match node.after.or(self.after) {
            Some(after) => observed.sequence > after,
            None => observed.boot_opened > self.wanted,
        }
    }

    /// True if `node`, one of its nodes, has restarted and is up, but not healthy: another restart of it need not wait.
    pub fn is_back_unwell(&self, node: &Member, observed: &Observed) -> bool {
        let restarted = match &node.step {
            Step::Told { boot, .. } => observed.boot != *boot && self.has_booted(node, observed),
            // Also one that was not told in time, and came back by itself.
            Step::Late { .. } => self.has_booted(node, observed),
            _ => false,
        };
        restarted && observed.up && !observed.healthy
    }

    /// Another request has the node in that place from now on, as its `taker`: it was out of service all the time.
    pub fn hand_over(&mut self, place: usize, taker: &mut Member, now: Timestamp) {
        if let Some(node) = self.nodes.get_mut(place)
            && node.go(Cause::HandedOver, false, now)
        {
            node.said = "its checks did not hold".to_owned();
            taker.go(Cause::TakenOver, false, now);
        }
    }

    /// True if a node that comes back is resumed.
    fn resumes(&self, programs: Programs) -> bool {
        self.drain && programs.resume
    }

    /// How many of its nodes are out of service. A rollout does not wait for late ones: it counts failures itself.
    pub fn down(&self) -> usize {
        let waits = |step: &Step| !self.is_of_rollout() || !matches!(step, Step::Late { .. });
        let down = self
            .nodes
            .iter()
            .filter(|node| node.step.is_down() && waits(&node.step));
        down.count()
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
        let resumes = self.resumes(programs);
        let mut any = false;
        for node in self.nodes.iter_mut().filter(|node| which(&node.name)) {
            let was_down = node.step.is_down();
            if !node.go(Cause::NotWanted, resumes, now) {
                continue;
            }
            any = true;
            if was_down {
                notes.push(Note {
                    node: node.name.clone(),
                    level: Level::Ok,
                    text: format!("is not restarted: {why}"),
                });
            }
        }
        any
    }

    /// True if `node` is to be told to leave its boot now, for the first time or because it did not answer.
    pub fn is_due_to_be_told(&self, node: &Member, observed: &Observed, now: Timestamp) -> bool {
        match &node.step {
            Step::Drained => !self.has_booted(node, observed) && !observed.boot.is_empty(),
            Step::Told { boot, last, noted } => {
                !noted && *boot == observed.boot && !now.is_within(TELL_AGAIN_MS, *last)
            }
            _ => false,
        }
    }

    /// True if the node is to be told in this boot, or to be told again; it counts as told from then on.
    pub fn tell(&mut self, name: &str, observed: &Observed, now: Timestamp) -> bool {
        let Some(index) = self.nodes.iter().position(|node| node.name == name) else {
            return false;
        };
        if !self.is_due_to_be_told(&self.nodes[index], observed, now) {
            return false;
        }
        let node = &mut self.nodes[index];
        match &mut node.step {
            Step::Told { last, .. } => {
                *last = now;
                true
            }
            _ => node.order(&observed.boot, now),
        }
    }

    /// The node in that boot answers its order. True the first time.
    pub fn noted(&mut self, name: &str, in_boot: &str) -> bool {
        let node = self.nodes.iter_mut().find(|node| node.name == name);
        match node.map(|node| &mut node.step) {
            Some(Step::Told { boot, noted, .. }) if *boot == in_boot => !std::mem::replace(noted, true),
            _ => false,
        }
    }

    /// Programs to be run now: nodes whose turns came together are drained together; those of which it failed each by itself.
    pub fn due(&self, now: Timestamp, busy: impl Fn(&str) -> bool) -> Vec<(Program, Vec<String>)> {
        let mut jobs: Vec<(Program, Vec<String>)> = Vec::new();
        let mut together = [(Program::Drain, Vec::new()), (Program::Resume, Vec::new())];
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
        program: Program,
        name: &str,
        outcome: &Result<(), String>,
        again: Timestamp,
        now: Timestamp,
    ) -> Option<Note> {
        let node = self.nodes.iter_mut().find(|node| node.name == name)?;
        let cause = match (node.step.phase(), program) {
            (Phase::Draining, Program::Drain) => Cause::DrainEnded,
            (Phase::Resuming, Program::Resume) => Cause::ResumeEnded,
            // Its restart was cancelled meanwhile, or it has booted.
            _ => return None,
        };
        match outcome {
            Ok(()) => {
                node.said.clear();
                node.go(cause, false, now);
                let text = match program {
                    Program::Drain => "drained; is told with its next heartbeat",
                    Program::Resume => "back in service",
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
                node.said = format!("{}: {problem}", program.as_str());
                Some(Note {
                    node: name.to_owned(),
                    level: Level::Retry,
                    text: format!("{}; again in {} s", node.said, again.since(now) / 1000),
                })
            }
        }
    }
}
