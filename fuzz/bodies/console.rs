//! Any bytes as messages of a kernel: by UDP, as a record of `/dev/kmsg`, and as a crash in a persistent store. Few short lines come out,
//! without control characters.

use rackstrap::parts::netconsole::Kernels;
use rackstrap_agent::{around_the_panic, text_of_record};
use rackstrap_base::clock::Timestamp;

/// One run; true if a line is kept.
pub fn run(bytes: &[u8]) -> bool {
    let mut kernels = Kernels::default();
    let mut lines = Vec::new();
    // Datagrams are separated by a zero.
    for (second, datagram) in (1_u64..).zip(bytes.split(|byte| *byte == 0)) {
        let heard = kernels.hear("r01n01", Timestamp(second * 1000), datagram);
        assert!(heard.kept.len() <= 20, "{}", heard.kept.len());
        lines.extend(heard.kept);
    }
    lines.extend(text_of_record(bytes));
    let parts: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect();
    let crash = around_the_panic(&parts);
    assert!(crash.len() <= 15, "{}", crash.len());
    lines.extend(crash);
    for line in &lines {
        assert!(line.len() <= 240 && !line.contains(char::is_control), "{line:?}");
    }
    !lines.is_empty()
}
