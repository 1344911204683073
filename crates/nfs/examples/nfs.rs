//! The NFS engine alone, on loopback, with one directory, for `cargo xtask bench nfs`.
//!
//! `cargo run --release -p rackstrap-nfs --example nfs -- DIR PORT`; then for example `nfs-ls nfs://127.0.0.1/?nfsport=PORT&mountport=PORT`.
//! The daemon for nodes is `rackstrap serve`; this program lets every user of this machine read DIR.

use rackstrap_nfs::{Config, ExportId, ExportRoot, Exports, NfsEvent, Refusal, serve};
use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

/// One export for all clients, under any name.
struct One(Arc<ExportRoot>);

impl Exports for One {
    fn is_node(&self, _peer: SocketAddr) -> bool {
        true
    }

    fn mount(&self, _peer: SocketAddr, _path: &[u8]) -> Result<Arc<ExportRoot>, Refusal> {
        Ok(self.0.clone())
    }

    fn by_id(&self, _peer: SocketAddr, id: ExportId) -> Result<Arc<ExportRoot>, Refusal> {
        if id == self.0.id() {
            Ok(self.0.clone())
        } else {
            Err(Refusal::NoSuchExport)
        }
    }

    fn list(&self, _peer: SocketAddr) -> Vec<Vec<u8>> {
        vec![b"/".to_vec()]
    }

    fn observe(&self, event: NfsEvent) {
        eprintln!("{event:?}");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(port)) = (arguments.next(), arguments.next()) else {
        return Err("a directory and a port are missing; usage: nfs DIR PORT".into());
    };
    let export = ExportRoot::open(Path::new(&dir), ExportId(*b"example1"), dir.clone())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?))?;
    let mut config = Config::new([7; 32]);
    config.privileged_ports_only = false;
    // All connections have the same address here.
    config.connections_per_peer = config.connections;
    serve(
        listener,
        Arc::new(One(Arc::new(export))),
        config,
        CancellationToken::new(),
    )
    .await?;
    Ok(())
}
