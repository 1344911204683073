//! What boot loaders fetch: their script, the kernel, the initramfs, and loaders themselves.

use super::{
    answer::Problem,
    ask::ScriptAsk,
    counters::Reason,
    failed::times,
    service::{Peer, Service},
};
use axum::{
    body::{Body, Bytes},
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rackstrap_base::{
    bootname::{BootFile, ScriptLanguage},
    clock::Timestamp,
    firmware::arch_of_ipxe,
    text::quoted,
};
use rackstrap_registries::{
    boots::Boot,
    discovery::LoaderReport,
    timeline::{EventKind, Level},
};
use rackstrap_wire::HwAddr;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tower::ServiceExt;
use tower_http::services::ServeFile;

/// Query of `/ipxe`.
#[derive(serde::Deserialize)]
pub struct WhoAsks {
    mac: String,
    /// iPXE's `${buildarch}`; empty if an older release gave it the URL.
    #[serde(default)]
    arch: String,
    /// The step at which its last script failed.
    failed: Option<String>,
    /// iPXE's number of the error, and how often it asked in vain; empty from the scripts of older releases.
    #[serde(default)]
    error: String,
    #[serde(default)]
    asked: String,
    /// How often a disk's script asked the network in vain before; empty from any other iPXE, and missing in URLs of older releases.
    #[serde(default)]
    tried: String,
    /// What iPXE knows of the machine by SMBIOS, sent when it asks a second time. Fields that it does not know are empty,
    /// which must not prevent an answer.
    #[serde(default)]
    uuid: String,
    #[serde(default)]
    serial: String,
    #[serde(default)]
    vendor: String,
    #[serde(default)]
    product: String,
}

/// `GET /ipxe?mac=52-54-00-01-01-01`: makes a new decision at each call, and pins a node's boot.
pub async fn script(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    query: Result<Query<WhoAsks>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let hwaddr: HwAddr = query
        .mac
        .parse()
        .map_err(|e| Problem::bad_request(format!("mac: {e}")))?;
    let told = LoaderReport {
        uuid: query.uuid.parse().ok(),
        serial: query.serial,
        vendor: query.vendor,
        product: query.product,
    };
    let asks = ScriptAsk {
        arch: arch_of_ipxe(&query.arch),
        failed: query.failed.unwrap_or_default(),
        error: query.error,
        asked: query.asked,
        tried: times(&query.tried),
        // This is at least its second request, so the report of its DHCP packets has been processed.
        again: told != LoaderReport::default(),
        told,
        ..ScriptAsk::new(ScriptLanguage::Ipxe, hwaddr, *peer)
    };
    Ok(text_answer(service.script(asks).await?))
}

fn text_answer(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// `GET /grub/{*name}`: the scripts of GRUB, by the same names as by TFTP.
pub async fn grub(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    Ok(text_answer(service.named_script(&format!("grub/{name}"), *peer).await?))
}

/// `GET|HEAD /boot/{id}/kernel` and `/boot/{id}/initramfs`, of FreeBSD `pxeboot` or `loader.efi`: the files of the pinned version, even
/// if another one is current now.
pub async fn boot_file(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    Path((id, file)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let file = BootFile::of_name(&file).ok_or_else(|| {
        let text = format!("a boot has a kernel and an initramfs, but no {}", quoted(&file, 60));
        Problem::not_found(Reason::UnknownPath, text)
    })?;
    let (boot, path) = service.file_of_boot(*peer, &id, file)?;
    // iPXE sometimes asks with HEAD or for a range; only whole files are put on the timeline. A boot that has its overlay has
    // its kernel already: then the request comes from a user of the node.
    let whole = !boot.redeemed && request.method() == "GET" && !request.headers().contains_key(header::RANGE);
    let response = send_file(path, request).await?;
    if !whole || response.status() != StatusCode::OK {
        return Ok(response);
    }
    let note = TransferNote {
        service,
        boot,
        file,
        began: Instant::now(),
        left: content_length(response.headers()),
    };
    Ok(response.map(|body| watched(body, note)))
}

/// `GET|HEAD /loader/{*name}`: boot loaders, for firmware that boots by HTTP.
pub async fn loader(
    State(service): State<Arc<Service>>,
    peer: axum::Extension<Peer>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    if let Some(found) = service.freebsd.file(peer.ipv4(), &name).await {
        let path = found.map_err(|why| Problem::not_found(Reason::UnknownPath, why))?;
        let mut response = send_file(path, request).await?;
        let efi = HeaderValue::from_static("application/efi");
        response.headers_mut().insert(header::CONTENT_TYPE, efi);
        return Ok(response);
    }
    let content = service
        .loaders
        .load()
        .get(&name)
        .map_err(|e| Problem::not_found(Reason::UnknownPath, e.to_string()))?;
    // OVMF recognises a boot file as an EFI program by this media type or by its name (UEFI 2.10, 24.7.3.2).
    Ok(([(header::CONTENT_TYPE, "application/efi")], content).into_response())
}

impl Service {
    /// A boot with the path of one of its files, if `peer` is the node that it belongs to.
    pub(super) fn file_of_boot(&self, peer: Peer, id: &str, file: BootFile) -> Result<(Arc<Boot>, PathBuf), Problem> {
        let boot = self.boot_to_load(peer, id)?;
        let world = self.snapshot();
        let version = world.images.of_plan(&boot.plan).ok_or_else(|| {
            let detail = format!(
                "image {} is gone; the machine has to ask for a new boot",
                boot.export_name()
            );
            self.record(&boot, kind_of(file, false), Level::Error, detail.clone(), None);
            Problem::not_found(Reason::UnknownBoot, detail)
        })?;
        let path = version.dir.join(file.name());
        Ok((boot, path))
    }

    /// The same file as [`boot_file`] sends, for TFTP. Reads it from the disk if no transfer of it is under way.
    ///
    /// # Errors
    /// The boot does not exist, is another node's, or its file cannot be read.
    pub fn boot_bytes(&self, peer: Peer, id: &str, file: BootFile) -> Result<Bytes, Problem> {
        let (_, path) = self.file_of_boot(peer, id, file)?;
        let read = self.files.read(&path);
        read.map_err(|e| Problem::unavailable(format!("{} cannot be read: {e}", path.display())))
    }

    /// Records how a transfer of a boot's file by TFTP ended, of which `left` bytes were not sent.
    pub fn transferred(&self, peer: Peer, id: &str, file: BootFile, left: u64, took: Duration) {
        let boot = self
            .pinning
            .boots
            .get(id)
            .filter(|boot| self.loads_for(&boot.plan.net, peer));
        if let Some(boot) = boot.filter(|boot| !boot.redeemed) {
            self.record_transfer(&boot, file, left, took);
        }
    }

    pub(super) fn record_transfer(&self, boot: &Arc<Boot>, file: BootFile, left: u64, took: Duration) {
        if left == 0 && !boot.doubted {
            match file {
                // A boot by an order says nothing about the version that the node boots usually.
                BootFile::Kernel if boot.is_usual() => self.pinning.rollouts.took(boot, Timestamp::now()),
                BootFile::Kernel => {}
                BootFile::Initramfs => self.loading.leave(&boot.plan.node, Some(took.as_millis() as u64)),
                // FreeBSD's loader is small: such a node takes no turn.
                BootFile::PxeLoader | BootFile::EfiLoader => {}
            }
        }
        let (level, detail) = match left {
            0 => (Level::Ok, String::from("sent")),
            left => (Level::Retry, format!("broken off {left} bytes before its end")),
        };
        let kind = kind_of(file, boot.doubted);
        self.record(boot, kind, level, detail, Some(took.as_millis() as u64));
    }
}

async fn send_file(path: PathBuf, request: Request) -> Result<Response, Problem> {
    let shown = path.display().to_string();
    let answer = ServeFile::new(path).oneshot(request).await;
    let Ok(mut response) = answer.map(|r| r.map(Body::new));
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Problem::unavailable(format!("{shown} is missing or cannot be read")));
    }
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}

fn content_length(headers: &HeaderMap) -> u64 {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

/// The kind of a file's events, see [`EventKind::script`].
pub(super) fn kind_of(file: BootFile, doubted: bool) -> EventKind {
    match (file, doubted) {
        (BootFile::Kernel, doubted) => EventKind::kernel(doubted),
        (BootFile::Initramfs, false) => EventKind::Initramfs,
        (BootFile::Initramfs, true) => EventKind::InitramfsClient,
        // FreeBSD's loader is what iPXE starts; the kernel comes by NFS.
        (BootFile::PxeLoader | BootFile::EfiLoader, doubted) => EventKind::script(doubted),
    }
}

/// Records on the timeline how a transfer ended. It is written when the body is dropped, after the last byte or before.
struct TransferNote {
    service: Arc<Service>,
    boot: Arc<Boot>,
    file: BootFile,
    began: Instant,
    left: u64,
}

impl Drop for TransferNote {
    fn drop(&mut self) {
        self.service
            .record_transfer(&self.boot, self.file, self.left, self.began.elapsed());
    }
}

fn watched(body: Body, mut note: TransferNote) -> Body {
    use http_body_util::BodyExt;
    Body::new(body.map_frame(move |frame| {
        // The closure owns the whole note, not a copy of its counter, so that the note is dropped with the body.
        let note = &mut note;
        if let Some(data) = frame.data_ref() {
            note.left = note.left.saturating_sub(data.len() as u64);
        }
        frame
    }))
}
