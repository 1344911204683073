//! Scripts: these packets in, exactly those out.

use super::*;
use crate::packet::{Request, ack};
use pcap_file::pcap::PcapReader;

/// A session and its clock.
struct Script {
    session: Session,
    now: Instant,
}

impl Script {
    /// Answers `request`, a whole RRQ datagram, with `file`.
    fn new(request: &[u8], file: &'static [u8]) -> Self {
        let request = read(request);
        let size = transfer_size(file, request.mode);
        let options = Negotiated::new(&request, size);
        let now = Instant::now();
        let session = Session::new(now, Bytes::from_static(file), request.mode, size, options, 15);
        Script { session, now }
    }

    fn out(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while let Some(datagram) = self.session.poll_transmit() {
            out.push([datagram.head, datagram.body].concat());
        }
        out
    }

    fn wait(&mut self, millis: u64) -> &mut Self {
        self.now += Duration::from_millis(millis);
        self.session.on_timeout(self.now);
        self
    }

    /// What the session sends on `packet`, which comes 10 ms after the last event.
    fn on(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.now += Duration::from_millis(10);
        self.on_at_once(packet)
    }

    fn on_at_once(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.session.on_packet(self.now, packet);
        self.out()
    }

    /// Numbers of the DATA blocks that are sent on an ACK.
    fn blocks_on(&mut self, block: u16) -> Vec<u16> {
        blocks(&self.on(&ack(block)))
    }

    fn blocks_at_once(&mut self, block: u16) -> Vec<u16> {
        blocks(&self.on_at_once(&ack(block)))
    }
}

fn read(request: &[u8]) -> Request<'_> {
    match Packet::parse(request) {
        Ok(Packet::Read(request)) => request,
        other => panic!("{other:?} is no read request"),
    }
}

fn blocks(packets: &[Vec<u8>]) -> Vec<u16> {
    packets
        .iter()
        .map(|packet| {
            assert_eq!(packet[..2], [0, 3], "{packet:?} is no DATA");
            u16::from_be_bytes([packet[2], packet[3]])
        })
        .collect()
}

fn data(block: u16, body: &[u8]) -> Vec<u8> {
    [&packet::data_header(block)[..], body].concat()
}

fn rrq(options: &[(&str, &str)]) -> Vec<u8> {
    let options: Vec<(&[u8], &[u8])> = options.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    packet::read_request(b"f", Mode::Octet, &options)
}

static ZEROS: [u8; 200_000] = [0; 200_000];

/// UDP payloads to port 69 in a capture of `tests/captures`.
fn captured(pcap: &'static [u8]) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(pcap).unwrap();
    let mut requests = Vec::new();
    while let Some(frame) = reader.next_packet() {
        let frame = frame.unwrap().data;
        let header = 14 + usize::from(frame[14] & 0xf) * 4;
        if frame[12..14] == [8, 0] && frame[23] == 17 && frame[header + 2..header + 4] == [0, 69] {
            let len = usize::from(u16::from_be_bytes([frame[header + 4], frame[header + 5]]));
            requests.push(frame[header + 8..header + len].to_vec());
        }
    }
    requests
}

#[test]
fn ipxe_as_captured() {
    let requests = captured(include_bytes!("../../../../tests/captures/bios-undionly.kpxe.pcap"));
    assert_eq!(requests.len(), 2);
    let mut script = Script::new(&requests[0], &ZEROS[..1500]);
    assert_eq!(read(&requests[0]).name, b"undionly.kpxe");
    assert_eq!(script.out(), [b"\0\x06blksize\x001432\0tsize\x001500\0"]);
    assert_eq!(script.on(&ack(0)), [data(1, &[0; 1432])]);
    assert_eq!(script.on(&ack(1)), [data(2, &[0; 68])]);
    assert!(script.on(&ack(2)).is_empty());
    assert_eq!(script.session.outcome(), Some(&Outcome::Complete));
}

#[test]
fn ovmf_as_captured() {
    let requests = captured(include_bytes!("../../../../tests/captures/uefi-snponly.efi.pcap"));
    // First it asks for the size, and ends that by ERROR 8.
    let mut script = Script::new(&requests[0], &ZEROS[..8000]);
    assert_eq!(
        script.out(),
        [b"\0\x06tsize\x008000\0blksize\x001468\0windowsize\x004\0"]
    );
    assert!(script.on(b"\0\x05\0\x08User aborted the transfer\0").is_empty());
    let aborted = Outcome::ClientError(8, "User aborted the transfer".into());
    assert_eq!(script.session.outcome(), Some(&aborted));
    // Then it reads, from its next port, without tsize.
    let mut script = Script::new(&requests[1], &ZEROS[..8000]);
    assert_eq!(script.out(), [b"\0\x06blksize\x001468\0windowsize\x004\0"]);
    let sent = script.on(&ack(0));
    assert_eq!(blocks(&sent), [1, 2, 3, 4]);
    assert!(sent.iter().all(|packet| packet.len() == 1472));
    assert_eq!(script.on(&ack(4)), [data(5, &[0; 1468]), data(6, &[0; 660])]);
    assert!(script.on(&ack(6)).is_empty());
    assert_eq!(script.session.outcome(), Some(&Outcome::Complete));
    // The iPXE that was loaded goes on in its own way.
    let mut script = Script::new(&requests[2], &ZEROS[..10]);
    assert_eq!(script.out(), [b"\0\x06blksize\x001432\0tsize\x0010\0"]);
}

#[test]
fn grub_and_pxelinux_as_captured() {
    let requests = captured(include_bytes!(
        "../../../../tests/captures/uefi-grubnetx64.efi.signed.pcap"
    ));
    let mut script = Script::new(&requests[2], &ZEROS[..10]);
    assert_eq!(script.out(), [b"\0\x06blksize\x001024\0tsize\x0010\0"]);
    assert_eq!(script.on(&ack(0)), [data(1, &[0; 10])]);
    let requests = captured(include_bytes!("../../../../tests/captures/bios-pxelinux.0.pcap"));
    assert_eq!(requests.len(), 12);
    assert_eq!(read(&requests[1]).name, b"ldlinux.c32");
    let mut script = Script::new(&requests[1], &ZEROS[..10]);
    assert_eq!(script.out(), [b"\0\x06tsize\x0010\0blksize\x001408\0"]);
}

#[test]
fn without_options_data_comes_first_and_a_full_file_ends_with_an_empty_block() {
    let mut script = Script::new(&rrq(&[]), &ZEROS[..1024]);
    assert_eq!(script.out(), [data(1, &[0; 512])]);
    assert_eq!(script.on(&ack(1)), [data(2, &[0; 512])]);
    assert_eq!(script.on(&ack(2)), [data(3, &[])]);
    assert!(script.on(&ack(3)).is_empty());
    assert_eq!(script.session.outcome(), Some(&Outcome::Complete));
    let mut script = Script::new(&rrq(&[]), b"");
    assert_eq!(script.out(), [data(1, &[])]);
}

#[test]
fn duplicate_acks_do_not_double_the_traffic() {
    let mut script = Script::new(&rrq(&[]), &ZEROS);
    script.out();
    assert_eq!(script.blocks_on(1), [2]);
    for _ in 0..10 {
        assert!(script.blocks_on(1).is_empty());
    }
    assert_eq!(script.blocks_on(2), [3]);
    assert!(script.blocks_on(1).is_empty(), "an old ACK");
    assert!(script.blocks_on(9).is_empty(), "an ACK of what was never sent");
    assert_eq!(script.blocks_on(3), [4]);
    assert_eq!(script.session.stats().stale_acks, 12);
}

#[test]
fn an_ack_within_the_window_goes_back() {
    let mut script = Script::new(&rrq(&[("windowsize", "4")]), &ZEROS);
    script.out();
    assert_eq!(script.blocks_on(0), [1, 2, 3, 4]);
    assert_eq!(script.blocks_on(2), [3, 4, 5, 6]);
    assert_eq!(script.blocks_on(6), [7, 8, 9, 10]);
    // The first block of the window is lost: the client repeats its last ACK when the second arrives.
    assert_eq!(script.blocks_on(6), [7, 8, 9, 10]);
    // EDK II does so for each of them; these are echoes.
    assert!(script.blocks_at_once(6).is_empty());
    assert!(script.blocks_at_once(6).is_empty());
    assert_eq!(script.blocks_on(10), [11, 12, 13, 14]);
    assert_eq!(script.session.stats().retransmissions, 6);
}

/// The end of a window is lost, as in a receive ring that is smaller than the window.
#[test]
fn a_silent_window_is_probed_by_its_last_block() {
    let mut script = Script::new(&rrq(&[("windowsize", "8")]), &ZEROS);
    script.out();
    assert_eq!(script.blocks_on(0), [1, 2, 3, 4, 5, 6, 7, 8]);
    let round_trip = Duration::from_millis(10);
    assert_eq!(script.session.deadline(), script.now + round_trip * 3);
    assert!(script.wait(29).out().is_empty());
    assert_eq!(blocks(&script.wait(1).out()), [8]);
    assert!(script.wait(100).out().is_empty(), "one probe only");
    assert_eq!(script.blocks_on(5), [6, 7, 8, 9, 10, 11, 12, 13]);
    // Nobody answers: the timeout is still there.
    assert_eq!(blocks(&script.wait(30).out()), [13]);
    assert_eq!(blocks(&script.wait(170).out()), [6, 7, 8, 9, 10, 11, 12, 13]);
}

#[test]
fn a_client_that_acknowledges_every_block_is_not_flooded() {
    let mut script = Script::new(&rrq(&[("windowsize", "8")]), &ZEROS);
    script.out();
    let mut sent = script.blocks_on(0).len();
    for block in 1..=100 {
        sent += script.blocks_at_once(block).len();
    }
    assert!(sent < 100 + 3 * 8, "{sent} blocks for 100");
}

#[test]
fn timeouts_repeat_and_give_up() {
    let mut script = Script::new(&rrq(&[("tsize", "0")]), &ZEROS);
    let oack = script.out();
    assert!(script.wait(499).out().is_empty());
    assert_eq!(script.wait(1).out(), oack);
    assert!(script.wait(999).out().is_empty());
    assert_eq!(script.wait(1).out(), oack);
    let mut times = 2;
    while script.session.outcome().is_none() {
        times += script.wait(100).out().len();
    }
    assert_eq!(times, 15);
    assert_eq!(script.session.outcome(), Some(&Outcome::TimedOut));
    assert_eq!(script.session.stats().retransmissions, 15);

    let mut script = Script::new(&rrq(&[]), b"short");
    script.out();
    while script.session.outcome().is_none() {
        script.wait(100).out();
    }
    assert_eq!(script.session.outcome(), Some(&Outcome::Unacknowledged));
}

#[test]
fn a_negotiated_timeout_is_kept() {
    let mut script = Script::new(&rrq(&[("timeout", "3")]), &ZEROS);
    assert_eq!(script.out(), [b"\0\x06timeout\x003\0"]);
    assert_eq!(script.blocks_on(0), [1]);
    for _ in 0..3 {
        assert!(script.wait(2999).out().is_empty());
        assert_eq!(script.wait(1).out().len(), 1);
    }
    let began = script.now;
    while script.session.outcome().is_none() {
        script.wait(100).out();
    }
    assert!(script.now - began < Duration::from_secs(31));
}

#[test]
fn a_repeated_request_gets_the_first_answer_until_something_was_acknowledged() {
    let mut script = Script::new(&rrq(&[("tsize", "0")]), &ZEROS);
    let oack = script.out();
    assert!(script.session.on_repeated_request());
    assert_eq!(script.out(), oack);
    script.on(&ack(0));
    assert!(!script.session.on_repeated_request());

    let mut script = Script::new(&rrq(&[]), &ZEROS);
    let first = script.out();
    assert!(script.session.on_repeated_request());
    assert_eq!(script.out(), first);
}

#[test]
fn block_numbers_roll_over_to_zero() {
    for window in [1, 7] {
        let file: &'static [u8] = Box::leak((0..600_000u32).map(|n| (n / 8) as u8).collect());
        let mut script = Script::new(&rrq(&[("blksize", "8"), ("windowsize", &window.to_string())]), file);
        script.out();
        let mut got = Vec::new();
        let mut sent = script.on(&ack(0));
        while let Some(latest) = sent.last() {
            let block = u16::from_be_bytes([latest[2], latest[3]]);
            assert_eq!(block, (got.len() / 8 + sent.len()) as u16);
            got.extend(sent.iter().flat_map(|packet| packet[4..].iter().copied()));
            sent = script.on(&ack(block));
        }
        assert_eq!(script.session.outcome(), Some(&Outcome::Complete));
        assert_eq!(got, file);
    }
}

#[test]
fn netascii_is_converted_and_its_size_told() {
    let request = packet::read_request(
        b"f",
        Mode::Netascii,
        &[(b"tsize", b"0"), (b"blksize", b"8"), (b"windowsize", b"2")],
    );
    let mut script = Script::new(&request, b"one\ntwo\rthree\nfour\n");
    assert_eq!(script.out(), [b"\0\x06tsize\x0023\0blksize\x008\0windowsize\x002\0"]);
    assert_eq!(script.on(&ack(0)), [data(1, b"one\r\ntwo"), data(2, b"\r\0three\r")]);
    assert_eq!(script.on(&ack(1)), [data(2, b"\r\0three\r"), data(3, b"\nfour\r\n")]);
    assert!(script.on(&ack(3)).is_empty());
    assert_eq!(script.session.outcome(), Some(&Outcome::Complete));
}

#[test]
fn what_does_not_belong_ends_the_transfer_or_is_passed_over() {
    for packet in [
        &b"\0\x03\0\x01x"[..],
        b"\0\x06tsize\x009\0",
        b"\0\x09",
        b"\0\x01f\0octet\0",
        b"\0\x02f\0octet\0",
    ] {
        let mut script = Script::new(&rrq(&[]), &ZEROS);
        script.out();
        let answer = script.on(packet);
        assert_eq!(answer[0][..4], [0, 5, 0, 4], "{packet:?}");
        assert!(
            matches!(script.session.outcome(), Some(Outcome::Protocol(_))),
            "{packet:?}"
        );
        assert!(script.on(&ack(1)).is_empty());
    }
    let mut script = Script::new(&rrq(&[]), &ZEROS);
    script.out();
    assert!(script.on(b"").is_empty());
    assert!(script.on(b"\0\x04\0").is_empty());
    assert_eq!(script.blocks_on(1), [2]);
    assert!(script.on(b"\0\x05").is_empty());
    assert_eq!(script.session.outcome(), Some(&Outcome::ClientError(0, String::new())));
}

#[test]
fn stopping_tells_the_client() {
    let mut script = Script::new(&rrq(&[]), &ZEROS);
    script.out();
    script.session.abort("the server is stopping", Outcome::Cancelled);
    assert_eq!(script.out(), [b"\0\x05\0\0the server is stopping\0"]);
    assert_eq!(script.session.outcome(), Some(&Outcome::Cancelled));
}
