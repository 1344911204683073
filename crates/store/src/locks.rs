//! Finds the holder of a file's lock.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// The process that holds a lock on `path`, from /proc/locks (`1: FLOCK ADVISORY WRITE 4711 fe:01:131 0 EOF`, proc(5)).
pub(super) fn holder(path: &Path) -> Option<u32> {
    let inode = fs::metadata(path).ok()?.ino();
    parse(&fs::read_to_string("/proc/locks").ok()?, inode)
}

fn parse(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        // A waiting lock has an arrow after its number and does not belong to the holder.
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
    fn the_holder_is_found_and_not_a_waiting_process() {
        let locks = "1: -> FLOCK  ADVISORY  WRITE 12 fe:01:131 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 99 00:19:13 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 4711 fe:01:131 0 EOF\n";
        assert_eq!(parse(locks, 131), Some(4711));
        assert_eq!(parse(locks, 14), None);
        assert_eq!(parse("nonsense\n1:\n", 131), None);
    }
}
