//! The sockets of the port mapper.

use super::Portmap;
use crate::{buf::Buf, engine::Outcome, exports::Exports, record::Assembler};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Largest call in bytes: SET has 16 bytes of arguments, after at most 840 of credentials.
const LARGEST: usize = 1024;
/// Most connections. Further ones are closed at once; clients use one for a fraction of a second.
const CONNECTIONS: usize = 32;
/// A connection is closed after this time, whatever it does.
const LONGEST: Duration = Duration::from_secs(15);

/// Serves the port mapper on both sockets until `cancel`.
///
/// # Errors
/// A socket cannot be used at all.
pub async fn serve(
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
    portmap: Portmap,
    exports: Arc<dyn Exports>,
    cancel: CancellationToken,
) -> io::Result<()> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let (mut input, mut out) = (vec![0; LARGEST], Buf::default());
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => {}
            received = udp.recv_from(&mut input) => match received {
                Ok((length, from)) => {
                    out.clear();
                    let may_list = exports.is_node(from) || from.ip().is_loopback();
                    if portmap.answer(&input[..length], may_list, &mut out) == Outcome::Replied {
                        // A full send buffer drops the reply, and the client asks again.
                        let _ = udp.try_send_to(out.as_slice(), from);
                    }
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            accepted = tcp.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(place) = places.clone().try_acquire_owned() else { continue };
                    let portmap = portmap.clone();
                    connections.spawn(async move {
                        let _ = timeout(LONGEST, connection(stream, portmap)).await;
                        drop(place);
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
}

/// Answers the calls of a connection in order. Its sender's address is not forged, so it may list.
async fn connection(mut stream: TcpStream, portmap: Portmap) -> io::Result<()> {
    let (mut input, mut out) = (Assembler::new(LARGEST), Buf::default());
    loop {
        let length = stream.read(input.room()).await?;
        if length == 0 {
            return Ok(());
        }
        input.received(length);
        while let Some(record) = input.next_record().map_err(|_| io::ErrorKind::InvalidData)? {
            out.clear();
            out.u32(0);
            match portmap.answer(record, true, &mut out) {
                Outcome::Replied => {
                    let length = (out.len() - 4) as u32;
                    out.patch_u32(0, length | 1 << 31);
                    stream.write_all(out.as_slice()).await?;
                }
                Outcome::Close => return Ok(()),
                Outcome::Silent | Outcome::WouldBlock => {}
            }
        }
    }
}

/// Opens both sockets of the port mapper at `address`.
///
/// # Errors
/// The error of the first socket that cannot be opened: usually rpcbind has the port.
pub fn bind(address: SocketAddr) -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let udp = std::net::UdpSocket::bind(address)?;
    // std sets SO_REUSEADDR, so that connections of the daemon before this one do not keep the port.
    Ok((udp, std::net::TcpListener::bind(address)?))
}
