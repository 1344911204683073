//! Answers about boots.

use crate::api::{CheckRow, CheckState, PinnedBoot};
use rackstrap_registries::boots::Boot;

/// The checks of a boot's plan.
pub fn checks_of(boot: &Boot) -> Vec<CheckRow> {
    let health = &boot.plan.health;
    // Older agents do not make the checks of logins and of networks, so these are shown only if they were made.
    let own = boot.checks.iter().map(|result| &result.check);
    let own = own.filter(|check| health.has(check) && !health.checks.contains(check));
    let checks = health.checks.iter().chain(own).map(|check| {
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
