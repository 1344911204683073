//! RPC calls to MOUNT and NFS, one at a time.

use crate::Result;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// Number of the MOUNT program (RFC 1813 section 5.1).
pub const MOUNT: u32 = 100_005;
/// Number of the NFS program.
pub const NFS: u32 = 100_003;

/// Sends an RPC call (RFC 5531) of version 3 of `program` as root (AUTH_SYS with uid 0); returns the words of the reply without
/// the record mark.
pub fn call(stream: &mut TcpStream, program: u32, procedure: u32, arguments: &[u8]) -> Result<Vec<u32>> {
    // Call 7 of RPC version 2. Credentials of 20 bytes: no time, no host name, uid, gid, no groups. No verifier.
    let head = [7, 0, 2, program, 3, procedure, 1, 20, 0, 0, 0, 0, 0, 0, 0];
    let mut body: Vec<u8> = head.iter().flat_map(|word: &u32| word.to_be_bytes()).collect();
    body.extend(arguments);
    // One fragment.
    let mark = 0x8000_0000 | body.len() as u32;
    stream.write_all(&[&mark.to_be_bytes()[..], &body].concat())?;
    let mut mark = [0; 4];
    stream.read_exact(&mut mark)?;
    let mut reply = vec![0; (u32::from_be_bytes(mark) & 0x7fff_ffff) as usize];
    stream.read_exact(&mut reply)?;
    let words = reply.chunks_exact(4);
    Ok(words
        .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
        .collect())
}

/// The bytes of a path or a file handle after their length, padded to whole words.
pub fn opaque(bytes: &[u8]) -> Vec<u8> {
    let padding = bytes.len().next_multiple_of(4) - bytes.len();
    [&(bytes.len() as u32).to_be_bytes()[..], bytes, &vec![0; padding]].concat()
}
