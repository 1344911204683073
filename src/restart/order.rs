//! From the plan to the node: programs that have to run, orders that wait for heartbeats, and heartbeats that ask for them.
//!
//! A heartbeat takes no lock that is held while something is written: it leaves what it asks or says, and the planner's thread answers
//! all that wait, which share one flush of the disk.

use super::{Restarts, actions::NodeActions, keeper::open, rows::changes};
use crate::boots::Boot;
use rackstrap_base::{clock::Timestamp, sync::lock};
use rackstrap_lifecycle::{
    Action, Job, Level, Order, Record,
    restart::{Request, Step},
};
use rackstrap_store::StoreError;
use rackstrap_wire::{Restart, RestartReport};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Heartbeats that may wait for an answer. What does not fit is asked and said again.
const MOST_ASKED: usize = 8192;

/// What came with a heartbeat of `boot`, with that boot's token, and waits for the planner's thread.
pub(super) struct Asked {
    boot: Arc<Boot>,
    at: Timestamp,
    what: What,
}

enum What {
    /// The node may have its order.
    Order(Order, oneshot::Sender<Restart>),
    /// The node has got its order.
    Noted(RestartReport),
}

impl Restarts {
    /// Carries out what the planner decided, once that is on disk. Nothing else is planned meanwhile.
    pub fn carry_out(&self, actions: Vec<Action>, now: Timestamp) {
        let (mut jobs, mut orders): (Vec<Job>, Vec<Order>) = (Vec::new(), Vec::new());
        for action in actions {
            match action {
                Action::Record(note) => self.say(&note, now),
                Action::Run(job) => jobs.push(job),
                Action::Restart(order) => orders.push(order),
                // The rollouts' own.
                Action::MakeCurrent(_) => {}
            }
        }
        let actions: &dyn NodeActions = &self.shared.agents;
        actions.restart(orders);
        if jobs.is_empty() {
            return;
        }
        let mut programs = lock(&self.shared.programs);
        for job in jobs {
            programs.busy.extend(job.nodes.iter().cloned());
            programs.jobs.push_back(job);
        }
        drop(programs);
        self.shared.jobs.notify_one();
    }

    /// The order for a node whose heartbeat of `boot`, with that boot's token, has just come; on disk before it is given.
    pub async fn order(&self, boot: &Arc<Boot>, now: Timestamp) -> Option<Restart> {
        let order = self.shared.agents.order_for(&boot.plan.node, &boot.plan.id)?;
        let (answer, answered) = oneshot::channel();
        self.ask(boot, What::Order(order, answer), now);
        // Without an answer it is not to restart now.
        answered.await.ok()
    }

    /// The node in `boot` answers its order. Never waits: should this be lost, the node is told once more in the same boot, and does
    /// nothing about it.
    pub fn noted(&self, boot: &Arc<Boot>, note: &RestartReport, now: Timestamp) {
        self.ask(boot, What::Noted(note.clone()), now);
    }

    fn ask(&self, boot: &Arc<Boot>, what: What, at: Timestamp) {
        let boot = boot.clone();
        let mut asked = lock(&self.shared.asked);
        if asked.len() < MOST_ASKED {
            asked.push(Asked { boot, at, what });
        }
        drop(asked);
        self.wake_planner();
    }

    /// Answers all heartbeats that wait. Blocks for a disk flush, if there are any.
    pub fn answer(&self) {
        let asked = std::mem::take(&mut *lock(&self.shared.asked));
        if asked.is_empty() {
            return;
        }
        let draft = |(): &()| {
            let before = self.requests();
            let mut after = Vec::clone(&before);
            let answers: Vec<bool> = asked.iter().map(|asked| self.hear(&mut after, asked)).collect();
            let batch = changes(&before, &after);
            Ok::<_, StoreError>(((after, answers), batch))
        };
        let publish = |(): &mut (), (after, answers): (Vec<Request>, Vec<bool>)| {
            self.publish(after);
            let answered = asked.iter().zip(&answers).filter(|(_, answer)| **answer);
            for (asked, _) in answered.filter(|(asked, _)| matches!(asked.what, What::Order(..))) {
                self.shared.agents.forget(&asked.boot.plan.node);
            }
            answers
        };
        let answers = match self.keeper().change(draft, publish) {
            Ok(answers) => answers,
            Err(error) => {
                tracing::error!("no node is told to restart: {error}");
                return;
            }
        };
        for (asked, _) in asked.into_iter().zip(answers).filter(|(_, answer)| *answer) {
            let note = |text: String| Record {
                node: asked.boot.plan.node.clone(),
                level: Level::Ok,
                text,
            };
            match asked.what {
                What::Order(order, answer) => {
                    self.say(&note(format!("told to restart: {}", order.reason)), asked.at);
                    // Its connection may have ended: it asks again.
                    let _ = answer.send(Restart {
                        id: order.request,
                        reason: order.reason,
                    });
                }
                What::Noted(said) => self.say(&note(said.detail), asked.at),
            }
        }
    }

    /// What one heartbeat makes of `requests`; true if it gets its order, or says something of one.
    fn hear(&self, requests: &mut [Request], asked: &Asked) -> bool {
        let (name, boot) = (asked.boot.plan.node.as_str(), asked.boot.plan.id.as_str());
        let Some((request, index)) = open(requests, name) else {
            return false;
        };
        match &asked.what {
            What::Order(order, _) => {
                let shared = &self.shared;
                let Some(observed) = shared.observer.observe(name, asked.at) else {
                    return false;
                };
                // A token of a boot that is over is worth nothing here; and a rollout may have stopped since the order was made.
                let wanted =
                    !request.is_of_rollout() || shared.observer.leaves(name, boot).as_deref() == Some(&request.rollout);
                let current = shared.agents.order_for(name, boot);
                let valid =
                    current.is_some_and(|current| current.request == order.request && request.id == current.request);
                valid && wanted && observed.boot == boot && request.give_order(name, &observed, asked.at)
            }
            What::Noted(note) => {
                // By its boot too: the request of an older release may be part of another one now.
                let told = matches!(&request.nodes[index].step, Step::Ordered { boot: told, .. } if told == boot);
                let ours = told || request.id == note.id;
                if ours {
                    request.acknowledge(name, boot);
                }
                ours
            }
        }
    }
}
