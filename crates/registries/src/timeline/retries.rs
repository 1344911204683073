//! How often each step of a node's boots failed and was tried again, kept across boots.

use super::{Event, EventKind, Level, kind::Part};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// A step that a boot loader tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoaderStep {
    /// Asking for the script.
    Script,
    /// Fetching the kernel.
    Kernel,
    /// Fetching the initramfs.
    Initramfs,
    /// Starting the kernel.
    Boot,
}

impl LoaderStep {
    /// All steps.
    pub const ALL: [LoaderStep; 4] = [
        LoaderStep::Script,
        LoaderStep::Kernel,
        LoaderStep::Initramfs,
        LoaderStep::Boot,
    ];

    /// The step of that name in a script; none if it does not exist.
    pub fn of_script(name: &str) -> Option<Self> {
        LoaderStep::ALL.into_iter().find(|step| step.as_str() == name)
    }

    /// The name in scripts and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            LoaderStep::Script => "script",
            LoaderStep::Kernel => "kernel",
            LoaderStep::Initramfs => "initramfs",
            LoaderStep::Boot => "boot",
        }
    }
}

impl fmt::Display for LoaderStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Numbers of retries by failed step: `kernel`, `root`, ...
pub type RetryCounts = BTreeMap<String, u64>;

/// The retries of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Those of the boot that it is in, or that brought it up: all attempts since it was up before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub current: RetryCounts,
    /// All of them, since this release or the node's first boot.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub all: RetryCounts,
    /// Whether it was up after those of `current`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    up: bool,
}

impl Retries {
    /// Counts an event; all of its repetitions that `event.count` names.
    pub(super) fn count(&mut self, event: &Event) {
        let part = event.step.row().part;
        if matches!(event.step, EventKind::Ready | EventKind::Heartbeat | EventKind::Running) {
            self.up = true;
        } else if self.up && part == Part::Loader {
            self.up = false;
            self.current.clear();
        }
        let Some(step) = failed_step(event).filter(|_| !self.up) else {
            return;
        };
        for counts in [&mut self.current, &mut self.all] {
            let count = counts.entry(step.to_owned()).or_default();
            *count = count.saturating_add(event.count);
        }
    }
}

/// The step that failed and is tried again; none for other events.
fn failed_step(event: &Event) -> Option<&'static str> {
    if event.level < Level::Retry {
        return None;
    }
    Some(match event.step {
        EventKind::Dhcp(_) => "dhcp",
        EventKind::NoLoader => "loader",
        EventKind::Tftp => "tftp",
        EventKind::Retry(step) => step.as_str(),
        EventKind::NoAgent => "agent",
        EventKind::Agent(phase) => phase.as_str(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{Recorder, Subject, tests::LIMITS};
    use rackstrap_base::clock::Timestamp;

    fn counted(rows: &[(&str, Level)]) -> Retries {
        let mut retries = Retries::default();
        for (step, level) in rows {
            retries.count(&Event::new(Timestamp(1), step.parse().unwrap(), *level, "x"));
        }
        retries
    }

    fn as_text(counts: &RetryCounts) -> String {
        let parts: Vec<String> = counts.iter().map(|(step, count)| format!("{step} {count}")).collect();
        parts.join(", ")
    }

    #[test]
    fn failures_of_a_boot_count_until_the_next_boot_begins() {
        use Level::{Error, Ok, Retry};
        let mut rows = vec![
            ("dhcp discover", Ok),
            ("tftp", Retry),
            ("script", Ok),
            ("retry kernel", Retry),
            ("kernel", Retry),
            ("retry kernel", Retry),
            ("no-agent", Error),
            ("agent root", Retry),
            ("refused", Error),
            ("checks", Retry),
        ];
        let failing = counted(&rows);
        assert_eq!(as_text(&failing.current), "agent 1, kernel 2, root 1, tftp 1");
        rows.extend([("ready", Ok), ("agent disk", Retry), ("nfs", Retry)]);
        let up = counted(&rows);
        assert_eq!(up.current, failing.current, "what its boot needed stays visible");
        rows.extend([("dhcp discover", Ok), ("retry initramfs", Retry)]);
        let next = counted(&rows);
        assert_eq!(as_text(&next.current), "initramfs 1");
        assert_eq!(as_text(&next.all), "agent 1, initramfs 1, kernel 2, root 1, tftp 1");
    }

    fn at(second: u64, step: &str, level: Level) -> Event {
        Event::new(Timestamp(second * 1000), step.parse().unwrap(), level, "x")
    }

    #[test]
    fn numbers_are_kept_over_restarts_repetitions_and_renames() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::testing::store(dir.path());
        let node = Subject::Node("r01n01".into());
        let load = || Recorder::load(store.clone(), LIMITS, Timestamp(0)).unwrap();
        let mut expected = 0;
        for start in 0..5_u64 {
            let recorder = load();
            assert_eq!(
                recorder.retries(&node).all.get("kernel").copied().unwrap_or(0),
                expected
            );
            for second in 0..7 {
                // Three repetitions are one row, of which later ones are written with a delay.
                for _ in 0..3 {
                    recorder.record(
                        node.clone(),
                        at(start * 1000 + second * 20, "retry kernel", Level::Retry),
                    );
                    expected += 1;
                }
                recorder.record(node.clone(), at(start * 1000 + second * 20 + 11, "script", Level::Ok));
            }
            store.flush().unwrap();
        }
        let recorder = load();
        let other = Subject::Node("r01n02".into());
        recorder.move_all(&[(node.clone(), Some(other.clone()))]);
        assert_eq!(recorder.retries(&other).all["kernel"], expected);
        assert_eq!(recorder.retries(&node), Retries::default());
    }

    #[test]
    fn a_kernel_that_never_starts_its_agent_is_named_once_when_firmware_asks_again() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::load(crate::testing::store(dir.path()), LIMITS, Timestamp(0)).unwrap();
        let node = Subject::Node("r01n01".into());
        let record =
            |second, step, boot: &str| recorder.record(node.clone(), at(second, step, Level::Ok).of_boot(boot));
        let named = || {
            recorder
                .of(&node)
                .iter()
                .filter(|event| event.step == EventKind::NoAgent)
                .count()
        };
        for (start, boot) in [(0, "a"), (100, "b")] {
            record(start, "dhcp discover", "");
            record(start + 1, "script", boot);
            record(start + 2, "kernel", boot);
            record(start + 3, "initramfs", boot);
        }
        assert_eq!(named(), 1);
        record(105, "plan", "b");
        record(200, "dhcp discover", "");
        assert_eq!(named(), 1, "the agent of the second boot was heard of");
        record(201, "script", "c");
        record(202, "initramfs", "c");
        // The loader itself failed to start the kernel, and asks again without a restart.
        record(203, "retry boot", "");
        record(204, "dhcp discover", "");
        assert_eq!(named(), 1);
        let said = recorder
            .of(&node)
            .into_iter()
            .find(|event| event.step == EventKind::NoAgent)
            .unwrap();
        assert_eq!((said.boot.as_str(), said.level), ("a", Level::Error));
        assert!(said.detail.starts_with("boot a: it had its kernel"), "{}", said.detail);
        assert_eq!(recorder.retries(&node).all["agent"], 1);
    }
}
