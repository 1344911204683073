//! The consequences of changes of the inventory for timelines and boots.

use super::{Event, EventKind, Level, Recorder, Subject};
use crate::{boots::Boots, nodes::Follower};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::{disks::is_other_machine, inventory::Changed};
use rackstrap_store::Batch;

/// Makes timelines, boots and rows of disks follow: a machine that becomes a node keeps its events, a renamed node keeps its
/// timeline, and the timelines of deleted nodes are deleted.
pub(crate) struct Follow {
    recorder: Recorder,
    boots: Boots,
}

impl Follow {
    /// Keeps these two up to date.
    pub fn new(recorder: Recorder, boots: Boots) -> Self {
        Follow { recorder, boots }
    }
}

/// The message that an order about the disk of the node's former machine is dropped together with that machine; none if there
/// was no order.
pub fn dropped_order(boots: &Boots, changed: &Changed) -> Option<String> {
    let before = changed.before.as_ref().filter(|_| is_other_machine(changed))?;
    boots.disks().get(&before.name)?.order?;
    Some(format!(
        "the order to prepare the disk was dropped, because the node is another machine now; to prepare its disk: rackstrap node reprep {}",
        changed.name()
    ))
}

impl Follower for Follow {
    fn rows(&self, changed: &[Changed]) -> Batch {
        self.boots.followed_rows(changed)
    }

    fn publish(&self, changed: &[Changed]) {
        let subject = |name: &str| Subject::Node(name.to_owned());
        let dropped: Vec<_> = changed
            .iter()
            .filter_map(|changed| Some((subject(changed.name()), dropped_order(&self.boots, changed)?)))
            .collect();
        self.boots.publish_followed(changed);
        // Moving one timeline after the other would mix those of two nodes that exchange their names, or lose that of a node
        // whose name is taken.
        let mut moves: Vec<(Subject, Option<Subject>)> = Vec::new();
        for changed in changed {
            let (before, after) = (changed.before.as_ref(), changed.after.as_ref());
            if let Some(before) = before.filter(|before| after.is_none_or(|after| after.name != before.name)) {
                moves.push((subject(&before.name), after.map(|after| subject(&after.name))));
            }
            let Some(after) = after else { continue };
            let machines = after.hwaddrs.iter().map(|hwaddr| Subject::Machine(*hwaddr));
            let known = machines.filter(|machine| self.recorder.standing(machine).is_some());
            moves.extend(known.map(|machine| (machine, Some(subject(&after.name)))));
        }
        if !moves.is_empty() {
            self.recorder.move_all(&moves);
        }
        for (subject, detail) in dropped {
            self.recorder.record(
                subject,
                Event::new(Timestamp::now(), EventKind::Reprep, Level::Ok, detail),
            );
        }
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
