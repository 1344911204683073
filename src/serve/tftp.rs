//! The answer to the question of TFTP: boot loaders by name, their scripts, and the kernel and initramfs of a boot.

use super::Shared;
use crate::http::{Peer, Service};
use bytes::Bytes;
use rackstrap_base::{bootname::BootName, clock::Timestamp};
use rackstrap_dhcp::LeaseView;
use rackstrap_model::decide::freebsd_file;
use rackstrap_registries::timeline::{Event, EventKind, Level, Subject};
use rackstrap_tftp::{ErrorCode, Files, Outcome, Refusal, TransferEnd};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::runtime::Handle;

/// What TFTP serves.
pub struct BootFiles {
    /// What all services share.
    pub shared: Shared,
    /// Which machine has which temporary address, so that transfers of an unknown machine are on its own timeline.
    pub leases: LeaseView,
    /// Decides on scripts, and finds the files of boots.
    pub web: Arc<Service>,
}

impl Files for BootFiles {
    fn is_node(&self, peer: IpAddr) -> bool {
        self.web
            .node_at(&self.shared.world.load(), Peer((peer, 0).into()))
            .is_some()
    }

    fn open(&self, peer: SocketAddr, _local: IpAddr, name: &str) -> Result<Bytes, Refusal> {
        if let IpAddr::V4(address) = peer.ip().to_canonical()
            && freebsd_file(name).is_some()
        {
            let content = self.freebsd_loader(address, name);
            return content.map_err(|text| Refusal::new(ErrorCode::NotFound, text));
        }
        // A file of the administrator's comes first.
        let no_loader = match self.shared.loaders.load().get(name) {
            Ok(content) => return Ok(content),
            Err(problem) => problem.to_string(),
        };
        let found = match BootName::parse(name) {
            Some(BootName::Start(_) | BootName::Script(_)) => {
                // The engine asks on threads for blocking work.
                let script = Handle::current().block_on(self.web.named_script(name, Peer(peer)));
                script.map(Bytes::from).map_err(|problem| problem.text().to_owned())
            }
            Some(BootName::File { boot, file }) => {
                let content = self.web.boot_bytes(Peer(peer), boot, file);
                content.map_err(|problem| problem.text().to_owned())
            }
            Some(BootName::DeviceTree { boot, path }) => {
                let content = self.web.device_tree(Peer(peer), boot, path);
                content.map_err(|problem| problem.text().to_owned())
            }
            Some(BootName::RaspberryPi { serial, file }) => {
                let content = Handle::current().block_on(self.web.raspberry_pi(Peer(peer), serial, file));
                content.map_err(|problem| problem.text().to_owned())
            }
            Some(BootName::Optional) | None => Err(no_loader),
        };
        found.map_err(|text| Refusal::new(ErrorCode::NotFound, text))
    }

    fn finished(&self, end: &TransferEnd) {
        tracing::debug!(peer = %end.peer, name = %end.name, outcome = ?end.outcome, "tftp");
        let whole = matches!(
            end.outcome,
            Outcome::Complete | Outcome::Unacknowledged | Outcome::Replaced
        );
        match BootName::parse(&end.name) {
            // GRUB and shim look for some files and do without them.
            Some(BootName::Optional) => return,
            // The decision is on the timeline already.
            Some(BootName::Start(_) | BootName::Script(_) | BootName::DeviceTree { .. }) if whole => return,
            Some(BootName::RaspberryPi { file, .. }) => {
                let refused = matches!(end.outcome, Outcome::Refused(_));
                let left = match end.outcome {
                    Outcome::Complete | Outcome::Unacknowledged => 0,
                    _ => end.size.unwrap_or(0).saturating_sub(end.bytes_sent).max(1),
                };
                if !refused && self.web.board_transferred(Peer(end.peer), file, left, end.duration) {
                    return;
                }
                // It looks for many files that it does without, and asks for others several times.
                if !file.starts_with("start") && !file.starts_with("kernel") && (whole || refused) {
                    return;
                }
            }
            Some(BootName::File { boot, file }) if !matches!(end.outcome, Outcome::Refused(_)) => {
                let left = match end.outcome {
                    Outcome::Complete | Outcome::Unacknowledged => 0,
                    // Of a transfer that was not finished something is left, also if its last blocks were sent and not acknowledged.
                    _ => end.size.unwrap_or(0).saturating_sub(end.bytes_sent).max(1),
                };
                self.web.transferred(Peer(end.peer), boot, file, left, end.duration);
                return;
            }
            _ => {}
        }
        let Some(subject) = self.subject(end.peer.ip()) else {
            return;
        };
        let level = match end.outcome {
            _ if whole => Level::Ok,
            // OVMF asks for the size first, and ends that transfer with ERROR 8. This is not a fault.
            Outcome::ClientError(8, _) => Level::Ok,
            Outcome::Refused(_) | Outcome::Local(_) => Level::Error,
            _ => Level::Retry,
        };
        let detail = format!("{}: {}", end.name, end.outcome);
        let now = Timestamp::now();
        // A user who fetches a file by TFTP on a running node does not make the node a machine that starts.
        let boots = match &subject {
            Subject::Node(node) => self.shared.windows.is_open(node, now) && !self.shared.windows.is_doubted(node),
            Subject::Machine(_) => true,
        };
        let kind = match boots {
            true => EventKind::Tftp,
            false => EventKind::TftpClient,
        };
        let event = Event::new(now, kind, level, detail).took(end.duration.as_millis() as u64);
        self.shared.recorder.record(subject, event);
    }
}

impl BootFiles {
    /// The loader of the node's FreeBSD image; its boot is on disk then. Blocks.
    fn freebsd_loader(&self, address: Ipv4Addr, name: &str) -> Result<Bytes, String> {
        let freebsd = self.shared.freebsd();
        let found = Handle::current().block_on(freebsd.file(address, name));
        let path = found.unwrap_or_else(|| Err(format!("{name} is not a loader of FreeBSD")))?;
        let read = self.web.files.read(&path);
        read.map_err(|error| format!("{} cannot be read: {error}", path.display()))
    }

    fn subject(&self, address: IpAddr) -> Option<Subject> {
        let address: Ipv4Addr = match address.to_canonical() {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => return None,
        };
        if let Some(node) = self.web.node_at(&self.shared.world.load(), Peer((address, 0).into())) {
            return Some(Subject::Node(node.name.clone()));
        }
        let lease = self.leases.holder(address)?;
        Some(Subject::Machine(lease.hwaddr))
    }
}
