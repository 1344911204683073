//! A session with a BMC whose packets the fuzzer chooses: length-prefixed datagrams and waits. Then the same bytes as data of answers.

use rackstrap_ipmi::{
    Login, Next, Privilege, Session, Suite,
    commands::{Command, GetChassisStatus, GetNextBoot},
};
use std::time::{Duration, Instant};

/// One run; true if the session got as far as encrypted packets.
pub fn run(input: &[u8]) -> bool {
    let Some((&first, mut rest)) = input.split_first() else {
        return false;
    };
    if let Some(status) = GetChassisStatus.read(input) {
        assert!(status.faults().len() < 100);
    }
    let _ = GetNextBoot.read(input);
    let suite = if first & 1 == 0 { Suite::Sha1 } else { Suite::Sha256 };
    let Ok(login) = Login::new("admin", b"secret", Privilege::Operator) else {
        return false;
    };
    let mut session = Session::new(login, suite, Box::new(|bytes| bytes.fill(0x11)));
    let mut now = Instant::now();
    let (mut encrypted, mut sent) = (false, 0);
    loop {
        match session.next(now) {
            Next::Send(packet) => {
                // The largest is a message of a few bytes, encrypted.
                assert!((8..200).contains(&packet.len()));
                encrypted |= packet[5] & 0x80 != 0;
                sent += 1;
                // A step sends four packets at most, and each input byte begins one step at most.
                assert!(sent <= 4 * (input.len() + 1), "it sends without end");
            }
            Next::Wait(until) => {
                assert!(until > now && until - now <= Duration::from_secs(8));
                match rest.split_first() {
                    Some((&0, more)) => (now, rest) = (until, more),
                    Some((&length, more)) => {
                        let (packet, more) = more.split_at(usize::from(length).min(more.len()));
                        session.receive(packet);
                        rest = more;
                    }
                    None => now = until,
                }
            }
            Next::Ended(Ok(_)) if !rest.is_empty() => session.command(&GetChassisStatus),
            Next::Ended(_) | Next::Idle => break,
        }
    }
    encrypted
}
