//! Who holds the lock of a file.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// Process that holds a lock on `path`, as /proc/locks says (`1: FLOCK ADVISORY WRITE 4711 fe:01:131 0 EOF`, proc(5)).
pub(super) fn holder(path: &Path) -> Option<u32> {
    let inode = fs::metadata(path).ok()?.ino();
    parse(&fs::read_to_string("/proc/locks").ok()?, inode)
}

fn parse(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        // A blocked lock has an arrow behind its number; it is not the holder's.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, _, pid, file, ..] = fields[..] else {
            return None;
        };
        (fields[1] != "->" && file.rsplit(':').next()?.parse() == Ok(inode))
            .then(|| pid.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn finds_the_holder_and_not_the_waiter() {
        let locks = "1: -> FLOCK  ADVISORY  WRITE 12 fe:01:131 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 99 00:19:13 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 4711 fe:01:131 0 EOF\n";
        assert_eq!(parse(locks, 131), Some(4711));
        assert_eq!(parse(locks, 14), None);
        assert_eq!(parse("nonsense\n1:\n", 131), None);
    }
}
