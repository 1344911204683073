//! NFS from a port of a user: no mount, no list, and no use of a file handle that root of the node got.

use super::{PATIENCE, Running, address, as_nobody};
use socket2::{Domain, Socket, Type};
use std::net::TcpStream;
use testbed::{
    Result,
    netns::SERVER,
    played::rpc::{MOUNT, NFS, call, opaque},
};

/// True if the reply is an accepted call whose own status is 0.
fn granted(reply: &[u32]) -> bool {
    reply.get(2) == Some(&0) && reply.get(5) == Some(&0) && reply.get(6) == Some(&0)
}

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
