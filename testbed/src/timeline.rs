//! Waits for events on a timeline.

use crate::Result;
use serde::Deserialize;
use std::{
    fmt, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// One event in the output of `rackstrap timeline NODE --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// Milliseconds since 1970.
    pub at: u64,
    /// The boot's id; empty before the first boot.
    #[serde(default)]
    pub boot: String,
    /// `dhcp offer`, `agent disk`, `ready`.
    pub step: String,
    /// `ok`, `degraded`, `retry` or `error`.
    pub level: String,
    /// For people.
    #[serde(default)]
    pub detail: String,
    /// Its duration in milliseconds; none if it has none.
    #[serde(default)]
    pub took_ms: Option<u64>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<20} {}", self.step, self.detail)?;
        if self.level != "ok" {
            write!(f, " [{}]", self.level)?;
        }
        Ok(())
    }
}

/// The current time in milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}

/// Calls `poll` until it returns something, or returns none after `limit`. Software emulation on a loaded machine is slow, so limits are
/// for abandoning a test, never for assertions.
///
/// The pauses grow: polling five times a second took an eighth of two processors from the virtual machines.
pub fn poll<T>(limit: Duration, mut poll: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    const SHORTEST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(1);
    let began = Instant::now();
    let deadline = began + limit;
    loop {
        if let Some(answer) = poll()? {
            return Ok(Some(answer));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep((began.elapsed() / 10).clamp(SHORTEST, LONGEST));
    }
}

/// The last `lines` non-empty lines of `text`, without control characters and escape sequences.
pub fn tail(text: &str, lines: usize) -> String {
    let clean = printable(text);
    let kept: Vec<&str> = clean.lines().filter(|line| !line.trim().is_empty()).collect();
    kept[kept.len().saturating_sub(lines)..].join("\n")
}

/// `text` without the escape sequences of firmware and systemd.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // CSI: parameters, then one final byte (ECMA-48, 5.4).
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // OSC: up to BEL (ECMA-48, 8.3.89, as terminals take it).
                Some(']') => while chars.next().is_some_and(|c| c != '\u{7}') {},
                _ => {}
            },
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_removed() {
        assert_eq!(
            printable("\u{1b}[0;32m  OK  \u{1b}[0m] up\r\n\u{1b}]0;title\u{7}x"),
            "  OK  ] up\nx"
        );
        assert_eq!(tail("a\n\n b\nc\n", 2), " b\nc");
    }

    #[test]
    fn polling_ends_with_none_and_returns_errors() {
        assert_eq!(poll(Duration::ZERO, || Ok(None::<u8>)).unwrap(), None);
        let mut left = 3;
        let answer = poll(Duration::from_secs(60), || {
            left -= 1;
            Ok((left == 0).then_some("there"))
        });
        assert_eq!(answer.unwrap(), Some("there"));
        assert!(
            poll(Duration::from_secs(60), || anyhow::bail!("broken")
                as Result<Option<u8>>)
            .is_err()
        );
    }
}
