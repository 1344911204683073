//! Answers about restarts.

use crate::api::{
    RestartEnd, RestartNode, RestartRow, RestartStep, RestartWish, RestartsCancelled, RestartsWanted, RestartsWithdrawn,
};
use rackstrap_registries::restart::{Cancelled, End, Member, Request, Step, Want, Wanted, Withdrawn};

impl From<Request> for RestartRow {
    fn from(request: Request) -> Self {
        RestartRow {
            id: request.id,
            wanted: request.wanted,
            after: request.after,
            by: request.by,
            rollout: request.rollout,
            number: request.number,
            reason: request.reason,
            max_down: request.max_down,
            drain: request.drain,
            within_secs: request.within_secs,
            stopped: request.stopped,
            nodes: request.nodes.into_iter().map(RestartNode::from).collect(),
        }
    }
}

impl From<Member> for RestartNode {
    fn from(member: Member) -> Self {
        RestartNode {
            name: member.name,
            step: RestartStep::from(member.step),
            since: member.since,
            after: member.after,
            failures: member.failures,
            again: member.again,
            said: member.said,
        }
    }
}

impl From<Step> for RestartStep {
    fn from(step: Step) -> Self {
        match step {
            Step::Waiting => RestartStep::Waiting,
            Step::Draining => RestartStep::Draining,
            Step::Drained => RestartStep::Drained,
            Step::Ordered {
                boot,
                last,
                acknowledged,
            } => RestartStep::Told {
                boot,
                last,
                noted: acknowledged,
            },
            Step::Late { ordered } => RestartStep::Late { told: ordered },
            Step::Resuming { then } => RestartStep::Resuming { then: then.into() },
            Step::Ended { how } => RestartStep::Ended { how: how.into() },
        }
    }
}

impl From<End> for RestartEnd {
    fn from(end: End) -> Self {
        match end {
            End::Restarted => RestartEnd::Restarted,
            End::Unneeded => RestartEnd::Unneeded,
            End::Late => RestartEnd::Late,
            End::Unwell => RestartEnd::Unwell,
            End::GivenUp => RestartEnd::GivenUp,
        }
    }
}

impl RestartWish {
    /// The request, with `by` as its author.
    pub fn of(self, by: String) -> Want {
        Want {
            reason: match self.reason.is_empty() {
                true => format!("restart requested by {by}"),
                false => self.reason,
            },
            nodes: self.nodes,
            max_down: self.max_down,
            drain: self.drain,
            within_secs: self.within_secs,
            by,
        }
    }
}

impl From<Wanted> for RestartsWanted {
    fn from(wanted: Wanted) -> Self {
        RestartsWanted {
            id: wanted.id,
            nodes: wanted.nodes,
            already: wanted.already,
            not_up: wanted.not_up,
            drained: wanted.drained,
        }
    }
}

impl From<Cancelled> for RestartsCancelled {
    fn from(cancelled: Cancelled) -> Self {
        RestartsCancelled {
            cancelled: cancelled.cancelled,
            told: cancelled.told,
            none: cancelled.none,
        }
    }
}

impl From<Withdrawn> for RestartsWithdrawn {
    fn from(withdrawn: Withdrawn) -> Self {
        RestartsWithdrawn {
            cancelled: withdrawn.cancelled,
            told: withdrawn.told,
        }
    }
}
