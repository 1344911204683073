//! Finds the records that answer a question.

use super::{
    View,
    zones::{Place, ReverseName},
};
use hickory_proto::{
    ProtoError,
    op::{Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, NS, PTR, SOA},
    },
};
use std::net::Ipv4Addr;

/// How long resolvers may cache an answer, in seconds. A node that was racked, renamed or deleted is then found under its
/// name within a minute; a repeated query costs one packet each way on the local network.
pub const TTL: u32 = 60;
/// How long resolvers may cache that a name does not exist (RFC 2308 section 5), in seconds: people look a node up shortly
/// before they add it.
pub const NEGATIVE_TTL: u32 = 5;
/// For secondary servers, which do not exist, because no zone is transferred. The values follow RFC 1912 section 2.2 for programs
/// that check them.
const REFRESH: i32 = 3600;
const RETRY: i32 = 600;
const EXPIRE: i32 = 1_209_600;

/// The result of a look-up.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// The name is in none of the zones.
    Elsewhere,
    /// The name is in a zone, and these are all its records.
    Ours {
        /// `NoError` or `NXDomain`.
        code: ResponseCode,
        /// Answers. None with `NoError` means "no data".
        answers: Vec<Record>,
        /// The SOA of a negative answer.
        authorities: Vec<Record>,
        /// Addresses of the name servers in the answers.
        additionals: Vec<Record>,
    },
}

/// The result for `question`, which `client` asked.
///
/// # Errors
/// A name is too long for DNS, which the checks of the site file rule out.
pub fn find(view: &View, client: Ipv4Addr, question: &Query) -> Result<Found, ProtoError> {
    let name = question.name();
    let labels: Vec<&[u8]> = name.iter().collect();
    let zones = &view.zones;
    let place = zones.place(&labels, |within| view.nodes.network_in(within));
    let apex = match place {
        Place::Elsewhere => return Ok(Found::Elsewhere),
        Place::Domain | Place::Host(_) | Place::BelowHost => zones.domain.clone(),
        Place::Reverse(zone, _) => zone.name()?,
    };
    if !matches!(question.query_class(), DNSClass::IN | DNSClass::ANY) {
        return Ok(Found::Elsewhere);
    }
    // A query for ANY gets one kind of records (RFC 8482 section 4.1).
    let wants = |kind: RecordType| [kind, RecordType::ANY].contains(&question.query_type());
    let record = |data| Record::from_rdata(name.clone(), TTL, data);
    let addresses = |owner: &Name| -> Vec<Record> {
        zones
            .server_addresses(client)
            .map(|address| Record::from_rdata(owner.clone(), TTL, RData::A(A(address))))
            .collect()
    };
    let (mut answers, mut additionals) = (Vec::new(), Vec::new());
    let mut exists = true;
    match place {
        Place::Domain | Place::Reverse(_, ReverseName::Apex) => {
            if wants(RecordType::SOA) {
                answers.push(record(soa(view)));
            } else if wants(RecordType::NS) {
                answers.push(record(RData::NS(NS(zones.server_name.clone()))));
                additionals = addresses(&zones.server_name);
            }
        }
        Place::Host(label) => {
            let label = std::str::from_utf8(label).unwrap_or_default().to_ascii_lowercase();
            if label == zones.server {
                if wants(RecordType::A) {
                    answers = addresses(name);
                }
            } else if let Some(address) = view.nodes.address_of(&label) {
                if wants(RecordType::A) {
                    answers.push(record(RData::A(A(address))));
                }
            } else {
                exists = false;
            }
        }
        Place::Reverse(_, ReverseName::Address(address)) => {
            let target = if zones.is_server(address) {
                Some(zones.server_name.clone())
            } else {
                let node = view.nodes.name_of(address);
                node.map(|name| zones.domain.prepend_label(name.as_bytes()))
                    .transpose()?
            };
            exists = target.is_some();
            if let Some(target) = target.filter(|_| wants(RecordType::PTR)) {
                answers.push(record(RData::PTR(PTR(target))));
            }
        }
        Place::Reverse(_, ReverseName::Between) => {}
        Place::BelowHost | Place::Reverse(_, ReverseName::Nothing) | Place::Elsewhere => exists = false,
    }
    let authorities = match answers.is_empty() {
        // RFC 2308 section 3: the smaller of this TTL and the SOA's last field counts.
        true => vec![Record::from_rdata(apex, NEGATIVE_TTL, soa(view))],
        false => Vec::new(),
    };
    Ok(Found::Ours {
        code: if exists {
            ResponseCode::NoError
        } else {
            ResponseCode::NXDomain
        },
        answers,
        authorities,
        additionals,
    })
}

fn soa(view: &View) -> RData {
    let (server, contact) = (view.zones.server_name.clone(), view.zones.contact.clone());
    RData::SOA(SOA::new(
        server,
        contact,
        view.serial,
        REFRESH,
        RETRY,
        EXPIRE,
        NEGATIVE_TTL,
    ))
}
