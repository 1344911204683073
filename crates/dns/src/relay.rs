//! A question that is forwarded, and its answer on the way back to the client.

use super::{Outcome, Reaction, engine};
use hickory_proto::{
    ProtoError,
    op::{Header, Message, MessageType, OpCode, Query, ResponseCode},
    serialize::binary::{BinDecodable, BinDecoder},
};

/// A client's question on its way. It is encoded again, so that no other bytes of the client are sent.
#[derive(Clone, Debug)]
pub struct Relay {
    question: Query,
    authentic_data: bool,
    checking_disabled: bool,
    /// The client's DO bit; none if it does not support EDNS.
    edns: Option<bool>,
    /// The reply if no answer comes: the client's id and question, and our flags.
    reply: Message,
    /// Size of the reply that the client accepts, in bytes.
    limit: usize,
}

/// The result of one of our questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The forwarder answered.
    Answer,
    /// The forwarder cannot or will not answer; another one may.
    Unable,
}

impl Relay {
    pub(super) fn new(query: &Message, question: Query, reply: Message, limit: usize) -> Self {
        Relay {
            question,
            authentic_data: query.metadata.authentic_data,
            checking_disabled: query.metadata.checking_disabled,
            edns: query.edns.as_ref().map(|edns| edns.flags().dnssec_ok),
            reply,
            limit,
        }
    }

    /// The name and type, for the log.
    pub fn question(&self) -> &Query {
        &self.question
    }

    /// The question as it is sent to a forwarder.
    ///
    /// # Errors
    /// None that can occur: the name came in a packet.
    pub fn query(&self, id: u16) -> Result<Vec<u8>, ProtoError> {
        let mut query = Message::new(id, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.metadata.authentic_data = self.authentic_data;
        query.metadata.checking_disabled = self.checking_disabled;
        query.add_query(self.question.clone());
        if let Some(dnssec_ok) = self.edns {
            query.set_edns(engine::our_edns(dnssec_ok));
        }
        query.to_vec()
    }

    /// Whether `bytes` answer the query with this id (RFC 5452 section 9.1). A forger who guesses addresses and ports has to
    /// guess the id, too.
    pub fn read(&self, id: u16, bytes: &[u8]) -> Option<Verdict> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).ok()?;
        let metadata = header.metadata;
        if metadata.id != id || metadata.message_type != MessageType::Response || metadata.op_code != OpCode::Query {
            return None;
        }
        let unable = matches!(
            metadata.response_code,
            ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr
        );
        match header.counts.queries {
            1 => (Query::read(&mut decoder).ok()? == self.question).then_some(())?,
            // Some servers leave the question out of a refusal.
            0 if unable => {}
            _ => return None,
        }
        Some(if unable { Verdict::Unable } else { Verdict::Answer })
    }

    /// The reply with a forwarder's answer: the whole answer under the client's id, or TC if it is too large for the client.
    pub fn answer(self, mut bytes: Vec<u8>) -> Reaction {
        if bytes.len() > self.limit || bytes.len() < 2 {
            return engine::encoded(self.reply.truncate(), self.limit, Outcome::Truncated);
        }
        bytes[..2].copy_from_slice(&self.reply.metadata.id.to_be_bytes());
        Reaction::Reply(bytes, Outcome::Forwarded)
    }

    /// The reply without an answer.
    pub fn failed(mut self, outcome: Outcome) -> Reaction {
        self.reply.metadata.response_code = ResponseCode::ServFail;
        engine::encoded(self.reply, self.limit, outcome)
    }
}
