//! What counts as well: the one place that judges a boot.

use crate::boots::Boot;

/// True if the boot's system is up, and well.
pub fn healthy(boot: &Boot) -> bool {
    boot.healthy()
}

/// What is wrong with a boot that said that it is up; empty if nothing.
pub fn problem(boot: &Boot) -> String {
    match healthy(boot) {
        true => String::new(),
        false => "its checks failed".to_owned(),
    }
}
