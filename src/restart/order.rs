//! From the plan to the node: programs that have to run, orders that wait for heartbeats, and heartbeats that ask for them.

use super::{Restarts, actions::NodeActions, rows::row};
use crate::boots::Boot;
use rackstrap_base::clock::Timestamp;
use rackstrap_lifecycle::{Action, Job, Level, Order, Record};
use rackstrap_store::Batch;
use rackstrap_wire::{Restart, RestartReport};

impl Restarts {
    /// Carries out what the planner decided. `written` is false if it could not be written: what would have to be known after a restart
    /// of the daemon is not begun then, and comes with the next plan.
    pub fn carry_out(&self, actions: Vec<Action>, written: bool, now: Timestamp) {
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

    /// The order for a node whose heartbeat of `boot`, with that boot's token, has just come; on disk before it is given.
    pub async fn order(&self, boot: &Boot, now: Timestamp) -> Option<Restart> {
        let name = &boot.plan.node;
        let order = self.shared.agents.order_for(name, &boot.plan.id)?;
        let (before, batch) = {
            let observed = self.shared.observer.observe(name, now)?;
            let mut state = self.lock();
            let (request, index) = state.open(name).filter(|(request, _)| request.id == order.request)?;
            // A token of a boot that is over is worth nothing here; and a rollout may have stopped since the order was made.
            let wanted = !request.is_of_rollout()
                || self.shared.observer.leaves(name, &boot.plan.id).as_deref() == Some(&request.rollout);
            if observed.boot != boot.plan.id || !wanted {
                return None;
            }
            let before = request.nodes[index].clone();
            if !request.give_order(name, &observed, now) {
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
            &Record {
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

    /// The node in `boot` answers its order.
    pub fn noted(&self, boot: &Boot, note: &RestartReport, now: Timestamp) {
        let name = &boot.plan.node;
        let batch = {
            let mut state = self.lock();
            let Some((request, index)) = state.open(name) else {
                return;
            };
            // By its boot too: the request of an older release may be part of another one now.
            let told =
                matches!(&request.nodes[index].step, super::Step::Ordered { boot: told, .. } if *told == boot.plan.id);
            if !told && request.id != note.id {
                return;
            }
            match request.acknowledge(name, &boot.plan.id) {
                true => row(Batch::new(), request, index),
                false => Batch::new(),
            }
        };
        if !batch.is_empty() {
            // Should this be lost, the node is told once more in the same boot, and does nothing about it.
            self.shared.store.queue(batch);
        }
        let note = Record {
            node: name.clone(),
            level: Level::Ok,
            text: note.detail.clone(),
        };
        self.say(&note, now);
    }
}
