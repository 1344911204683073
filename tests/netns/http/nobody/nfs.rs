//! NFS from a port of a user: no mount, no list, and no use of a file handle that root of the node got.

use super::{PATIENCE, Running, address, as_nobody};
use socket2::{Domain, Socket, Type};
use std::{
    io::{Read, Write},
    net::TcpStream,
};
use testbed::{Result, netns::SERVER};

/// Sends an RPC call (RFC 5531) over TCP; returns the words of the reply without the record mark.
fn call(stream: &mut TcpStream, program: u32, procedure: u32, arguments: &[u8]) -> Result<Vec<u32>> {
    let head = [7, 0, 2, program, 3, procedure, 0, 0, 0, 0];
    let mut body: Vec<u8> = head.iter().flat_map(|word: &u32| word.to_be_bytes()).collect();
    body.extend(arguments);
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

/// True if the reply is an accepted call whose own status is 0.
fn granted(reply: &[u32]) -> bool {
    reply.get(2) == Some(&0) && reply.get(5) == Some(&0) && reply.get(6) == Some(&0)
}

fn opaque(bytes: &[u8]) -> Vec<u8> {
    let padding = bytes.len().next_multiple_of(4) - bytes.len();
    [&(bytes.len() as u32).to_be_bytes()[..], bytes, &vec![0; padding]].concat()
}

const MOUNT: u32 = 100_005;
const NFS: u32 = 100_003;

#[test]
fn a_user_mounts_no_root_and_reads_none_with_a_handle() -> Result {
    let up = Running::start()?;
    let node = &up.lab.node;
    let path = opaque(b"/debian@1");
    let nfs = address(&format!("{SERVER}:2049"));
    // Root of the node may mount: what is refused below is refused to the user.
    let mount = || -> Result<Vec<u32>> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address("0.0.0.0:701").into())?;
        socket.connect(&nfs.into())?;
        call(&mut TcpStream::from(socket), MOUNT, 1, &path)
    };
    let reply = node.namespace.inside(mount)??;
    assert!(granted(&reply), "{reply:?}");
    let length = reply[7] as usize;
    let handle: Vec<u8> = reply[8..8 + length.div_ceil(4)]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    let handle = opaque(&handle[..length]);

    let before = up.counter("nfs refused_unprivileged_port")?;
    as_nobody(&node.namespace, || {
        // MNT, and EXPORT, which lists; GETATTR, READDIR of the root directory.
        let directory = [&handle[..], &[0; 16], &4096u32.to_be_bytes()].concat();
        for (program, procedure, arguments) in [
            (MOUNT, 1, &path),
            (MOUNT, 5, &Vec::new()),
            (NFS, 1, &handle),
            (NFS, 16, &directory),
        ] {
            let mut stream = TcpStream::connect_timeout(&nfs, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let reply = call(&mut stream, program, procedure, arguments)?;
            assert!(
                reply[2] == 1 || reply.get(6) == Some(&13),
                "{program} {procedure}: {reply:?}"
            );
        }
        Ok(())
    })?;
    assert_eq!(up.counter("nfs refused_unprivileged_port")?, before + 4);
    up.expect_unharmed()?;
    up.lab.cluster.daemon.stop()
}
