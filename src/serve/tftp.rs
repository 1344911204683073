//! What TFTP asks: boot loaders by name.

use super::Shared;
use crate::{
    clock::Timestamp,
    tftp::{ErrorCode, Files, Outcome, Refusal, TransferEnd},
    timeline::{Event, Level, Subject},
};
use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// TFTP's view: the boot loaders.
pub struct LoaderFiles(pub Shared);

impl Files for LoaderFiles {
    fn open(&self, _peer: SocketAddr, _local: IpAddr, name: &str) -> Result<Bytes, Refusal> {
        let found = self.0.loaders.load().get(name);
        found.map_err(|problem| Refusal { code: ErrorCode::FileNotFound, message: problem.to_string() })
    }

    fn finished(&self, end: &TransferEnd) {
        tracing::debug!(peer = %end.peer, name = %end.name, outcome = ?end.outcome, "tftp");
        let Some(subject) = self.subject(end.peer.ip()) else { return };
        let level = match end.outcome {
            Outcome::Complete => Level::Ok,
            // OVMF asks for the size first and says ERROR 8 to the answer: that is how it says thanks.
            Outcome::ClientError { .. } | Outcome::Replaced => Level::Ok,
            _ => Level::Retry,
        };
        let detail = format!("{}: {}", end.name, end.outcome);
        let event = Event::new(Timestamp::now(), "tftp", level, detail).took(end.duration.as_millis() as u64);
        self.0.recorder.record(subject, event);
    }
}

impl LoaderFiles {
    fn subject(&self, address: IpAddr) -> Option<Subject> {
        let address: Ipv4Addr = match address.to_canonical() {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => return None,
        };
        match self.0.world.load().inventory.by_ipaddr(address) {
            Some(node) => Some(Subject::Node(node.name.clone())),
            None => self.0.sightings.who_has(address).map(Subject::Machine),
        }
    }
}
