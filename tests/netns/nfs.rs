//! The NFS server on loopback, with real clients: the nfs3_client crate, libnfs' utilities, and calls written by hand.

mod acls;
mod filesystems;
mod hostile;
mod libnfs;
mod reads;
mod refusals;
mod tree;
mod wire;

use nfs3_client::{
    Nfs3Connection, Nfs3ConnectionBuilder,
    nfs3_types::{
        rpc::{auth_unix, opaque_auth},
        xdr_codec::Opaque,
    },
    tokio::{TokioConnector, TokioIo},
};
use rackstrap_base::counters::ReadCounts;
use rackstrap_nfs::{Config, Counters, ExportId, ExportRoot, Exports, NfsEvent, Refusal, serve};
use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// One export, `/tree`, for one address.
struct OneExport {
    owner: IpAddr,
    root: Arc<ExportRoot>,
    events: Mutex<Vec<NfsEvent>>,
}

impl Exports for OneExport {
    fn is_node(&self, peer: SocketAddr) -> bool {
        peer.ip() == self.owner
    }

    fn mount(&self, peer: SocketAddr, path: &[u8]) -> Result<Arc<ExportRoot>, Refusal> {
        if path != b"/tree" {
            return Err(Refusal::NoSuchExport);
        }
        self.by_id(peer, self.root.id())
    }

    fn by_id(&self, peer: SocketAddr, id: ExportId) -> Result<Arc<ExportRoot>, Refusal> {
        if id != self.root.id() {
            return Err(Refusal::NoSuchExport);
        }
        if peer.ip() != self.owner {
            return Err(Refusal::NotYours(format!("the export is of {}", self.owner)));
        }
        Ok(self.root.clone())
    }

    fn list(&self, peer: SocketAddr) -> Vec<Vec<u8>> {
        if peer.ip() == self.owner {
            vec![b"/tree".to_vec()]
        } else {
            vec![]
        }
    }

    fn observe(&self, event: NfsEvent) {
        self.events.lock().unwrap().push(event);
    }
}

/// A running server.
struct Daemon {
    addr: SocketAddr,
    exports: Arc<OneExport>,
    counters: Arc<Counters>,
    cancel: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

type Client = Nfs3Connection<TokioIo<TcpStream>>;

fn test_config() -> Config {
    Config {
        privileged_ports_only: false,
        ..Config::new([7; 32])
    }
}

fn export(root: &Path) -> ExportRoot {
    ExportRoot::open(root, ExportId(*b"tree@1.."), "tree@1".into()).unwrap()
}

impl Daemon {
    fn start(root: ExportRoot, config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let exports = Arc::new(OneExport {
            owner: [127, 0, 0, 1].into(),
            root: Arc::new(root),
            events: Mutex::default(),
        });
        let (counters, cancel) = (config.counters.clone(), CancellationToken::new());
        let task = tokio::spawn(serve(listener, exports.clone(), config, cancel.clone()));
        Daemon {
            addr,
            exports,
            counters,
            cancel,
            task,
        }
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn mount_as(&self, uid: u32, gid: u32, gids: &[u32]) -> Client {
        Nfs3ConnectionBuilder::new(TokioConnector, "127.0.0.1", "/tree")
            .connect_from_privileged_port(false)
            .mount_port(self.addr.port())
            .nfs3_port(self.addr.port())
            .credential(credential(uid, gid, gids))
            .mount()
            .await
            .unwrap()
    }

    async fn mount(&self) -> Client {
        self.mount_as(0, 0, &[]).await
    }

    fn counted(&self, name: &str) -> u64 {
        self.counters
            .counts()
            .into_iter()
            .find(|(n, _)| *n == name)
            .unwrap_or_else(|| panic!("no counter {name}"))
            .1
    }

    fn events(&self) -> Vec<NfsEvent> {
        self.exports.events.lock().unwrap().clone()
    }
}

fn credential(uid: u32, gid: u32, gids: &[u32]) -> opaque_auth<'static> {
    opaque_auth::auth_unix(&auth_unix {
        stamp: 1,
        machinename: Opaque::owned(b"r01n01".to_vec()),
        uid,
        gid,
        gids: gids.to_vec(),
    })
}
