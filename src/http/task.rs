//! Sockets: a listener an address, a task a connection, all of them bounded.

use super::{
    agent, loader,
    service::{Peer, Service},
};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rackstrap_wire::paths;
use std::{io, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Largest body that is taken: a report of 256 events of 500 bytes, with room.
const MAX_BODY: usize = 512 << 10;
/// Connections at once on one listener. A machine in its boot has one or two.
const MAX_CONNECTIONS: usize = 8192;
/// A client that has not sent its request's head by then is let go.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// All routes.
fn router(service: Arc<Service>) -> Router {
    let by_id = |prefix: &str| format!("{prefix}{{id}}");
    Router::new()
        .route("/ipxe", get(loader::script))
        .route("/boot/{id}/{file}", get(loader::boot_file))
        .route("/loader/{name}", get(loader::loader))
        .route(&by_id(paths::PLAN), get(agent::plan))
        .route(&by_id(paths::OVERLAY), post(agent::overlay))
        .route(&by_id(paths::REPORT), post(agent::report))
        .route(&by_id(paths::READY), post(agent::ready))
        .route(&by_id(paths::HEARTBEAT), post(agent::heartbeat))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(service)
}

/// Serves until `cancel`.
pub async fn serve(listener: TcpListener, service: Arc<Service>, cancel: CancellationToken) -> io::Result<()> {
    let local = listener.local_addr()?;
    let router = router(service);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return Ok(());
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => return Ok(()),
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // Out of descriptors, or the client went away between SYN and accept: neither is the listener's end.
            Err(error) => {
                tracing::warn!(%local, %error, "http: a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);

        let service = router
            .clone()
            .map_request(move |mut request: axum::http::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(Peer(peer));
                request
            });
        let cancel = cancel.clone();
        tokio::spawn(async move {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            tokio::select! {
                result = connection => if let Err(error) = result {
                    tracing::debug!(%peer, %error, "http connection ended early");
                },
                () = cancel.cancelled() => {}
            }
            drop(place);
        });
    }
}
