//! The kernel's messages, which the server gets when a phase fails.
//!
//! `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg) returns one record per read: `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT`, then
//! lines with properties of the device.

use rackstrap_wire::text::one_line;
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
};

/// Longest record of a kernel (PRINTK_MESSAGE_MAX in kernel/printk/internal.h, and the prefix).
const RECORD: usize = 8192;
/// Most records read at once. Kernels keep some thousands.
const MOST_RECORDS: usize = 20_000;
/// Bytes of a line that are kept.
const LINE: usize = 240;
/// Most lines of one attempt, and of a phase that failed for good.
const OF_ATTEMPT: usize = 6;
const OF_FAILURE: usize = 20;
/// Most lines of a boot.
const OF_BOOT: usize = 120;
/// Warnings and worse (include/linux/kern_levels.h).
const WARNING: u8 = 4;

/// Reads the messages of the running kernel, each once.
#[derive(Debug)]
pub struct KernelLog {
    file: Option<File>,
    left: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    level: u8,
    text: String,
}

impl KernelLog {
    /// Opens the log, which exists once /dev is mounted. Without it, there are no lines.
    pub fn open() -> Self {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg");
        KernelLog {
            file: file.ok(),
            left: OF_BOOT,
        }
    }

    /// The new messages that help to explain a failure: warnings, or if `last` is true and no attempt follows, the last ones of any level.
    pub fn news(&mut self, last: bool) -> Vec<String> {
        let mut records = Vec::new();
        self.read(|record| records.push(record));
        let lines = choose(records, last, self.left);
        self.left -= lines.len();
        lines
    }

    /// Calls `each` with the text of each new message of the kernel.
    pub fn each_new(&mut self, mut each: impl FnMut(&str)) {
        self.read(|record| each(&record.text));
    }

    fn read(&mut self, mut each: impl FnMut(Record)) {
        let Some(file) = &mut self.file else { return };
        let mut buffer = [0; RECORD];
        for _ in 0..MOST_RECORDS {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => parse(&buffer[..len]).into_iter().for_each(&mut each),
                // EPIPE: records were overwritten before they were read, and the next read continues after the gap.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => break,
            }
        }
    }
}

/// The lines that are reported, at most `left` (pure).
fn choose(records: Vec<Record>, last: bool, left: usize) -> Vec<String> {
    let most = if last { OF_FAILURE } else { OF_ATTEMPT }.min(left);
    let mut lines = VecDeque::new();
    for record in records {
        if last || record.level <= WARNING {
            lines.push_back(record.text);
            if lines.len() > most {
                lines.pop_front();
            }
        }
    }
    lines.into()
}

/// The text of one record of `/dev/kmsg`; none for messages of programs, and for anything else (pure).
pub fn text_of_record(record: &[u8]) -> Option<String> {
    parse(record).map(|record| record.text)
}

/// Reads one record; none for messages of programs, and for anything else (pure).
fn parse(record: &[u8]) -> Option<Record> {
    let text = String::from_utf8_lossy(record);
    let (prefix, rest) = text.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    // The facility of the kernel is 0.
    if priority >= 8 {
        return None;
    }
    let line = one_line(rest.lines().next()?.trim_end(), LINE);
    (!line.is_empty()).then_some(Record {
        level: priority as u8,
        text: line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(text: &str) -> Option<(u8, String)> {
        parse(text.as_bytes()).map(|record| (record.level, record.text))
    }

    #[test]
    fn records_of_the_kernel_are_read_and_those_of_programs_are_not() {
        let driver = "3,339,5140900,-;e1000e 0000:00:19.0: Hardware Error\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:19.0\n";
        assert_eq!(
            record(driver),
            Some((3, "e1000e 0000:00:19.0: Hardware Error".to_owned()))
        );
        assert_eq!(record("6,1,0,c;\x1b[2Jblank"), Some((6, " [2Jblank".to_owned())));
        assert_eq!(record("30,7,5,-;systemd[1]: started"), None);
        assert_eq!(record("no record"), None);
        assert_eq!(record("6,1,0,-;"), None);
    }

    #[test]
    fn warnings_are_chosen_and_at_the_end_the_last_messages() {
        let records: Vec<Record> = (0..40)
            .map(|number| Record {
                level: if number % 10 == 0 { 3 } else { 6 },
                text: number.to_string(),
            })
            .collect();
        assert_eq!(choose(records.clone(), false, 100), ["0", "10", "20", "30"]);
        let last = choose(records.clone(), true, 100);
        assert_eq!((last.len(), last[19].as_str()), (OF_FAILURE, "39"));
        assert_eq!(choose(records.clone(), true, 2), ["38", "39"]);
        assert_eq!(choose(records, true, 0), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn any_record_is_short_and_printable(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(record) = parse(&bytes) {
                prop_assert!(record.level < 8 && record.text.len() <= LINE && !record.text.contains(char::is_control));
            }
        }
    }
}
