//! Turns a packet into an answer, silence, or a question to forward, with the reason (pure).

use super::{Found, Outcome, Relay, View, find};
use hickory_proto::{
    op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};
use std::net::Ipv4Addr;

/// Size of a header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// The largest datagram that is sent and accepted. It fits into Ethernet frames without fragments, also in tunnels (the DNS
/// flag day of 2020; BIND, Unbound and Knot use the same value).
pub const MAX_UDP: u16 = 1232;
/// The size that a client accepts if it does not say (RFC 1035 section 4.2.1).
const PLAIN_UDP: u16 = 512;
/// A query has at most these additional records: OPT and TSIG.
const MOST_ADDITIONAL: u16 = 2;

/// How a question arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// What follows from a packet.
#[derive(Debug)]
pub enum Reaction {
    /// Nothing is sent.
    Silence(Outcome),
    /// Send these bytes back.
    Reply(Vec<u8>, Outcome),
    /// Ask a forwarder.
    Forward(Box<Relay>),
}

/// What follows from `packet`, which `client` sent.
pub fn respond(view: &View, client: Ipv4Addr, transport: Transport, packet: &[u8]) -> Reaction {
    let Some(counts) = packet.get(4..HEADER) else {
        return Reaction::Silence(Outcome::DroppedShort);
    };
    let Ok(Header { metadata, .. }) = Header::read(&mut BinDecoder::new(packet)) else {
        return Reaction::Silence(Outcome::DroppedShort);
    };
    if metadata.message_type == MessageType::Response {
        return Reaction::Silence(Outcome::DroppedResponse);
    }
    let mut reply = Message::response(metadata.id, metadata.op_code);
    reply.metadata.recursion_desired = metadata.recursion_desired;
    let bare = |mut reply: Message, code, outcome| {
        reply.metadata.response_code = code;
        encoded(reply, PLAIN_UDP.into(), outcome)
    };
    if metadata.op_code != OpCode::Query {
        return bare(reply, ResponseCode::NotImp, Outcome::NotImplemented);
    }
    // The counts are checked before they are used: hickory allocates room for as many questions as the header says.
    let [questions, answers, authorities, additionals] =
        [0, 2, 4, 6].map(|at| u16::from_be_bytes([counts[at], counts[at + 1]]));
    if questions != 1 || answers != 0 || authorities != 0 || additionals > MOST_ADDITIONAL {
        return bare(reply, ResponseCode::FormErr, Outcome::Malformed);
    }
    let Ok(query) = Message::from_vec(packet) else {
        return bare(reply, ResponseCode::FormErr, Outcome::Malformed);
    };
    let Some(question) = query.queries.first() else {
        return bare(reply, ResponseCode::FormErr, Outcome::Malformed);
    };
    let limit = usize::from(match (transport, &query.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => PLAIN_UDP,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_UDP, MAX_UDP),
    });
    reply.add_query(question.clone());
    if let Some(edns) = &query.edns {
        reply.set_edns(our_edns(edns.flags().dnssec_ok));
        if edns.version() != 0 {
            reply.metadata.response_code = ResponseCode::BADVERS;
            return encoded(reply, limit, Outcome::BadVersion);
        }
    }
    let ours = view.zones.is_ours(client);
    reply.metadata.recursion_available = ours && !view.zones.forward.is_empty();
    decide(view, client, &query, question, reply, limit)
}

fn decide(
    view: &View,
    client: Ipv4Addr,
    query: &Message,
    question: &Query,
    mut reply: Message,
    limit: usize,
) -> Reaction {
    let refuse = |mut reply: Message, outcome| {
        reply.metadata.response_code = ResponseCode::Refused;
        encoded(reply, limit, outcome)
    };
    if matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR) {
        return refuse(reply, Outcome::RefusedName);
    }
    match find(view, client, question) {
        Ok(Found::Ours {
            code,
            answers,
            authorities,
            additionals,
        }) => {
            let outcome = match code {
                ResponseCode::NXDomain => Outcome::NoName,
                _ if answers.is_empty() => Outcome::NoData,
                _ => Outcome::Answered,
            };
            reply.metadata.authoritative = true;
            reply.metadata.response_code = code;
            reply.insert_answers(answers);
            reply.insert_authorities(authorities);
            reply.insert_additionals(additionals);
            encoded(reply, limit, outcome)
        }
        Ok(Found::Elsewhere) if !view.zones.is_ours(client) => refuse(reply, Outcome::RefusedForeign),
        // Without recursion the client asks for our own names only. Other classes contain the names of server software and
        // similar.
        Ok(Found::Elsewhere)
            if view.zones.forward.is_empty()
                || !query.metadata.recursion_desired
                || question.query_class() != DNSClass::IN =>
        {
            refuse(reply, Outcome::RefusedName)
        }
        Ok(Found::Elsewhere) => Reaction::Forward(Box::new(Relay::new(query, question.clone(), reply, limit))),
        Err(_) => {
            reply.metadata.response_code = ResponseCode::ServFail;
            encoded(reply, limit, Outcome::Failed)
        }
    }
}

/// Our EDNS record. RFC 3225 section 3 demands the client's DO bit in it.
pub(super) fn our_edns(dnssec_ok: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP).set_version(0).set_dnssec_ok(dnssec_ok);
    edns
}

/// The reply as bytes: complete, or without additional records, or with only its question and TC.
pub(super) fn encoded(mut reply: Message, limit: usize, outcome: Outcome) -> Reaction {
    let fits = |reply: &Message| reply.to_vec().ok().filter(|bytes| bytes.len() <= limit);
    if let Some(bytes) = fits(&reply) {
        return Reaction::Reply(bytes, outcome);
    }
    reply.additionals.clear();
    if let Some(bytes) = fits(&reply) {
        return Reaction::Reply(bytes, outcome);
    }
    match fits(&reply.truncate()) {
        Some(bytes) => Reaction::Reply(bytes, Outcome::Truncated),
        None => Reaction::Silence(Outcome::Failed),
    }
}
