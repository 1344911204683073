//! Sparse files: GNU tar's old format and its pax formats 0.0, 0.1 and 1.0 (GNU tar manual, appendix D).

use super::pax::{MOST_SEGMENTS, Records, decimal};
use std::io::Read;

/// The places of the stored bytes of a sparse file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SparseMap {
    /// Size including the holes.
    pub size: u64,
    /// (offset, length), ascending.
    pub segments: Vec<(u64, u64)>,
}

impl SparseMap {
    /// Refuses maps that overlap, go backwards, leave the file, or do not need exactly `stored` bytes.
    pub fn check(self, stored: u64) -> Result<Self, String> {
        let mut end = 0u64;
        let mut sum = 0u64;
        for (offset, len) in &self.segments {
            if *offset < end {
                return Err("its map of holes overlaps".to_owned());
            }
            end = offset.checked_add(*len).ok_or("its map of holes overflows")?;
            sum += len; // This cannot overflow, because segments do not overlap and end below 2^64.
        }
        if end > self.size || self.size > i64::MAX as u64 {
            return Err("its map of holes goes past its end".to_owned());
        }
        if sum != stored {
            return Err(format!("its map of holes needs {sum} bytes, but {stored} are stored"));
        }
        Ok(self)
    }

    /// The map of pax formats 0.0 and 0.1, from the extended header.
    pub fn from_records(records: &Records) -> Result<Option<Self>, String> {
        let numbers = match records.get("GNU.sparse.map") {
            Some([]) => Vec::new(),
            Some(list) => {
                let numbers = list.split(|b| *b == b',').take(2 * MOST_SEGMENTS + 1).map(decimal);
                numbers
                    .collect::<Option<Vec<u64>>>()
                    .ok_or("its map of holes is damaged")?
            }
            None if !records.sparse_list.is_empty() => records.sparse_list.clone(),
            None => return Ok(None),
        };
        let size = records
            .number("GNU.sparse.size")?
            .ok_or("it is sparse, but its size is missing")?;
        if numbers.len() % 2 != 0 || numbers.len() > 2 * MOST_SEGMENTS {
            return Err("its map of holes is damaged".to_owned());
        }
        let segments = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(Some(SparseMap { size, segments }))
    }

    /// The map of pax format 1.0, which precedes the data in blocks of 512 bytes. Also returns its number of bytes.
    pub fn read(mut data: impl Read, size: u64) -> Result<(Self, u64), String> {
        let mut taken = 0;
        let mut numbers: Vec<u64> = Vec::new();
        let mut digits: Vec<u8> = Vec::new();
        let mut wanted = None;
        loop {
            let mut block = [0; 512];
            data.read_exact(&mut block)
                .map_err(|e| format!("its map of holes cannot be read: {e}"))?;
            taken += 512;
            for byte in block {
                if wanted == Some(numbers.len()) {
                    break;
                }
                if byte != b'\n' {
                    digits.push(byte);
                    if digits.len() > 20 {
                        return Err("its map of holes is damaged".to_owned());
                    }
                    continue;
                }
                let number = decimal(&digits).ok_or("its map of holes is damaged")?;
                digits.clear();
                if wanted.is_some() {
                    numbers.push(number);
                } else if number > MOST_SEGMENTS as u64 {
                    return Err("it has too many holes".to_owned());
                } else {
                    wanted = Some(2 * number as usize);
                }
            }
            if wanted == Some(numbers.len()) {
                let segments = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                return Ok((SparseMap { size, segments }, taken));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pax::record, *};

    #[test]
    fn maps_are_checked() {
        let map = |segments: &[(u64, u64)], size| SparseMap {
            size,
            segments: segments.to_vec(),
        };
        assert!(map(&[(0, 10), (20, 5)], 30).check(15).is_ok());
        assert!(map(&[(0, 10), (5, 5)], 30).check(15).is_err());
        assert!(map(&[(20, 5), (0, 10)], 30).check(15).is_err());
        assert!(map(&[(0, 10), (20, 15)], 30).check(25).is_err());
        assert!(map(&[(0, 10)], 30).check(9).is_err());
        assert!(map(&[(5, u64::MAX)], u64::MAX).check(u64::MAX).is_err());
    }

    #[test]
    fn a_map_of_format_1_0_is_read() {
        let mut block = b"2\n0\n512\n4096\n3\n".to_vec();
        block.resize(512, 0);
        block.extend_from_slice(b"data");
        let (map, taken) = SparseMap::read(block.as_slice(), 5000).unwrap();
        assert_eq!((map.segments, taken), (vec![(0, 512), (4096, 3)], 512));
        assert!(SparseMap::read(&b"9999999\n"[..], 1).is_err());
        let mut damaged = b"1\nx\n".to_vec();
        damaged.resize(512, 0);
        assert!(SparseMap::read(damaged.as_slice(), 1).is_err());
    }

    #[test]
    fn maps_in_extended_headers_are_read() {
        let mut records = Records::default();
        records.add(&record(b"GNU.sparse.map", b"0,3,9,1")).unwrap();
        assert!(SparseMap::from_records(&records).is_err());
        records.add(&record(b"GNU.sparse.size", b"10")).unwrap();
        let map = SparseMap::from_records(&records).unwrap().unwrap();
        assert_eq!((map.size, map.segments), (10, vec![(0, 3), (9, 1)]));
    }
}
