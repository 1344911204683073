//! Sockets: a listener an address, a task a connection, all of them bounded.

use super::{
    Counters, Reason, agent,
    answer::{Problem, Refused, shortened},
    loader,
    service::{Peer, Service},
};
use crate::seats::{Seat, Seats};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Request, StatusCode, Uri},
    response::Response,
    routing::{get, post},
};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rackstrap_wire::paths;
use socket2::SockRef;
use std::{
    io::{self, Read as _},
    net::{IpAddr, Shutdown},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// All routes.
fn router(service: Arc<Service>) -> Router {
    let by_id = |prefix: &str| format!("{prefix}{{id}}");
    Router::new()
        .route("/ipxe", get(loader::script))
        .route("/boot/{id}/{file}", get(loader::boot_file))
        .route("/loader/{name}", get(loader::loader))
        .route(&by_id(paths::PLAN), get(agent::plan))
        .route(&by_id(paths::DISK_LOADER), get(agent::disk_loader))
        .route(&by_id(paths::OVERLAY), post(agent::overlay))
        .route(&by_id(paths::REPORT), post(agent::report))
        .route(&by_id(paths::USERS), get(agent::users))
        .route(&by_id(paths::WAITING), post(agent::waiting))
        .route(&by_id(paths::READY), post(agent::ready))
        .route(&by_id(paths::HEARTBEAT), post(agent::heartbeat))
        .fallback(nothing_there)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(service.limits.body_bytes))
        .with_state(service)
}

async fn nothing_there(uri: Uri) -> Problem {
    let text = format!(
        "there is nothing at {}; machines that boot ask for /ipxe?mac=52-54-00-01-01-01, and their script says what else there is",
        shortened(uri.path())
    );
    Problem::not_found(Reason::UnknownPath, text)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let (method, path) = (shortened(method.as_str()), shortened(uri.path()));
    Problem::wrong_method(format!(
        "{path} takes no {method}; the header 'Allow' says what it takes"
    ))
}

/// Serves until `cancel`.
pub async fn serve(listener: TcpListener, service: Arc<Service>, cancel: CancellationToken) -> io::Result<()> {
    let local = listener.local_addr()?;
    let limits = service.limits;
    let server = Server {
        router: router(service.clone()),
        http: connections(&service),
        service,
        seats: Seats::new(usize::MAX, limits.connections_per_peer),
        cancel,
    };
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        if places.available_permits() == 0 {
            let detail = format!("{local}: all places are taken, the next connection waits");
            server.service.counters.refused(Reason::NoPlace, local.ip(), &detail);
        }
        let Ok(place) = places.clone().acquire_owned().await else {
            return Ok(());
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.cancel.cancelled() => return Ok(()),
        };
        match accepted {
            Ok((stream, peer)) => server.admit(stream, Peer(peer), place),
            // Out of descriptors, or the client went away between SYN and accept: neither is the listener's end.
            Err(error) => {
                tracing::warn!(%local, %error, "http: a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// How hyper is to treat connections.
fn connections(service: &Service) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(service.limits.head_timeout)
        .max_header_size(service.limits.head_bytes);
    http
}

/// What all connections of a listener share.
struct Server {
    router: Router,
    http: http1::Builder,
    service: Arc<Service>,
    seats: Arc<Seats>,
    cancel: CancellationToken,
}

impl Server {
    /// Gives the connection a task of its own, or sends it away if its address has too many.
    fn admit(&self, stream: TcpStream, peer: Peer, place: OwnedSemaphorePermit) {
        let (limits, counters) = (self.service.limits, self.service.counters.clone());
        counters.connection();
        let address = peer.0.ip().to_canonical();
        // The place that all share is held already; what remains is the address's own share.
        let Ok(seat) = self.seats.take(address) else {
            let detail = format!(
                "{address} has {} connections open, as many as one address may have",
                limits.connections_per_peer
            );
            counters.refused(Reason::TooManyOfPeer, address, &detail);
            send_away(&stream, &detail);
            return;
        };
        let _ = stream.set_nodelay(true);
        // The kernel ends a connection whose peer acknowledges nothing, or keeps its window closed (tcp(7)): a node that was
        // switched off in the middle of its kernel, or a client that reads nothing.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(limits.stall));
        let asked = Arc::new(AtomicBool::new(false));
        let connection = self.http.serve_connection(
            TokioIo::new(stream),
            TowerToHyperService::new(counted(self.router.clone(), peer, counters.clone(), asked.clone())),
        );
        let cancel = self.cancel.clone();
        tokio::spawn(async move {
            let _held: (OwnedSemaphorePermit, Seat) = (place, seat);
            tokio::select! {
                result = connection => if let Err(error) = result {
                    ended_early(&counters, address, &error, asked.load(Relaxed));
                },
                () = cancel.cancelled() => {}
            }
        });
    }
}

/// The router for one connection: its requests know their peer, are counted, and so are refusals.
fn counted(
    router: Router,
    peer: Peer,
    counters: Arc<Counters>,
    asked: Arc<AtomicBool>,
) -> impl tower::Service<Request<Incoming>, Response = Response, Error = std::convert::Infallible, Future: Send> + Clone
{
    let address = peer.0.ip().to_canonical();
    let answers = counters.clone();
    router
        .map_request(move |mut request: Request<Incoming>| {
            counters.request();
            asked.store(true, Relaxed);
            request.extensions_mut().insert(peer);
            request
        })
        .map_response(move |mut response: Response| {
            if let Some(refused) = response.extensions_mut().remove::<Refused>() {
                answers.refused(refused.reason, address, &refused.detail);
            } else if let Some(reason) = Reason::of_status(response.status()) {
                answers.refused(reason, address, response.status().as_str());
            }
            response
        })
}

/// Why a connection ended before it was done. hyper has answered 400, 414 or 431 where that helps.
fn ended_early(counters: &Counters, peer: IpAddr, error: &hyper::Error, asked: bool) {
    let reason = match error {
        // Kept alive for another request, which did not come.
        error if error.is_timeout() && asked => return,
        error if error.is_timeout() => Reason::NoRequest,
        error if error.is_parse_too_large() => Reason::HeadTooLarge,
        error if error.is_parse() => Reason::Malformed,
        _ => Reason::BrokenOff,
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    counters.refused(reason, peer, &format!("{error}{}", cause.unwrap_or_default()));
}

/// Answers 503 without reading the request. The little that there is goes into the socket's own buffer.
fn send_away(stream: &TcpStream, why: &str) {
    let answer = format!(
        "HTTP/1.1 {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nRetry-After: 1\r\n\
         Connection: close\r\n\r\n{why}\n",
        StatusCode::SERVICE_UNAVAILABLE,
        why.len() + 1
    );
    let socket = SockRef::from(stream);
    // The client's own trouble if it does not take it. What it has sent is read, as closing a socket with unread data
    // has the kernel throw away the answer as well.
    let _ = socket.send(answer.as_bytes());
    let _ = (&*socket).read(&mut [0; 4096]);
    let _ = socket.shutdown(Shutdown::Write);
}
