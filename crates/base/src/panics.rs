//! Panics of the daemon. Each is a defect of rackstrap: it is shown where an administrator looks, and it costs one piece of work
//! and not the thread that does it.

use crate::{backoff::doubled, clock::Timestamp, warnings::SiteWarnings};
use std::{
    any::Any,
    ops::ControlFlow,
    panic::{self, AssertUnwindSafe},
    thread,
    time::Duration,
};

/// Pause after a step that panicked; doubled for each one that follows at once.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause is never longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
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
pub fn text_of(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

/// Does one step after the other until one says `Break`. After a step that panicked, `mend` puts right what it left half done,
/// and the next step follows after a pause. The step is not done again: what makes it panic would do so each time.
pub fn keep_at(mut step: impl FnMut() -> ControlFlow<()>, mut mend: impl FnMut()) {
    let mut in_a_row = 0;
    loop {
        match panic::catch_unwind(AssertUnwindSafe(&mut step)) {
            Ok(ControlFlow::Continue(())) => in_a_row = 0,
            Ok(ControlFlow::Break(())) => return,
            Err(_) => {
                // The hook has logged this panic, and logs one in `mend` too.
                let _ = panic::catch_unwind(AssertUnwindSafe(&mut mend));
                thread::sleep(doubled(PAUSE, LONGEST_PAUSE, in_a_row));
                in_a_row = in_a_row.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_costs_one_step_and_what_it_left_is_mended() {
        let (mut steps, mut mended) = (Vec::new(), 0);
        keep_at(
            || {
                steps.push(steps.len());
                match steps.len() {
                    2 => panic!("the second step"),
                    4 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            },
            || {
                mended += 1;
                panic!("mending panics as well");
            },
        );
        assert_eq!((steps, mended), (vec![0, 1, 2, 3], 1));
    }

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
