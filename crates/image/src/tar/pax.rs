//! Parses extended headers (POSIX.1-2024, pax, "pax Extended Header").

use std::collections::BTreeMap;

/// The records of the extended headers for one entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    /// `GNU.sparse.offset` and `GNU.sparse.numbytes` of GNU tar's format 0.0, which repeats keywords.
    pub sparse_list: Vec<u64>,
}

/// Most segments of a sparse file, so that a map takes at most 16 MiB.
pub(super) const MOST_SEGMENTS: usize = 1 << 20;

impl Records {
    /// Adds the records of one extended header. An empty value removes a record.
    pub fn add(&mut self, mut text: &[u8]) -> Result<(), String> {
        while !text.is_empty() {
            let wrong = || "its extended header is damaged".to_owned();
            let space = text.iter().take(21).position(|b| *b == b' ').ok_or_else(wrong)?;
            let len: usize = std::str::from_utf8(&text[..space])
                .ok()
                .and_then(|t| t.parse().ok())
                .ok_or_else(wrong)?;
            let record = text.get(space + 1..len).ok_or_else(wrong)?;
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            text = &text[len..];
            if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                if self.sparse_list.len() >= 2 * MOST_SEGMENTS {
                    return Err("it has too many holes".to_owned());
                }
                self.sparse_list.push(decimal(value).ok_or_else(wrong)?);
            } else if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") {
                self.map.remove(key);
            } else {
                self.map.insert(key.to_vec(), value.to_vec());
            }
        }
        Ok(())
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.map.get(key.as_bytes()).map(Vec::as_slice)
    }

    /// The value of `key` as a number; an error if it is not one.
    pub fn number(&self, key: &str) -> Result<Option<u64>, String> {
        let read = |value| decimal(value).ok_or_else(|| format!("{key} of its extended header is not a number"));
        self.get(key).map(read).transpose()
    }

    /// Extended attributes, in the forms of GNU tar, star and bsdtar.
    pub fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let prefix: &[u8] = b"SCHILY.xattr.";
        self.map
            .iter()
            .filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.as_slice())))
    }
}

/// A decimal number without sign.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// A time, `[-]seconds[.fraction]`, as seconds and nanoseconds. Finer digits are cut.
pub(super) fn time(text: &[u8]) -> Option<(i64, i64)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &text[..0]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |n, d| n * 10 + i64::from(d - b'0'));
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// A record in its written form: its length includes itself.
#[cfg(test)]
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key, b"=", value, b"\n"].concat();
    let len = (rest.len()..)
        .find(|len| len.to_string().len() + rest.len() == *len)
        .unwrap();
    [len.to_string().as_bytes(), &rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_are_parsed() {
        let mut records = Records::default();
        records.add(&record(b"path", b"a")).unwrap();
        let text = [record(b"SCHILY.xattr.user.x", b"\n\x00=\xff"), record(b"uid", b"1000")].concat();
        records.add(&text).unwrap();
        assert_eq!(records.get("path"), Some(&b"a"[..]));
        assert_eq!(records.number("uid"), Ok(Some(1000)));
        assert_eq!(
            records.xattrs().collect::<Vec<_>>(),
            [(&b"user.x"[..], &b"\n\x00=\xff"[..])]
        );
        records.add(&record(b"path", b"")).unwrap();
        assert_eq!(records.get("path"), None);
        assert!(records.number("path").unwrap().is_none());
        for damaged in [
            "x", "99 a=b\n", "3 a", "0 a=b\n", "6 a=bc", "5 ab\n", "-1 a=b\n", "2 \n",
        ] {
            assert!(Records::default().add(damaged.as_bytes()).is_err(), "{damaged}");
        }
    }

    #[test]
    fn times_are_parsed() {
        assert_eq!(time(b"1700000000.123456789"), Some((1_700_000_000, 123_456_789)));
        assert_eq!(time(b"5.1"), Some((5, 100_000_000)));
        assert_eq!(time(b"5.12345678999"), Some((5, 123_456_789)));
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        for wrong in ["", "-", ".5", "1.x", "99999999999999999999", "1e5"] {
            assert_eq!(time(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn damage_does_no_harm(text: Vec<u8>, tail in "[0-9 a-z=\n]{0,40}") {
            let _ = Records::default().add(&text);
            let _ = Records::default().add(tail.as_bytes());
            let _ = time(&text);
        }
    }
}
