//! The parts of ONC RPC and NFS version 3 that a load generator needs: calls as bytes, and the start of a reply.
//!
//! It does not use the engine's own code: a mistake that client and server share would go unnoticed.

use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// MOUNT_PROGRAM
const MOUNT: u32 = 100_005;
/// NFS_PROGRAM
const NFS: u32 = 100_003;
/// Bytes that are checked at the start of a reply: an RPC header without verifier (24), a status, attributes (88), and READ's count.
pub const HEAD: usize = 24 + 4 + 88 + 4;
/// Longest wait for one call on loopback.
const PATIENCE: Duration = Duration::from_secs(20);

/// A call that is repeated.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Attributes of a handle.
    Getattr(Vec<u8>),
    /// A name in a directory.
    Lookup(Vec<u8>, String),
    /// Bytes of a file: handle, offset, count.
    Read(Vec<u8>, u64, u32),
}

impl Ask {
    /// Appends the complete record.
    pub fn put(&self, xid: u32, out: &mut Vec<u8>) {
        let mut args = Vec::with_capacity(128);
        let procedure = match self {
            Ask::Getattr(handle) => {
                opaque(&mut args, handle);
                1
            }
            Ask::Lookup(dir, name) => {
                opaque(&mut args, dir);
                opaque(&mut args, name.as_bytes());
                3
            }
            Ask::Read(handle, offset, count) => {
                opaque(&mut args, handle);
                args.extend(offset.to_be_bytes());
                word(&mut args, *count);
                6
            }
        };
        record(out, xid, NFS, procedure, &args);
    }

    /// Checks the start of a reply: otherwise a fast server that answers with errors would win.
    pub fn check(&self, head: &[u8]) -> Result<()> {
        let at = |i: usize| head.get(4 * i..4 * i + 4).map(be);
        ensure!(
            (at(1), at(2), at(5)) == (Some(1), Some(0), Some(0)),
            "{self:?} was not executed: {head:x?}"
        );
        ensure!(at(6) == Some(0), "{self:?} failed with NFS status {:?}", at(6));
        if let Ask::Read(_, _, count) = self {
            // The attributes are optional.
            let got = if at(7) == Some(1) { at(29) } else { at(8) };
            ensure!(got == Some(*count), "a READ of {count} bytes returned {got:?}");
        }
        Ok(())
    }
}

/// The handle of `path`, from MNT on the server's MOUNT port.
pub fn mount(port: u16, path: &str) -> Result<Vec<u8>> {
    let mut stream = connect(port)?;
    let mut args = Vec::new();
    opaque(&mut args, path.as_bytes());
    let reply = call(&mut stream, MOUNT, 1, &args)?;
    handle(&reply).with_context(|| format!("mounting {path}"))
}

/// The handle of a name in a directory.
pub fn lookup(stream: &mut TcpStream, dir: &[u8], name: &str) -> Result<Vec<u8>> {
    let mut args = Vec::new();
    opaque(&mut args, dir);
    opaque(&mut args, name.as_bytes());
    let reply = call(stream, NFS, 3, &args)?;
    handle(&reply).with_context(|| format!("looking up {name}"))
}

/// A connection with timeouts, so that a peer that hangs is an error.
pub fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("connecting to port {port}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Makes one call and returns its results, starting with the status.
fn call(stream: &mut TcpStream, program: u32, procedure: u32, args: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    record(&mut out, 1, program, procedure, args);
    stream.write_all(&out)?;
    let (mut reply, mut mark) = (Vec::new(), [0; 4]);
    loop {
        stream.read_exact(&mut mark).context("waiting for a reply")?;
        let length = be(&mark) & 0x7fff_ffff;
        ensure!(length < 1 << 16, "a reply of {length} bytes");
        let start = reply.len();
        reply.resize(start + length as usize, 0);
        stream.read_exact(&mut reply[start..])?;
        if be(&mark) >> 31 == 1 {
            break;
        }
    }
    ensure!(
        reply.len() >= 28 && reply[20..24] == [0; 4],
        "program {program}, procedure {procedure} was not executed: {reply:x?}"
    );
    Ok(reply.split_off(24))
}

fn handle(results: &[u8]) -> Result<Vec<u8>> {
    let (status, rest) = results.split_first_chunk::<4>().context("no status")?;
    ensure!(*status == [0; 4], "status {}", be(status));
    let (length, rest) = rest.split_first_chunk::<4>().context("no handle")?;
    match rest.get(..be(length) as usize) {
        Some(handle) => Ok(handle.to_vec()),
        None => bail!("the handle ends early"),
    }
}

fn record(out: &mut Vec<u8>, xid: u32, program: u32, procedure: u32, args: &[u8]) {
    let start = out.len();
    // AUTH_SYS: stamp, machine name, uid, gid, no groups; then an empty verifier.
    let header = [0, xid, 0, 2, program, 3, procedure, 1, 20, 0, 0, 0, 0, 0, 0, 0];
    for value in header {
        word(out, value);
    }
    out.extend(args);
    let length = (out.len() - start - 4) as u32 | 1 << 31;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn word(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_be_bytes());
}

fn opaque(out: &mut Vec<u8>, bytes: &[u8]) {
    word(out, bytes.len() as u32);
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A big-endian number of the first four bytes.
pub fn be(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |four: &[u8; 4]| u32::from_be_bytes(*four))
}
