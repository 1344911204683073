//! Lines on the consoles, for people in front of the machine.
//!
//! `/dev/console` is only the last `console=` of the command line. A node has a screen and a serial line, and a person may
//! stand in front of either. So every active console gets every line.

use rackstrap_wire::text::one_line;
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs::{File, OpenOptions},
    io::Write,
    time::Duration,
};

/// Milliseconds since the kernel started, suspended time included.
pub fn uptime_ms() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    let t = Duration::new(t.tv_sec.max(0) as u64, t.tv_nsec as u32);
    t.as_millis() as u64
}

/// The active consoles.
#[derive(Debug, Default)]
pub struct Console {
    outputs: Vec<File>,
}

impl Console {
    /// Opens all consoles that the kernel names, or else `/dev/console`. Without any, lines go to standard error.
    pub fn open() -> Self {
        let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let open = |name: &str| OpenOptions::new().write(true).open(format!("/dev/{name}")).ok();
        let mut outputs: Vec<File> = active.split_whitespace().take(8).filter_map(open).collect();
        if outputs.is_empty() {
            outputs.extend(open("console"));
        }
        Console { outputs }
    }

    /// Writes `[   3.2] rackstrap: text`.
    pub fn line(&mut self, text: &str) {
        let line = format_line(uptime_ms(), text);
        if self.outputs.is_empty() {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        for output in &mut self.outputs {
            let _ = output.write_all(line.as_bytes());
        }
    }
}

/// One console line. Control characters from outside (a disk's label, a server's text) are replaced.
fn format_line(uptime_ms: u64, text: &str) -> String {
    let clean = one_line(text, usize::MAX);
    // Serial lines in raw mode need the carriage return; terminals do not mind a second one.
    format!(
        "[{:6}.{}] rackstrap: {clean}\r\n",
        uptime_ms / 1000,
        uptime_ms % 1000 / 100
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_stamp_and_no_escapes() {
        assert_eq!(
            format_line(3_249, "network: up"),
            "[     3.2] rackstrap: network: up\r\n"
        );
        assert_eq!(format_line(0, "disk: \x1b[2J"), "[     0.0] rackstrap: disk:  [2J\r\n");
    }
}
