//! A request and what follows it, all chosen by the fuzzer: length-prefixed datagrams and waits, to one session.

use bytes::Bytes;
use rackstrap_base::bootname::BootName;
use rackstrap_tftp::{
    name,
    options::Negotiated,
    packet::Packet,
    session::{self, Session},
};
use std::time::{Duration, Instant};

/// One run; true if the request was one.
pub fn run(input: &[u8]) -> bool {
    let Some((&len, rest)) = input.split_first() else {
        return false;
    };
    let (request, mut script) = rest.split_at(usize::from(len).min(rest.len()));
    let Ok(Packet::Read(request)) = Packet::parse(request) else {
        return false;
    };
    if let Ok(name) = name::normalise(request.name) {
        assert!(!name.starts_with('/') && name.split('/').all(|part| !matches!(part, "" | "." | "..")));
        match BootName::parse(&name) {
            Some(BootName::Script(script)) => assert!(script.failed.bytes().all(|byte| byte.is_ascii_lowercase())),
            Some(BootName::File { boot, .. }) => assert!(!boot.contains('/')),
            _ => {}
        }
    }
    let file: Vec<u8> = (0..3000u32)
        .map(|n| if n % 7 == 0 { b'\n' } else { (n % 251) as u8 })
        .collect();
    let size = session::transfer_size(&file, request.mode);
    let options = Negotiated::new(&request, size);
    assert!((8..=65464).contains(&options.blksize) && (1..=64).contains(&options.windowsize));
    let (blksize, window) = (usize::from(options.blksize), usize::from(options.windowsize));
    let mut now = Instant::now();
    let mut session = Session::new(now, Bytes::from(file), request.mode, size, options, 15);
    let mut datagrams = 0;
    loop {
        let mut burst = 0;
        while let Some(datagram) = session.poll_transmit() {
            assert!(datagram.body.len() <= blksize);
            burst += 1;
        }
        // One packet in, one window out at most: nothing amplifies beyond that.
        assert!(burst <= window.max(1));
        datagrams += burst;
        let Some((&op, rest)) = script.split_first() else { break };
        script = rest;
        match op {
            0..=9 => {
                let (packet, rest) = script.split_at(usize::from(op).min(script.len()));
                session.on_packet(now, packet);
                script = rest;
            }
            10 => _ = session.on_repeated_request(),
            11 => session.on_unreachable(),
            12 => session.on_timeout(session.deadline()),
            _ => {
                now += Duration::from_millis(u64::from(op));
                session.on_timeout(now);
            }
        }
        if session.outcome().is_some() && session.poll_transmit().is_some() {
            assert!(session.poll_transmit().is_none(), "an ended session goes on sending");
        }
    }
    assert!(datagrams > 0, "no answer at all");
    true
}
