mod golden;

use super::*;
use crate::{
    Privilege,
    commands::{ChassisControl, GetChassisStatus},
    fake::Fake,
};
use proptest::prelude::*;

/// Numbers that only look random, so that packets are the same in each run.
fn numbers() -> Random {
    let mut next = 0x11u8;
    Box::new(move |bytes| {
        for byte in bytes {
            *byte = next;
            next = next.wrapping_mul(5).wrapping_add(3);
        }
    })
}

fn session(suite: Suite, password: &[u8]) -> Session {
    let login = Login::new("admin", password, Privilege::Operator).unwrap();
    Session::new(login, suite, numbers())
}

/// Lets both talk until the session's step has ended.
fn talk(session: &mut Session, bmc: &mut Fake, now: Instant) -> Result<Ended, Failure> {
    loop {
        match session.next(now) {
            Next::Send(packet) => assert!(session.receive(&bmc.answer(&packet))),
            Next::Ended(ended) => return ended,
            other => panic!("{other:?}"),
        }
    }
}

const SUITES: [Suite; 2] = [Suite::Sha1, Suite::Sha256];

#[test]
fn a_session_logs_in_runs_commands_and_closes() {
    for suite in SUITES {
        let (mut session, mut bmc) = (session(suite, b"secret"), Fake::new(suite, b"secret"));
        let now = Instant::now();
        assert_eq!(talk(&mut session, &mut bmc, now), Ok(Ended::LoggedIn));
        assert_eq!(session.next(now), Next::Idle);
        for _ in 0..70 {
            session.command(&GetChassisStatus);
            assert_eq!(talk(&mut session, &mut bmc, now), Ok(Ended::Answer(vec![1, 0, 0])));
        }
        session.close();
        assert_eq!(talk(&mut session, &mut bmc, now), Ok(Ended::Closed));
    }
}

#[test]
fn refused_logins_say_which_step_and_why() {
    let suite = Suite::Sha256;
    let refused = |password: &[u8], open, user, completion| {
        let mut bmc = Fake::new(suite, b"secret");
        (bmc.open_status, bmc.user_status, bmc.completion) = (open, user, completion);
        talk(&mut session(suite, password), &mut bmc, Instant::now()).unwrap_err()
    };
    let failure = |step, reason| Failure { step, reason };
    assert_eq!(refused(b"wrong", 0, 0, 0), failure(Step::User, Reason::OtherPassword));
    assert_eq!(
        refused(b"secret", 1, 0, 0),
        failure(Step::OpenSession, Reason::Refused(1))
    );
    assert_eq!(
        refused(b"secret", 0, 0x0d, 0),
        failure(Step::User, Reason::Refused(0x0d))
    );
    assert_eq!(
        refused(b"secret", 0, 0, 0x81),
        failure(Step::Privilege, Reason::Completion(0x81))
    );
}

#[test]
fn a_bmc_that_chooses_other_algorithms_is_refused() {
    let mut bmc = Fake::new(Suite::Sha1, b"secret");
    let failure = talk(&mut session(Suite::Sha256, b"secret"), &mut bmc, Instant::now()).unwrap_err();
    assert_eq!(failure.reason, Reason::CipherSuite);
    assert!(failure.is_of_suite());
}

#[test]
fn a_silent_bmc_is_asked_again_with_growing_pauses() {
    let mut session = session(Suite::Sha1, b"secret");
    let begin = Instant::now();
    let mut now = begin;
    let mut packets = Vec::new();
    let ended = loop {
        match session.next(now) {
            Next::Send(packet) => packets.push((now - begin, packet)),
            Next::Wait(until) => now = until,
            other => break other,
        }
    };
    let times: Vec<u64> = packets.iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(times, [0, 1, 3, 7]);
    assert_eq!((now - begin).as_secs(), 15);
    assert!(packets.iter().all(|(_, packet)| *packet == packets[0].1));
    let failure = Failure::new(Step::OpenSession, Reason::Silent { tries: 4 });
    assert_eq!(ended, Next::Ended(Err(failure)));
}

#[test]
fn a_repeated_command_keeps_its_number_and_an_old_answer_is_not_taken_twice() {
    let suite = Suite::Sha1;
    let (mut session, mut bmc) = (session(suite, b"secret"), Fake::new(suite, b"secret"));
    let now = Instant::now();
    talk(&mut session, &mut bmc, now).unwrap();
    session.command(&ChassisControl::Cycle);
    let sent = |next| match next {
        Next::Send(packet) => packet,
        other => panic!("{other:?}"),
    };
    let first = sent(session.next(now));
    let again = sent(session.next(now + Duration::from_secs(1)));
    assert_ne!(first, again);
    let keys = session.keys.clone().unwrap();
    let read = |bytes: &[u8]| packet::read(bytes, Some(&keys)).unwrap();
    assert_eq!(read(&first).payload, read(&again).payload);
    assert_eq!(read(&first).sequence + 1, read(&again).sequence);
    let (one, two) = (bmc.answer(&first), bmc.answer(&again));
    assert!(session.receive(&one));
    assert!(matches!(session.next(now), Next::Ended(Ok(Ended::Answer(_)))));
    // The answers to the first command are no answers to the next one.
    session.command(&GetChassisStatus);
    let status = sent(session.next(now));
    assert!(!session.receive(&one) && !session.receive(&two));
    assert!(session.receive(&bmc.answer(&status)));
}

#[test]
fn cut_off_and_changed_answers_are_ignored_until_a_whole_one_comes() {
    for suite in SUITES {
        let (mut session, mut bmc) = (session(suite, b"secret"), Fake::new(suite, b"secret"));
        let now = Instant::now();
        session.next(now);
        let mut steps = 0;
        loop {
            let Some(pending) = &mut session.pending else {
                panic!("nothing is under way")
            };
            (pending.due, pending.sent) = (None, 0);
            let answer = match session.next(now) {
                Next::Send(packet) => bmc.answer(&packet),
                Next::Ended(ended) => break assert_eq!(ended, Ok(Ended::LoggedIn)),
                other => panic!("{other:?}"),
            };
            for length in 0..answer.len() {
                assert!(!session.receive(&answer[..length]), "step {steps}: {length} bytes");
            }
            // Another tag, and another session.
            for at in [16, 20] {
                let mut changed = answer.clone();
                changed[at] ^= 0xff;
                assert!(!session.receive(&changed), "step {steps}: byte {at}");
            }
            assert!(session.receive(&answer), "step {steps}");
            steps += 1;
        }
        assert_eq!(steps, 4);
    }
}

proptest! {
    #[test]
    fn no_packet_ends_a_session_that_is_open(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0u8..0x20) {
        let suite = Suite::Sha256;
        let (mut session, mut bmc) = (session(suite, b"secret"), Fake::new(suite, b"secret"));
        let now = Instant::now();
        // At each step: a packet with an arbitrary payload, and arbitrary bytes.
        let framed = [&[6, 0, 0xff, 7, 6, kind, 0, 0, 0, 0, 0, 0, 0, 0, bytes.len() as u8, 0][..], &bytes].concat();
        let mut ended = None;
        while ended.is_none() {
            match session.next(now) {
                Next::Send(packet) => {
                    let answer = bmc.answer(&packet);
                    session.receive(&bytes);
                    if session.open {
                        prop_assert!(!session.receive(&framed));
                    }
                    session.receive(&answer);
                }
                Next::Ended(how) => ended = Some(how),
                other => panic!("{other:?}"),
            }
        }
        prop_assert_eq!(ended, Some(Ok(Ended::LoggedIn)));
    }
}
