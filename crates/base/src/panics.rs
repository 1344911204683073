//! Panics of the daemon. Each is a defect of rackstrap: it is shown where an administrator looks. It costs one piece of work; in a
//! thread that keeps state it ends the daemon (`threads.rs`).

use crate::{clock::Timestamp, warnings::SiteWarnings};
use std::{any::Any, panic, thread};

/// What the warning, and the error of a thread that ended by it, advise.
pub(crate) const HELP: &str = "this is a defect of rackstrap: please report it with the log: journalctl -u rackstrap";

/// Has each panic of this process logged and shown in `status`, with its thread and place.
///
/// Called before the store is opened: the store's own hook comes on top of this one, as it makes errors of the database's panics.
pub fn tell(warnings: &SiteWarnings) {
    let warnings = warnings.clone();
    panic::set_hook(Box::new(move |info| {
        let current = thread::current();
        let name = current.name().unwrap_or("without a name");
        let place = info.location().map_or_else(
            || "an unknown place".to_owned(),
            |at| format!("{}:{}", at.file(), at.line()),
        );
        let message = format!("thread {name} panicked: {}", text_of(info.payload()));
        tracing::error!("{message} (at {place}); {HELP}");
        warnings.raise(Timestamp::now(), &format!("panic at {place}"), &message, HELP);
    }));
}

/// What a panic says.
pub(crate) fn text_of(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_any_thread_is_a_warning_with_its_place() {
        let warnings = SiteWarnings::default();
        tell(&warnings);
        let died = thread::Builder::new()
            .name("rollouts".into())
            .spawn(|| panic!("on purpose"));
        assert!(died.unwrap().join().is_err());
        let told = warnings.list(Timestamp::now());
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].message, "thread rollouts panicked: on purpose");
        assert!(
            told[0].topic.starts_with("panic at crates/base/src/panics.rs:"),
            "{}",
            told[0].topic
        );
    }

    #[test]
    fn texts_of_panics_are_read() {
        for panics in [
            (|| panic!("fixed")) as fn(),
            || panic!("with {}", 1),
            || panic::panic_any(7),
        ] {
            let caught = panic::catch_unwind(panics).unwrap_err();
            assert!(["fixed", "with 1", "no text"].contains(&text_of(&*caught)));
        }
    }
}
