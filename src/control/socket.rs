//! The unix socket, bound so that only root can connect. The socket file of a dead daemon is replaced, that of a running one
//! is not.

use super::{Context, routes};
use axum::{extract::connect_info::Connected, serve::IncomingStream};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// The bound socket; its file is removed when it is dropped.
pub struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
}

/// Why the socket cannot be bound.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another daemon answers on it.
    #[error(
        "control socket {}: another rackstrap serve uses it; stop that daemon first, or set another [server] socket", .0.display()
    )]
    InUse(PathBuf),
    /// The file is not a socket.
    #[error("control socket {}: a file with this name exists and is not a socket; move it away, or set another [server] socket", .0.display())]
    NoSocket(PathBuf),
    /// The file system refused an operation.
    #[error("control socket {}: cannot {what} it: {error}", path.display())]
    Io {
        /// The path of the socket.
        path: PathBuf,
        /// The operation.
        what: &'static str,
        /// The error of the operating system.
        error: io::Error,
    },
}

/// User and process of the peer (SO_PEERCRED, unix(7)); none if the kernel does not report them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) Option<(u32, u32)>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let cred = stream.io().peer_cred().ok();
        let pid = |pid: Option<i32>| pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
        Peer(cred.map(|cred| (cred.uid(), pid(cred.pid()))))
    }
}

/// Binds `path` with mode 0600.
pub async fn bind(path: &Path) -> Result<Socket, SocketError> {
    let failed = |what: &'static str| {
        move |error: io::Error| SocketError::Io {
            path: path.to_owned(),
            what,
            error,
        }
    };
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(SocketError::InUse(path.to_owned())),
            // No process listens: a daemon that was killed left the file. It is replaced below.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(failed("probe")(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
    }
    if let Some(dir) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(failed("make the directory of"))?;
    }
    // Bound under another name, and renamed when its mode is right, so that it is never open to all users.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(failed("bind"))?;
    let placed = fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&fresh, path))
        .map_err(failed("place"));
    if let Err(error) = placed {
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    Ok(Socket {
        listener: Some(listener),
        path: path.to_owned(),
    })
}

/// After `cancel`, requests have this long to finish. A stopped reader (Ctrl-Z) then does not delay a restart of the daemon.
const GRACE: Duration = Duration::from_secs(10);

/// Answers on `socket` until `cancel`, and then finishes the requests. Watched answers end at once.
pub async fn serve(mut socket: Socket, context: Arc<Context>, cancel: CancellationToken) -> io::Result<()> {
    let Some(listener) = socket.listener.take() else {
        return Ok(());
    };
    let service = routes::router(context, cancel.clone()).into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(listener, service).with_graceful_shutdown(cancel.clone().cancelled_owned());
    let late = async {
        cancel.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = served.into_future() => served,
        () = late => {
            tracing::warn!("control socket: an answer was not taken within {GRACE:?}, and ends with the daemon");
            Ok(())
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A socket file that remains does no harm: the next daemon replaces it.
        let _ = fs::remove_file(&self.path);
    }
}
