//! How a request advances: boots, time, and turns.

use super::{Cause, End, Member, Programs, Request, Step};
use crate::{Level, Note, Observed, deadline, span};
use rackstrap_base::clock::Timestamp;
use rackstrap_hostlist::NodeSet;

/// Longest time between two tries of a program, seconds: that of `hooks::retry_after`.
const LONGEST_RETRY_SECS: u64 = 600;

/// What a request asks when it advances, apart from how its nodes are.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// The present.
    pub now: Timestamp,
    /// The site's programs.
    pub programs: Programs,
    /// Nodes that are down apart from those of the request, and count towards its limit.
    pub down: usize,
    /// When a node's first boot of the rollout's version began; none if it did not.
    pub first_boot: &'a dyn Fn(&str) -> Option<Timestamp>,
}

/// The time from which the deadline of a node counts that got its order at `told`. Shutting down and the firmware's own tests may
/// take longer than the boot: a rollout does not count them, and has the time of the first kernel where there is one.
fn counts_from(
    told: Timestamp,
    observed: &Observed,
    of_rollout: bool,
    first: Option<Timestamp>,
    now: Timestamp,
) -> Timestamp {
    if !of_rollout {
        return told;
    }
    // Times that lie ahead are those of boots from before the clock was set back.
    let counts = told..=now;
    let kernel = first.filter(|first| counts.contains(first));
    let begun = observed.begun.iter().copied().filter(|begun| counts.contains(begun));
    kernel.or(begun.min()).unwrap_or(told)
}

impl Request {
    /// Times that lie ahead are those of a clock that was set back since: they count from now, or nothing would be late until they
    /// return. Whether a node has booted is not decided by times.
    fn settle_clock(&mut self, now: Timestamp) {
        for node in &mut self.nodes {
            node.since = node.since.min(now);
            node.again = node.again.min(now.plus_secs(LONGEST_RETRY_SECS));
        }
    }

    /// Moves its nodes on as far as what is observed allows. `observe` answers none for a node that was deleted.
    pub fn advance<'o>(&mut self, frame: Frame<'_>, observe: impl Fn(&str) -> Option<&'o Observed>) -> Vec<Note> {
        let mut notes = self.look(frame, &observe);
        self.give_turns(frame, &observe, &mut notes);
        notes
    }

    /// What boots and time bring about.
    pub(crate) fn look<'o>(&mut self, frame: Frame<'_>, observe: impl Fn(&str) -> Option<&'o Observed>) -> Vec<Note> {
        let now = frame.now;
        self.settle_clock(now);
        let (mut notes, mut late) = (Vec::new(), Vec::new());
        let (resumes, of_rollout) = (self.resumes(frame.programs), self.is_of_rollout());
        for index in 0..self.nodes.len() {
            // One that is late may be up again: it is not to be late until the next look, and another one's turn until then.
            for _ in 0..2 {
                let node = &self.nodes[index];
                if node.step.is_over() {
                    break;
                }
                let found = match observe(&node.name) {
                    Some(observed) => self.cause(node, observed, frame),
                    None => Some((Cause::Deleted, "it is no node any more")),
                };
                let Some((cause, said)) = found else { break };
                let node = &mut self.nodes[index];
                if !node.go(cause, resumes, now) {
                    break;
                }
                if matches!(node.step, Step::Ended { how: End::Restarted } | Step::Resuming { .. }) {
                    node.said.clear();
                }
                if !said.is_empty() {
                    said.clone_into(&mut node.said);
                }
                if cause == Cause::Overdue {
                    late.push(node.name.clone());
                }
            }
        }
        let within = span(self.within_secs.into());
        if !late.is_empty() && self.stopped.is_empty() && !of_rollout {
            let nodes = late.iter().map(String::as_str).collect::<NodeSet>().fold();
            self.stopped = format!("{nodes} not ready within {within} of being told to restart");
        }
        for node in late {
            let text = match of_rollout {
                true => format!("not ready within {within} of its restart: {}", self.reason),
                false => format!("not ready in time; no more nodes are restarted: {}", self.reason),
            };
            notes.push(Note {
                node,
                level: Level::Error,
                text,
            });
        }
        notes
    }

    /// What moves `node` on now, and what is said of it where that is a failure.
    fn cause(&self, node: &Member, observed: &Observed, frame: Frame<'_>) -> Option<(Cause, &'static str)> {
        let (now, within) = (frame.now, u64::from(self.within_secs));
        let booted = self.has_booted(node, observed);
        let cause = match &node.step {
            Step::Waiting if booted => Cause::BootedByItself,
            Step::Draining | Step::Drained if booted && observed.healthy => Cause::BootedByItself,
            Step::Told { boot, .. } if observed.boot != *boot && booted && observed.healthy => Cause::Returned,
            Step::Told { .. } => {
                let first = (frame.first_boot)(&node.name);
                let from = counts_from(node.since, observed, self.is_of_rollout(), first, now);
                let said = match observed.up && booted {
                    true => "it restarted, and its checks do not hold",
                    false => "it was told to restart and is not ready again",
                };
                return (now > deadline(from, within)).then_some((Cause::Overdue, said));
            }
            Step::Drained => {
                let heartbeats = 3 * u64::from(frame.programs.heartbeat_secs);
                let said = match observed.up && booted {
                    true => "it booted by itself, and its checks do not hold",
                    false => "it could not be told to restart, as it sends no heartbeats",
                };
                return (now > deadline(node.since, within + heartbeats)).then_some((Cause::Overdue, said));
            }
            Step::Late { .. } if booted && observed.healthy => Cause::Returned,
            Step::Late { told: false } if !booted && observed.up => Cause::HeardAgain,
            _ => return None,
        };
        Some((cause, ""))
    }

    /// Gives nodes their turns, as many as may be down; none if the request was stopped.
    pub(crate) fn give_turns<'o>(
        &mut self,
        frame: Frame<'_>,
        observe: impl Fn(&str) -> Option<&'o Observed>,
        notes: &mut Vec<Note>,
    ) {
        let Frame { now, programs, .. } = frame;
        if !self.stopped.is_empty() {
            self.give_up(|_| true, "others are not ready in time", now, programs, notes);
            return;
        }
        let mut down = self.down() + frame.down;
        let cause = match self.drain && programs.drain {
            true => Cause::Turn,
            false => Cause::TurnUndrained,
        };
        for node in &mut self.nodes {
            if down >= self.max_down as usize {
                return;
            }
            // One that is not up cannot be told; when it comes up, it has booted.
            if node.step != Step::Waiting || !observe(&node.name).is_some_and(|observed| observed.up) {
                continue;
            }
            if !node.go(cause, false, now) {
                continue;
            }
            down += 1;
            notes.push(Note {
                node: node.name.clone(),
                level: Level::Ok,
                text: match cause {
                    Cause::Turn => format!("is drained first: {}", self.reason),
                    _ => format!("is told with its next heartbeat: {}", self.reason),
                },
            });
        }
    }
}
