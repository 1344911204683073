//! A request for restarts, and the progress of each of its nodes. It gets observations, and returns records and programs to run.

mod advance;
mod table;
#[cfg(test)]
mod tests;

pub use advance::Frame;
pub use table::{Cause, Goal, Phase, TRANSITIONS};

use crate::{Level, Observed, Record};
use rackstrap_base::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// An order without an answer is repeated after this many milliseconds; the node restarts once.
const REPEAT_ORDER_MS: u64 = 60_000;

/// Nodes to restart, for an administrator or for a rollout, with one limit on nodes that are down and one deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its id: letters and digits.
    pub id: String,
    /// Time of the request.
    pub wanted: Timestamp,
    /// Number of the newest boot of all nodes at that time: a node has booted since if its boot has a higher number. Times are not reliable,
    /// because a clock may be set back. None from an older release, which compared times.
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
    /// The reason, for the drain program, the node and its timeline.
    pub reason: String,
    /// Most nodes that may be out of service at once, from 1. For a rollout it is updated from the rollout's own limit.
    pub max_down: u32,
    /// Whether the site's `drain` and `resume` programs run.
    pub drain: bool,
    /// Seconds from the order until a node has to be ready again. For a rollout they count from the node's first boot after the order,
    /// and are the rollout's `ready-within`.
    pub within_secs: u32,
    /// Why no further nodes are restarted; empty if they are.
    #[serde(default)]
    pub stopped: String,
    /// Its nodes, in the order of their turns. The store keeps each in its own row.
    #[serde(default)]
    pub nodes: Vec<Member>,
}

/// A node of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its progress.
    pub step: Step,
    /// Time at which it reached that step.
    pub since: Timestamp,
    /// Like [`Request::after`], for a node that was added later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Failed runs of the program for which this step waits.
    #[serde(default)]
    pub failures: u32,
    /// Time of that program's next run.
    #[serde(default)]
    pub again: Timestamp,
    /// The last failure; empty if there was none.
    #[serde(default)]
    pub said: String,
}

/// The progress of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Step {
    /// Its turn has not come, or it is not up.
    Waiting,
    /// The drain program takes it out of service.
    Draining,
    /// It gets the order to restart with its next heartbeat.
    Drained,
    /// It has the order.
    #[serde(rename = "told")]
    Ordered {
        /// The boot in which it got the order.
        boot: String,
        /// Time of the last order.
        last: Timestamp,
        /// Whether the node has acknowledged it.
        #[serde(rename = "noted")]
        acknowledged: bool,
    },
    /// It was not ready again in time, or could not get the order in time.
    Late {
        /// Whether it has the order.
        #[serde(rename = "told")]
        ordered: bool,
    },
    /// The resume program puts it back into service.
    Resuming {
        /// The end after that.
        then: End,
    },
    /// The restart is over.
    Ended {
        /// The result.
        how: End,
    },
}

/// The result of a restart for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It restarted, and is ready.
    Restarted,
    /// It booted without an order, so it needs none.
    Unneeded,
    /// It came back after the deadline.
    Late,
    /// It restarted and is not healthy, and another request restarts it again.
    Unwell,
    /// It had no order: the request was cancelled or stopped, or the node was deleted.
    GivenUp,
}

/// The settings of the site file for restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Programs {
    /// `[hooks] drain`
    pub drain: bool,
    /// `[hooks] resume`
    pub resume: bool,
    /// `[limits] heartbeat` in seconds: a node can get an order that often.
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
    /// True if the request has, or may have, taken the node out of service.
    pub fn is_down(&self) -> bool {
        !matches!(self, Step::Waiting | Step::Ended { .. })
    }

    /// True if the node has the order and has not come back.
    pub fn has_order(&self) -> bool {
        matches!(self, Step::Ordered { .. } | Step::Late { ordered: true })
    }

    /// True if the restart is over.
    pub fn is_over(&self) -> bool {
        matches!(self, Step::Ended { .. })
    }

    /// True if the node will get the order and does not have it yet: its restart can still be cancelled.
    pub fn awaits_order(&self) -> bool {
        matches!(self, Step::Waiting | Step::Draining | Step::Drained)
    }

    /// The step without its fields.
    pub fn phase(&self) -> Phase {
        match self {
            Step::Waiting => Phase::Waiting,
            Step::Draining => Phase::Draining,
            Step::Drained => Phase::Drained,
            Step::Ordered { .. } => Phase::Ordered,
            Step::Late { .. } => Phase::Late,
            Step::Resuming { .. } => Phase::Resuming,
            Step::Ended { .. } => Phase::Ended,
        }
    }

    /// The text for people, in a word or two.
    pub fn as_str(&self) -> &'static str {
        match self {
            Step::Waiting => "waiting",
            Step::Draining => "draining",
            Step::Drained => "drained",
            Step::Ordered { .. } => "restarting",
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

    /// Follows the transition for `cause`; `resumes` is true if a node that comes back is resumed. Returns false if there is no transition.
    pub fn follow(&mut self, cause: Cause, resumes: bool, now: Timestamp) -> bool {
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
            (Goal::Ordered, _) => Step::Ordered {
                boot: String::new(),
                last: now,
                acknowledged: false,
            },
            (Goal::Late(ordered), _) => Step::Late { ordered },
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

    /// Records that the order to leave `boot` is sent.
    fn order(&mut self, boot: &str, now: Timestamp) -> bool {
        let moved = self.follow(Cause::OrderSent, false, now);
        if let Step::Ordered { boot: ordered, .. } = &mut self.step {
            boot.clone_into(ordered);
        }
        moved
    }

    /// A node that already has its order: an older release sent it at `asked`, in `boot`.
    pub fn with_order(name: &str, boot: &str, asked: Timestamp) -> Self {
        let mut member = Member::waiting(name, asked);
        member.order(boot, asked);
        member
    }

    /// The boot in which it got its order; none if it has none.
    pub fn ordered_in(&self) -> Option<&str> {
        match &self.step {
            Step::Ordered { boot, .. } => Some(boot),
            _ => None,
        }
    }

    /// Makes a node restart again that has restarted. `after` is the number of the newest boot of all nodes.
    pub(crate) fn want_again(&mut self, after: u64, now: Timestamp) -> bool {
        let moved = self.follow(Cause::WantedAgain, false, now);
        if moved {
            self.after = Some(after);
            self.said.clear();
        }
        moved
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Request {
    /// True if the restarts of all nodes are over.
    pub fn is_over(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.step, Step::Ended { .. }))
    }

    /// The index of the node's member whose restart is not over.
    pub fn open_member(&self, node: &str) -> Option<usize> {
        let open = |member: &Member| member.name == node && !member.step.is_over();
        self.nodes.iter().position(open)
    }

    /// True if a rollout owns it.
    pub fn is_of_rollout(&self) -> bool {
        !self.rollout.is_empty()
    }

    /// True if the system of a node came up in a boot that began after the request.
    fn has_booted(&self, node: &Member, observed: &Observed) -> bool {
        match node.after.or(self.after) {
            Some(after) => observed.sequence > after,
            None => observed.boot_opened > self.wanted,
        }
    }

    /// True if `node` has restarted and is up, but not healthy: another restart of it need not wait.
    pub fn is_back_unwell(&self, node: &Member, observed: &Observed) -> bool {
        let restarted = match &node.step {
            Step::Ordered { boot, .. } => observed.boot != *boot && self.has_booted(node, observed),
            // This may be a node that did not get its order in time, and came back by itself.
            Step::Late { .. } => self.has_booted(node, observed),
            _ => false,
        };
        restarted && observed.up && !observed.healthy
    }

    /// Moves the node at `place` to another request, as its `taker`. It was out of service all the time.
    pub fn hand_over(&mut self, place: usize, taker: &mut Member, now: Timestamp) {
        if let Some(node) = self.nodes.get_mut(place)
            && node.follow(Cause::HandedOver, false, now)
        {
            node.said = "its checks did not hold".to_owned();
            taker.follow(Cause::TakenOver, false, now);
        }
    }

    /// True if a node that comes back is resumed.
    fn resumes(&self, programs: Programs) -> bool {
        self.drain && programs.resume
    }

    /// Number of nodes that are out of service. For a rollout, late ones do not count, because the rollout counts failures itself.
    pub fn down(&self) -> usize {
        let waits = |step: &Step| !self.is_of_rollout() || !matches!(step, Step::Late { .. });
        let down = self
            .nodes
            .iter()
            .filter(|node| node.step.is_down() && waits(&node.step));
        down.count()
    }

    /// Cancels the restarts of nodes that `which` selects and that have no order yet. Returns true if there were any.
    pub fn give_up(
        &mut self,
        which: impl Fn(&str) -> bool,
        why: &str,
        now: Timestamp,
        programs: Programs,
        records: &mut Vec<Record>,
    ) -> bool {
        let resumes = self.resumes(programs);
        let mut any = false;
        for node in self.nodes.iter_mut().filter(|node| which(&node.name)) {
            let was_down = node.step.is_down();
            if !node.follow(Cause::NotWanted, resumes, now) {
                continue;
            }
            any = true;
            if was_down {
                records.push(Record {
                    node: node.name.clone(),
                    level: Level::Ok,
                    text: format!("is not restarted: {why}"),
                });
            }
        }
        any
    }

    /// True if `node` should get its order now, for the first time or because it did not acknowledge it.
    pub fn is_order_due(&self, node: &Member, observed: &Observed, now: Timestamp) -> bool {
        match &node.step {
            Step::Drained => !self.has_booted(node, observed) && !observed.boot.is_empty(),
            Step::Ordered {
                boot,
                last,
                acknowledged,
            } => !acknowledged && *boot == observed.boot && !now.is_within(REPEAT_ORDER_MS, *last),
            _ => false,
        }
    }

    /// Returns true if the node should get its order in this boot, also again. It has the order from then on.
    pub fn give_order(&mut self, name: &str, observed: &Observed, now: Timestamp) -> bool {
        let Some(index) = self.nodes.iter().position(|node| node.name == name) else {
            return false;
        };
        if !self.is_order_due(&self.nodes[index], observed, now) {
            return false;
        }
        let node = &mut self.nodes[index];
        match &mut node.step {
            Step::Ordered { last, .. } => {
                *last = now;
                true
            }
            _ => node.order(&observed.boot, now),
        }
    }

    /// Records that the node in that boot acknowledges its order. True the first time.
    pub fn acknowledge(&mut self, name: &str, in_boot: &str) -> bool {
        let node = self.nodes.iter_mut().find(|node| node.name == name);
        match node.map(|node| &mut node.step) {
            Some(Step::Ordered { boot, acknowledged, .. }) if *boot == in_boot => {
                !std::mem::replace(acknowledged, true)
            }
            _ => false,
        }
    }

    /// Programs to run now. Nodes whose turns came together are drained together; nodes for which it failed, each by itself.
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

    /// A program has ended for a node. `outcome` is its failure, and the time of its next run.
    pub fn ran(
        &mut self,
        program: Program,
        name: &str,
        outcome: &Result<(), String>,
        again: Timestamp,
        now: Timestamp,
    ) -> Option<Record> {
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
                node.follow(cause, false, now);
                let text = match program {
                    Program::Drain => "drained; gets the order with its next heartbeat",
                    Program::Resume => "back in service",
                };
                Some(Record {
                    node: name.to_owned(),
                    level: Level::Ok,
                    text: text.to_owned(),
                })
            }
            Err(problem) => {
                node.failures = node.failures.saturating_add(1);
                node.again = again;
                node.said = format!("{}: {problem}", program.as_str());
                Some(Record {
                    node: name.to_owned(),
                    level: Level::Retry,
                    text: format!("{}; again in {} s", node.said, again.since(now) / 1000),
                })
            }
        }
    }
}
