//! What counts as well: the one place that judges a boot.

use crate::boots::Boot;
use rackstrap_wire::failures;

/// True if the boot's system is up, and well.
pub fn healthy(boot: &Boot) -> bool {
    boot.healthy()
}

/// What is wrong with a boot that said that it is up; empty if nothing.
pub fn problem(boot: &Boot) -> String {
    let failed = failures(&boot.checks);
    match healthy(boot) {
        true => String::new(),
        // A node whose agent is older does not say which.
        false if failed.is_empty() => "its checks failed".to_owned(),
        false => failed,
    }
}
