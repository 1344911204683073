//! Record marking on TCP (RFC 5531, section 11): converts fragments to complete records.

/// Why a byte stream cannot be read further. The connection is closed, because after a wrong header the start of the next one is
/// unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The header announces a record over the limit.
    TooLong {
        /// Total bytes of the fragments so far.
        bytes: u64,
    },
    /// More fragments than any client sends for one record.
    TooManyFragments,
}

/// Most fragments of a record. Known clients send one. RFC 5531 allows any number, even empty ones, which would only cost time.
const MAX_FRAGMENTS: u32 = 1024;
/// Memory of a new connection: GETATTR and LOOKUP calls have 100 to 300 bytes.
const INITIAL: usize = 4096;
/// An empty buffer larger than this is freed.
const KEEP: usize = 64 << 10;

/// Collects the bytes of a connection and splits them into records.
///
/// A record in one fragment is returned without copying. Several fragments are joined in place. Memory grows only with bytes that have
/// arrived, never with the length in a header.
#[derive(Debug)]
pub struct Assembler {
    data: Vec<u8>,
    /// Start of the record that is being assembled.
    start: usize,
    /// Number of joined bytes of payload after `start`.
    joined: usize,
    /// Position of the next fragment header, even if it has not arrived yet.
    next: usize,
    /// End of the bytes that have arrived.
    end: usize,
    fragments: u32,
    max: usize,
}

impl Assembler {
    /// An assembler for records of at most `max` bytes.
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

    /// Space for receiving, never empty. [`Assembler::received`] adds the received bytes.
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

    /// Adds `n` bytes that were written to [`Assembler::room`].
    pub fn received(&mut self, n: usize) {
        assert!(self.end + n <= self.data.len(), "received() past the end of room()");
        self.end += n;
    }

    /// True if a record has started but not ended.
    pub fn is_partial(&self) -> bool {
        self.end > self.start || self.joined > 0
    }

    /// Memory held, in bytes.
    pub fn capacity(&self) -> usize {
        self.data.len()
    }

    /// The next complete record, if it has arrived.
    ///
    /// # Errors
    /// [`RecordError`]; the stream cannot be used any more.
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
        fn records_in_fragments_of_any_shape_are_restored(
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
        fn any_stream_is_split_or_refused_within_its_limits(bytes: Vec<u8>, step in 1usize..50) {
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
    fn a_header_allocates_no_memory() {
        let mut assembler = Assembler::new(1 << 20);
        assert_eq!(feed(&mut assembler, &[0x80, 0x10, 0, 0, 1, 2, 3], 7), Ok(vec![]));
        assert_eq!(assembler.capacity(), INITIAL);
        assert!(assembler.is_partial());
    }

    #[test]
    fn the_length_and_the_number_of_fragments_are_limited() {
        let mut assembler = Assembler::new(100);
        let wire = [fragment(&[1; 60], false), fragment(&[2; 60], true)].concat();
        assert_eq!(feed(&mut assembler, &wire, 7), Err(RecordError::TooLong { bytes: 120 }));

        let mut assembler = Assembler::new(100);
        let wire = fragment(&[], false).repeat(2000);
        assert_eq!(feed(&mut assembler, &wire, 4096), Err(RecordError::TooManyFragments));
        assert!(assembler.capacity() <= KEEP);
    }

    #[test]
    fn a_large_buffer_is_freed_when_idle() {
        let mut assembler = Assembler::new(1 << 20);
        let wire = fragment(&vec![7; 900_000], true);
        assert_eq!(feed(&mut assembler, &wire, 65_536).unwrap().len(), 1);
        assembler.room();
        assert_eq!(assembler.capacity(), INITIAL);
    }
}
