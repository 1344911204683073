//! One session with a BMC: a state machine from bytes and times to packets and results (pure).
//!
//! A login is Open Session, RAKP messages 1 to 4, and Set Session Privilege Level. One request at a time is under way. Section numbers are
//! those of "IPMI Specification, v2.0, rev. 1.1".

use crate::{
    commands::{CloseSession, Command, SetPrivilege},
    crypto::{BLOCK, Keys, Suite, equal},
    failure::{Failure, Reason, Step},
    login::Login,
    packet::{self, Payload, u32_at},
    window::Window,
};
use std::time::{Duration, Instant};

/// Time until a request is sent again for the first time. BMCs answer within some 10 ms, and some take half a second for RAKP message 2.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How often a request is sent. The pause doubles each time: the last one fails after 15 s.
const TRIES: u32 = 4;
/// How often Close Session is sent: the BMC ends an idle session by itself.
const CLOSING_TRIES: u32 = 2;
/// RAKP messages 1: look the user up by name, at this privilege or above (13.20).
const BY_NAME: u8 = 0x10;

/// Fills bytes with random ones.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this packet.
    Send(Vec<u8>),
    /// Wait for a packet until this time.
    Wait(Instant),
    /// The step that was under way has ended.
    Ended(Result<Ended, Failure>),
    /// Nothing is under way.
    Idle,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The session is open, and has its privilege.
    LoggedIn,
    /// The BMC answered a command with these data.
    Answer(Vec<u8>),
    /// The session is closed.
    Closed,
}

/// A request that is under way.
struct Pending {
    step: Step,
    kind: Payload,
    /// Without its packet: each packet of a session has a sequence number of its own.
    payload: Vec<u8>,
    /// The network function, number and command of a message, to recognise its answer.
    message: Option<(u8, u8, u8)>,
    /// How often it was sent.
    sent: u32,
    most: u32,
    /// When to send it again; none = now.
    due: Option<Instant>,
}

/// One session with a BMC.
pub struct Session {
    login: Login,
    suite: Suite,
    random: Random,
    /// The console's number of the session, which the BMC sends.
    own_id: u32,
    own_random: [u8; 16],
    /// The BMC's number of the session, which it wants to receive.
    bmc_id: u32,
    /// The BMC's random number and GUID, from RAKP message 2.
    bmc_random: [u8; 16],
    bmc_guid: [u8; 16],
    /// None before RAKP message 2.
    keys: Option<Keys>,
    /// Whether packets are encrypted and authenticated: after RAKP message 4.
    open: bool,
    tag: u8,
    /// Number of the last packet that was sent in the session.
    sequence: u32,
    /// Numbers of received packets.
    window: Window,
    /// Number of the last message, below 64.
    number: u8,
    pending: Option<Pending>,
    ended: Option<Result<Ended, Failure>>,
}

impl Session {
    /// A session that begins to log in. `random` must be unpredictable: session keys are made of it.
    pub fn new(login: Login, suite: Suite, mut random: Random) -> Session {
        let (mut id, mut own_random, mut tag) = ([0; 4], [0; 16], [0]);
        random(&mut id);
        random(&mut own_random);
        random(&mut tag);
        // 0 stands for no session (13.17).
        let own_id = u32::from_le_bytes(id).max(1);
        let mut session = Session {
            login,
            suite,
            random,
            own_id,
            own_random,
            bmc_id: 0,
            bmc_random: [0; 16],
            bmc_guid: [0; 16],
            keys: None,
            open: false,
            tag: tag[0],
            sequence: 0,
            window: Window::default(),
            number: 0,
            pending: None,
            ended: None,
        };
        let [authentication, integrity, confidentiality] = suite.algorithms();
        // Privilege 0: the highest that the user may have with this cipher suite (13.17).
        let mut payload = vec![session.tag, 0, 0, 0];
        payload.extend(own_id.to_le_bytes());
        for (kind, algorithm) in [(0, authentication), (1, integrity), (2, confidentiality)] {
            payload.extend([kind, 0, 0, 8, algorithm, 0, 0, 0]);
        }
        session.begin(Step::OpenSession, Payload::OpenRequest, payload);
        session
    }

    /// Begins a command. Ends with [`Ended::Answer`], whose data [`Command::read`] reads.
    pub fn command<C: Command>(&mut self, command: &C) {
        self.message(Step::Command(C::NAME), command);
    }

    /// Begins to close the session. Ends with [`Ended::Closed`].
    pub fn close(&mut self) {
        let close = CloseSession(self.bmc_id);
        self.message(Step::Command(CloseSession::NAME), &close);
        if let Some(pending) = &mut self.pending {
            pending.most = CLOSING_TRIES;
        }
    }

    fn message<C: Command>(&mut self, step: Step, command: &C) {
        self.number = (self.number + 1) % 64;
        let payload = packet::request(C::NETFN, self.number, C::NUMBER, &command.data());
        self.begin(step, Payload::Ipmi, payload);
        if let Some(pending) = &mut self.pending {
            pending.message = Some((C::NETFN + 1, self.number, C::NUMBER));
        }
    }

    fn begin(&mut self, step: Step, kind: Payload, payload: Vec<u8>) {
        self.pending = Some(Pending {
            step,
            kind,
            payload,
            message: None,
            sent: 0,
            most: TRIES,
            due: None,
        });
    }

    /// What to do at `now`. The caller sends or waits, gives what it receives to [`Session::receive`], and asks again.
    pub fn next(&mut self, now: Instant) -> Next {
        if let Some(ended) = self.ended.take() {
            self.pending = None;
            return Next::Ended(ended);
        }
        let Some(pending) = &mut self.pending else {
            return Next::Idle;
        };
        if let Some(due) = pending.due.filter(|due| *due > now) {
            return Next::Wait(due);
        }
        if pending.sent >= pending.most {
            let reason = Reason::Silent { tries: pending.sent };
            let failure = Failure::new(pending.step, reason);
            self.pending = None;
            return Next::Ended(Err(failure));
        }
        pending.due = Some(now + FIRST_WAIT * (1 << pending.sent.min(8)));
        pending.sent += 1;
        let (kind, payload) = (pending.kind, pending.payload.clone());
        Next::Send(match self.keys.as_ref().filter(|_| self.open) {
            None => packet::plain(kind, &payload),
            Some(keys) => {
                // A repeated message keeps its own number, by which the BMC does not carry it out twice (5.7), and gets a new one of the session.
                self.sequence = self.sequence.wrapping_add(1).max(1);
                let mut iv = [0; BLOCK];
                (self.random)(&mut iv);
                packet::sealed(keys, kind, self.bmc_id, self.sequence, &payload, iv)
            }
        })
    }

    /// Takes a packet that was received. Packets that are not the answer to what is under way are ignored. Returns whether this one was.
    pub fn receive(&mut self, bytes: &[u8]) -> bool {
        let Some((step, kind)) = self.pending.as_ref().map(|pending| (pending.step, pending.kind)) else {
            return false;
        };
        let keys = self.keys.as_ref().filter(|_| self.open);
        let Some(packet) = packet::read(bytes, keys) else {
            return false;
        };
        let taken = match (kind, packet.kind) {
            (Payload::OpenRequest, Payload::OpenResponse) => self.opened(&packet.payload),
            (Payload::Rakp1, Payload::Rakp2) => self.rakp2(&packet.payload),
            (Payload::Rakp3, Payload::Rakp4) => self.rakp4(&packet.payload),
            (Payload::Ipmi, Payload::Ipmi) if packet.session == self.own_id => {
                // Authenticated, but seen before: somebody may have recorded it.
                if !self.window.accept(packet.sequence) {
                    return false;
                }
                self.answered(step, &packet.payload)
            }
            _ => None,
        };
        match taken {
            None => false,
            Some(Ok(())) => true,
            Some(Err(reason)) => {
                self.ended = Some(Err(Failure::new(step, reason)));
                true
            }
        }
    }

    /// The status of a message of the login that belongs to the present one; none if it belongs to another one.
    fn status(&self, payload: &[u8]) -> Option<Result<(), Reason>> {
        let (tag, status) = (*payload.first()?, *payload.get(1)?);
        if tag != self.tag {
            return None;
        }
        if status != 0 {
            return Some(Err(Reason::Refused(status)));
        }
        (u32_at(payload, 4)? == self.own_id).then_some(Ok(()))
    }

    /// Open Session Response (13.18).
    fn opened(&mut self, payload: &[u8]) -> Option<Result<(), Reason>> {
        if let Err(reason) = self.status(payload)? {
            return Some(Err(reason));
        }
        let bmc_id = u32_at(payload, 8)?;
        let [authentication, integrity, confidentiality] = self.suite.algorithms();
        for (at, algorithm) in [(12, authentication), (20, integrity), (28, confidentiality)] {
            if payload.get(at + 4)? & 0x3f != algorithm {
                return Some(Err(Reason::CipherSuite));
            }
        }
        self.bmc_id = bmc_id;
        self.tag = self.tag.wrapping_add(1);
        // RAKP message 1 (13.20).
        let mut payload = vec![self.tag, 0, 0, 0];
        payload.extend(bmc_id.to_le_bytes());
        payload.extend(self.own_random);
        payload.extend([self.role(), 0, 0]);
        payload.extend(self.name());
        self.begin(Step::User, Payload::Rakp1, payload);
        Some(Ok(()))
    }

    fn role(&self) -> u8 {
        BY_NAME | self.login.privilege().number()
    }

    /// The length of the user's name, and the name.
    fn name(&self) -> Vec<u8> {
        let user = self.login.user();
        // At most 16.
        let length = user.len().to_le_bytes()[0];
        [&[length], user].concat()
    }

    /// RAKP message 2 (13.21).
    fn rakp2(&mut self, payload: &[u8]) -> Option<Result<(), Reason>> {
        if let Err(reason) = self.status(payload)? {
            return Some(Err(reason));
        }
        self.bmc_random = *payload.get(8..)?.first_chunk()?;
        self.bmc_guid = *payload.get(24..)?.first_chunk()?;
        let (own_id, bmc_id) = (self.own_id.to_le_bytes(), self.bmc_id.to_le_bytes());
        let role_and_name = [&[self.role()][..], &self.name()].concat();
        let parts: [&[u8]; 6] = [
            &own_id,
            &bmc_id,
            &self.own_random,
            &self.bmc_random,
            &self.bmc_guid,
            &role_and_name,
        ];
        let password = self.login.password();
        let code = self.suite.code(password, &parts);
        if !equal(payload.get(40..40 + self.suite.code_length())?, &code) {
            return Some(Err(Reason::OtherPassword));
        }
        // The session integrity key: K_G is not used, so that the password takes its place (13.31).
        let sik = self
            .suite
            .code(password, &[&self.own_random, &self.bmc_random, &role_and_name]);
        self.keys = Some(Keys::new(self.suite, sik));
        self.tag = self.tag.wrapping_add(1);
        // RAKP message 3 (13.22).
        let code = self.suite.code(password, &[&self.bmc_random, &own_id, &role_and_name]);
        let mut payload = vec![self.tag, 0, 0, 0];
        payload.extend(bmc_id);
        payload.extend(code);
        self.begin(Step::Password, Payload::Rakp3, payload);
        Some(Ok(()))
    }

    /// RAKP message 4 (13.23).
    fn rakp4(&mut self, payload: &[u8]) -> Option<Result<(), Reason>> {
        if let Err(reason) = self.status(payload)? {
            return Some(Err(reason));
        }
        let keys = self.keys.as_ref()?;
        let bmc_id = self.bmc_id.to_le_bytes();
        let parts: [&[u8]; 3] = [&self.own_random, &bmc_id, &self.bmc_guid];
        let code = self.suite.short_code(&keys.sik, &parts);
        if !equal(payload.get(8..8 + self.suite.short_code_length())?, &code) {
            return Some(Err(Reason::OtherPassword));
        }
        self.open = true;
        let privilege = SetPrivilege(self.login.privilege().number());
        self.message(Step::Privilege, &privilege);
        Some(Ok(()))
    }

    /// The answer to a message; none if it is that of an earlier one.
    fn answered(&mut self, step: Step, payload: &[u8]) -> Option<Result<(), Reason>> {
        let response = packet::read_response(payload)?;
        let wanted = self.pending.as_ref()?.message?;
        if wanted != (response.netfn, response.number, response.command) {
            return None;
        }
        if response.completion != 0 {
            return Some(Err(Reason::Completion(response.completion)));
        }
        self.ended = Some(Ok(match step {
            Step::Privilege => {
                let wanted = SetPrivilege(self.login.privilege().number());
                if wanted.read(&response.data) != Some(wanted.0) {
                    return Some(Err(Reason::Malformed));
                }
                Ended::LoggedIn
            }
            Step::Command(CloseSession::NAME) => Ended::Closed,
            _ => Ended::Answer(response.data),
        }));
        Some(Ok(()))
    }
}

#[cfg(test)]
mod tests;
