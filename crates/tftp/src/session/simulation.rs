//! A bad network between a session and four kinds of client: what arrives must be the file, whatever was lost,
//! doubled or overtaken on the way.

use super::*;
use crate::packet::ack;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// How a client acknowledges.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manners {
    /// Once a window, and once at a gap (RFC 7440).
    Standard,
    /// Also for every block behind a gap, and every old one (EDK II).
    EachStray,
    /// Every single block.
    EachBlock,
    /// Answers every datagram, duplicates too: the other half of the sorcerer's apprentice.
    Apprentice,
}

/// A client as simple as those in ROMs.
struct Client {
    manners: Manners,
    blksize: usize,
    window: u64,
    got: Vec<u8>,
    /// Blocks received in order; none before the first answer.
    blocks: Option<u64>,
    since_ack: u64,
    gap_told: bool,
    done: bool,
    timer: Instant,
}

const CLIENT_TIMEOUT: Duration = Duration::from_millis(1000);

impl Client {
    fn on(&mut self, now: Instant, packet: &[u8]) -> Option<[u8; 4]> {
        if packet[1] == 6 {
            if self.blocks.unwrap_or(0) == 0 {
                self.blocks = Some(0);
                self.timer = now + CLIENT_TIMEOUT;
                return Some(ack(0));
            }
            return None;
        }
        assert_eq!(packet[..2], [0, 3]);
        let wire = u16::from_be_bytes([packet[2], packet[3]]);
        let have = self.blocks.unwrap_or(0);
        if wire == (have + 1) as u16 && !self.done {
            self.blocks = Some(have + 1);
            self.got.extend_from_slice(&packet[4..]);
            self.done = packet.len() - 4 < self.blksize;
            self.timer = now + CLIENT_TIMEOUT;
            self.since_ack += 1;
            self.gap_told = false;
            let due = self.done || self.since_ack >= self.window || self.manners == Manners::EachBlock;
            return (due || self.manners == Manners::Apprentice).then(|| self.acknowledge());
        }
        let old = (have as u16).wrapping_sub(wire) < 1000;
        let answer = match self.manners {
            Manners::EachStray | Manners::Apprentice => true,
            Manners::Standard | Manners::EachBlock if old => wire == have as u16,
            Manners::Standard | Manners::EachBlock => self.window > 1 && !std::mem::replace(&mut self.gap_told, true),
        };
        answer.then(|| self.acknowledge())
    }

    fn acknowledge(&mut self) -> [u8; 4] {
        self.since_ack = 0;
        ack(self.blocks.unwrap_or(0) as u16)
    }
}

/// How a network treats datagrams: percentages, and a delay in microseconds.
#[derive(Clone, Copy, Debug)]
struct Network {
    loss: u64,
    doubled: u64,
    late: u64,
    delay_micros: u64,
}

/// Datagrams under way, by the time of their arrival.
struct Wire {
    network: Network,
    random: u64,
    count: u64,
    under_way: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
}

impl Wire {
    /// xorshift64: the run is the seed's, so that a failure can be repeated.
    fn chance(&mut self, percent: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) % 100 < percent
    }

    fn send(&mut self, now: Instant, to_server: bool, packet: Vec<u8>) {
        let copies = 1 + u32::from(self.chance(self.network.doubled));
        for copy in 0..copies {
            if self.chance(self.network.loss) {
                continue;
            }
            let overtaken = if self.chance(self.network.late) { 4 } else { 1 };
            let delay = Duration::from_micros(self.network.delay_micros) * (overtaken + copy);
            self.count += 1;
            self.under_way
                .insert((now + delay, self.count), (to_server, packet.clone()));
        }
    }
}

struct Run {
    got: Vec<u8>,
    outcome: Outcome,
    sent: u64,
    retransmissions: u64,
    took: Duration,
}

fn simulate(file: &[u8], mode: Mode, options: Negotiated, manners: Manners, network: Network, seed: u64) -> Run {
    let began = Instant::now();
    let mut now = began;
    let mut wire = Wire {
        network,
        random: seed | 1,
        count: 0,
        under_way: BTreeMap::new(),
    };
    let mut client = Client {
        manners,
        blksize: usize::from(options.blksize),
        window: u64::from(options.windowsize),
        got: Vec::new(),
        blocks: None,
        since_ack: 0,
        gap_told: false,
        done: false,
        timer: now,
    };
    let size = transfer_size(file, mode);
    let mut session: Option<Session> = None;
    let mut sent = 0;
    loop {
        if let Some(session) = &mut session {
            while let Some(datagram) = session.poll_transmit() {
                sent += 1;
                wire.send(now, false, [datagram.head, datagram.body].concat());
            }
            if let Some(outcome) = session.outcome() {
                return Run {
                    outcome: outcome.clone(),
                    got: client.got,
                    sent,
                    retransmissions: session.stats().retransmissions,
                    took: now - began,
                };
            }
        }
        let arrival = wire.under_way.keys().next().map(|(at, _)| *at);
        let deadline = session.as_ref().map(Session::deadline);
        let timer = (!client.done).then_some(client.timer);
        now = now.max(
            [arrival, deadline, timer]
                .into_iter()
                .flatten()
                .min()
                .expect("something is always due"),
        );
        if arrival.is_some_and(|at| at <= now) {
            let (_, (to_server, packet)) = wire.under_way.pop_first().unwrap();
            if !to_server {
                if let Some(answer) = client.on(now, &packet) {
                    wire.send(now, true, answer.to_vec());
                }
            } else if packet[1] == 1 {
                match &mut session {
                    None => {
                        let file = Bytes::copy_from_slice(file);
                        session = Some(Session::new(now, file, mode, size, options.clone(), 60));
                    }
                    // A request that was overtaken by its transfer: the listener would begin a second one, which
                    // is not this session's matter.
                    Some(session) => _ = session.on_repeated_request(),
                }
            } else if let Some(session) = &mut session {
                session.on_packet(now, &packet);
            }
        } else if timer.is_some_and(|at| at <= now) {
            client.timer = now + CLIENT_TIMEOUT;
            let packet = match client.blocks {
                None => vec![0, 1],
                Some(_) => client.acknowledge().to_vec(),
            };
            wire.send(now, true, packet);
        } else if let Some(session) = &mut session {
            session.on_timeout(now);
        }
    }
}

fn options(blksize: u16, windowsize: u16, oack: bool) -> Negotiated {
    Negotiated {
        blksize,
        windowsize,
        timeout: None,
        tsize: false,
        oack: oack.then(|| b"\0\x06blksize\0".to_vec()),
    }
}

fn manners() -> impl Strategy<Value = Manners> {
    prop_oneof![
        Just(Manners::Standard),
        Just(Manners::EachStray),
        Just(Manners::EachBlock),
        Just(Manners::Apprentice)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_file_arrives(
        size in 0usize..6000,
        blksize in 8u16..200,
        window in 1u16..=64,
        lockstep in any::<bool>(),
        netascii in any::<bool>(),
        manners in manners(),
        loss in 0u64..=25,
        doubled in 0u64..=25,
        late in 0u64..=25,
        delay_micros in prop_oneof![20u64..500, 500u64..300_000],
        seed in any::<u64>(),
    ) {
        let file: Vec<u8> = (0..size).map(|n| (n.wrapping_mul(31) % 251) as u8).collect();
        let mode = if netascii { Mode::Netascii } else { Mode::Octet };
        let window = if lockstep { 1 } else { window };
        let network = Network { loss, doubled, late, delay_micros };
        let run = simulate(&file, mode, options(blksize, window, !lockstep || seed % 2 == 0), manners, network, seed);
        let mut expected = Vec::new();
        match mode {
            Mode::Octet => expected = file,
            Mode::Netascii => _ = netascii::encode(&file, Position::default(), usize::MAX, &mut expected),
        }
        prop_assert!(run.got == expected, "{} bytes of {} arrived", run.got.len(), expected.len());
        prop_assert!(matches!(run.outcome, Outcome::Complete), "{}", run.outcome);
    }

    /// Nothing is lost, so nearly nothing may be sent twice, however many duplicates come.
    #[test]
    fn duplicates_are_not_multiplied(
        blocks in 50usize..300,
        window in prop_oneof![Just(1u16), 2u16..=64],
        manners in manners(),
        doubled in 0u64..=100,
        delay_micros in 20u64..100_000,
        seed in any::<u64>(),
    ) {
        let file = vec![7; blocks * 16];
        let network = Network { loss: 0, doubled, late: 0, delay_micros };
        let run = simulate(&file, Mode::Octet, options(16, window, true), manners, network, seed);
        prop_assert!(matches!(run.outcome, Outcome::Complete), "{}", run.outcome);
        // A doubled datagram comes one delay later, and an answer to it may pass for one to the next window: at most
        // every window is then sent twice.
        let bound = 2 * blocks as u64 + 4 * u64::from(window) + 10;
        prop_assert!(run.sent <= bound, "{} datagrams for {blocks} blocks, window {window}", run.sent);
        if window == 1 {
            prop_assert!(run.sent <= blocks as u64 + 12, "{} datagrams for {blocks} blocks in lockstep", run.sent);
        }
    }
}

/// A measurement made the timer adaptive: 1 MB at 1 % loss took other servers 11 to 30 s, and at
/// 20 % none of them finished.
#[test]
fn loss_costs_little_time() {
    let file = vec![1; 1_000_000];
    let network = |loss| Network {
        loss,
        doubled: 0,
        late: 0,
        delay_micros: 150,
    };
    let lockstep = simulate(
        &file,
        Mode::Octet,
        options(1432, 1, true),
        Manners::Standard,
        network(1),
        42,
    );
    assert_eq!(lockstep.outcome, Outcome::Complete);
    assert!(lockstep.took < Duration::from_secs(6), "{:?}", lockstep.took);
    assert!(lockstep.retransmissions < 30, "{}", lockstep.retransmissions);
    let windows = simulate(
        &file,
        Mode::Octet,
        options(1432, 16, true),
        Manners::Standard,
        network(1),
        42,
    );
    assert_eq!(windows.outcome, Outcome::Complete);
    assert!(windows.took < lockstep.took, "{:?}", windows.took);
    let bad = simulate(
        &file,
        Mode::Octet,
        options(1432, 1, true),
        Manners::Standard,
        network(20),
        42,
    );
    assert_eq!(bad.outcome, Outcome::Complete);
    assert!(bad.got == file);
}
