//! All transitions of a node's restart.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> waiting
//!     waiting --> draining : its turn
//!     waiting --> drained : its turn, undrained
//!     waiting --> drained : taken over
//!     waiting --> ordered : order sent
//!     waiting --> ended : booted by itself
//!     waiting --> ended : not wanted
//!     draining --> drained : drain program ended
//!     draining --> back : booted by itself
//!     draining --> back : not wanted
//!     drained --> ordered : order sent
//!     drained --> back : booted by itself
//!     drained --> back : not wanted
//!     drained --> late : overdue
//!     ordered --> back : returned
//!     ordered --> late : overdue
//!     ordered --> drained : wanted again
//!     ordered --> ended : handed over
//!     late --> back : returned
//!     late --> back : heard again
//!     late --> drained : wanted again
//!     late --> ended : handed over
//!     late --> ended : not awaited
//!     back --> resuming : it was drained, and there is a resume program
//!     back --> ended : otherwise
//!     resuming --> ended : resume program ended
//!     ended --> waiting : wanted again
//!     ended --> [*]
//! ```
//!
//! From each phase except `ended`, a node that is deleted goes to `ended` (`deleted`), which the diagram omits.
//! `back` is not a phase: it stands for one of the two that follow it.

use super::End;

/// The progress of a node, without further fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its turn has not come, or it is not up.
    Waiting,
    /// The drain program takes it out of service.
    Draining,
    /// It gets the order with its next heartbeat.
    Drained,
    /// It has the order.
    Ordered,
    /// Its deadline has passed.
    Late,
    /// The resume program puts it back into service.
    Resuming,
    /// The restart is over.
    Ended,
}

/// Why a node changes its phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is up, fewer nodes are down than allowed, and the site has a drain program.
    Turn,
    /// The same without a drain program, or with `--no-drain`.
    TurnUndrained,
    /// It comes from another request, and is already out of service.
    TakenOver,
    /// The drain program succeeded.
    DrainEnded,
    /// The order to restart is sent.
    OrderSent,
    /// It is back in a boot that began after the request, and healthy.
    Returned,
    /// The same, though it had no order.
    BootedByItself,
    /// Its deadline has passed.
    Overdue,
    /// It was late before it got the order, and is up in the same boot.
    HeardAgain,
    /// It restarts again: it restarted and is not healthy, or its rollout gives it another version.
    WantedAgain,
    /// It restarted and is not healthy, and another request takes it over.
    HandedOver,
    /// The restart was cancelled or is no longer needed, before the order was sent.
    NotWanted,
    /// It is late, and an administrator cancelled its restart.
    NotAwaited,
    /// The resume program succeeded.
    ResumeEnded,
    /// It was deleted from the inventory.
    Deleted,
}

/// The next phase, with its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// [`Phase::Waiting`]
    Waiting,
    /// [`Phase::Draining`]
    Draining,
    /// [`Phase::Drained`]
    Drained,
    /// [`Phase::Ordered`]
    Ordered,
    /// [`Phase::Late`]; true if it has the order.
    Late(bool),
    /// [`Phase::Resuming`] if it was drained and the site has a resume program, else [`Phase::Ended`].
    Back(End),
    /// [`Phase::Ended`]
    Ended(End),
    /// [`Phase::Ended`], with the result that was decided when it began to resume.
    EndedAsDecided,
}

/// All transitions. Others do not happen.
pub const TRANSITIONS: [(Phase, Cause, Goal); 30] = {
    use {Cause::*, Phase::*};
    [
        (Waiting, Turn, Goal::Draining),
        (Waiting, TurnUndrained, Goal::Drained),
        (Waiting, TakenOver, Goal::Drained),
        (Waiting, BootedByItself, Goal::Ended(End::Unneeded)),
        (Waiting, NotWanted, Goal::Ended(End::GivenUp)),
        (Draining, DrainEnded, Goal::Drained),
        (Draining, BootedByItself, Goal::Back(End::Unneeded)),
        (Draining, NotWanted, Goal::Back(End::GivenUp)),
        (Drained, OrderSent, Goal::Ordered),
        (Drained, BootedByItself, Goal::Back(End::Unneeded)),
        (Drained, NotWanted, Goal::Back(End::GivenUp)),
        (Drained, Overdue, Goal::Late(false)),
        (Ordered, Returned, Goal::Back(End::Restarted)),
        (Ordered, Overdue, Goal::Late(true)),
        (Ordered, WantedAgain, Goal::Drained),
        (Ordered, HandedOver, Goal::Ended(End::Unwell)),
        (Late, Returned, Goal::Back(End::Late)),
        (Late, HeardAgain, Goal::Back(End::GivenUp)),
        (Late, WantedAgain, Goal::Drained),
        (Late, HandedOver, Goal::Ended(End::Unwell)),
        (Late, NotAwaited, Goal::Ended(End::GivenUp)),
        (Resuming, ResumeEnded, Goal::EndedAsDecided),
        (Ended, WantedAgain, Goal::Waiting),
        (Waiting, Deleted, Goal::Ended(End::GivenUp)),
        (Draining, Deleted, Goal::Ended(End::GivenUp)),
        (Drained, Deleted, Goal::Ended(End::GivenUp)),
        (Ordered, Deleted, Goal::Ended(End::GivenUp)),
        (Late, Deleted, Goal::Ended(End::GivenUp)),
        (Resuming, Deleted, Goal::Ended(End::GivenUp)),
        // A node of an older release's rollout has its order before it is in a request of this release.
        (Waiting, OrderSent, Goal::Ordered),
    ]
};

/// The goal of `cause` in `phase`; none if there is no transition.
pub(super) fn goal(phase: Phase, cause: Cause) -> Option<Goal> {
    let found = TRANSITIONS
        .iter()
        .find(|(from, why, _)| (*from, *why) == (phase, cause));
    found.map(|(_, _, goal)| *goal)
}

impl Cause {
    /// The text in the diagram.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Turn => "its turn",
            Cause::TurnUndrained => "its turn, undrained",
            Cause::TakenOver => "taken over",
            Cause::DrainEnded => "drain program ended",
            Cause::OrderSent => "order sent",
            Cause::Returned => "returned",
            Cause::BootedByItself => "booted by itself",
            Cause::Overdue => "overdue",
            Cause::HeardAgain => "heard again",
            Cause::WantedAgain => "wanted again",
            Cause::HandedOver => "handed over",
            Cause::NotWanted => "not wanted",
            Cause::NotAwaited => "not awaited",
            Cause::ResumeEnded => "resume program ended",
            Cause::Deleted => "deleted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn line(phase: Phase, cause: Cause, goal: Goal) -> String {
        let to = match goal {
            Goal::Waiting => "waiting",
            Goal::Draining => "draining",
            Goal::Drained => "drained",
            Goal::Ordered => "ordered",
            Goal::Late(_) => "late",
            Goal::Back(_) => "back",
            Goal::Ended(_) | Goal::EndedAsDecided => "ended",
        };
        format!("{} --> {to} : {}", format!("{phase:?}").to_lowercase(), cause.as_str())
    }

    #[test]
    fn the_diagrams_show_exactly_the_transitions() {
        let table: BTreeSet<String> = (TRANSITIONS.iter())
            .filter(|(_, cause, _)| *cause != Cause::Deleted)
            .map(|(phase, cause, goal)| line(*phase, *cause, *goal))
            .collect();
        assert_eq!(table.len(), TRANSITIONS.len() - 6, "a transition is a duplicate");
        for text in [
            include_str!("table.rs"),
            include_str!("../../../../docs/contributing/planner.md"),
        ] {
            let lines = text.lines().take_while(|line| !line.contains("mod tests"));
            let diagram: BTreeSet<String> = lines
                .map(|line| line.trim_start_matches("//!").trim())
                .filter(|line| line.contains(" --> ") && !line.starts_with("back") && !line.contains("[*]"))
                .map(str::to_owned)
                .collect();
            assert_eq!(diagram, table);
        }
    }

    #[test]
    fn each_phase_and_cause_lead_to_one_goal() {
        for (phase, cause, to) in TRANSITIONS {
            let same = TRANSITIONS.iter().filter(|other| (other.0, other.1) == (phase, cause));
            assert_eq!((same.count(), goal(phase, cause)), (1, Some(to)), "{phase:?} {cause:?}");
        }
        assert_eq!(goal(Phase::Ordered, Cause::NotWanted), None, "an order is taken back");
    }
}
