//! Answers about boots.

use crate::api::{CheckRow, CheckState, PinnedBoot};
use rackstrap_registries::boots::Boot;
use rackstrap_wire::LOGIN;

/// The checks of a boot's plan.
pub fn checks_of(boot: &Boot) -> Vec<CheckRow> {
    // Older agents do not report the result of the login check, so it is shown only if it was made.
    let own = (boot.checks.iter().map(|result| &result.check)).filter(|check| *check == LOGIN);
    let checks = boot.plan.health.checks.iter().chain(own).map(|check| {
        let result = boot.checks.iter().find(|result| result.check == *check);
        let state = match result {
            None => CheckState::Unknown,
            Some(result) if result.ok => CheckState::Holds,
            Some(_) if boot.ready.is_none() => CheckState::Waits,
            Some(_) => CheckState::Failed,
        };
        CheckRow {
            check: check.clone(),
            state,
            detail: result.map(|result| result.detail.clone()).unwrap_or_default(),
        }
    });
    checks.collect()
}

impl From<&Boot> for PinnedBoot {
    fn from(boot: &Boot) -> Self {
        PinnedBoot {
            id: boot.plan.id.clone(),
            image: boot.image().clone(),
            opened: boot.opened,
            ready: boot.ready,
            checks: checks_of(boot),
        }
    }
}
