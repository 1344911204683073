//! One transfer: a state machine without socket or clock.
//!
//! Events go in ([`Session::on_packet`], [`Session::on_timeout`], [`Session::on_repeated_request`]); afterwards
//! [`Session::poll_transmit`] is called until it has nothing more, [`Session::deadline`] says when to come back, and
//! [`Session::outcome`] when not to.
//!
//! Blocks are counted in 64 bits; only the wire sees 16 of them (which roll over to 0, as every firmware that loads
//! more than 65,535 blocks expects). At most 64 are in flight, so an acknowledgement is never in doubt.

use super::{
    netascii::{self, Position},
    options::Negotiated,
    outcome::Outcome,
    packet::{self, ErrorCode, Mode, Packet},
    rtt::Rto,
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// After a window was sent again, acknowledgements of its first copy may trickle in for this long.
const ECHO: Duration = Duration::from_millis(1);

/// A datagram to send: both parts, one after the other. The body is a part of the file itself where it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Header, or a whole OACK or ERROR.
    pub head: &'a [u8],
    /// The block's bytes.
    pub body: &'a [u8],
}

/// One transfer of a file to a client, as a state machine without sockets.
#[derive(Debug)]
pub struct Session {
    content: Content,
    blksize: usize,
    window: u64,
    /// The OACK, while it has not been acknowledged.
    oack: Option<Vec<u8>>,
    /// An OACK or ERROR that is to leave now.
    outgoing: Option<Vec<u8>>,
    /// What `outgoing` becomes when handed out, so that it can be borrowed.
    handed_out: Vec<u8>,
    header: [u8; 4],
    /// Number of the last block; a file that ends with a full block is followed by an empty one.
    last: u64,
    /// Number of the highest block that the client acknowledged; 0 if none.
    acked: u64,
    /// Next block to send, up to `limit`.
    next: u64,
    limit: u64,
    /// Highest block ever sent.
    sent: u64,
    /// True once the client acknowledged anything.
    answered: bool,
    flight: Flight,
    rto: Rto,
    deadline: Instant,
    /// When to send the last block of the window once more, see [`Rto::probe`].
    probe_at: Option<Instant>,
    probe: bool,
    /// Repetitions since the last progress, and how many are allowed.
    attempts: u32,
    max_attempts: u32,
    stats: Stats,
    outcome: Option<Outcome>,
}

/// What a transfer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of the file that left, repetitions included.
    pub bytes_sent: u64,
    /// Datagrams sent a second time or more.
    pub retransmissions: u64,
    /// Acknowledgements that were for nothing outstanding (old, repeated, never sent).
    pub stale_acks: u64,
}

/// When the present window left.
#[derive(Clone, Copy, Debug)]
struct Flight {
    first: Instant,
    latest: Instant,
    /// True if some of it was sent before.
    repeated: bool,
}

#[derive(Debug)]
enum Content {
    Octet(Bytes),
    Netascii {
        file: Bytes,
        /// Where block `acked + 1 + i` begins; at most a window and one.
        starts: VecDeque<Position>,
        buffer: Vec<u8>,
    },
}

/// Length of `file` as it travels, in bytes. Looks at every byte for netascii.
pub fn transfer_size(file: &[u8], mode: Mode) -> u64 {
    match mode {
        Mode::Octet => file.len() as u64,
        Mode::Netascii => netascii::encoded_len(file),
    }
}

impl Session {
    /// Begins a transfer; the first answer is ready to be sent. `size` is [`transfer_size`], `retransmissions` the
    /// number of repetitions without progress after which the client is given up.
    pub fn new(now: Instant, file: Bytes, mode: Mode, size: u64, options: Negotiated, retransmissions: u32) -> Self {
        let last = size / u64::from(options.blksize) + 1;
        let max_attempts = match options.timeout {
            // Half a minute, as the measured timer gives, but at least three times.
            Some(interval) => retransmissions.min((30 / interval.as_secs().max(1)) as u32).max(3),
            None => retransmissions,
        };
        let content = match mode {
            Mode::Octet => Content::Octet(file),
            Mode::Netascii => Content::Netascii {
                file,
                starts: VecDeque::from([Position::default()]),
                buffer: Vec::with_capacity(usize::from(options.blksize)),
            },
        };
        let rto = Rto::new(options.timeout);
        let mut this = Session {
            content,
            blksize: usize::from(options.blksize),
            window: u64::from(options.windowsize),
            outgoing: options.oack.clone(),
            oack: options.oack,
            handed_out: Vec::new(),
            header: [0; 4],
            last,
            acked: 0,
            next: 1,
            limit: 0,
            sent: 0,
            answered: false,
            flight: Flight {
                first: now,
                latest: now,
                repeated: false,
            },
            deadline: now + rto.current(),
            probe_at: None,
            probe: false,
            rto,
            attempts: 0,
            max_attempts,
            stats: Stats::default(),
            outcome: None,
        };
        if this.oack.is_none() {
            this.fly(now);
        }
        this
    }

    /// Next datagram to send, if any.
    pub fn poll_transmit(&mut self) -> Option<Datagram<'_>> {
        if let Some(packet) = self.outgoing.take() {
            self.handed_out = packet;
            return Some(Datagram {
                head: &self.handed_out,
                body: &[],
            });
        }
        if self.outcome.is_some() {
            return None;
        }
        let block = if self.next <= self.limit {
            self.next += 1;
            self.next - 1
        } else if std::mem::take(&mut self.probe) {
            self.limit
        } else {
            return None;
        };
        if block <= self.sent {
            self.stats.retransmissions += 1;
        }
        self.sent = self.sent.max(block);
        self.header = packet::data_header(block as u16);
        let body = match &mut self.content {
            Content::Octet(file) => {
                let start = ((block - 1) as usize).saturating_mul(self.blksize).min(file.len());
                let end = start.saturating_add(self.blksize).min(file.len());
                &file[start..end]
            }
            Content::Netascii { file, starts, buffer } => {
                let index = (block - self.acked - 1) as usize;
                buffer.clear();
                let after = netascii::encode(file, starts[index], self.blksize, buffer);
                if starts.len() == index + 1 {
                    starts.push_back(after);
                }
                &buffer[..]
            }
        };
        self.stats.bytes_sent += body.len() as u64;
        Some(Datagram {
            head: &self.header,
            body,
        })
    }

    /// Takes a datagram from the client's address and port.
    pub fn on_packet(&mut self, now: Instant, bytes: &[u8]) {
        if self.outcome.is_some() {
            return;
        }
        match Packet::parse(bytes) {
            Ok(Packet::Ack(block)) => self.on_ack(now, block),
            // No reply: an ERROR is never answered, and the client has forgotten the transfer already (RFC 1350, 7).
            Ok(Packet::Error(code, text)) => self.end(Outcome::client_error(code, text)),
            Ok(Packet::Read(_) | Packet::Write(_) | Packet::Data | Packet::OptionAck) => {
                self.fail(
                    ErrorCode::IllegalOperation,
                    "only ACK and ERROR belong into a read transfer",
                );
            }
            Err(packet::Malformed::Truncated) => self.stats.stale_acks += 1,
            Err(malformed) => self.fail(ErrorCode::IllegalOperation, &malformed.to_string()),
        }
    }

    /// Tells that [`Session::deadline`] has passed: probes, sends the window again, or gives up.
    pub fn on_timeout(&mut self, now: Instant) {
        if self.outcome.is_some() {
            return;
        }
        if now < self.deadline {
            if self.probe_at.is_some_and(|at| at <= now) {
                self.probe_at = None;
                self.probe = true;
                self.flight.repeated = true;
            }
            return;
        }
        if self.attempts >= self.max_attempts {
            self.end(if self.sent == self.last {
                Outcome::Unacknowledged
            } else {
                Outcome::TimedOut
            });
            return;
        }
        self.attempts += 1;
        self.rto.back_off();
        self.repeat(now);
    }

    /// The client sent its request once more. True if the first answer goes out again; false if the client had
    /// acknowledged something, so that this is a new transfer which takes this one's place.
    pub fn on_repeated_request(&mut self) -> bool {
        if self.answered || self.outcome.is_some() {
            return false;
        }
        // The timer is left alone: requests for ever must not keep a session for ever.
        self.flight.repeated = true;
        match &self.oack {
            Some(oack) => {
                self.outgoing = Some(oack.clone());
                self.stats.retransmissions += 1;
            }
            None => self.next = 1,
        }
        true
    }

    /// The client's port is closed (ICMP port unreachable).
    pub fn on_unreachable(&mut self) {
        self.end(if self.sent == self.last {
            Outcome::Unacknowledged
        } else {
            Outcome::Unreachable
        });
    }

    /// Ends the transfer from this side with an ERROR packet to the client.
    pub fn abort(&mut self, message: &str, outcome: Outcome) {
        if self.outcome.is_none() {
            self.outgoing = Some(packet::error(ErrorCode::NotDefined, message));
            self.outcome = Some(outcome);
        }
    }

    /// When [`Session::on_timeout`] is due.
    pub fn deadline(&self) -> Instant {
        self.probe_at.map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// How it ended, once it has. A last datagram may still have to be sent.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// True once the client acknowledged anything.
    pub fn answered(&self) -> bool {
        self.answered
    }

    /// What it did so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn on_ack(&mut self, now: Instant, wire: u16) {
        if self.oack.is_some() {
            if wire == 0 {
                self.oack = None;
                self.progress(now);
                self.fly(now);
            } else {
                self.stats.stale_acks += 1;
            }
            return;
        }
        let block = self.acked + u64::from(wire.wrapping_sub(self.acked as u16));
        if block > self.sent {
            self.stats.stale_acks += 1;
        } else if block == self.acked {
            self.on_duplicate_ack(now);
        } else {
            let echo = self.flight.repeated && now.duration_since(self.flight.latest) < self.echo_time();
            let whole = block == self.sent || block == self.limit;
            if let Content::Netascii { starts, .. } = &mut self.content {
                starts.drain(..(block - self.acked) as usize);
            }
            self.acked = block;
            self.probe = false;
            self.progress(now);
            if block == self.last {
                self.end(Outcome::Complete);
            } else if echo && !whole {
                // The second and later acknowledgements of one flight, which clients send that answer every block
                // behind a gap (EDK II) or every block at all. The answer to the first is on its way; going back for
                // each of them would multiply the traffic by the window.
                self.next = self.next.max(block + 1);
                self.limit = self.last.min(block + self.window);
                self.deadline = now + self.rto.current();
            } else {
                // The whole window arrived, or what follows `block` was lost: go on behind it (RFC 7440 section 4).
                self.fly(now);
                self.flight.repeated = !whole;
            }
        }
    }

    /// An acknowledgement of what had been acknowledged. Answering each with data doubles every later packet, the
    /// sorcerer's apprentice; ignoring each leaves the loss of a window's first block to the timer. So it counts only
    /// when it can be an answer to the present window, not to packets before it.
    fn on_duplicate_ack(&mut self, now: Instant) {
        let wait = if self.window == 1 {
            self.rto.base()
        } else if self.flight.repeated {
            self.echo_time()
        } else {
            self.rto.least().unwrap_or(self.rto.base())
        };
        let in_flight = self.next > self.limit;
        if in_flight && now.duration_since(self.flight.latest) >= wait && self.attempts < self.max_attempts {
            self.attempts += 1;
            self.repeat(now);
        } else {
            self.stats.stale_acks += 1;
        }
    }

    fn echo_time(&self) -> Duration {
        self.rto.smoothed().unwrap_or(self.rto.base()).max(ECHO)
    }

    /// Something new was acknowledged: learn the round trip from it.
    fn progress(&mut self, now: Instant) {
        self.answered = true;
        self.attempts = 0;
        let since_latest = now.duration_since(self.flight.latest);
        // Sooner after the repetition than any answer ever came: it answers the first transmission (RFC 3522's idea).
        let early = self.rto.least().is_some_and(|least| since_latest < least / 2);
        if !self.flight.repeated {
            self.rto.sample(since_latest);
        } else if early && self.flight.first < self.flight.latest && self.limit <= self.acked {
            self.rto.sample(now.duration_since(self.flight.first));
        } else {
            self.rto.ambiguous();
        }
    }

    /// Sends a new window from the block after the acknowledged one.
    fn fly(&mut self, now: Instant) {
        self.next = self.acked + 1;
        self.limit = self.last.min(self.acked + self.window);
        self.flight = Flight {
            first: now,
            latest: now,
            repeated: false,
        };
        self.deadline = now + self.rto.current();
        self.probe = false;
        self.probe_at = match self.rto.probe() {
            Some(after) if self.window > 1 => Some(now + after),
            _ => None,
        };
    }

    /// Sends what is outstanding once more.
    fn repeat(&mut self, now: Instant) {
        let first = self.flight.first;
        match &self.oack {
            Some(oack) => {
                self.outgoing = Some(oack.clone());
                self.stats.retransmissions += 1;
                self.deadline = now + self.rto.current();
            }
            None => self.fly(now),
        }
        self.flight = Flight {
            first,
            latest: now,
            repeated: true,
        };
    }

    fn fail(&mut self, code: ErrorCode, message: &str) {
        self.outgoing = Some(packet::error(code, message));
        self.outcome = Some(Outcome::Protocol(message.to_owned()));
    }

    fn end(&mut self, outcome: Outcome) {
        self.outgoing = None;
        self.outcome.get_or_insert(outcome);
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
