//! From the plan to the node: runs programs, holds orders for heartbeats, and answers heartbeats that ask for an order.
//!
//! A heartbeat takes no lock that is held during a write. It queues its question or report, and the planner's thread answers
//! all that wait with one disk flush.

use super::{Restarts, actions::NodeActions, keeper::open, rows::changes};
use crate::boots::Boot;
use rackstrap_base::{clock::Timestamp, sync::lock};
use rackstrap_lifecycle::{
    Action, Job, Level, Order, Record,
    restart::{Request, Step},
};
use rackstrap_store::StoreError;
use rackstrap_wire::{
    Restart, RestartReport,
    text::{cut, one_line},
};
use std::sync::Arc;
use tokio::sync::oneshot;

/// At most this many heartbeats wait for an answer. Nodes repeat heartbeats that are dropped.
const MOST_ASKED: usize = 8192;
/// Longest id of a request in a report, bytes. Ours have 32.
const LONGEST_ID: usize = 64;
/// Longest text of a report, bytes, as the agent cuts it ([`RestartReport`]).
const LONGEST_DETAIL: usize = 200;

/// A question or report of a heartbeat of `boot`, proven by that boot's secret or token. It waits for the planner's thread.
pub(super) struct Asked {
    boot: Arc<Boot>,
    at: Timestamp,
    what: What,
}

enum What {
    /// The node asks for its order.
    Order(Order, oneshot::Sender<Restart>),
    /// The node answers its order.
    Noted(RestartReport),
}

impl Restarts {
    /// Carries out the planner's decisions after they are on disk. No other plan is made meanwhile.
    pub fn carry_out(&self, actions: Vec<Action>, now: Timestamp) {
        let (mut jobs, mut orders): (Vec<Job>, Vec<Order>) = (Vec::new(), Vec::new());
        for action in actions {
            match action {
                Action::Record(note) => self.say(&note, now),
                Action::Run(job) => jobs.push(job),
                Action::Restart(order) => orders.push(order),
                // The registry of rollouts does this one.
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

    /// The order for a node whose heartbeat of `boot`, proven by that boot's secret or token, has arrived; on disk before it
    /// is given.
    pub async fn order(&self, boot: &Arc<Boot>, now: Timestamp) -> Option<Restart> {
        let order = self.shared.agents.order_for(&boot.plan.node, &boot.plan.id)?;
        let (answer, answered) = oneshot::channel();
        self.ask(boot, What::Order(order, answer), now);
        // Without an answer the node does not restart now.
        answered.await.ok()
    }

    /// Records the answer of the node in `boot` to its order. Never waits: if this write is lost, the node gets the order again
    /// in the same boot, and ignores it.
    pub fn noted(&self, boot: &Arc<Boot>, note: &RestartReport, now: Timestamp) {
        let open = |request: &Request| request.open_member(&boot.plan.node).is_some();
        if !self.requests().iter().any(open) {
            return;
        }
        // Agents keep to these lengths. A program of a node's root need not.
        let report = RestartReport {
            id: cut(&note.id, LONGEST_ID).to_owned(),
            detail: one_line(&note.detail, LONGEST_DETAIL),
        };
        self.ask(boot, What::Noted(report), now);
    }

    fn ask(&self, boot: &Arc<Boot>, what: What, at: Timestamp) {
        let boot = boot.clone();
        let mut asked = lock(&self.shared.asked);
        let first = asked.is_empty();
        if asked.len() < MOST_ASKED {
            asked.push(Asked { boot, at, what });
        }
        drop(asked);
        // One message for all that wait: the thread takes the whole list, and its queue has to have room for notices of boots.
        if first {
            self.wake_planner();
        }
    }

    /// Answers all waiting heartbeats. Blocks for a disk flush if heartbeats wait.
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
                tracing::error!("no node gets the order to restart: {error}");
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
                    self.say(&note(format!("ordered to restart: {}", order.reason)), asked.at);
                    // The connection may have ended. The node then asks again.
                    let _ = answer.send(Restart {
                        id: order.request,
                        reason: order.reason,
                    });
                }
                What::Noted(said) => self.say(&note(said.detail), asked.at),
            }
        }
    }

    /// Handles one heartbeat in `requests`. Returns whether the node gets its order, or whether its report is accepted.
    fn hear(&self, requests: &mut [Request], asked: &Asked) -> bool {
        let (name, boot) = (asked.boot.plan.node.as_str(), asked.boot.plan.id.as_str());
        let Some((request, index)) = open(requests, name) else {
            return false;
        };
        match &asked.what {
            // The connection has ended, and with it the heartbeat. The node asks again.
            What::Order(_, answer) if answer.is_closed() => false,
            What::Order(order, _) => {
                let shared = &self.shared;
                let Some(observed) = shared.observer.observe(name, asked.at) else {
                    return false;
                };
                // A token of an ended boot counts for nothing here. The rollout may have stopped since the order was made.
                let wanted =
                    !request.is_of_rollout() || shared.observer.leaves(name, boot).as_deref() == Some(&request.rollout);
                let current = shared.agents.order_for(name, boot);
                let valid =
                    current.is_some_and(|current| current.request == order.request && request.id == current.request);
                valid && wanted && observed.boot == boot && request.give_order(name, &observed, asked.at)
            }
            What::Noted(note) => {
                // The boot is compared, too: the request of an older release may be part of another request now.
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
