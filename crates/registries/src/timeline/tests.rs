//! Tests of timelines: scripts of events in, states and summaries out; bounds; restarts.

use super::*;
use proptest::prelude::*;
use rackstrap_base::clock::Timestamp;
use rackstrap_site::Limits;
use rackstrap_store::{Batch, Store, Table};
use rackstrap_wire::{AgentEvent, HwAddr, Outcome, Phase};

#[path = "doubt_tests.rs"]
mod doubt;

pub(super) const LIMITS: Limits = Limits {
    timeline_events: 50,
    unknown_machines: 4,
    heartbeat_secs: 30,
    boots_before_going_back: 3,
    checks_within_secs: 120,
    check_timeout_secs: 30,
};

fn kind(text: &str) -> EventKind {
    text.parse().unwrap()
}

/// `TIME_S STEP [@BOOT] [!LEVEL] [+TOOK_MS] [: DETAIL]`
fn event(line: &str) -> Event {
    let (head, detail) = line.split_once(':').unwrap_or((line, ""));
    let mut words = head.split_whitespace();
    let seconds: u64 = words.next().unwrap().parse().unwrap();
    let mut event = Event::new(Timestamp(seconds * 1000), EventKind::Ready, Level::Ok, detail.trim());
    let mut step = Vec::new();
    for word in words {
        match word.split_at(1) {
            ("@", boot) => event.boot = boot.to_owned(),
            ("!", "degraded") => event.level = Level::Degraded,
            ("!", "retry") => event.level = Level::Retry,
            ("!", "error") => event.level = Level::Error,
            ("+", took) => event.took_ms = Some(took.parse().unwrap()),
            _ => step.push(word),
        }
    }
    event.step = kind(&step.join(" "));
    // The detail of a script's line says who sent a packet.
    event.complete_sender();
    event
}

fn script(lines: &str) -> Vec<Event> {
    lines
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(event)
        .collect()
}

/// Each line: an event, `=>`, and the state after it.
fn check(lines: &str) -> Standing {
    let mut standing = Standing::default();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (line, want) = line.split_once("=>").unwrap();
        standing.apply(&event(line));
        assert_eq!(standing.state.as_str(), want.trim(), "{line}");
    }
    standing
}

const BOOT: &str = "
    10 dhcp discover: offer 10.5.1.1
    11 dhcp request: ack 10.5.1.1
    12 tftp +900: undionly.kpxe
    15 dhcp discover: offer (iPXE)
    16 dhcp request: ack (iPXE)
    17 script @a: boots debian@1
    20 kernel @a +2000: 8 MB
    22 initramfs @a +1500: 20 MB
    30 plan @a: debian@1
    31 agent root @a: started
    32 agent root @a +1000: mounted
    33 agent disk @a: started
    38 agent disk @a +5000: prepared
    39 overlay @a: 9 files
    40 agent switch-root @a: started
    41 agent switch-root @a +10: /sbin/init
    58 ready @a +50000: multi-user.target";

#[test]
fn a_drain_that_failed_is_no_trouble_any_more_when_it_succeeds() {
    let mut standing = check("30 ready @a +9: x => ready\n40 restart !retry: drain: jobs run => ready");
    assert_eq!(standing.last_error, "restart: drain: jobs run");
    standing.apply(&event("50 restart: drained"));
    assert_eq!(standing.last_error, "");
}

#[test]
fn a_node_is_degraded_while_its_checks_fail() {
    let standing = check(
        "10 script @a => loading
         20 agent switch-root @a +5: x => starting
         30 ready @a !degraded +9: check failed: unit x.service is failed => degraded",
    );
    assert_eq!(standing.last_error, "check failed: unit x.service is failed");
    assert!(standing.expects("a", "check failed: unit x.service is failed"));
    let mut standing = standing;
    standing.apply(&event("40 heartbeat @a"));
    assert_eq!((standing.state, standing.last_error.as_str()), (NodeState::Ready, ""));
    standing.apply(&event("50 heartbeat @a !degraded: check failed: /x is not mounted"));
    assert_eq!(standing.state, NodeState::Degraded);
}

#[test]
fn a_boot_goes_through_all_states() {
    let standing = check(
        "10 dhcp discover => loading
         11 dhcp request => loading
         12 tftp +900 => loading
         17 script @a => loading
         20 kernel @a +2000 => loading
         30 plan @a => agent
         33 agent disk @a: started => agent
         34 agent disk @a !retry: attempt 1: no disk yet => agent
         40 agent switch-root @a: started => agent
         41 agent switch-root @a +10 => starting
         42 dhcp-client request: ack => starting
         58 ready @a => ready
         59 agent switch-root @a +10: late => ready
         60 initramfs @a: late => ready
         88 heartbeat @a => ready",
    );
    assert_eq!((standing.since, standing.last_error.as_str()), (Timestamp(58_000), ""));
    assert_eq!(standing.heard, Timestamp(88_000));
}

#[test]
fn what_a_boot_lacks_makes_it_degraded_and_stays_said() {
    let standing = check(
        "1 script @a => loading
         2 agent disk @a !degraded +10: no disk found => agent
         3 overlay @a !degraded: 7 files; disk: no disk found => agent
         4 ready @a => degraded
         5 heartbeat @a => degraded
         6 heartbeat @a !degraded: /tmp is not mounted => degraded
         7 heartbeat @a => degraded",
    );
    assert_eq!(standing.last_error, "agent disk: no disk found");
    let standing = check(
        "1 script @a => loading
         4 ready @a => ready
         6 heartbeat @a !degraded: /tmp is not mounted => degraded",
    );
    assert_eq!(standing.last_error, "/tmp is not mounted");
    let standing = check("1 ready @a => ready\n6 heartbeat @a !degraded: gone => degraded\n9 heartbeat @a => ready");
    assert_eq!((standing.last_error.as_str(), standing.since), ("", Timestamp(9_000)));
}

#[test]
fn restarts_and_late_words_of_older_boots() {
    let standing = check(
        "1 script @a => loading
         2 agent root @a !retry: attempt 3: refused => agent
         3 agent root @a !error +9: refused => agent
         9 dhcp discover => loading
         11 script @b => loading
         12 agent disk @a: late => loading
         13 plan @b => agent
         14 script @c => loading
         15 ready @b => loading
         16 ready @c => ready
         20 dhcp discover => loading
         21 heartbeat @c => ready",
    );
    assert_eq!(standing.boot, "c");
    // The error of the last attempt stays until the node is up.
    let standing = Standing::after(&script("1 agent root @a !error: refused\n9 dhcp discover"));
    assert_eq!(standing.last_error, "agent root: refused");
}

#[test]
fn others_can_neither_wake_a_node_nor_keep_it_alive() {
    let standing = check("1 ready @a => ready\n500 refused @a !error: 10.5.1.9 asked for boot a => ready");
    assert_eq!((standing.heard, standing.last_error.as_str()), (Timestamp(1_000), ""));
    let standing = check("1 ready @a => ready\n500 rollout !error: debian@2: not ready in time => ready");
    assert_eq!(standing.heard, Timestamp(1_000));
    assert_eq!(standing.last_error, "rollout: debian@2: not ready in time");
}

#[test]
fn a_boot_is_summed_up() {
    let boots = summarise(&script(BOOT));
    assert_eq!(boots.len(), 1);
    let boot = &boots[0];
    assert_eq!((boot.boot.as_str(), boot.total_ms, boot.retries), ("a", 48_000, 0));
    let step = |name: &str| boot.steps.iter().find(|step| step.step == kind(name)).unwrap();
    assert_eq!((step("dhcp discover").at_ms, step("dhcp discover").count), (0, 2));
    assert_eq!((step("agent disk").at_ms, step("agent disk").took_ms), (23_000, 5_000));
    assert_eq!(
        (step("ready").at_ms, step("ready").took_ms),
        (48_000, 17_000),
        "since the hand-over"
    );
    assert_eq!(step("script").took_ms, 3_000, "until the next step");
    let order: Vec<u64> = boot.steps.iter().map(|step| step.at_ms).collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn a_timeline_is_cut_into_its_boots() {
    let cut = |lines: &str| -> Vec<(String, u64, bool)> {
        let boots = summarise(&script(lines));
        boots
            .into_iter()
            .map(|b| (b.boot, b.began.0 / 1000, b.ready.is_some()))
            .collect()
    };
    let again = format!(
        "{BOOT}
        60 dhcp-client request: ack
        70 heartbeat @a
        500 dhcp discover
        505 script @b
        506 script @c
        510 plan @c
        511 agent disk @c !degraded: no disk found
        512 overlay @c !degraded: 7 files; disk: no disk found
        513 agent root @c !retry: attempt 1: x
        600 refused @c !error: somebody
        700 tftp: undionly.kpxe"
    );
    let want = [
        ("a".into(), 10, true),
        ("c".into(), 500, false),
        (String::new(), 700, false),
    ];
    assert_eq!(cut(&again), want);
    let boots = summarise(&script(&again));
    assert_eq!(boots[1].lacks, ["no disk found"]);
    assert_eq!(
        cut("1 plan @a\n2 plan @b\n3 ready @b"),
        [("a".into(), 1, false), ("b".into(), 2, true)]
    );
    assert_eq!(cut("").len(), 0);
    assert_eq!(cut("5 heartbeat @a").len(), 0);
    assert_eq!(cut("5 rollout: given debian@2").len(), 0);
}

fn open(dir: &std::path::Path, limits: Limits) -> (Store, Recorder) {
    let store = crate::testing::store(dir);
    (store.clone(), Recorder::load(store, limits, Timestamp(0)).unwrap())
}

fn machine(number: u8) -> Subject {
    Subject::Machine(HwAddr([0x52, 0x54, 0, 0, 0, number]))
}

fn node() -> Subject {
    Subject::Node("r01n01".into())
}

#[test]
fn what_repeats_is_one_row_with_a_count() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recorder) = open(dir.path(), LIMITS);
    for second in 0..1000 {
        recorder.record(node(), event(&format!("{second} dhcp discover: offer")));
    }
    let events = recorder.of(&node());
    assert_eq!((events.len(), events[0].count), (1, 1000));
    assert_eq!((events[0].at, events[0].last), (Timestamp(0), Some(Timestamp(999_000))));
    recorder.record(node(), event("1000 script @a"));
    store.flush().unwrap();
    drop((store, recorder));
    let (_store, recorder) = open(dir.path(), LIMITS);
    assert_eq!(
        recorder.of(&node())[0].count,
        1000,
        "the count is written when the next row comes"
    );
    assert_eq!(recorder.recorded(), 0);
}

#[test]
fn heartbeats_leave_rows_only_when_they_say_something_new() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, recorder) = open(dir.path(), LIMITS);
    recorder.record(node(), event("1 ready @a"));
    for second in (30..3000).step_by(30) {
        recorder.heartbeat(node(), Timestamp(second * 1000), "a", "");
    }
    assert_eq!(recorder.of(&node()).len(), 1);
    assert_eq!(recorder.standing(&node()).unwrap().heard, Timestamp(2_970_000));
    recorder.heartbeat(node(), Timestamp(3_000_000), "a", "/tmp is gone");
    recorder.heartbeat(node(), Timestamp(3_030_000), "a", "/tmp is gone");
    assert_eq!(recorder.standing(&node()).unwrap().state, NodeState::Degraded);
    recorder.heartbeat(node(), Timestamp(3_060_000), "a", "");
    assert_eq!(recorder.standing(&node()).unwrap().state, NodeState::Ready);
    assert_eq!(recorder.of(&node()).len(), 3);
}

#[test]
fn unknown_machines_are_bounded_and_the_oldest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recorder) = open(dir.path(), LIMITS);
    for number in 0..200 {
        recorder.record(machine(number), event("1 dhcp discover"));
        recorder.record(machine(number), event("2 tftp"));
    }
    let known = |recorder: &Recorder| -> Vec<u8> { recorder.machines().iter().map(|m| m.0[5]).collect() };
    assert_eq!(known(&recorder), [196, 197, 198, 199]);
    recorder.move_all(&[(machine(197), None)]);
    assert_eq!(known(&recorder), [196, 198, 199]);
    store.flush().unwrap();
    assert_eq!(store.scan::<Event>(Table::Events, b"").unwrap().len(), 6);
    drop((store, recorder));
    let (store, recorder) = open(
        dir.path(),
        Limits {
            unknown_machines: 1,
            timeline_events: 1,
            ..LIMITS
        },
    );
    assert_eq!(known(&recorder).len(), 1, "a smaller limit holds from the start");
    store.flush().unwrap();
    assert_eq!(store.scan::<Event>(Table::Events, b"").unwrap().len(), 1);
}

#[test]
fn what_comes_from_outside_is_cut_and_cannot_act_on_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, recorder) = open(dir.path(), LIMITS);
    let long = format!("\u{1b}[2J{}", "é".repeat(4000));
    recorder.record(node(), Event::new(Timestamp(1), kind(&long), Level::Ok, long));
    let kept = &recorder.of(&node())[0];
    let step = kept.step.to_string();
    assert!(kept.detail.len() <= DETAIL_LIMIT && (2..=40).contains(&step.len()));
    assert!(!kept.detail.contains('\u{1b}') && !step.contains('\u{1b}'));
}

#[test]
fn agent_events_become_events() {
    let reported = |outcome, detail: &str| AgentEvent {
        seq: 1,
        phase: Phase::Disk,
        outcome,
        uptime_ms: 5_000,
        took_ms: 700,
        attempt: 2,
        detail: detail.into(),
        console: None,
    };
    let event = |outcome, detail| Event::of_agent(Timestamp(9), "a", &reported(outcome, detail));
    let done = event(Outcome::Done, "kept");
    assert_eq!(
        (done.step.to_string().as_str(), done.took_ms, done.level),
        ("agent disk", Some(700), Level::Ok)
    );
    assert_eq!(event(Outcome::Started, "").detail, "started");
    assert_eq!(event(Outcome::Retrying, "x").detail, "attempt 2: x");
    assert_eq!(event(Outcome::Step, "step table").took_ms, None);
    assert_eq!(event(Outcome::Failed, "x").level, Level::Error);
    assert_eq!(event(Outcome::Degraded, "x").level, Level::Degraded);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever is recorded, the limits hold in memory and on disk, and the state is the same after a restart.
    #[test]
    fn a_recorder_is_bounded_and_survives_restarts(
        events in prop::collection::vec((0u8..9, 0u8..4, 0u8..3, 0u8..4), 0..200),
        kept in 1usize..40,
    ) {
        let limits = Limits { timeline_events: kept, unknown_machines: 3, ..LIMITS };
        let dir = tempfile::tempdir().unwrap();
        let (store, recorder) = open(dir.path(), limits);
        let steps = ["dhcp discover", "script", "agent disk", "ready"];
        for (second, (who, step, boot, level)) in events.iter().enumerate() {
            let subject = if *who == 0 { node() } else { machine(*who) };
            let level = [Level::Ok, Level::Degraded, Level::Retry, Level::Error][usize::from(*level)];
            let boot = if *boot == 0 { String::new() } else { format!("boot{boot}") };
            let at = Timestamp(second as u64 * 1000);
            recorder.record(subject, Event::new(at, kind(steps[usize::from(*step)]), level, "x").of_boot(boot));
        }
        store.flush().unwrap();
        let rows = store.scan::<Event>(Table::Events, b"").unwrap().len();
        prop_assert!(rows <= kept * 4, "{} rows", rows);
        let all = |recorder: &Recorder| -> Vec<Vec<(EventKind, Level, Timestamp)>> {
            let subjects = (1..9).map(machine).chain([node()]);
            let row = |e: Event| (e.step, e.level, e.at);
            subjects.map(|subject| recorder.of(&subject).into_iter().map(row).collect()).collect()
        };
        let before = all(&recorder);
        // A repetition is not written at once, so the time of the last one is unknown.
        let stand = |recorder: &Recorder| -> Vec<Option<Standing>> {
            let standings = (1..9).map(machine).chain([node()]).map(|who| recorder.standing(&who));
            let forget = |mut standing: Standing| {
                standing.heard = Timestamp(0);
                standing
            };
            standings.map(|standing| standing.map(forget)).collect()
        };
        let stood = stand(&recorder);
        prop_assert!(before.iter().all(|line| line.len() <= kept));
        prop_assert!(recorder.machines().len() <= 3);
        drop((store, recorder));
        let (_store, recorder) = open(dir.path(), limits);
        prop_assert_eq!(all(&recorder), before);
        prop_assert!(kept < 8 || stand(&recorder) == stood, "{:?} after a restart, and {:?} before", stand(&recorder), stood);
    }
}

#[test]
fn what_a_node_can_cause_does_not_push_its_boot_off_its_timeline() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        timeline_events: 300,
        ..LIMITS
    };
    let (store, recorder) = open(dir.path(), limits);
    let mut now = 0;
    let mut tell = |step: &str, level, detail: String| {
        now += 100;
        recorder.record(
            node(),
            Event::new(Timestamp(now), kind(step), level, detail).of_boot("b1"),
        );
    };
    for step in ["plan", "overlay", "ready"] {
        tell(step, Level::Ok, "of the boot".to_owned());
    }
    for n in 0..2000 {
        tell("tftp-client", Level::Error, format!("{n}: not found"));
        tell("refused", Level::Error, format!("a wrong token, {n}"));
        tell(["nfs mount", "script"][n % 2], Level::Retry, format!("{n}"));
        tell(
            ["agent disk", "agent root", "agent network"][n % 3],
            Level::Degraded,
            format!("forged {n}"),
        );
    }
    tell("checks", Level::Ok, "all are well".to_owned());
    let check = |recorder: &Recorder| {
        let events = recorder.of(&node());
        for step in ["plan", "overlay", "ready", "checks"] {
            assert!(
                events.iter().any(|event| event.step == kind(step)),
                "{step} is gone of {}",
                events.len()
            );
        }
        assert!(events.len() < 120, "{}", events.len());
        let last = events
            .iter()
            .rfind(|event| event.step == EventKind::TftpClient)
            .unwrap();
        assert!(last.count > 1900 && last.level == Level::Error, "{last:?}");
        last.detail.clone()
    };
    assert_eq!(check(&recorder), "1999: not found");
    store.flush().unwrap();
    drop((store, recorder));
    // Of a repeated row, at most the last ten seconds are not on disk.
    check(&open(dir.path(), limits).1);
}

#[test]
fn a_start_reads_the_ends_of_timelines_and_the_rest_when_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        timeline_events: 50,
        ..LIMITS
    };
    let (store, recorder) = open(dir.path(), limits);
    for boot in 0..30 {
        for (second, step) in ["dhcp discover", "script", "agent disk", "ready"]
            .into_iter()
            .enumerate()
        {
            let at = Timestamp((boot * 100 + second as u64) * 1000);
            let level = if step == "agent disk" {
                Level::Degraded
            } else {
                Level::Ok
            };
            let event = Event::new(at, kind(step), level, "no disk");
            let event = if step == "dhcp discover" {
                event.sent_by(Sender::Firmware)
            } else {
                event.of_boot(format!("b{boot}"))
            };
            recorder.record(node(), event);
        }
    }
    let (events, standing) = (recorder.of(&node()), recorder.standing(&node()).unwrap());
    assert_eq!(
        (events.len(), standing.state, standing.boot.as_str()),
        (50, NodeState::Degraded, "b29")
    );
    store.flush().unwrap();
    drop((store, recorder));

    let (store, recorder) = open(dir.path(), limits);
    assert!(
        (1..=8).contains(&recorder.in_memory(&node())),
        "{}",
        recorder.in_memory(&node())
    );
    assert_eq!(recorder.standing(&node()), Some(standing));
    assert_eq!(recorder.of(&node()), events);
    // New events push the oldest out, on disk too.
    recorder.record(node(), event("9000 script @c"));
    assert_eq!(recorder.of(&node())[..49], events[1..]);
    let other = Subject::Node("r01n02".into());
    recorder.move_all(&[(node(), Some(other.clone()))]);
    assert_eq!((recorder.of(&node()).len(), recorder.of(&other).len()), (0, 50));
    store.flush().unwrap();
    assert_eq!(store.scan::<Event>(Table::Events, b"").unwrap().len(), 50);
    assert_eq!(store.scan::<serde_json::Value>(Table::Standings, b"").unwrap().len(), 1);
    drop((store, recorder));

    // Smaller limits hold from the start, and forgotten events leave no rows.
    let (store, recorder) = open(
        dir.path(),
        Limits {
            timeline_events: 20,
            ..limits
        },
    );
    assert_eq!(recorder.of(&other)[..19], events[31..]);
    recorder.move_all(&[(other.clone(), None)]);
    store.flush().unwrap();
    assert_eq!(store.scan::<Event>(Table::Events, b"").unwrap().len(), 0);
    assert_eq!(store.scan::<serde_json::Value>(Table::Standings, b"").unwrap().len(), 0);
}

#[test]
fn timelines_without_a_snapshot_are_read_whole_and_strange_rows_go() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recorder) = open(dir.path(), LIMITS);
    for number in 0..4 {
        recorder.record(node(), event(&format!("{number} script @b{number}")));
    }
    let before = (recorder.of(&node()), recorder.standing(&node()));
    store.flush().unwrap();
    let wrong = serde_json::json!({"number": 4000, "standing": Standing::default()});
    let strange = Batch::new()
        .put(Table::Standings, *b"nr01n01\0", &wrong)
        .put(Table::Events, *b"x", &1);
    store
        .commit_blocking(strange.put(Table::Events, *b"zzzzzzzzzzzz", &1))
        .unwrap();
    drop((store, recorder));
    let (store, recorder) = open(dir.path(), LIMITS);
    assert_eq!((recorder.of(&node()), recorder.standing(&node())), before);
    store.flush().unwrap();
    assert_eq!(store.scan::<Event>(Table::Events, b"").unwrap().len(), 4);
}
