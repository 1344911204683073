//! Answers about rollouts and current versions.

use crate::api::{
    CurrentVersion, RenameImage, RenameImageStep, RolloutAnswer, RolloutNode, RolloutNodeState, RolloutPace,
    RolloutRemark, RolloutStage, RolloutTally, RolloutWish,
};
use rackstrap_model::decide::{Current, RenameStep, Renaming};
use rackstrap_registries::rollout::{Member, Pace, Rollout, Stage, State, Wish};
use rackstrap_wire::ImageRef;

impl From<Current> for CurrentVersion {
    fn from(current: Current) -> Self {
        CurrentVersion {
            image: current.image,
            before: current.before,
            since: current.since,
            by: current.by,
        }
    }
}

impl From<RenameImage> for Renaming {
    fn from(asked: RenameImage) -> Self {
        Renaming {
            old: asked.old,
            new: asked.new,
            step: match asked.step {
                RenameImageStep::Begin => RenameStep::Begin,
                RenameImageStep::Done => RenameStep::Done,
                RenameImageStep::Failed => RenameStep::Failed,
            },
        }
    }
}

/// For `image rename`, which changes the store itself if no daemon runs.
impl From<&Renaming> for RenameImage {
    fn from(renaming: &Renaming) -> Self {
        RenameImage {
            old: renaming.old.clone(),
            new: renaming.new.clone(),
            step: match renaming.step {
                RenameStep::Begin => RenameImageStep::Begin,
                RenameStep::Done => RenameImageStep::Done,
                RenameStep::Failed => RenameImageStep::Failed,
            },
        }
    }
}

/// Without its nodes, which have their own rows.
impl From<Rollout> for RolloutAnswer {
    fn from(rollout: Rollout) -> Self {
        RolloutAnswer {
            number: rollout.number,
            image: rollout.image,
            from: rollout.from,
            by: rollout.by,
            began: rollout.began,
            message: rollout.message,
            stage: match rollout.stage {
                Stage::Canary => RolloutStage::Canary,
                Stage::Promoting => RolloutStage::Promoting,
                Stage::Done => RolloutStage::Done,
                Stage::Aborted => RolloutStage::Aborted,
                Stage::RolledBack => RolloutStage::RolledBack,
            },
            paused: rollout.paused,
            stopped: rollout.stopped,
            batch: rollout.batch,
            pause_secs: rollout.pause_secs,
            ready_within_secs: rollout.ready_within_secs,
            max_failures: rollout.max_failures,
            soak_secs: rollout.soak_secs,
            reboot: rollout.reboot,
            max_down: rollout.max_down,
            last_batch: rollout.last_batch,
            settled: rollout.settled,
            ended: rollout.ended,
            all: rollout.all,
            remarks: (rollout.remarks.into_iter())
                .map(|remark| RolloutRemark {
                    at: remark.at,
                    what: remark.what,
                })
                .collect(),
            tally: RolloutTally {
                waiting: rollout.tally.waiting,
                booting: rollout.tally.booting,
                ready: rollout.tally.ready,
                failed: rollout.tally.failed,
                rolled_back: rollout.tally.rolled_back,
            },
        }
    }
}

impl RolloutNode {
    /// The node `node` of a rollout, which runs `image` or boots into it.
    pub fn of(node: String, member: Member, image: Option<ImageRef>) -> Self {
        RolloutNode {
            node,
            state: match member.state {
                State::Waiting => RolloutNodeState::Waiting,
                State::Booting => RolloutNodeState::Booting,
                State::Ready => RolloutNodeState::Ready,
                State::Failed { why } => RolloutNodeState::Failed { why },
                State::RolledBack { why } => RolloutNodeState::RolledBack { why },
            },
            since: member.since,
            batch: member.batch,
            counts: member.counts,
            was_degraded: member.was_degraded,
            proven: member.proven,
            boots: member.boots,
            boot: member.boot,
            first: member.first,
            stalled: member.stalled,
            ordered: member.ordered,
            image,
        }
    }
}

impl From<RolloutWish> for Wish {
    fn from(wish: RolloutWish) -> Self {
        Wish {
            image: wish.image,
            nodes: wish.nodes,
            reboot: wish.reboot,
            max_down: wish.max_down,
            ready_within_secs: wish.ready_within_secs,
            max_failures: wish.max_failures,
            soak_secs: wish.soak_secs,
            message: wish.message,
        }
    }
}

impl From<RolloutPace> for Pace {
    fn from(pace: RolloutPace) -> Self {
        Pace {
            batch: pace.batch,
            pause_secs: pace.pause_secs,
            max_failures: pace.max_failures,
        }
    }
}
