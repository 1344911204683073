//! Sockets: one listener for each address, one task for each connection, all of them bounded.

use super::{
    Counters, Reason, agent,
    answer::{Problem, Refused},
    freebsd, loader,
    service::{Peer, Service},
};
use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::DefaultBodyLimit,
    http::{Method, Request, StatusCode, Uri},
    response::Response,
    routing::{get, post},
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rackstrap_base::{
    connection_limit::{Bounds, ConnectionLimit, Full, Permit},
    rare::Rare,
    text::quoted,
};
use rackstrap_wire::paths;
use socket2::SockRef;
use std::{
    io::{self, Read as _},
    net::{IpAddr, Shutdown},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// All routes.
fn router(service: Arc<Service>) -> Router {
    let by_id = |prefix: &str| format!("{prefix}{{id}}");
    Router::new()
        .route("/ipxe", get(loader::script))
        .route("/grub/{*name}", get(loader::grub))
        .route("/boot/{id}/{file}", get(loader::boot_file))
        .route("/loader/{*name}", get(loader::loader))
        .route(paths::FREEBSD, get(freebsd::claim))
        .route(&by_id(paths::PLAN), get(agent::plan))
        .route(&by_id(paths::DISK_LOADER), get(agent::disk_loader))
        .route(&format!("{}{{kind}}/{{id}}", paths::ESP), get(agent::esp))
        .route(&format!("{}{{kind}}/{{id}}", paths::LAYOUT_ESP), get(agent::layout_esp))
        .route(&by_id(paths::OVERLAY), post(agent::overlay))
        .route(&by_id(paths::REPORT), post(agent::report))
        .route(&by_id(paths::USERS), get(agent::users))
        .route(&by_id(paths::WAITING), post(agent::waiting))
        .route(&by_id(paths::READY), post(agent::ready))
        .route(&by_id(paths::HEARTBEAT), post(agent::heartbeat))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(service.limits.body_bytes))
        .with_state(service)
}

async fn unknown_path(uri: Uri) -> Problem {
    let text = format!(
        "there is nothing at {}; machines that boot ask for /ipxe?mac=52-54-00-01-01-01, and their script says what else there is",
        quoted(uri.path(), 60)
    );
    Problem::not_found(Reason::UnknownPath, text)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let (method, path) = (quoted(method.as_str(), 60), quoted(uri.path(), 60));
    Problem::wrong_method(format!(
        "{path} does not take {method}; the header 'Allow' lists what it takes"
    ))
}

/// Serves until `cancel`.
pub async fn serve(listener: TcpListener, service: Arc<Service>, cancel: CancellationToken) -> io::Result<()> {
    let local = listener.local_addr()?;
    let limits = service.limits;
    let limit = ConnectionLimit::new(Bounds {
        all: limits.connections,
        strangers: limits.strangers,
        each: limits.connections_per_peer,
    });
    let server = Server {
        router: router(service.clone()),
        http: connections(&service),
        service,
        limit,
        cancel,
    };
    let troubles = Rare::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.cancel.cancelled() => return Ok(()),
        };
        match accepted {
            Ok((stream, peer)) => server.admit(stream, Peer(peer)),
            // The process is out of descriptors, or the client closed between SYN and accept. Neither ends the listener.
            Err(error) => {
                if let Some(times) = troubles.tell() {
                    tracing::warn!(%local, %error, times, "http: a connection could not be accepted");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// hyper's settings for connections.
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
    limit: Arc<ConnectionLimit>,
    cancel: CancellationToken,
}

impl Server {
    /// Starts a task for the connection, or refuses it if the connection limit is reached.
    fn admit(&self, stream: TcpStream, peer: Peer) {
        let (limits, counters) = (self.service.limits, self.service.counters.clone());
        counters.connection();
        let address = peer.0.ip().to_canonical();
        let permit = match self.limit.take(address, self.service.class(peer)) {
            Ok(permit) => Arc::new(permit),
            Err(full) => {
                let detail = format!("connection refused for {address}: {full}");
                let reason = match full {
                    Full::All(_) => Reason::NoPlace,
                    Full::Share(_) => Reason::TooManyOfPeer,
                };
                counters.refused(reason, address, &detail);
                send_away(&stream, &detail);
                return;
            }
        };
        permit.idle();
        let _ = stream.set_nodelay(true);
        // The kernel ends a connection whose peer acknowledges nothing or keeps its window closed (tcp(7)): a node that was
        // switched off while it fetched its kernel, or a client that does not read.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(limits.stall));
        let asked = Arc::new(AtomicBool::new(false));
        let used = Use {
            permit: permit.clone(),
            answering: Arc::default(),
        };
        let service = counted(self.router.clone(), peer, counters.clone(), asked.clone(), used.clone());
        let connection = self.http.serve_connection(
            TokioIo::new(Watched { stream, used }),
            TowerToHyperService::new(service),
        );
        let cancel = self.cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = connection => if let Err(error) = result {
                    record_early_end(&counters, address, &error, asked.load(Relaxed));
                },
                () = permit.revoked() => {
                    counters.refused(Reason::Displaced, address, "its place went to another connection");
                }
                () = cancel.cancelled() => {}
            }
        });
    }
}

/// Activity of a connection: it is idle when no answer is being made and the last one was sent completely.
#[derive(Clone)]
struct Use {
    permit: Arc<Permit>,
    answering: Arc<AtomicBool>,
}

impl Use {
    fn begin(&self) {
        self.answering.store(true, Relaxed);
        self.permit.busy();
    }
}

/// The body of an answer. hyper takes the last of it long before the peer has received it.
struct Answering {
    body: Body,
    used: Use,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.used.answering.store(false, Relaxed);
    }
}

/// A connection that knows when it is idle: hyper flushes when it has written everything.
struct Watched {
    stream: TcpStream,
    used: Use,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.used.answering.load(Relaxed) {
            self.used.permit.idle();
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The router for one connection. Its requests know their peer; requests and refusals are counted.
fn counted(
    router: Router,
    peer: Peer,
    counters: Arc<Counters>,
    asked: Arc<AtomicBool>,
    used: Use,
) -> impl tower::Service<Request<Incoming>, Response = Response, Error = std::convert::Infallible, Future: Send> + Clone
{
    let address = peer.0.ip().to_canonical();
    let (answers, asking) = (counters.clone(), used.clone());
    router
        .map_request(move |mut request: Request<Incoming>| {
            counters.request();
            asking.begin();
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
            response.map(|body| {
                Body::new(Answering {
                    body,
                    used: used.clone(),
                })
            })
        })
}

/// Why a connection ended early. hyper has answered 400, 414 or 431 where that helps.
fn record_early_end(counters: &Counters, peer: IpAddr, error: &hyper::Error, asked: bool) {
    let reason = match error {
        // A connection that was kept alive for another request, which did not come.
        error if error.is_timeout() && asked => return,
        error if error.is_timeout() => Reason::NoRequest,
        error if error.is_parse_too_large() => Reason::HeadTooLarge,
        error if error.is_parse() => Reason::Malformed,
        _ => Reason::BrokenOff,
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    counters.refused(reason, peer, &format!("{error}{}", cause.unwrap_or_default()));
}

/// Answers 503 without reading the request. The answer is short enough for the socket's send buffer.
fn send_away(stream: &TcpStream, why: &str) {
    let answer = format!(
        "HTTP/1.1 {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nRetry-After: 1\r\n\
         Connection: close\r\n\r\n{why}\n",
        StatusCode::SERVICE_UNAVAILABLE,
        why.len() + 1
    );
    let socket = SockRef::from(stream);
    // If the client does not read the answer, only the client is affected. The request is read, because the kernel discards
    // the answer if a socket is closed with unread data.
    let _ = socket.send(answer.as_bytes());
    let _ = (&*socket).read(&mut [0; 4096]);
    let _ = socket.shutdown(Shutdown::Write);
}
