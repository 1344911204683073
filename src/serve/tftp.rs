//! The answer to the question of TFTP: boot loaders by name.

use super::Shared;
use bytes::Bytes;
use rackstrap_base::clock::Timestamp;
use rackstrap_dhcp::LeaseView;
use rackstrap_model::decide::freebsd_file;
use rackstrap_registries::timeline::{Event, EventKind, Level, Subject};
use rackstrap_tftp::{ErrorCode, Files, Outcome, Refusal, TransferEnd};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The boot loaders that TFTP serves.
pub struct LoaderFiles {
    /// What all services share.
    pub shared: Shared,
    /// Which machine has which temporary address, so that transfers of an unknown machine are on its own timeline.
    pub leases: LeaseView,
}

impl Files for LoaderFiles {
    fn is_node(&self, peer: IpAddr) -> bool {
        match peer.to_canonical() {
            IpAddr::V4(address) => self.shared.world.load().inventory.by_ipaddr(address).is_some(),
            IpAddr::V6(_) => false,
        }
    }

    fn open(&self, peer: SocketAddr, _local: IpAddr, name: &str) -> Result<Bytes, Refusal> {
        if let IpAddr::V4(address) = peer.ip().to_canonical()
            && freebsd_file(name).is_some()
        {
            return self.freebsd_loader(address, name).map_err(|message| Refusal {
                code: ErrorCode::NotFound,
                message,
            });
        }
        let found = self.shared.loaders.load().get(name);
        found.map_err(|problem| Refusal {
            code: ErrorCode::NotFound,
            message: problem.to_string(),
        })
    }

    fn finished(&self, end: &TransferEnd) {
        tracing::debug!(peer = %end.peer, name = %end.name, outcome = ?end.outcome, "tftp");
        let Some(subject) = self.subject(end.peer.ip()) else {
            return;
        };
        let level = match end.outcome {
            Outcome::Complete | Outcome::Unacknowledged | Outcome::Replaced => Level::Ok,
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

impl LoaderFiles {
    /// The loader of the node's FreeBSD image; its boot is on disk then. Blocks.
    fn freebsd_loader(&self, address: Ipv4Addr, name: &str) -> Result<Bytes, String> {
        let freebsd = self.shared.freebsd();
        let found = tokio::runtime::Handle::current().block_on(freebsd.file(address, name));
        let path = found.unwrap_or_else(|| Err(format!("{name} is not a loader of FreeBSD")))?;
        let content = std::fs::read(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        Ok(content.into())
    }

    fn subject(&self, address: IpAddr) -> Option<Subject> {
        let address: Ipv4Addr = match address.to_canonical() {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => return None,
        };
        match self.shared.world.load().inventory.by_ipaddr(address) {
            Some(node) => Some(Subject::Node(node.name.clone())),
            None => self.leases.holder(address).map(|lease| Subject::Machine(lease.hwaddr)),
        }
    }
}
