//! Orders for one boot: given and taken back by administrators, used by the next boot of a node, and ended by what it reports.

use super::Boot;
use rackstrap_base::{
    clock::Timestamp,
    sync::{read, write},
};
use rackstrap_model::{
    inventory::Changed,
    orders::{AtScript, BootOrder, OnceBoot},
};
use rackstrap_store::{Batch, Keeper, Store, StoreError, Table};
use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

/// The orders of all nodes; clones share them.
#[derive(Clone)]
pub struct Orders {
    store: Store,
    /// Orders that wait or are in use, by node.
    rows: Arc<RwLock<BTreeMap<String, BootOrder>>>,
    /// Takes one request of an administrator at a time. Loaders change rows meanwhile, without waiting, so that a request expects no row
    /// to be unchanged, and is written again where a row has changed.
    given: Arc<Keeper>,
}

/// What becomes of a node's order when its loader asks for a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// There is no order.
    Nothing,
    /// The boot carries it out. `again` is whether an earlier script had it already.
    Use {
        /// The order.
        order: BootOrder,
        /// Whether an earlier script had it already.
        again: bool,
    },
    /// Its boot is over, and the order is gone.
    Over(BootOrder),
}

impl Orders {
    /// Loads all rows.
    pub(super) fn load(store: Store) -> Result<Orders, StoreError> {
        let rows = store.scan::<BootOrder>(Table::Orders, b"")?.into_iter();
        let rows = rows.map(|(key, order)| (String::from_utf8_lossy(&key).into_owned(), order));
        Ok(Orders {
            rows: Arc::new(RwLock::new(rows.collect())),
            given: Arc::new(Keeper::new(store.clone(), ())),
            store,
        })
    }

    /// The order of a node, whether it waits or is in use; none if there is none.
    pub fn get(&self, node: &str) -> Option<BootOrder> {
        read(&self.rows).get(node).cloned()
    }

    /// All orders, by node.
    pub fn all(&self) -> Vec<(String, BootOrder)> {
        let rows = read(&self.rows);
        rows.iter().map(|(node, order)| (node.clone(), order.clone())).collect()
    }

    /// Gives each of `nodes` an order, or takes its order back (`what` is none). On disk when this returns. Returns the orders that are
    /// replaced or taken back, by node.
    ///
    /// # Errors
    /// An error of the store. Nothing is published then.
    pub fn give(
        &self,
        nodes: &[String],
        what: Option<&OnceBoot>,
        by: &str,
        at: Timestamp,
    ) -> Result<Vec<(String, BootOrder)>, StoreError> {
        let new: Vec<(&String, Option<BootOrder>)> = nodes
            .iter()
            .map(|node| {
                (
                    node,
                    what.map(|what| BootOrder::new(rand::random(), what.clone(), by, at)),
                )
            })
            .collect();
        let batch = || {
            new.iter()
                .fold(Batch::new(), |batch, (node, order)| put(batch, node, order.as_ref()))
        };
        let draft = |(): &()| {
            let rows = read(&self.rows);
            let before: Vec<Option<BootOrder>> = nodes.iter().map(|node| rows.get(node).cloned()).collect();
            Ok::<_, StoreError>((before, batch()))
        };
        let (replaced, again) = self.given.change(draft, |(), before| {
            let mut rows = write(&self.rows);
            let (mut replaced, mut again) = (Vec::new(), false);
            for ((node, order), before) in new.iter().zip(before) {
                let now = match order.clone() {
                    Some(order) => rows.insert((*node).clone(), order),
                    None => rows.remove(*node),
                };
                // A loader changed it meanwhile, and that may have been written later.
                again |= now != before;
                replaced.extend(now.map(|order| ((*node).clone(), order)));
            }
            if again {
                // Queued under the lock, so that everything queued later comes after it.
                self.store.queue(batch());
            }
            (replaced, again)
        })?;
        if again {
            self.store.flush()?;
        }
        Ok(replaced)
    }

    /// Takes the order of `node` for a loader that asks for its script at `now`. `failed` is whether the loader could not carry out its
    /// last script, `doubted` whether a user of the node may ask in its name: that uses no order up. What changes is on disk when this
    /// returns, so that no second boot carries an order out.
    ///
    /// # Errors
    /// An error of the store. The order is as before.
    pub async fn take(&self, node: &str, failed: bool, doubted: bool, now: Timestamp) -> Result<Taken, StoreError> {
        let Some(known) = self.get(node) else {
            return Ok(Taken::Nothing);
        };
        let taken = match known.at_script(failed, now) {
            AtScript::Over if doubted => return Ok(Taken::Nothing),
            AtScript::Begins | AtScript::Again if doubted => {
                return Ok(Taken::Use {
                    order: known,
                    again: true,
                });
            }
            AtScript::Again => {
                return Ok(Taken::Use {
                    order: known,
                    again: true,
                });
            }
            AtScript::Begins => Taken::Use {
                order: BootOrder {
                    used: Some(now),
                    ..known.clone()
                },
                again: false,
            },
            AtScript::Over => Taken::Over(known.clone()),
        };
        let after = match &taken {
            Taken::Use { order, .. } => Some(order),
            Taken::Over(_) | Taken::Nothing => None,
        };
        match self.replace(node, &known, after).await? {
            true => Ok(taken),
            // It was taken back or replaced just now: the loader boots as usual, or asks again.
            false => Ok(Taken::Nothing),
        }
    }

    /// Ends the order of `node` with that id, which cannot be carried out. On disk when this returns.
    ///
    /// # Errors
    /// An error of the store. The order is as before.
    pub async fn refuse(&self, node: &str, id: u64) -> Result<(), StoreError> {
        match self.get(node).filter(|order| order.id == id) {
            Some(known) => self.replace(node, &known, None).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Replaces the order `known` by `after`; false if it is not the node's order any more.
    async fn replace(&self, node: &str, known: &BootOrder, after: Option<&BootOrder>) -> Result<bool, StoreError> {
        let set = |rows: &mut BTreeMap<String, BootOrder>, order: Option<&BootOrder>| match order {
            Some(order) => rows.insert(node.to_owned(), order.clone()),
            None => rows.remove(node),
        };
        {
            let mut rows = write(&self.rows);
            if rows.get(node) != Some(known) {
                return Ok(false);
            }
            // Queued under the lock, so that the disk sees changes in the order of memory.
            if !self.store.queue(put(Batch::new(), node, after)) {
                let text = format!("store: the order for {node} was not written, because too many writes wait");
                return Err(StoreError::NotWritten(text));
            }
            set(&mut rows, after);
        }
        // An empty commit waits for all that was queued before. A batch of its own could overwrite an administrator's later one.
        let written = self.store.commit(Batch::new()).await;
        written.map(|()| true).inspect_err(|_| {
            let mut rows = write(&self.rows);
            if rows.get(node) == after {
                set(&mut rows, Some(known));
            }
        })
    }

    /// Adds to `batch`, which is about to be written, that the agent of `boot` has the node's files: its order is carried out.
    pub(super) fn end_with(&self, boot: &Boot, batch: Batch) -> Batch {
        match self
            .get(&boot.plan.node)
            .filter(|order| order.is_ended_by(boot.once.as_ref()))
        {
            Some(_) => batch.delete(Table::Orders, boot.plan.node.as_bytes()),
            None => batch,
        }
    }

    /// The same in memory, after that batch is on disk.
    pub(super) fn ended(&self, boot: &Boot) {
        if boot.once.is_none() {
            return;
        }
        let mut rows = write(&self.rows);
        let node = &boot.plan.node;
        match rows.get(node) {
            Some(order) if order.is_ended_by(boot.once.as_ref()) => {
                rows.remove(node);
            }
            // An order that was given meanwhile may have been deleted on disk.
            Some(order) => {
                self.store.queue(put(Batch::new(), node, Some(order)));
            }
            None => {}
        }
    }

    /// Forgets nodes that `is_node` does not know.
    pub(super) fn retain(&self, is_node: impl Fn(&str) -> bool) {
        let mut batch = Batch::new();
        write(&self.rows).retain(|name, _| {
            let stays = is_node(name);
            if !stays {
                batch = std::mem::take(&mut batch).delete(Table::Orders, name.as_bytes());
            }
            stays
        });
        if !batch.is_empty() {
            self.store.queue(batch);
        }
    }

    /// The rows that follow from a change of the inventory, to be written together with it: a renamed node keeps its order, and that of
    /// a deleted node is deleted.
    pub(super) fn followed_rows(&self, changed: &[Changed]) -> Batch {
        let (gone, come) = followed(&read(&self.rows), changed);
        let batch = gone.iter().fold(Batch::new(), |batch, name| put(batch, name, None));
        come.iter()
            .fold(batch, |batch, (name, order)| put(batch, name, Some(order)))
    }

    /// Makes the same change in memory.
    pub(super) fn publish_followed(&self, changed: &[Changed]) {
        let mut rows = write(&self.rows);
        let (gone, come) = followed(&rows, changed);
        for name in &gone {
            rows.remove(name);
        }
        rows.extend(come);
    }
}

fn put(batch: Batch, node: &str, order: Option<&BootOrder>) -> Batch {
    match order {
        Some(order) => batch.put(Table::Orders, node.as_bytes(), order),
        None => batch.delete(Table::Orders, node.as_bytes()),
    }
}

/// Names without their orders, and the orders of names, after the change. All names are taken before any is given, because nodes may
/// exchange their names.
fn followed(rows: &BTreeMap<String, BootOrder>, changed: &[Changed]) -> (Vec<String>, Vec<(String, BootOrder)>) {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for changed in changed {
        let Some((before, order)) = (changed.before.as_ref()).and_then(|node| Some((node, rows.get(&node.name)?)))
        else {
            continue;
        };
        let after = changed.after.as_ref();
        if after.is_some_and(|after| after.name == before.name) {
            continue;
        }
        gone.push(before.name.clone());
        come.extend(after.map(|after| (after.name.clone(), order.clone())));
    }
    (gone, come)
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
