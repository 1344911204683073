//! The last messages of a kernel that crashed, from the machine's persistent store.
//!
//! Kernels write them there when they panic: to ACPI ERST of servers, to variables of UEFI (efi_pstore), or to RAM that survives a reset
//! (ramoops). The next kernel shows them as files (Documentation/ABI/testing/pstore), and frees their space when a file is removed.

use rackstrap_wire::{is_end_of_panic, is_panic, kernel_message, text::one_line};
use rustix::mount::MountFlags;
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// Where the kernel shows its store; it makes the directory itself.
const DIR: &str = "/sys/fs/pstore";
/// Modules of the stores that are not built in: UEFI's variables, and reserved RAM.
pub const MODULES: [&str; 2] = ["efi_pstore", "ramoops"];
/// Most files that are read and removed at once, and bytes of each. A part is 1 to 64 KiB.
const MOST_FILES: usize = 64;
const MOST_BYTES: u64 = 64 << 10;
/// Lines that are reported before and after the panic's own.
const BEFORE: usize = 6;
const AFTER: usize = 8;
/// Bytes of a line that are kept.
const LINE: usize = 240;

/// A crash of an earlier kernel.
#[derive(Debug, Default)]
pub struct Crash {
    /// The lines around the panic, in order.
    pub lines: Vec<String>,
    files: Vec<PathBuf>,
}

impl Crash {
    /// Reads what the store has; empty if it has nothing, and on machines without one.
    pub fn read() -> Self {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        // An error means that there is no store, or that it is mounted already.
        let _ = rustix::mount::mount("pstore", DIR, "pstore", flags, Some(c""));
        Crash::read_from(Path::new(DIR))
    }

    fn read_from(dir: &Path) -> Self {
        let mut files: Vec<PathBuf> = (fs::read_dir(dir).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                name.starts_with("dmesg-")
            })
            .collect();
        files.sort();
        files.truncate(MOST_FILES);
        let read = |path: &PathBuf| {
            let mut bytes = Vec::new();
            let file = fs::File::open(path).ok()?;
            file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let parts: Vec<String> = files.iter().filter_map(read).collect();
        Crash {
            lines: around_the_panic(&parts),
            files,
        }
    }

    /// Frees the space in the store; called when the server has the lines.
    pub fn remove(&mut self) {
        for file in self.files.drain(..) {
            let _ = fs::remove_file(file);
        }
    }
}

/// The lines around the last panic in the parts of a record (pure). The first line of a part is `Panic#1 Part2`; part 1 is the newest.
pub fn around_the_panic(parts: &[String]) -> Vec<String> {
    let mut numbered: Vec<(u64, u64, &str)> = parts
        .iter()
        .filter_map(|part| {
            let (head, rest) = part.split_once('\n')?;
            let (_, numbers) = head.split_once('#')?;
            let (count, part) = numbers.split_once(" Part")?;
            Some((count.trim().parse().ok()?, part.trim().parse().ok()?, rest))
        })
        .collect();
    numbered.sort_by_key(|(count, part, _)| (*count, std::cmp::Reverse(*part)));
    let lines: Vec<String> = numbered
        .iter()
        .flat_map(|(_, _, text)| text.lines())
        .map(plain)
        .filter(|line| !line.is_empty())
        .collect();
    // The end mark repeats the message. It counts only if the beginning of the dump is missing.
    let panic = lines.iter().rposition(|line| is_panic(line));
    let Some(at) = panic.or_else(|| lines.iter().rposition(|line| is_end_of_panic(line))) else {
        // An oops that the machine survived, or a record whose end is missing.
        return lines[lines.len().saturating_sub(AFTER)..].to_vec();
    };
    lines[at.saturating_sub(BEFORE)..lines.len().min(at + 1 + AFTER)].to_vec()
}

/// A line without its level (`<0>`), time and task or CPU.
fn plain(line: &str) -> String {
    let line = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((level, rest)) if level.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => line,
    };
    one_line(kernel_message(line).trim_end(), LINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Linux 6.1 writes it.
    const NEWEST: &str = "Panic#1 Part1\n\
        <6>[   31.204514] sysrq: Trigger a crash\n\
        <0>[   31.204900] Kernel panic - not syncing: sysrq triggered crash\n\
        <4>[   31.205300] CPU: 0 PID: 1 Comm: sh Not tainted 6.1.0-56-amd64 #1\n\
        <0>[   31.206000] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\n";
    const OLDER: &str = "Panic#1 Part2\n<6>[    0.000000] Linux version 6.1\n<6>[   30.000000] e1000: up\n";

    #[test]
    fn the_lines_around_the_panic_are_in_order() {
        let lines = around_the_panic(&[NEWEST.to_owned(), OLDER.to_owned()]);
        assert_eq!(
            lines,
            [
                "Linux version 6.1",
                "e1000: up",
                "sysrq: Trigger a crash",
                "Kernel panic - not syncing: sysrq triggered crash",
                "CPU: 0 PID: 1 Comm: sh Not tainted 6.1.0-56-amd64 #1",
                "---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
            ]
        );
    }

    #[test]
    fn names_that_users_choose_are_no_panic_and_an_end_mark_alone_is_one() {
        let record = |lines: &str| around_the_panic(&[format!("Panic#1 Part1\n{lines}")]);
        let after: String = (0..AFTER + 5)
            .map(|n| format!("<4>[   32.{n:06}] line {n}\n"))
            .collect();
        let named = "<4>[   31.900000][  T812] oom-kill:task_memcg=/Kernel panic - not syncing: x,task=sh\n";
        let panic = "<0>[   31.000000][    C0] Kernel panic - not syncing: Fatal exception\n";
        let found = record(&format!("{panic}{named}{after}"));
        assert_eq!(found[0], "Kernel panic - not syncing: Fatal exception");
        assert_eq!(found.len(), 1 + AFTER);
        // Without a panic, the last lines.
        let found = record(&format!("{named}{after}"));
        assert_eq!(
            found.last().map(String::as_str),
            Some(format!("line {}", AFTER + 4).as_str())
        );
        let end = "<0>[   31.206000] ---[ end Kernel panic - not syncing: Fatal exception ]---\n";
        assert_eq!(
            record(end),
            ["---[ end Kernel panic - not syncing: Fatal exception ]---"]
        );
        assert_eq!(record(&format!("{end}{after}")).len(), 1 + AFTER);
    }

    #[test]
    fn files_of_crashes_are_read_and_removed_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["dmesg-erst-2", "dmesg-erst-1", "console-ramoops-0"];
        for (name, text) in names.iter().zip([NEWEST, OLDER, "x"]) {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let mut crash = Crash::read_from(dir.path());
        assert_eq!(crash.lines.len(), 6);
        crash.remove();
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .flatten()
            .map(|e| e.file_name())
            .collect();
        assert_eq!(left, ["console-ramoops-0"]);
        assert!(Crash::read_from(Path::new("/does/not/exist")).lines.is_empty());
    }

    proptest! {
        #[test]
        fn any_store_gives_few_short_printable_lines(parts in proptest::collection::vec("\\PC{0,40}(#[0-9]{0,3} Part[0-9]{0,3}\n)?(\\PC{0,300}\n){0,20}", 0..5)) {
            let lines = around_the_panic(&parts);
            prop_assert!(lines.len() <= BEFORE + 1 + AFTER);
            prop_assert!(lines.iter().all(|line| line.len() <= LINE && !line.contains(char::is_control)));
        }
    }
}
