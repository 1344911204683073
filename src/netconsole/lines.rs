//! Which lines of a kernel are kept (pure).

use rackstrap_base::{clock::Timestamp, text::one_line};
use rackstrap_wire::{PANIC, kernel_message};
use std::collections::{HashMap, VecDeque};

/// Bytes of a datagram that are read: kernels send at most 1,000 at a time (MAX_PRINT_CHUNK in drivers/net/netconsole.c).
pub const DATAGRAM: usize = 1500;
/// Bytes of a line that are kept.
const LINE: usize = 240;
/// Most lines of a datagram.
const OF_DATAGRAM: usize = 16;
/// Lines that are kept before and after the one that tells of a fault.
const BEFORE: usize = 4;
const AFTER: usize = 8;
/// The lines after it come within so many milliseconds.
const AFTER_MS: u64 = 10_000;
/// Lines that one node may send at once, and in a second after that. A kernel that starts sends some hundreds before the agent runs,
/// which are not sent.
const BURST: u64 = 200;
const PER_SECOND: u64 = 20;
/// Faults of one node that are kept, and after how many milliseconds as many are kept again.
const FAULTS: u32 = 4;
const FAULTS_MS: u64 = 600_000;
/// Most nodes that are remembered. If there are more, all are forgotten, and with them only the lines before a fault.
const MOST_NODES: usize = 65_536;
/// Beginnings of messages about faults after which a machine often stops (lib/bug.c, arch/x86/kernel/dumpstack.c,
/// arch/arm64/kernel/traps.c, kernel/watchdog.c, init/do_mounts.c).
const FAULT_SIGNS: [&str; 6] = [
    PANIC,
    "BUG: ",
    "Oops: ",
    "Internal error: ",
    "VFS: Unable to mount root",
    "watchdog: BUG:",
];
/// A task that hangs: its name and number are between the two parts (kernel/hung_task.c).
const HUNG_TASK: (&str, &str) = ("INFO: task ", "blocked for more than");

/// Whether a message tells of a fault. Only its beginning counts, because the kernel also logs names that users choose.
fn is_fault(message: &str) -> bool {
    let hangs = message.starts_with(HUNG_TASK.0) && message.contains(HUNG_TASK.1);
    hangs || FAULT_SIGNS.iter().any(|sign| message.starts_with(sign))
}

/// What nodes' kernels sent lately.
#[derive(Debug, Default)]
pub struct Kernels {
    nodes: HashMap<String, Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Lines that it may still send, and when that was computed.
    allowed: u64,
    computed: Timestamp,
    before: VecDeque<String>,
    /// Lines that are still kept after the last fault, until when.
    after: usize,
    until: Timestamp,
    faults: u32,
    /// When the first of `faults` was kept.
    since: Timestamp,
}

/// The lines of a datagram that are kept, and how many were over the limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// In order.
    pub kept: Vec<String>,
    /// Lines beyond the rate of the node.
    pub dropped: u64,
}

impl Kernels {
    /// Reads a datagram of `node`.
    pub fn hear(&mut self, node: &str, now: Timestamp, datagram: &[u8]) -> Heard {
        if self.nodes.len() >= MOST_NODES && !self.nodes.contains_key(node) {
            self.nodes.clear();
        }
        let node = self.nodes.entry(node.to_owned()).or_default();
        let mut heard = Heard::default();
        let datagram = &datagram[..datagram.len().min(DATAGRAM)];
        for line in String::from_utf8_lossy(datagram).lines().take(OF_DATAGRAM) {
            let line = one_line(kernel_message(line.trim_end()), LINE);
            if line.is_empty() {
                continue;
            }
            match node.may_send(now) {
                true => node.line(now, line, &mut heard.kept),
                false => heard.dropped += 1,
            }
        }
        heard
    }
}

impl Node {
    fn may_send(&mut self, now: Timestamp) -> bool {
        let gained = now.since(self.computed).saturating_mul(PER_SECOND) / 1000;
        if gained > 0 || now < self.computed {
            self.allowed = match self.computed.0 {
                0 => BURST,
                _ => self.allowed.saturating_add(gained).min(BURST),
            };
            self.computed = now;
        }
        let may = self.allowed > 0;
        self.allowed = self.allowed.saturating_sub(1);
        may
    }

    fn line(&mut self, now: Timestamp, line: String, kept: &mut Vec<String>) {
        if is_fault(&line) && self.may_keep(now) {
            kept.extend(self.before.drain(..));
            kept.push(line);
            (self.after, self.until) = (AFTER, now.plus_secs(AFTER_MS / 1000));
        } else if self.after > 0 && now <= self.until {
            self.after -= 1;
            kept.push(line);
        } else {
            self.before.push_back(line);
            if self.before.len() > BEFORE {
                self.before.pop_front();
            }
        }
    }

    fn may_keep(&mut self, now: Timestamp) -> bool {
        if !now.is_within(FAULTS_MS, self.since) {
            (self.faults, self.since) = (0, now);
        }
        self.faults = self.faults.saturating_add(1);
        self.faults <= FAULTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    #[test]
    fn the_lines_around_a_panic_are_kept_and_others_are_not() {
        let mut kernels = Kernels::default();
        let mut hear = |text: &str| kernels.hear("r01n01", NOW, text.as_bytes()).kept;
        for number in 0..10 {
            assert_eq!(
                hear(&format!("[    3.{number}] usb: device {number}\n")),
                Vec::<String>::new()
            );
        }
        let panic = "[   12.345678] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n";
        let kept = hear(panic);
        assert_eq!(kept.len(), BEFORE + 1);
        assert_eq!(kept[0], "usb: device 6");
        assert_eq!(
            kept[BEFORE],
            "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
        );
        assert_eq!(
            hear("CPU: 0 PID: 1\x1b[2J\nCall Trace:\n"),
            ["CPU: 0 PID: 1 [2J", "Call Trace:"]
        );
        // Another node has lines of its own.
        assert_eq!(kernels.hear("r01n02", NOW, b"Call Trace:\n").kept, Vec::<String>::new());
    }

    #[test]
    fn names_that_users_choose_are_no_faults() {
        for (line, kept) in [
            (
                "[   12.3][  T99] oom-kill:task_memcg=/Kernel panic - not syncing: x,task=sh",
                false,
            ),
            (
                "[   12.3] cgroup: /BUG: Oops: watchdog: BUG: blocked for more than",
                false,
            ),
            ("[   12.3] [T1] Kernel panic - not syncing: x", false),
            ("[   12.3][  T99] Kernel panic - not syncing: Fatal exception", true),
            (
                "[   12.3][    C7] watchdog: BUG: soft lockup - CPU#7 stuck for 26s!",
                true,
            ),
            ("[   12.3] INFO: task sh:812 blocked for more than 120 seconds.", true),
            ("[   12.3] Internal error: Oops: 0000000096000004 [#1] SMP", true),
            ("Oops: 0002 [#1] PREEMPT SMP", true),
        ] {
            let found = Kernels::default().hear("r01n01", NOW, line.as_bytes()).kept;
            assert_eq!(!found.is_empty(), kept, "{line}");
        }
    }

    #[test]
    fn a_node_that_sends_without_end_is_limited() {
        let mut kernels = Kernels::default();
        let panic = format!("{PANIC}: again\n");
        let (mut kept, mut dropped) = (0, 0);
        for _ in 0..10_000 {
            let heard = kernels.hear("r01n01", NOW, panic.as_bytes());
            kept += heard.kept.len();
            dropped += heard.dropped;
        }
        assert_eq!(dropped, 10_000 - BURST);
        assert!(kept <= FAULTS as usize * (BEFORE + 1 + AFTER), "{kept}");
        // Later it is heard again.
        let later = NOW.plus_secs(FAULTS_MS / 1000 + 1);
        assert_eq!(
            kernels.hear("r01n01", later, panic.as_bytes()).kept.last(),
            Some(&panic.trim_end().to_owned())
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_few_short_printable_lines(datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..20)) {
            let mut kernels = Kernels::default();
            for datagram in datagrams {
                let heard = kernels.hear("r01n01", NOW, &datagram);
                prop_assert!(heard.kept.len() <= OF_DATAGRAM + BEFORE);
                prop_assert!(heard.kept.iter().all(|line| line.len() <= LINE && !line.contains(char::is_control)));
            }
        }
    }
}
