//! A BMC in memory, for tests of the session: it knows the same packets from the other side.

use crate::{
    Suite,
    crypto::{BLOCK, Keys},
    packet::{self, Payload},
};

const GUID: [u8; 16] = [0x77; 16];
const RANDOM: [u8; 16] = [0x66; 16];
const ID: u32 = 0xb0b0_0001;

/// A BMC with one user.
pub(crate) struct Fake {
    pub(crate) suite: Suite,
    pub(crate) password: &'static [u8],
    /// Status of Open Session Response and RAKP message 2.
    pub(crate) open_status: u8,
    pub(crate) user_status: u8,
    /// Completion code of all commands.
    pub(crate) completion: u8,
    /// Data of the answers to all commands but Set Session Privilege Level.
    pub(crate) data: Vec<u8>,
    /// Numbers of the commands that it got.
    pub(crate) commands: Vec<u8>,
    console: u32,
    console_random: Vec<u8>,
    role_and_name: Vec<u8>,
    keys: Option<Keys>,
    sequence: u32,
}

impl Fake {
    pub(crate) fn new(suite: Suite, password: &'static [u8]) -> Fake {
        Fake {
            suite,
            password,
            open_status: 0,
            user_status: 0,
            completion: 0,
            data: vec![0x01, 0, 0],
            commands: Vec::new(),
            console: 0,
            console_random: Vec::new(),
            role_and_name: Vec::new(),
            keys: None,
            sequence: 0,
        }
    }

    /// The answer to a packet.
    pub(crate) fn answer(&mut self, bytes: &[u8]) -> Vec<u8> {
        if let Some(packet) = packet::read(bytes, None) {
            return self.answer_login(packet.kind, &packet.payload);
        }
        let keys = self.keys.clone().unwrap();
        let packet = packet::read(bytes, Some(&keys)).unwrap();
        assert_eq!(packet.session, ID);
        let request = packet.payload;
        let (number, command) = (request[4], request[5]);
        self.commands.push(command);
        let data = match command {
            0x3b => vec![request[6]],
            _ => self.data.clone(),
        };
        // An answer has the form of a request with the completion code before its data.
        let mut message = packet::request(
            (request[1] >> 2) + 1,
            number >> 2,
            command,
            &[&[self.completion], &data[..]].concat(),
        );
        (message[0], message[3]) = (0x81, 0x20);
        let last = message.len() - 1;
        message[2] = 0u8.wrapping_sub(message[0]).wrapping_sub(message[1]);
        message[last] = message[3..last].iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        self.sequence += 1;
        packet::sealed(&keys, Payload::Ipmi, self.console, self.sequence, &message, [5; BLOCK])
    }

    fn answer_login(&mut self, kind: Payload, payload: &[u8]) -> Vec<u8> {
        let (suite, password) = (self.suite, self.password);
        let head = |status: u8, console: u32| [&[payload[0], status, 0, 0][..], &console.to_le_bytes()].concat();
        match kind {
            Payload::OpenRequest => {
                self.console = packet::u32_at(payload, 4).unwrap();
                let mut answer = head(self.open_status, self.console);
                if self.open_status == 0 {
                    answer.extend(ID.to_le_bytes());
                    for (kind, algorithm) in (0..).zip(suite.algorithms()) {
                        answer.extend([kind, 0, 0, 8, algorithm, 0, 0, 0]);
                    }
                }
                packet::plain(Payload::OpenResponse, &answer)
            }
            Payload::Rakp1 => {
                self.console_random = payload[8..24].to_vec();
                self.role_and_name = [&payload[24..25], &payload[27..]].concat();
                let mut answer = head(self.user_status, self.console);
                if self.user_status == 0 {
                    answer.extend(RANDOM);
                    answer.extend(GUID);
                    let (console, id) = (self.console.to_le_bytes(), ID.to_le_bytes());
                    let parts: [&[u8]; 6] = [&console, &id, &self.console_random, &RANDOM, &GUID, &self.role_and_name];
                    answer.extend(suite.code(password, &parts));
                }
                packet::plain(Payload::Rakp2, &answer)
            }
            Payload::Rakp3 => {
                let console = self.console.to_le_bytes();
                let wanted = suite.code(password, &[&RANDOM, &console, &self.role_and_name]);
                if payload[8..] != wanted {
                    return packet::plain(Payload::Rakp4, &head(0x0f, self.console));
                }
                let keys = Keys::new(
                    suite,
                    suite.code(password, &[&self.console_random, &RANDOM, &self.role_and_name]),
                );
                let mut answer = head(0, self.console);
                answer.extend(suite.short_code(&keys.sik, &[&self.console_random, &ID.to_le_bytes(), &GUID]));
                self.keys = Some(keys);
                packet::plain(Payload::Rakp4, &answer)
            }
            other => panic!("a console does not send {other:?}"),
        }
    }
}
