//! Record marking on TCP (RFC 5531, section 11): fragments in, whole records out.

/// Why a byte stream cannot be read further. The connection is closed: after a wrong header nobody knows
/// where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A record longer than the limit was announced.
    TooLong {
        /// Bytes that the fragments so far add up to.
        bytes: u64,
    },
    /// More fragments than any client sends for one record.
    TooManyFragments,
}

/// Fragments that one record may have. Clients that we know send one; RFC 5531 allows any number,
/// empty ones too, which would keep us busy for nothing.
const MAX_FRAGMENTS: u32 = 1024;
/// Memory of a connection at its start: GETATTR and LOOKUP calls have 100 to 300 bytes.
const INITIAL: usize = 4096;
/// An empty buffer larger than this goes back to the allocator.
const KEEP: usize = 64 << 10;

/// Collects what arrives on a connection and cuts it into records.
///
/// A record that came as one fragment is handed out where it lies. Others are moved together in place.
/// Memory grows only with bytes that arrived, never by what a header announces.
#[derive(Debug)]
pub struct Assembler {
    data: Vec<u8>,
    /// First byte of the record that is being assembled.
    start: usize,
    /// Bytes of payload that lie together from `start`.
    joined: usize,
    /// Where the next fragment header is (or will be).
    next: usize,
    /// End of what arrived.
    end: usize,
    fragments: u32,
    max: usize,
}

impl Assembler {
    /// Records have at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Assembler {
            data: Vec::new(),
            start: 0,
            joined: 0,
            next: 0,
            end: 0,
            fragments: 0,
            max,
        }
    }

    /// Room to receive into, never empty. What was received is counted in by [`Assembler::received`].
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end && self.joined == 0 {
            (self.start, self.next, self.end) = (0, 0, 0);
            if self.data.len() > KEEP {
                self.data = Vec::new();
            }
        }
        if self.end == self.data.len() && self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.next -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.data.len() {
            let grown = (self.data.len() * 2).max(INITIAL);
            self.data.resize(grown, 0);
        }
        &mut self.data[self.end..]
    }

    /// Counts in `n` bytes that were written to [`Assembler::room`].
    pub fn received(&mut self, n: usize) {
        assert!(
            self.end + n <= self.data.len(),
            "received() beyond what room() handed out"
        );
        self.end += n;
    }

    /// True if a record has begun but not ended.
    pub fn is_partial(&self) -> bool {
        self.end > self.start || self.joined > 0
    }

    /// Memory held, in bytes.
    pub fn capacity(&self) -> usize {
        self.data.len()
    }

    /// The next whole record, if it is there.
    ///
    /// # Errors
    /// [`RecordError`]; the stream is of no use afterwards.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>, RecordError> {
        loop {
            let Some(header) = self.data[self.next..self.end].first_chunk::<4>() else {
                return Ok(None);
            };
            let header = u32::from_be_bytes(*header);
            let (last, length) = (header >> 31 == 1, (header & 0x7fff_ffff) as usize);
            if self.joined + length > self.max {
                return Err(RecordError::TooLong {
                    bytes: (self.joined + length) as u64,
                });
            }
            let payload = self.next + 4;
            if self.end - payload < length {
                return Ok(None);
            }
            if self.fragments == 0 {
                self.start = payload;
            } else {
                self.data
                    .copy_within(payload..payload + length, self.start + self.joined);
            }
            self.joined += length;
            self.next = payload + length;
            if last {
                let record = self.start..self.start + self.joined;
                (self.start, self.joined, self.fragments) = (self.next, 0, 0);
                return Ok(Some(&self.data[record]));
            }
            self.fragments += 1;
            if self.fragments >= MAX_FRAGMENTS {
                return Err(RecordError::TooManyFragments);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(assembler: &mut Assembler, mut bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, RecordError> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let room = assembler.room();
            let n = room.len().min(bytes.len()).min(step);
            room[..n].copy_from_slice(&bytes[..n]);
            assembler.received(n);
            bytes = &bytes[n..];
            while let Some(record) = assembler.next_record()? {
                records.push(record.to_vec());
            }
        }
        Ok(records)
    }

    fn fragment(bytes: &[u8], last: bool) -> Vec<u8> {
        let mut out = (bytes.len() as u32 | u32::from(last) << 31).to_be_bytes().to_vec();
        out.extend_from_slice(bytes);
        out
    }

    proptest! {
        #[test]
        fn fragments_of_any_shape_become_the_records_they_were(
            records in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6), 0..8),
            step in 1usize..5000,
        ) {
            let mut wire = Vec::new();
            for record in &records {
                for (i, part) in record.iter().enumerate() {
                    wire.extend(fragment(part, i + 1 == record.len()));
                }
            }
            let mut assembler = Assembler::new(4096);
            let got = feed(&mut assembler, &wire, step).unwrap();
            prop_assert_eq!(got, records.iter().map(|r| r.concat()).collect::<Vec<_>>());
            prop_assert!(!assembler.is_partial());
        }

        #[test]
        fn any_stream_is_cut_or_refused_within_bounds(bytes: Vec<u8>, step in 1usize..50) {
            let mut assembler = Assembler::new(64);
            let _ = feed(&mut assembler, &bytes, step);
            prop_assert!(assembler.capacity() <= KEEP);
        }
    }

    #[test]
    fn two_gib_are_refused_by_the_header_alone() {
        let mut assembler = Assembler::new(1 << 20);
        let got = feed(&mut assembler, &[0xff, 0xff, 0xff, 0xff], 4);
        assert_eq!(got, Err(RecordError::TooLong { bytes: 0x7fff_ffff }));
        assert_eq!(assembler.capacity(), INITIAL);
    }

    #[test]
    fn a_header_commits_no_memory() {
        let mut assembler = Assembler::new(1 << 20);
        assert_eq!(feed(&mut assembler, &[0x80, 0x10, 0, 0, 1, 2, 3], 7), Ok(vec![]));
        assert_eq!(assembler.capacity(), INITIAL);
        assert!(assembler.is_partial());
    }

    #[test]
    fn fragments_count_together_and_are_counted() {
        let mut assembler = Assembler::new(100);
        let wire = [fragment(&[1; 60], false), fragment(&[2; 60], true)].concat();
        assert_eq!(feed(&mut assembler, &wire, 7), Err(RecordError::TooLong { bytes: 120 }));

        let mut assembler = Assembler::new(100);
        let wire = fragment(&[], false).repeat(2000);
        assert_eq!(feed(&mut assembler, &wire, 4096), Err(RecordError::TooManyFragments));
        assert!(assembler.capacity() <= KEEP);
    }

    #[test]
    fn a_large_buffer_is_given_back_when_idle() {
        let mut assembler = Assembler::new(1 << 20);
        let wire = fragment(&vec![7; 900_000], true);
        assert_eq!(feed(&mut assembler, &wire, 65_536).unwrap().len(), 1);
        assembler.room();
        assert_eq!(assembler.capacity(), INITIAL);
    }
}
