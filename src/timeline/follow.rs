//! What a change of the inventory means for timelines and boots.

use super::{Recorder, Subject};
use crate::{boots::Boots, inventory::Changed, store::StoreError};

/// Lets timelines, boots and what is known of disks follow `changed`: an unknown machine that became a node brings what was heard of
/// it along, a node that was renamed its timeline, and what is deleted is forgotten. Blocks for a disk flush.
///
/// # Errors
/// The store's, when boots of a node that is no more cannot be forgotten.
pub fn follow(recorder: &Recorder, boots: &Boots, changed: &[Changed]) -> Result<(), StoreError> {
    boots.disks().follow(changed)?;
    let subject = |name: &str| Subject::Node(name.to_owned());
    // One move after the other would mix the timelines of two nodes that change places, or lose the one that takes a free name.
    let mut moves: Vec<(Subject, Option<Subject>)> = Vec::new();
    for changed in changed {
        let (before, after) = (changed.before.as_ref(), changed.after.as_ref());
        if let Some(before) = before.filter(|before| after.is_none_or(|after| after.name != before.name)) {
            boots.forget_node(&before.name)?;
            moves.push((subject(&before.name), after.map(|after| subject(&after.name))));
        }
        let Some(after) = after else { continue };
        let machines = after.hwaddrs.iter().map(|hwaddr| Subject::Machine(*hwaddr));
        let known = machines.filter(|machine| recorder.standing(machine).is_some());
        moves.extend(known.map(|machine| (machine, Some(subject(&after.name)))));
    }
    if !moves.is_empty() {
        recorder.move_all(&moves);
    }
    Ok(())
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
