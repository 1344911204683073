//! NFS by UDP and the port mapper, which only FreeBSD's loader needs: they are open while a node boots FreeBSD, or may.

use super::{Shared, nfs::ImageExports};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::decide::FREEBSD_NFS_PORT;
use rackstrap_nfs::{Config, portmap};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often it is checked whether they are needed. A port that is in use is tried again as often.
const EVERY: Duration = Duration::from_secs(2);

/// Serves both on each of `servers` while they are needed, until `cancel`. A port that cannot be opened is a warning in `status`.
pub async fn serve(
    shared: Shared,
    exports: Arc<ImageExports>,
    config: Config,
    servers: BTreeSet<Ipv4Addr>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let freebsd = shared.freebsd();
    let mut tasks: JoinSet<(Ipv4Addr, io::Result<()>)> = JoinSet::new();
    let mut open: BTreeMap<Ipv4Addr, CancellationToken> = BTreeMap::new();
    loop {
        let wanted = freebsd.is_wanted();
        for &server in &servers {
            let topic = format!("freebsd {server}");
            if !wanted {
                if let Some(token) = open.remove(&server) {
                    tracing::info!(%server, "no node boots FreeBSD any more: NFS by UDP and the port mapper are closed");
                    token.cancel();
                }
                shared.warnings.clear(&topic);
                continue;
            }
            if open.contains_key(&server) {
                continue;
            }
            match bind(server) {
                Ok((nfs, (udp, tcp))) => {
                    let token = cancel.child_token();
                    let (exports, config) = (exports.clone(), config.clone());
                    let stop = token.clone();
                    tasks.spawn(async move {
                        let mapper = portmap::Portmap::new(FREEBSD_NFS_PORT);
                        let datagrams = rackstrap_nfs::serve_datagrams(nfs, exports.clone(), config, stop.clone());
                        let mapper = portmap::task::serve(udp, tcp, mapper, exports, stop);
                        (server, tokio::try_join!(datagrams, mapper).map(|_| ()))
                    });
                    open.insert(server, token);
                    shared.warnings.clear(&topic);
                    tracing::info!(%server, "nodes boot FreeBSD: NFS by UDP and the port mapper are open");
                }
                Err((what, port, error)) => {
                    let message =
                        format!("nodes with FreeBSD cannot boot: {what} cannot be opened on {server}: {error}");
                    let help = match port {
                        portmap::PORT => {
                            "another port mapper has the port; stop it if this server needs no other NFS: systemctl disable --now \
                             rpcbind.socket rpcbind.service; the daemon tries again by itself"
                        }
                        _ => {
                            "stop the program that has it: `ss -ulpn 'sport = 2049'` shows it; the daemon tries again by itself"
                        }
                    };
                    if shared.warnings.raise_error(Timestamp::now(), &topic, &message, help) {
                        tracing::error!("{message}; {help}");
                    }
                }
            }
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            // One that ended by an error or a panic is opened again: it has no state.
            Some(ended) = tasks.join_next() => {
                let server = ended.ok().map(|(server, _)| server);
                open.retain(|address, token| Some(*address) != server && !token.is_cancelled());
                if server.is_none() {
                    open.values().for_each(CancellationToken::cancel);
                    open.clear();
                }
            }
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

type Mapper = (UdpSocket, std::net::TcpListener);

/// The sockets for NFS and for the port mapper; or what cannot be opened, its port and why.
fn bind(server: Ipv4Addr) -> Result<(UdpSocket, Mapper), (String, u16, io::Error)> {
    let mapper = portmap::task::bind(SocketAddr::from((server, portmap::PORT))).map_err(|error| {
        (
            format!("the port mapper's port {}", portmap::PORT),
            portmap::PORT,
            error,
        )
    })?;
    let nfs = UdpSocket::bind(SocketAddr::from((server, FREEBSD_NFS_PORT)))
        .map_err(|error| (format!("UDP port {FREEBSD_NFS_PORT} for NFS"), FREEBSD_NFS_PORT, error))?;
    Ok((nfs, mapper))
}
