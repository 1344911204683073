//! The consequences of changes of the inventory for boots: a renamed node's running system stays in its boot, and all other boots of a
//! name that is given up are forgotten.

use super::{Boot, registry::Boots};
use rackstrap_model::{disks::is_other_machine, inventory::Changed};
use rackstrap_store::{Batch, Table};
use std::sync::Arc;

impl Boots {
    /// Forgets boots and disks whose node `is_node` does not know. An older release that was stopped may have left some.
    pub(crate) fn retain_nodes(&self, is_node: impl Fn(&str) -> bool) {
        self.disks.retain(&is_node);
        self.orders.retain(&is_node);
        let known: Vec<String> = self.read().by_node.keys().cloned().collect();
        self.give_up(known.iter().map(String::as_str).filter(|node| !is_node(node)), &[]);
    }

    /// The rows of boots and disks that follow from a change of the inventory, to be written together with it. Boots of a
    /// name that is given up are forgotten, because another machine must not continue them.
    pub(crate) fn followed_rows(&self, changed: &[Changed]) -> Batch {
        let moved = self.moved(changed);
        let boots = {
            let state = self.read();
            let known = given_up(changed).filter_map(|node| state.by_node.get(node));
            let ids = known
                .flatten()
                .filter(|id| moved.iter().all(|boot| boot.plan.id != **id));
            ids.fold(Batch::new(), |batch, id| batch.delete(Table::Boots, id.as_bytes()))
        };
        let put = |batch: Batch, boot: &Boot| batch.put(Table::Boots, boot.plan.id.as_bytes(), boot);
        let boots = moved.iter().fold(boots, put);
        boots
            .and(self.disks.followed_rows(changed))
            .and(self.orders.followed_rows(changed))
    }

    /// Makes the same change in memory, after it is on disk.
    pub(crate) fn publish_followed(&self, changed: &[Changed]) {
        self.give_up(given_up(changed), &self.moved(changed));
        self.disks.publish_followed(changed);
        self.orders.publish_followed(changed);
    }

    /// The boots of renamed nodes whose files were sent, with their new names. The system runs in one of them, and its reports and
    /// heartbeats name the boot. A boot without files ends: its plan has the name and address from before, so the agent begins again.
    fn moved(&self, changed: &[Changed]) -> Vec<Boot> {
        let state = self.read();
        let renamed = changed.iter().filter(|changed| !is_other_machine(changed));
        let moved = renamed.filter_map(|changed| {
            let (before, after) = (changed.before.as_ref()?, changed.after.as_ref()?);
            let ids = state.by_node.get(&before.name).filter(|_| before.name != after.name)?;
            let boots = ids.iter().filter_map(|id| state.by_id.get(id));
            let with_files = boots.filter(|boot| boot.redeemed).map(|boot| {
                let mut boot = Boot::clone(boot);
                boot.plan.node.clone_from(&after.name);
                boot
            });
            Some(with_files.collect::<Vec<Boot>>())
        });
        moved.flatten().collect()
    }

    /// Forgets all boots of `nodes`, except `moved`, which belong to other nodes now.
    fn give_up<'a>(&self, nodes: impl Iterator<Item = &'a str>, moved: &[Boot]) {
        let mut batch = Batch::new();
        let mut state = self.write();
        for node in nodes {
            self.heartbeats.forget(node);
            for id in state.by_node.remove(node).unwrap_or_default() {
                state.by_id.remove(&id);
                batch = batch.delete(Table::Boots, id.as_bytes());
            }
        }
        // The row of a boot may have been written again, with the old name, since the change was.
        for boot in moved {
            batch = batch.put(Table::Boots, boot.plan.id.as_bytes(), boot);
            state.insert(Arc::new(boot.clone()));
        }
        if !batch.is_empty() {
            self.store.queue(batch);
        }
    }
}

/// Names that no node has after the change, or another one.
fn given_up(changed: &[Changed]) -> impl Iterator<Item = &str> {
    changed.iter().filter_map(|changed| {
        let before = &changed.before.as_ref()?.name;
        let kept = changed.after.as_ref().is_some_and(|after| after.name == *before);
        (!kept).then_some(before.as_str())
    })
}

#[cfg(test)]
mod tests {
    use crate::{
        boots::{Boot, Boots, Refusal},
        testing::{node_with_card as node, store},
    };
    use rackstrap_base::clock::Timestamp;
    use rackstrap_model::inventory::Changed;
    use rackstrap_store::Table;
    use rackstrap_wire::{DiskState, Hardware, OverlayRequest, testing};
    use std::sync::Arc;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn renamed(from: &str, to: &str, card: u8) -> Changed {
        Changed {
            before: Some(node(from, card)),
            after: Some(node(to, card)),
        }
    }

    /// A boot of `name` at `at`; with `files`, its overlay was sent.
    async fn boot(boots: &Boots, name: &str, at: u64, files: bool) -> Arc<Boot> {
        let plan = testing::plan(name).pinned();
        let boot = boots.open(Timestamp(at), plan).await.unwrap();
        if files {
            let request = OverlayRequest {
                networks: true,
                token: boot.token.clone(),
                disk: DiskState::default(),
                hardware: Hardware::default(),
            };
            let secret = Some(SECRET.to_owned());
            boots.redeem(&boot.plan.id, &request, secret).await.unwrap();
        }
        boot
    }

    fn follow(boots: &Boots, changes: &[Changed]) {
        boots.store.commit_blocking(boots.followed_rows(changes)).unwrap();
        boots.publish_followed(changes);
    }

    #[tokio::test]
    async fn the_running_system_of_a_renamed_node_stays_in_its_boot() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let boots = Boots::load(store.clone()).unwrap();
        let (one, two) = (
            boot(&boots, "r01n01", 1, true).await,
            boot(&boots, "r01n02", 2, true).await,
        );
        // Its script was fetched, and nothing else.
        let begun = boot(&boots, "r01n01", 3, false).await;
        let (one, two, begun) = (&one.plan.id, &two.plan.id, &begun.plan.id);
        // Two nodes exchange their names in one change.
        follow(
            &boots,
            &[renamed("r01n01", "r01n02", 1), renamed("r01n02", "r01n01", 2)],
        );
        let check = |boots: &Boots| {
            let name = |id: &str| boots.authenticate_node(id, SECRET).map(|boot| boot.plan.node.clone());
            assert_eq!(
                (name(one).unwrap().as_str(), name(two).unwrap().as_str()),
                ("r01n02", "r01n01")
            );
            assert!(boots.get(begun).is_none(), "an agent with the old name begins again");
            let of =
                |name: &str| -> Vec<String> { boots.of_node(name).iter().map(|boot| boot.plan.id.clone()).collect() };
            assert_eq!((of("r01n02"), of("r01n01")), (vec![one.clone()], vec![two.clone()]));
            assert!(boots.runs(one), "it is the last boot of its node");
        };
        check(&boots);
        assert!(boots.is_alive("r01n02", 30) && !boots.is_alive("r01n01", 30));
        assert!(store.get::<Boot>(Table::Boots, begun.as_bytes()).unwrap().is_none());
        check(&Boots::load(store).unwrap());
        // A name that a deleted node had, and a node that is another machine.
        let gone = Changed {
            before: Some(node("r01n01", 2)),
            after: None,
        };
        follow(&boots, &[renamed("r01n02", "r01n01", 1), gone]);
        assert_eq!(boots.get(one).unwrap().plan.node, "r01n01");
        assert!(matches!(boots.authenticate_node(two, SECRET), Err(Refusal::Unknown(_))));
        let replaced = Changed {
            before: Some(node("r01n01", 1)),
            after: Some(node("r01n09", 9)),
        };
        follow(&boots, &[replaced]);
        assert!(boots.get(one).is_none(), "another machine does not continue its boot");
    }
}
