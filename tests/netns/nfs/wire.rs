//! RPC calls written by hand, which client libraries would not send.

use std::net::{Ipv4Addr, SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// A connection to the server.
pub struct Wire {
    pub stream: TcpStream,
    xid: u32,
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// An opaque (usually a handle), followed by words.
pub fn words_after(opaque: &[u8], after: &[u32]) -> Vec<u8> {
    let mut out = words(&[opaque.len() as u32]);
    out.extend(opaque);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(words(after));
    out
}

/// One record in a single fragment.
pub fn record(payload: &[u8]) -> Vec<u8> {
    let mut out = words(&[payload.len() as u32 | 1 << 31]);
    out.extend(payload);
    out
}

/// A call by root with AUTH_SYS.
pub fn call(xid: u32, program: u32, version: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let mut out = words(&[xid, 0, 2, program, version, procedure, 1, 20, 0, 0, 0, 0, 0, 0, 0]);
    out.extend(args);
    out
}

impl Wire {
    /// Connects from an address of loopback.
    pub async fn connect(to: SocketAddr, from: [u8; 4]) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(Ipv4Addr::from(from).into(), 0)).unwrap();
        Wire::of(socket.connect(to).await.unwrap())
    }

    pub fn of(stream: TcpStream) -> Self {
        Wire { stream, xid: 1 }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next reply without its record mark; `None` when the connection has ended.
    pub async fn reply(&mut self) -> Option<Vec<u8>> {
        let mut mark = [0; 4];
        self.stream.read_exact(&mut mark).await.ok()?;
        let mark = u32::from_be_bytes(mark);
        assert_eq!(mark >> 31, 1, "replies have one fragment");
        let mut reply = vec![0; (mark & 0x7fff_ffff) as usize];
        self.stream.read_exact(&mut reply).await.ok()?;
        Some(reply)
    }

    pub async fn call(&mut self, program: u32, version: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
        self.xid += 1;
        let call = call(self.xid, program, version, procedure, args);
        self.send(&record(&call)).await;
        let reply = self.reply().await.expect("the connection ended");
        assert_eq!(reply[..4], self.xid.to_be_bytes());
        reply
    }

    pub async fn nfs(&mut self, procedure: u32, args: &[u8]) -> Vec<u8> {
        self.call(100_003, 3, procedure, args).await
    }

    /// Handle of `/tree`.
    pub async fn mount(&mut self) -> Vec<u8> {
        let reply = self.call(100_005, 3, 1, &words_after(b"/tree", &[])).await;
        assert_eq!(reply[20..28], [0; 8], "MNT succeeds");
        let len = u32::from_be_bytes(reply[28..32].try_into().unwrap()) as usize;
        reply[32..32 + len].to_vec()
    }
}
