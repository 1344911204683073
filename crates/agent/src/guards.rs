//! What restarts a machine that hangs while the agent runs: a hardware watchdog, and the kernel's own checks. Both end at the hand-over,
//! where the operating system's own settings begin.

use crate::{console::uptime_ms, disk::machine::LONGEST_PROGRAM, sys};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// The first watchdog. The kernel starts it when it is opened.
const DEVICE: &str = "/dev/watchdog";
/// `1` if the driver never stops a watchdog that was started: then the operating system would have to feed it, and may not.
const FOR_EVER: &str = "/sys/class/watchdog/watchdog0/nowayout";
/// Between two signs of life.
const PERIOD: Duration = Duration::from_secs(5);
/// The machine is reset so many seconds after the last sign of life; a driver that does not take this keeps its own time, 30 s or more.
const TIMEOUT: u16 = 120;
/// A phase that shows no step and no attempt for this long hangs. The agent's longest wait is that for a program that makes or checks a file
/// system, [`LONGEST_PROGRAM`].
const HUNG_MS: u64 = 30 * 60 * 1000;
const _: () = assert!(
    LONGEST_PROGRAM.as_millis() < HUNG_MS as u128,
    "the watchdog resets a machine whose agent still waits"
);

/// The kernel's settings, with their values while the agent runs. An oops or a task that is stuck for ten minutes is a panic; with `panic=`
/// of the kernel command line a panic restarts the machine. Waiting for the server is no such task: NFS waits can be killed.
const KERNEL: [(&str, &str); 3] = [
    ("panic_on_oops", "1"),
    ("hung_task_timeout_secs", "600"),
    ("hung_task_panic", "1"),
];

/// Uptime of the last step of any phase, in milliseconds.
static PROGRESS: AtomicU64 = AtomicU64::new(0);

/// Records that the agent makes progress.
pub fn progress() {
    PROGRESS.store(uptime_ms(), Relaxed);
}

/// Whether an agent that made its last progress at `last` hangs, if it may be without a step for `limit` (pure). All in milliseconds.
fn hangs(last: u64, now: u64, limit: u64) -> bool {
    now.saturating_sub(last) > limit
}

/// The guards that are in force.
#[derive(Debug)]
pub struct Guards {
    settings: Vec<(&'static str, String)>,
    feeder: Option<(Arc<AtomicBool>, std::thread::JoinHandle<()>)>,
}

impl Guards {
    /// Sets the kernel's checks. What this kernel does not have stays as it is.
    pub fn set() -> Self {
        Guards {
            settings: settings(Path::new("/proc/sys/kernel")),
            feeder: None,
        }
    }

    /// Starts the watchdog, once its driver is loaded. An agent without a step for `hung_after` seconds hangs; none for [`HUNG_MS`]. Returns a
    /// sentence for people.
    pub fn watch(&mut self, hung_after: Option<u16>) -> Option<String> {
        if fs::read_to_string(FOR_EVER).is_ok_and(|text| text.trim() == "1") {
            return Some("the watchdog cannot be stopped again, so it was not started".to_owned());
        }
        let mut device = OpenOptions::new().write(true).open(DEVICE).ok()?;
        let _ = sys::set_watchdog_timeout(&device, hung_after.map_or(TIMEOUT, |secs| secs.min(TIMEOUT)));
        let limit = hung_after.map_or(HUNG_MS, |secs| u64::from(secs) * 1000);
        progress();
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let spare = device.try_clone();
        let feeder = std::thread::Builder::new().spawn(move || {
            while !asked.load(Relaxed) {
                if !hangs(PROGRESS.load(Relaxed), uptime_ms(), limit) {
                    let _ = device.write_all(b"\0");
                }
                std::thread::park_timeout(PERIOD);
            }
            stop_watchdog(&mut device);
        });
        match feeder {
            Ok(feeder) => self.feeder = Some((stop, feeder)),
            // Without the thread, nothing tells the watchdog that the machine runs, so it would reset the machine.
            Err(error) => {
                if let Ok(mut device) = spare {
                    stop_watchdog(&mut device);
                }
                return Some(format!("the watchdog was stopped again: starting its thread: {error}"));
            }
        }
        Some(format!("{DEVICE} resets the machine if it hangs"))
    }

    /// Ends all guards, before the operating system starts.
    pub fn end(self) {
        for (name, old) in self.settings {
            let _ = fs::write(Path::new("/proc/sys/kernel").join(name), old);
        }
        if let Some((stop, feeder)) = self.feeder {
            stop.store(true, Relaxed);
            feeder.thread().unpark();
            let _ = feeder.join();
        }
    }
}

/// Writes [`KERNEL`] below `dir`, and returns the earlier values.
fn settings(dir: &Path) -> Vec<(&'static str, String)> {
    let set = |(name, value): (&'static str, &str)| {
        let path = dir.join(name);
        let old = fs::read_to_string(&path).ok()?;
        fs::write(path, value).ok()?;
        Some((name, old))
    };
    KERNEL.into_iter().filter_map(set).collect()
}

/// Without this letter a watchdog continues after it is closed (Documentation/watchdog/watchdog-api.rst).
fn stop_watchdog(device: &mut File) {
    let _ = device.write_all(b"V");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_without_a_step_for_half_an_hour_hangs() {
        assert!(!hangs(0, HUNG_MS, HUNG_MS));
        assert!(hangs(0, HUNG_MS + 1, HUNG_MS));
        assert!(!hangs(5_000, 1_000, HUNG_MS));
    }

    #[test]
    fn the_settings_of_the_kernel_are_remembered_and_missing_ones_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("panic_on_oops"), "0\n").unwrap();
        fs::write(dir.path().join("hung_task_panic"), "0\n").unwrap();
        let old = settings(dir.path());
        assert_eq!(
            old,
            [
                ("panic_on_oops", "0\n".to_owned()),
                ("hung_task_panic", "0\n".to_owned())
            ]
        );
        assert_eq!(fs::read_to_string(dir.path().join("hung_task_panic")).unwrap(), "1");
        assert!(!dir.path().join("hung_task_timeout_secs").exists());
    }
}
