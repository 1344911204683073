//! Advances a request: boots, time, and turns.

use super::{Cause, End, Member, Programs, Request, Step};
use crate::{Level, Observed, Record, deadline, span};
use rackstrap_base::clock::Timestamp;
use rackstrap_hostlist::NodeSet;

/// Longest time between two runs of a program in seconds, as in `hooks::retry_after`.
const LONGEST_RETRY_SECS: u64 = 600;

/// The input of advancing a request, apart from its nodes.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// The current time.
    pub now: Timestamp,
    /// The site's programs.
    pub programs: Programs,
    /// Number of nodes outside of the request that are down and count towards its limit.
    pub down: usize,
    /// Start of a node's first boot of the rollout's version; none if it has not booted it.
    pub first_boot: &'a dyn Fn(&str) -> Option<Timestamp>,
}

/// The time from which the deadline counts for a node that got its order at `told`. Shutdown and the firmware's own tests may take longer
/// than the boot. A rollout does not count them: it uses the time of the first kernel if there is one.
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
    // Later times belong to boots from before the clock was set back.
    let counts = told..=now;
    let kernel = first.filter(|first| counts.contains(first));
    let begun = observed.begun.iter().copied().filter(|begun| counts.contains(begun));
    kernel.or(begun.min()).unwrap_or(told)
}

impl Request {
    /// Sets future times to now: the clock was set back since, and nothing would be late until they come again. Whether a node has booted
    /// does not depend on times.
    fn settle_clock(&mut self, now: Timestamp) {
        for node in &mut self.nodes {
            node.since = node.since.min(now);
            node.again = node.again.min(now.plus_secs(LONGEST_RETRY_SECS));
        }
    }

    /// Advances its nodes as far as the observations allow. `observe` returns none for a node that was deleted.
    pub fn advance<'o>(&mut self, frame: Frame<'_>, observe: impl Fn(&str) -> Option<&'o Observed>) -> Vec<Record> {
        let mut records = self.evaluate(frame, &observe);
        self.give_turns(frame, &observe, &mut records);
        records
    }

    /// Applies the effects of boots and time.
    pub(crate) fn evaluate<'o>(
        &mut self,
        frame: Frame<'_>,
        observe: impl Fn(&str) -> Option<&'o Observed>,
    ) -> Vec<Record> {
        let now = frame.now;
        self.settle_clock(now);
        let (mut records, mut late) = (Vec::new(), Vec::new());
        let (resumes, of_rollout) = (self.resumes(frame.programs), self.is_of_rollout());
        for index in 0..self.nodes.len() {
            // A late node may be up again: two passes, so that it is not late until the next call and does not take another node's turn.
            for _ in 0..2 {
                let node = &self.nodes[index];
                if node.step.is_over() {
                    break;
                }
                let found = match observe(&node.name) {
                    Some(observed) => self.cause(node, observed, frame),
                    None => Some((Cause::Deleted, "it was deleted")),
                };
                let Some((cause, said)) = found else { break };
                let node = &mut self.nodes[index];
                if !node.follow(cause, resumes, now) {
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
            self.stopped = format!("{nodes} not ready within {within} of the order to restart");
        }
        for node in late {
            let text = match of_rollout {
                true => format!("not ready within {within} of its restart: {}", self.reason),
                false => format!("not ready in time; no more nodes are restarted: {}", self.reason),
            };
            records.push(Record {
                node,
                level: Level::Error,
                text,
            });
        }
        records
    }

    /// The cause that now applies to `node`, with the text for a failure.
    fn cause(&self, node: &Member, observed: &Observed, frame: Frame<'_>) -> Option<(Cause, &'static str)> {
        let (now, within) = (frame.now, u64::from(self.within_secs));
        let booted = self.has_booted(node, observed);
        let cause = match &node.step {
            Step::Waiting if booted => Cause::BootedByItself,
            Step::Draining | Step::Drained if booted && observed.healthy => Cause::BootedByItself,
            Step::Ordered { boot, .. } if observed.boot != *boot && booted && observed.healthy => Cause::Returned,
            Step::Ordered { .. } => {
                let first = (frame.first_boot)(&node.name);
                let from = counts_from(node.since, observed, self.is_of_rollout(), first, now);
                let said = match observed.up && booted {
                    true => "it restarted, and its checks do not hold",
                    false => "it got the order to restart and is not ready again",
                };
                return (now > deadline(from, within)).then_some((Cause::Overdue, said));
            }
            Step::Drained => {
                let heartbeats = 3 * u64::from(frame.programs.heartbeat_secs);
                let said = match observed.up && booted {
                    true => "it booted by itself, and its checks do not hold",
                    false => "it could not get the order to restart, because it sends no heartbeats",
                };
                return (now > deadline(node.since, within + heartbeats)).then_some((Cause::Overdue, said));
            }
            Step::Late { .. } if booted && observed.healthy => Cause::Returned,
            Step::Late { ordered: false } if !booted && observed.up => Cause::HeardAgain,
            _ => return None,
        };
        Some((cause, ""))
    }

    /// Gives turns to nodes, as many as may be down; to none if the request was stopped.
    pub(crate) fn give_turns<'o>(
        &mut self,
        frame: Frame<'_>,
        observe: impl Fn(&str) -> Option<&'o Observed>,
        records: &mut Vec<Record>,
    ) {
        let Frame { now, programs, .. } = frame;
        if !self.stopped.is_empty() {
            self.give_up(|_| true, "other nodes are not ready in time", now, programs, records);
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
            // A node that is not up cannot get an order. When it comes up, it has booted.
            if node.step != Step::Waiting || !observe(&node.name).is_some_and(|observed| observed.up) {
                continue;
            }
            if !node.follow(cause, false, now) {
                continue;
            }
            down += 1;
            records.push(Record {
                node: node.name.clone(),
                level: Level::Ok,
                text: match cause {
                    Cause::Turn => format!("is drained first: {}", self.reason),
                    _ => format!("gets the order with its next heartbeat: {}", self.reason),
                },
            });
        }
    }
}
