//! Tests of the kinds of events: their texts, and rows that other releases wrote.

use super::{
    kind::{Effect, KIND_LIMIT, Part, Row},
    tests::LIMITS,
    *,
};
use crate::testing;
use proptest::prelude::*;
use rackstrap_base::clock::Timestamp;
use rackstrap_store::{Batch, Table};
use rackstrap_wire::Phase;
use serde_json::{Value, json};
use std::collections::HashSet;

#[test]
fn each_kind_reads_back_from_its_text_and_no_two_kinds_share_one() {
    let known = EventKind::known();
    for kind in &known {
        let text = kind.to_string();
        assert_eq!(text.parse::<EventKind>().unwrap(), *kind, "{text}");
        assert_eq!(serde_json::to_value(kind).unwrap(), json!(text));
        assert_eq!(serde_json::from_value::<EventKind>(json!(text)).unwrap(), *kind);
        assert!(text.len() <= KIND_LIMIT, "{text}");
    }
    let texts: HashSet<String> = known.iter().map(EventKind::to_string).collect();
    assert_eq!(texts.len(), known.len());
    assert!(known.contains(&EventKind::Agent(Phase::SwitchRoot)));
}

proptest! {
    /// A text of another release is kept unchanged if it is short and printable.
    #[test]
    fn any_text_reads_back_as_itself(text in "[a-z][a-z ()-]{0,39}") {
        let kind: EventKind = text.parse().unwrap();
        prop_assert_eq!(kind.to_string(), text.clone());
        prop_assert_eq!(matches!(kind, EventKind::Other(_)), !EventKind::known().iter().any(|known| known.to_string() == text));
    }
}

/// All steps that the previous release wrote and those that were added since, except `http`, which an earlier release wrote.
const BEFORE: &str = "dhcp discover|dhcp request|dhcp request (init-reboot)|dhcp request (renewing)|dhcp decline|dhcp release|\
    dhcp inform|dhcp-client discover|dhcp-client request|dhcp-client request (init-reboot)|dhcp-client request (renewing)|\
    dhcp-client decline|dhcp-client release|dhcp-client inform|\
    dhcp-doubted discover|dhcp-doubted request|dhcp-doubted request (init-reboot)|dhcp-doubted request (renewing)|\
    dhcp-doubted decline|dhcp-doubted release|dhcp-doubted inform|dhcp-first|no-loader|infiniband|own-system|place|tftp|tftp-client|http|script|script-client|kernel|\
    kernel-client|initramfs|initramfs-client|plan|overlay|agent early-mounts|agent command-line|agent modules|agent network|\
    agent plan|agent root|agent disk|agent overlay|agent switch-root|agent-client|nfs mount|nfs unmount|nfs|nfs-client|refused|\
    retry script|retry kernel|retry initramfs|retry boot|no-agent|panic|console|\
    checks|ready|heartbeat|running|users|rollout|restart|power|power-on|power-off|order|unmanaged|reprep|lease|server|lost|stalled";

#[test]
fn the_texts_are_those_of_the_release_before() {
    let before: HashSet<&str> = BEFORE.split('|').collect();
    let known: Vec<String> = EventKind::known().iter().map(EventKind::to_string).collect();
    assert_eq!(known.iter().map(String::as_str).collect::<HashSet<&str>>(), before);
}

#[test]
fn rows_of_other_releases_are_read_and_shown_as_they_are() {
    let rows = [
        json!({"at": 10_000, "step": "dhcp discover", "level": "ok", "detail": "offer 10.5.1.1 (BIOS, iPXE)"}),
        json!({"at": 11_000, "boot": "a", "step": "script", "level": "ok", "detail": "boots debian@1"}),
        json!({"at": 12_000, "boot": "a", "step": "agent disk", "level": "degraded", "detail": "no disk", "took_ms": 5}),
        json!({"at": 13_000, "boot": "a", "step": "agent switch-root", "level": "ok", "detail": "/sbin/init", "took_ms": 5}),
        json!({"at": 20_000, "boot": "a", "step": "ready", "level": "ok", "detail": "up", "took_ms": 9}),
        json!({"at": 21_000, "boot": "a", "step": "power cycle", "level": "error", "detail": "of a newer release"}),
        json!({"at": 30_000, "step": "restart", "level": "retry", "detail": "drain: jobs run", "count": 2, "last": 31_000}),
    ];
    let standing = json!({
        "state": "degraded", "since": 20_000, "last_error": "restart: drain: jobs run", "heard": 31_000, "boot": "a",
        "lacks": "agent disk: no disk", "trouble": "", "seen": [],
        "progress": {"stage": "up", "at": 20_000, "step": "ready", "detail": "up"}, "below": null,
    });
    let node = Subject::Node("r01n01".into());
    for snapshot in [false, true] {
        let key = |number: u64| [&b"nr01n01\0"[..], &number.to_be_bytes()].concat();
        let batch = (0..).zip(&rows).fold(Batch::new(), |batch, (number, row)| {
            batch.put(Table::Events, key(number), row)
        });
        let whole = json!({"number": 6, "standing": standing, "whole": true});
        let batch = match snapshot {
            true => batch.put(Table::Standings, *b"nr01n01\0", &whole),
            false => batch,
        };
        let dir = tempfile::tempdir().unwrap();
        let store = testing::store(dir.path());
        store.commit_blocking(batch).unwrap();
        let recorder = Recorder::load(store.clone(), LIMITS, Timestamp(0)).unwrap();
        let events = recorder.of(&node);
        let shown: Vec<Value> = events
            .iter()
            .map(|event| serde_json::to_value(event).unwrap())
            .collect();
        // Who sent a packet was only in its detail.
        let mut expected = rows.to_vec();
        expected[0]["sender"] = "ipxe".into();
        assert_eq!(shown, expected);
        assert_eq!(events[5].step, EventKind::Other("power cycle".to_owned()));
        let found = recorder.standing(&node).unwrap();
        assert_eq!((found.state, found.boot.as_str()), (NodeState::Degraded, "a"));
        assert_eq!(found.last_error, "restart: drain: jobs run");
        // A success ends the error of a failed drain, also if the older release had recorded it.
        recorder.record(
            node.clone(),
            Event::new(Timestamp(40_000), EventKind::Restart, Level::Ok, "drained"),
        );
        assert_eq!(recorder.standing(&node).unwrap().last_error, "agent disk: no disk");
        store.flush().unwrap();
    }
}

#[test]
fn a_packet_is_ipxes_because_its_row_says_so_and_in_old_rows_because_its_detail_does() {
    let row = |detail: &str, sender: Option<&str>| {
        let mut row = json!({"at": 10_000, "step": "dhcp request", "level": "ok", "detail": detail});
        if let Some(sender) = sender {
            row["sender"] = sender.into();
        }
        let mut event: Event = serde_json::from_value(row).unwrap();
        event.complete_sender();
        (event.sender, BootStage::of(&event))
    };
    let firmware = (Some(Sender::Firmware), Some(BootStage::Firmware));
    let loader = (Some(Sender::Ipxe), Some(BootStage::LoaderRuns));
    assert_eq!(row("ack 10.5.1.1 (BIOS)", None), firmware);
    assert_eq!(row("ack 10.5.1.1 (BIOS, iPXE, relay 10.6.0.1)", None), loader);
    assert_eq!(row("ack 10.5.1.1 (BIOS)", Some("ipxe")), loader);
    assert_eq!(row("its profile is called iPXE", Some("firmware")), firmware);
    // What was recorded in this release counts by its field alone.
    let event = Event::new(Timestamp(1), EventKind::Dhcp(DhcpMessage::Discover), Level::Ok, "iPXE");
    assert_eq!(BootStage::of(&event), Some(BootStage::Firmware));
    assert_eq!(
        serde_json::to_value(event.sent_by(Sender::Ipxe)).unwrap()["sender"],
        "ipxe"
    );
    let other: Event =
        serde_json::from_value(json!({"at": 1, "step": "tftp", "level": "ok", "detail": "iPXE"})).unwrap();
    assert_eq!(other.sender, None);
}

#[test]
fn an_order_of_an_administrator_is_no_sign_of_life() {
    let up = Event::new(Timestamp(10_000), EventKind::Ready, Level::Ok, "up");
    for kind in [
        EventKind::Restart,
        EventKind::Reprep,
        EventKind::Lease,
        EventKind::Rollout,
        EventKind::Power,
        EventKind::PowerOn,
        EventKind::PowerOff,
    ] {
        let ordered = Event::new(Timestamp(90_000), kind, Level::Ok, "x");
        assert_eq!(
            Standing::after([&up, &ordered]).heard,
            Timestamp(10_000),
            "{}",
            ordered.step
        );
    }
}

/// Kinds that no packet of a user can cause in numbers.
///
/// The daemon or an administrator records them, or only older releases did: `http`, `rollout`, `restart`, `order`, `power`, `power-on`,
/// `power-off`, `reprep`, `lease`, `server`, `lost`, `stalled`. The sender proves itself by the boot token from a port below 1024, or by the
/// node's secret: `plan`, `overlay`, `checks`, `ready`, `heartbeat`, `running`, `users`. Kernel and initramfs are recorded until the boot's
/// files went out, and not if the boot is in doubt.
const OF_NO_USER: &str = "http|rollout|restart|order|power|power-on|power-off|reprep|lease|server|lost|stalled|plan|\
    overlay|checks|ready|heartbeat|running|users|kernel|initramfs";

#[test]
fn what_packets_cause_has_a_share_and_what_users_cause_proves_nothing() {
    let mut of_no_user: HashSet<&str> = OF_NO_USER.split('|').collect();
    for kind in EventKind::known() {
        let Row {
            source,
            part,
            stage,
            effect,
        } = kind.row();
        let text = kind.to_string();
        assert!(
            source.is_some() || of_no_user.remove(text.as_str()),
            "{kind} has no share"
        );
        if matches!(part, Part::DoubtedLoader | Part::Doubted) {
            assert!(
                source.is_some() && stage.is_none() && effect == Effect::Nothing,
                "{kind}"
            );
        }
    }
    assert_eq!(of_no_user, HashSet::new(), "these have a share or do not exist");
}

#[test]
fn requests_at_port_4011_keep_the_state_and_the_rows_of_the_boot() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::load(testing::store(dir.path()), LIMITS, Timestamp(0)).unwrap();
    let node = Subject::Node("r01n01".into());
    let say = |at: u64, kind, detail: &str| {
        recorder.record(
            node.clone(),
            Event::new(Timestamp(at), kind, Level::Ok, detail).of_boot("a"),
        );
    };
    say(10_000, EventKind::Script, "boots debian@1");
    say(20_000, EventKind::Plan, "");
    let before = recorder.standing(&node).unwrap();
    // Requests that no row repeats.
    for n in 0..5_000 {
        let message = [DhcpMessage::Request, DhcpMessage::Renewing][n % 2];
        say(
            30_000 + n as u64,
            EventKind::DhcpDoubted(message),
            &format!("file {}", n % 3),
        );
    }
    let events = recorder.of(&node);
    assert!(events.len() < 40, "{}", events.len());
    assert_eq!(
        (&events[0].step, &events[1].step),
        (&EventKind::Script, &EventKind::Plan)
    );
    let counted: u64 = events.iter().map(|event| event.count).sum();
    assert_eq!(counted, 5_002);
    assert_eq!(recorder.standing(&node).unwrap(), before);
    // A system's own client has a share, too.
    for n in 0..5_000 {
        let message = [DhcpMessage::Request, DhcpMessage::Renewing][n % 2];
        say(40_000 + n as u64, EventKind::DhcpClient(message), "ack 10.5.1.1");
    }
    assert!(recorder.of(&node).len() < 45);
    assert_eq!(recorder.of(&node)[1].step, EventKind::Plan);
}
