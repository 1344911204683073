//! The list of an image's files that its agent has in the initramfs: capabilities, which NFSv3 does not transfer; directories that
//! always come from the version that boots; and the entries with which a copy of the image's other directories on a disk is
//! compared.
//!
//! A list is a sequence of records, each of two byte strings that end with NUL. The first string has fields, separated by a blank,
//! and a path from the root without a leading `/`; paths have any bytes except NUL. Numbers are hexadecimal, without leading zeros
//! except `CRC` and `SUM`.
//!
//! | first string | second string | meaning |
//! |---|---|---|
//! | `list 1` | | starts a list, in version 1 of this format |
//! | `o PATH` | | this directory belongs to the image |
//! | `x VALUE PATH` | | this file has the capabilities VALUE, the attribute `security.capability` in hexadecimal |
//! | `KIND MODE UID GID SIZE CRC SUM PATH` | target of a symbolic link | an entry of a directory of which disks may have a copy |
//!
//! Entries are in the order of the bytes of their paths, so a directory comes before its content.

use std::fmt;

/// Longest path, as in linux/limits.h.
const PATH_MAX: usize = 4096;
/// Largest value of `security.capability`: `struct vfs_ns_cap_data` of linux/capability.h has 24 bytes.
const CAPABILITY_MAX: usize = 24;

/// A parsed list, which borrows from the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageList<'a> {
    /// Directories that belong to the image, sorted.
    pub owned: Vec<&'a [u8]>,
    /// Files with capabilities, with the value of the attribute, sorted by path.
    pub capabilities: Vec<(&'a [u8], Vec<u8>)>,
    /// Entries, sorted by path, without duplicates.
    pub entries: Vec<Entry<'a>>,
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path from the root, or from the directory of the list.
    pub path: &'a [u8],
    /// `d`, `f`, `l` (symbolic link), `c`, `b`, `p` (fifo) or `s` (socket).
    pub kind: u8,
    /// Permissions, 0 to 0o7777.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Id of the group.
    pub gid: u32,
    /// Bytes of a regular file, number of a device; 0 for the rest.
    pub size: u64,
    /// CRC-32 (IEEE) of the content of a regular file; 0 for the rest.
    pub crc: u32,
    /// First 8 bytes of BLAKE3 over content and capabilities of a regular file, to compare two versions; 0 for the rest.
    pub sum: u64,
    /// Target of a symbolic link; empty for the rest.
    pub target: &'a [u8],
}

/// Why a text is not a list: the fault, and the number of the record, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageListError(pub &'static str, pub usize);

impl fmt::Display for ImageListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}: {}", self.1, self.0)
    }
}

impl std::error::Error for ImageListError {}

impl<'a> ImageList<'a> {
    /// Parses a text that contains exactly one list.
    ///
    /// # Errors
    /// The text is not a list.
    pub fn parse(text: &'a [u8]) -> Result<Self, ImageListError> {
        let mut lists = Self::parse_all(text)?;
        match lists.len() {
            1 => Ok(lists.swap_remove(0)),
            _ => Err(ImageListError("there is not exactly one list", 0)),
        }
    }

    /// Parses consecutive lists.
    ///
    /// # Errors
    /// The text is not a sequence of lists.
    pub fn parse_all(text: &'a [u8]) -> Result<Vec<Self>, ImageListError> {
        let mut lists: Vec<Self> = Vec::new();
        let mut rest = text;
        let mut count = 0;
        while !rest.is_empty() {
            let wrong = |what| ImageListError(what, count);
            let (fields, tail) = string(rest).ok_or(wrong("it does not end"))?;
            let (target, tail) = string(tail).ok_or(wrong("it does not end"))?;
            rest = tail;
            if fields == b"list 1" {
                lists.push(Self::default());
            } else {
                let list = lists.last_mut().ok_or(wrong("a list does not begin with 'list 1'"))?;
                list.add(fields, target).map_err(wrong)?;
            }
            count += 1;
        }
        Ok(lists)
    }

    fn add(&mut self, fields: &'a [u8], target: &'a [u8]) -> Result<(), &'static str> {
        let mut fields = Fields(fields);
        let kind = fields.next()?;
        match kind {
            b"o" => {
                let path = fields.path()?;
                if self.owned.last().is_some_and(|last| *last >= path) {
                    return Err("directories of the image are not in order");
                }
                self.owned.push(path);
            }
            b"x" => {
                let value = bytes(fields.next()?).ok_or("a capability is not hexadecimal")?;
                let path = fields.path()?;
                if self.capabilities.last().is_some_and(|(last, _)| *last >= path) {
                    return Err("files with capabilities are not in order");
                }
                self.capabilities.push((path, value));
            }
            [kind @ (b'd' | b'f' | b'l' | b'c' | b'b' | b'p' | b's')] => {
                let entry = Entry {
                    kind: *kind,
                    mode: fields.number32()?,
                    uid: fields.number32()?,
                    gid: fields.number32()?,
                    size: fields.number()?,
                    crc: fields.number32()?,
                    sum: fields.number()?,
                    path: fields.path()?,
                    target,
                };
                if entry.mode > 0o7777 {
                    return Err("a mode has more than permissions");
                }
                if (*kind == b'l') == target.is_empty() {
                    return Err("only a symbolic link has a target");
                }
                if self.entries.last().is_some_and(|last| last.path >= entry.path) {
                    return Err("entries are not in order");
                }
                self.entries.push(entry);
            }
            _ => return Err("its kind is unknown"),
        }
        Ok(())
    }

    /// The entry with that path; none if the list does not have the path.
    pub fn entry(&self, path: &[u8]) -> Option<&Entry<'a>> {
        let at = self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()?;
        self.entries.get(at)
    }
}

/// Starts a list.
pub fn begin(out: &mut Vec<u8>) {
    out.extend(b"list 1\0\0");
}

/// Adds a directory that belongs to the image.
pub fn add_owned(out: &mut Vec<u8>, path: &[u8]) {
    out.extend(b"o ");
    out.extend(path);
    out.extend(b"\0\0");
}

/// Adds the capabilities of a file.
pub fn add_capability(out: &mut Vec<u8>, path: &[u8], value: &[u8]) {
    out.extend(b"x ");
    for byte in value {
        hex(out, u64::from(*byte), 2);
    }
    out.push(b' ');
    out.extend(path);
    out.extend(b"\0\0");
}

/// The letter of a type of file in lists and digests, by a file's mode (`S_IFMT` of inode(7)); `?` for a type that does not exist.
pub fn letter(mode: u32) -> u8 {
    match mode & 0o170_000 {
        0o040_000 => b'd',
        0o100_000 => b'f',
        0o120_000 => b'l',
        0o020_000 => b'c',
        0o060_000 => b'b',
        0o010_000 => b'p',
        0o140_000 => b's',
        _ => b'?',
    }
}

/// Adds an entry.
pub fn add_entry(out: &mut Vec<u8>, entry: &Entry<'_>) {
    out.push(entry.kind);
    for (number, digits) in [
        (u64::from(entry.mode), 1),
        (u64::from(entry.uid), 1),
        (u64::from(entry.gid), 1),
        (entry.size, 1),
        (u64::from(entry.crc), 8),
        (entry.sum, 16),
    ] {
        out.push(b' ');
        hex(out, number, digits);
    }
    out.push(b' ');
    out.extend(entry.path);
    out.push(0);
    out.extend(entry.target);
    out.push(0);
}

/// Writes a number with at least that many digits.
fn hex(out: &mut Vec<u8>, number: u64, digits: u32) {
    let needed = (64 - number.leading_zeros()).div_ceil(4);
    for digit in (0..needed.max(digits)).rev() {
        out.push(b"0123456789abcdef"[(number >> (4 * digit)) as usize & 0xf]);
    }
}

/// The bytes before the next NUL, and those after it.
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == 0)?;
    Some((&text[..end], &text[end + 1..]))
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<&'a [u8], &'static str> {
        let end = self
            .0
            .iter()
            .position(|byte| *byte == b' ')
            .ok_or("a field is missing")?;
        let (field, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(field)
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        const WRONG: &str = "a number is not hexadecimal, or too large";
        let field = self.next()?;
        if field.is_empty() || field.len() > 16 {
            return Err(WRONG);
        }
        field.iter().try_fold(0, |number, digit| {
            Ok(number << 4 | u64::from((*digit as char).to_digit(16).ok_or(WRONG)?))
        })
    }

    fn number32(&mut self) -> Result<u32, &'static str> {
        u32::try_from(self.number()?).map_err(|_| "a number is too large")
    }

    /// The rest of the record: a relative path without `..`.
    fn path(self) -> Result<&'a [u8], &'static str> {
        let down = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
        match self.0.len() < PATH_MAX && self.0.split(|byte| *byte == b'/').all(down) {
            true => Ok(self.0),
            false => Err("a path is empty, too long, or has an empty part, . or .."),
        }
    }
}

/// Decodes hexadecimal digits.
fn bytes(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let pairs = text.chunks(2).map(|pair| match pair {
        [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
        _ => None,
    });
    let plain = !text.is_empty() && text.len() <= 2 * CAPABILITY_MAX;
    pairs.collect::<Option<Vec<u8>>>().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: Entry<'static> = Entry {
        path: b"var/lib/x\nand more",
        kind: b'f',
        mode: 0o4755,
        uid: 0,
        gid: u32::MAX,
        size: u64::MAX,
        crc: 7,
        sum: 1 << 60,
        target: b"",
    };

    #[test]
    fn the_letter_of_a_file_is_one_that_is_read() {
        use std::os::unix::fs::MetadataExt;
        for (path, want) in [
            ("/", b'd'),
            ("/proc/self/exe", b'l'),
            ("/dev/null", b'c'),
            ("/etc/passwd", b'f'),
        ] {
            let mode = std::fs::symlink_metadata(path).unwrap().mode();
            assert_eq!(letter(mode), want, "{path}");
            let (mut text, entry) = (Vec::new(), Entry { kind: want, ..FILE });
            let target: &[u8] = if want == b'l' { b"x" } else { b"" };
            begin(&mut text);
            add_entry(&mut text, &Entry { target, ..entry });
            assert_eq!(ImageList::parse(&text).unwrap().entries[0].kind, want);
        }
        assert_eq!(letter(0o4755), b'?');
    }

    #[test]
    fn written_lists_are_read_back() {
        let link = Entry {
            path: b"var/run",
            kind: b'l',
            target: b"/run \xff",
            ..FILE
        };
        let mut text = Vec::new();
        begin(&mut text);
        add_owned(&mut text, b"var/lib/dpkg");
        add_capability(&mut text, b"usr/bin/ping", &[1, 0, 0, 2, 0xff]);
        add_entry(&mut text, &FILE);
        add_entry(&mut text, &link);
        let list = ImageList::parse(&text).unwrap();
        assert_eq!(list.owned, [b"var/lib/dpkg"]);
        assert_eq!(list.capabilities, [(&b"usr/bin/ping"[..], vec![1, 0, 0, 2, 0xff])]);
        assert_eq!(list.entries, [FILE, link]);
        assert_eq!(list.entry(b"var/run"), Some(&link));
        assert_eq!(list.entry(b"var"), None);
        let twice = [text.clone(), text.clone()].concat();
        assert_eq!(ImageList::parse_all(&twice).unwrap(), [list.clone(), list]);
        assert!(ImageList::parse(&twice).is_err() && ImageList::parse(b"").is_err());
    }

    #[test]
    fn the_format_is_as_documented() {
        let mut text = Vec::new();
        begin(&mut text);
        add_capability(&mut text, b"bin/a", &[1, 0xab]);
        add_entry(&mut text, &FILE);
        let want = b"list 1\0\0x 01ab bin/a\0\0f 9ed 0 ffffffff ffffffffffffffff 00000007 1000000000000000 var/lib/x\nand more\0\0";
        assert_eq!(text, want);
    }

    #[test]
    fn texts_that_are_not_lists_are_refused() {
        for (text, why) in [
            (&b"list 2\0\0"[..], "does not begin"),
            (b"o var\0\0", "does not begin"),
            (b"list 1\0", "does not end"),
            (b"list 1\0\0o var", "does not end"),
            (b"list 1\0\0q var\0\0", "kind is unknown"),
            (b"list 1\0\0o \0\0", "a path is"),
            (b"list 1\0\0o /etc\0\0", "a path is"),
            (b"list 1\0\0o var/../etc\0\0", "a path is"),
            (b"list 1\0\0o var/./x\0\0", "a path is"),
            (b"list 1\0\0o b\0\0o a\0\0", "not in order"),
            (b"list 1\0\0x 01 b\0\0x 01 b\0\0", "not in order"),
            (b"list 1\0\0x 0 b\0\0", "not hexadecimal"),
            (b"list 1\0\0x  b\0\0", "not hexadecimal"),
            (
                b"list 1\0\0x 000102030405060708090a0b0c0d0e0f101112131415161718 b\0\0",
                "not hexadecimal",
            ),
            (b"list 1\0\0d 1ed 0 0 0 0 0\0\0", "field is missing"),
            (b"list 1\0\0d 11ed 0 0 0 0 0 a\0\0", "more than permissions"),
            (b"list 1\0\0d 1ed 100000000 0 0 0 0 a\0\0", "too large"),
            (b"list 1\0\0f 1ed 0 0 10000000000000000 0 0 a\0\0", "too large"),
            (b"list 1\0\0d 1ed 0 0 0 0 0 a\0x\0", "only a symbolic link"),
            (b"list 1\0\0l 1ff 0 0 0 0 0 a\0\0", "only a symbolic link"),
            (b"list 1\0\0d 1ed 0 0 0 0 0 b\0\0d 1ed 0 0 0 0 0 a\0\0", "not in order"),
        ] {
            let error = ImageList::parse(text).expect_err(&String::from_utf8_lossy(text));
            assert!(
                error.to_string().contains(why),
                "{error}: {}",
                String::from_utf8_lossy(text)
            );
        }
        let long = [b"list 1\0\0o ".to_vec(), vec![b'a'; PATH_MAX], b"\0\0".to_vec()].concat();
        assert!(ImageList::parse(&long).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let begun = [b"list 1\0\0".to_vec(), text.clone()].concat();
            let _ = (ImageList::parse_all(&text), ImageList::parse(&begun));
        }
    }
}
