//! The transitions of a node's restart, all of them.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> waiting
//!     waiting --> draining : its turn
//!     waiting --> drained : its turn, undrained
//!     waiting --> drained : taken over
//!     waiting --> told : ordered
//!     waiting --> ended : booted by itself
//!     waiting --> ended : not wanted
//!     draining --> drained : drain program ended
//!     draining --> back : booted by itself
//!     draining --> back : not wanted
//!     drained --> told : ordered
//!     drained --> back : booted by itself
//!     drained --> back : not wanted
//!     drained --> late : overdue
//!     told --> back : returned
//!     told --> late : overdue
//!     told --> drained : wanted again
//!     told --> ended : handed over
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
//! From each phase but `ended` a node that is deleted goes to `ended` (`deleted`), which the diagram leaves out.
//! `back` is no phase: it is one of the two that follow it.

use super::End;

/// How far a node is, without what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its turn has not come, or it is not up.
    Waiting,
    /// The drain program is to take it out of service.
    Draining,
    /// It gets the order as soon as it can.
    Drained,
    /// It has the order.
    Told,
    /// Its deadline is over.
    Late,
    /// The resume program is to put it back into service.
    Resuming,
    /// Nothing is left to be done.
    Ended,
}

/// Why a node goes from one phase to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is up, fewer nodes are down than may be, and the site has a drain program.
    Turn,
    /// The same without a drain program, or with `--no-drain`.
    TurnUndrained,
    /// It comes from another request, out of service already.
    TakenOver,
    /// The drain program ended well.
    DrainEnded,
    /// The order to restart goes out.
    Ordered,
    /// It is back from a boot that began after the request, healthy.
    Returned,
    /// The same, though it had no order.
    BootedByItself,
    /// Its deadline is over.
    Overdue,
    /// It was late before it had the order, and is up in the same boot.
    HeardAgain,
    /// It is to restart once more: it restarted and is not healthy, or its rollout gives it another version.
    WantedAgain,
    /// It restarted and is not healthy, and another request takes it.
    HandedOver,
    /// The restart was cancelled or is no longer wanted, before the order went out.
    NotWanted,
    /// It is late, and an administrator cancelled it.
    NotAwaited,
    /// The resume program ended well.
    ResumeEnded,
    /// It was deleted from the inventory.
    Deleted,
}

/// The phase that follows, with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// [`Phase::Waiting`]
    Waiting,
    /// [`Phase::Draining`]
    Draining,
    /// [`Phase::Drained`]
    Drained,
    /// [`Phase::Told`]
    Told,
    /// [`Phase::Late`]; true if it has the order.
    Late(bool),
    /// [`Phase::Resuming`] if it was drained and the site has a resume program, else [`Phase::Ended`].
    Back(End),
    /// [`Phase::Ended`]
    Ended(End),
    /// [`Phase::Ended`], as was decided when it began to resume.
    EndedAsDecided,
}

/// All transitions. What is not here does not happen.
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
        (Drained, Ordered, Goal::Told),
        (Drained, BootedByItself, Goal::Back(End::Unneeded)),
        (Drained, NotWanted, Goal::Back(End::GivenUp)),
        (Drained, Overdue, Goal::Late(false)),
        (Told, Returned, Goal::Back(End::Restarted)),
        (Told, Overdue, Goal::Late(true)),
        (Told, WantedAgain, Goal::Drained),
        (Told, HandedOver, Goal::Ended(End::Unwell)),
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
        (Told, Deleted, Goal::Ended(End::GivenUp)),
        (Late, Deleted, Goal::Ended(End::GivenUp)),
        (Resuming, Deleted, Goal::Ended(End::GivenUp)),
        // A node of an older release's rollout has its order before it is in a request of this one.
        (Waiting, Ordered, Goal::Told),
    ]
};

/// Where `cause` leads from `phase`; none if it leads nowhere.
pub(super) fn goal(phase: Phase, cause: Cause) -> Option<Goal> {
    let found = TRANSITIONS
        .iter()
        .find(|(from, why, _)| (*from, *why) == (phase, cause));
    found.map(|(_, _, goal)| *goal)
}

impl Cause {
    /// As the diagram has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Turn => "its turn",
            Cause::TurnUndrained => "its turn, undrained",
            Cause::TakenOver => "taken over",
            Cause::DrainEnded => "drain program ended",
            Cause::Ordered => "ordered",
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
            Goal::Told => "told",
            Goal::Late(_) => "late",
            Goal::Back(_) => "back",
            Goal::Ended(_) | Goal::EndedAsDecided => "ended",
        };
        format!("{} --> {to} : {}", format!("{phase:?}").to_lowercase(), cause.as_str())
    }

    #[test]
    fn the_diagrams_show_the_transitions_that_there_are() {
        let table: BTreeSet<String> = (TRANSITIONS.iter())
            .filter(|(_, cause, _)| *cause != Cause::Deleted)
            .map(|(phase, cause, goal)| line(*phase, *cause, *goal))
            .collect();
        assert_eq!(table.len(), TRANSITIONS.len() - 6, "none is there twice");
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
        assert_eq!(
            goal(Phase::Told, Cause::NotWanted),
            None,
            "nobody can take an order back"
        );
    }
}
