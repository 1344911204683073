//! Netascii (RFC 1350's name for NVT ASCII, RFC 764), made on the fly from a file with Unix line ends.
//!
//! LF travels as CR LF and CR as CR NUL, so a block of the wire begins anywhere in the file, even between the two
//! bytes of one pair. A [`Position`] names such a place; from it the same bytes come every time, which is what
//! retransmission needs.

/// A place in the converted stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Next byte of the file to convert.
    offset: usize,
    /// Second byte of a pair whose first byte ended the block before.
    pending: Option<u8>,
}

/// Length of `file` after conversion, in bytes.
pub fn encoded_len(file: &[u8]) -> u64 {
    let doubled = file.iter().filter(|&&b| b == b'\n' || b == b'\r').count();
    file.len() as u64 + doubled as u64
}

/// Appends up to `room` converted bytes from `at` on to `out`; returns the place after them.
pub fn encode(file: &[u8], at: Position, room: usize, out: &mut Vec<u8>) -> Position {
    let Position { mut offset, pending } = at;
    let mut room = room;
    if let Some(byte) = pending {
        if room == 0 {
            return at;
        }
        out.push(byte);
        room -= 1;
    }
    while room > 0 && offset < file.len() {
        let (first, second) = match file[offset] {
            b'\n' => (b'\r', b'\n'),
            b'\r' => (b'\r', 0),
            _ => {
                // A run of plain bytes goes as one piece.
                let window = &file[offset..file.len().min(offset + room)];
                let run = window
                    .iter()
                    .position(|&b| b == b'\n' || b == b'\r')
                    .unwrap_or(window.len());
                out.extend_from_slice(&window[..run]);
                offset += run;
                room -= run;
                continue;
            }
        };
        out.push(first);
        offset += 1;
        room -= 1;
        if room == 0 {
            return Position {
                offset,
                pending: Some(second),
            };
        }
        out.push(second);
        room -= 1;
    }
    Position { offset, pending: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, byte by byte.
    fn reference(file: &[u8]) -> Vec<u8> {
        file.iter()
            .flat_map(|&b| match b {
                b'\n' => vec![b'\r', b'\n'],
                b'\r' => vec![b'\r', 0],
                other => vec![other],
            })
            .collect()
    }

    #[test]
    fn pairs_are_split_between_blocks() {
        let file = b"ab\ncd\r\n";
        let mut out = Vec::new();
        let at = encode(file, Position::default(), 3, &mut out);
        assert_eq!(out, b"ab\r");
        out.clear();
        let at = encode(file, at, 4, &mut out);
        assert_eq!(out, b"\ncd\r");
        out.clear();
        encode(file, at, 100, &mut out);
        assert_eq!(out, b"\0\r\n");
    }

    proptest! {
        #[test]
        fn blocks_of_any_size_join_to_the_whole(
            file in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..400),
            blksize in 1usize..40,
        ) {
            let whole = reference(&file);
            prop_assert_eq!(encoded_len(&file), whole.len() as u64);
            let mut joined = Vec::new();
            let mut at = Position::default();
            loop {
                let mut block = Vec::new();
                let next = encode(&file, at, blksize, &mut block);
                let mut again = Vec::new();
                prop_assert_eq!(encode(&file, at, blksize, &mut again), next);
                prop_assert_eq!(&again, &block);
                joined.extend_from_slice(&block);
                at = next;
                if block.len() < blksize {
                    break;
                }
            }
            prop_assert_eq!(joined, whole);
        }
    }
}
