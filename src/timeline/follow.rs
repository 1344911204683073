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
    for changed in changed {
        let subject = |name: &str| Subject::Node(name.to_owned());
        match (&changed.before, &changed.after) {
            (Some(before), Some(after)) if before.name != after.name => {
                boots.forget_node(&before.name)?;
                recorder.turn_into(&subject(&before.name), &subject(&after.name));
            }
            (Some(before), None) => {
                boots.forget_node(&before.name)?;
                recorder.forget(&subject(&before.name));
            }
            _ => {}
        }
        let Some(after) = &changed.after else { continue };
        for hwaddr in &after.hwaddrs {
            let machine = Subject::Machine(*hwaddr);
            if recorder.standing(&machine).is_some() {
                recorder.turn_into(&machine, &subject(&after.name));
            }
        }
    }
    Ok(())
}
