//! From the plan to the node: runs programs, holds orders for heartbeats, and answers heartbeats that ask for an order.

use super::{Restarts, actions::NodeActions, rows::row};
use crate::boots::Boot;
use rackstrap_base::clock::Timestamp;
use rackstrap_lifecycle::{Action, Job, Level, Note, Order};
use rackstrap_store::Batch;
use rackstrap_wire::{Restart, RestartNote};

impl Restarts {
    /// Carries out the planner's decisions. `written` is false if they could not be written. Then nothing is begun that has
    /// to be known after a restart of the daemon; it comes again with the next plan.
    pub fn carry_out(&self, actions: Vec<Action>, written: bool, now: Timestamp) {
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
        if !written {
            self.lock().incomplete = true;
            return;
        }
        let actions: &dyn NodeActions = &self.shared.agents;
        actions.restart(orders);
        if jobs.is_empty() {
            return;
        }
        let mut state = self.lock();
        for job in jobs {
            state.busy.extend(job.nodes.iter().cloned());
            state.jobs.push_back(job);
        }
        drop(state);
        self.shared.jobs.notify_one();
    }

    /// The order for a node whose heartbeat of `boot`, proven by that boot's secret or token, has arrived; on disk before it
    /// is given.
    pub async fn order(&self, boot: &Boot, now: Timestamp) -> Option<Restart> {
        let name = &boot.plan.node;
        let order = self.shared.agents.order_for(name, &boot.plan.id)?;
        let (before, batch) = {
            let observed = self.shared.observer.observe(name, now)?;
            let mut state = self.lock();
            let (request, index) = state.open(name).filter(|(request, _)| request.id == order.request)?;
            // A token of an ended boot counts for nothing here. The rollout may have stopped since the order was made.
            let wanted = !request.is_of_rollout()
                || self.shared.observer.leaves(name, &boot.plan.id).as_deref() == Some(&request.rollout);
            if observed.boot != boot.plan.id || !wanted {
                return None;
            }
            let before = request.nodes[index].clone();
            if !request.tell(name, &observed, now) {
                return None;
            }
            (before, row(Batch::new(), request, index))
        };
        self.shared.agents.forget(name);
        if let Err(error) = self.shared.store.commit(batch).await {
            tracing::error!("{name} is not told to restart: {error}");
            if let Some((request, index)) = self.lock().open(name) {
                request.nodes[index] = before;
            }
            return None;
        }
        self.say(
            &Note {
                node: name.clone(),
                level: Level::Ok,
                text: format!("told to restart: {}", order.reason),
            },
            now,
        );
        Some(Restart {
            id: order.request,
            reason: order.reason,
        })
    }

    /// Records the answer of the node in `boot` to its order.
    pub fn noted(&self, boot: &Boot, note: &RestartNote, now: Timestamp) {
        let name = &boot.plan.node;
        let batch = {
            let mut state = self.lock();
            let Some((request, index)) = state.open(name) else {
                return;
            };
            // The boot is compared, too: the request of an older release may be part of another request now.
            let told =
                matches!(&request.nodes[index].step, super::Step::Told { boot: told, .. } if *told == boot.plan.id);
            if !told && request.id != note.id {
                return;
            }
            match request.noted(name, &boot.plan.id) {
                true => row(Batch::new(), request, index),
                false => Batch::new(),
            }
        };
        if !batch.is_empty() {
            // If this write is lost, the node gets the order again in the same boot, and ignores it.
            self.shared.store.queue(batch);
        }
        let note = Note {
            node: name.clone(),
            level: Level::Ok,
            text: note.detail.clone(),
        };
        self.say(&note, now);
    }
}
