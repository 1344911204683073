//! Tests of what machines report: UUIDs that two machines share, and texts that are too long or harmful.

use super::*;

#[test]
fn two_machines_with_one_uuid_are_not_placed_automatically() {
    let mut state = RackingState::new(Vec::new(), Sessions::new(), 16);
    let session = begin("r03", &state.sessions).unwrap();
    state.sessions.insert("r03".into(), session);
    let with = |n, uuid| Observation {
        uuid: Some(uuid),
        ..seen(n, 2000 + u64::from(n))
    };
    let uuid = Uuid::from_u128(77);
    state.observe(&with(1, uuid));
    state.observe(&with(2, uuid));
    assert_eq!(state.due(&Inventory::default(), Timestamp(3000)), []);
    let trouble = state
        .trouble(state.machine(mac(2)).unwrap(), &Inventory::default(), Timestamp(3000))
        .unwrap();
    assert!(trouble.starts_with("has the UUID of 52:54:00:00:00:01"), "{trouble}");
    // Mainboards without their own UUID are not taken for each other.
    let mut state = RackingState::new(Vec::new(), Sessions::new(), 16);
    for (n, uuid) in [(1, Uuid::nil()), (2, Uuid::nil()), (3, Uuid::max()), (4, Uuid::max())] {
        state.observe(&with(n, uuid));
    }
    let machines = state.machines();
    assert!(
        machines
            .iter()
            .all(|m| m.uuid.is_none() && state.trouble(m, &Inventory::default(), Timestamp(3000)).is_none())
    );
}

#[test]
fn reports_of_loaders_are_bounded_and_made_harmless() {
    let mut machine = Machine::new(0, &seen(1, 0));
    let told = LoaderReport {
        uuid: None,
        serial: " S\u{1b}[31m1\u{202e} ".into(),
        vendor: "x".repeat(500),
        product: "Ünïcode".repeat(20),
    };
    assert!(machine.take_report(&told, Timestamp(3)));
    assert_eq!(machine.last_seen, Timestamp(3));
    assert_eq!((machine.serial.as_str(), machine.vendor.len()), ("S [31m1", 64));
    assert!(machine.product.len() <= 64);
    assert!(!machine.take_report(&told, Timestamp(4)), "the same again is no news");
    assert_eq!(machine.last_seen, Timestamp(4), "but it was seen");
    assert_eq!(Place::text(b"Gi1/0/7"), "Gi1/0/7");
    assert_eq!(Place::text(&[0, 4, 0, 10]), "0x0004000a");
    assert_eq!(Place::text(&[]), "");
    assert_eq!(Place::text(&[0xff; 255]).len(), 66);
}

#[test]
fn a_report_adds_what_is_unknown_and_replaces_nothing() {
    let board = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let packet = |uuid, at| Observation { uuid, ..seen(1, at) };
    let report = |uuid: Uuid, serial: &str| LoaderReport {
        uuid: Some(uuid),
        serial: serial.to_owned(),
        ..LoaderReport::default()
    };
    let mut machine = Machine::new(0, &packet(Some(board), 0));
    // A loader prints the UUID in the other byte order.
    let same = Uuid::from_bytes(board.to_bytes_le());
    assert!(machine.take_report(&report(same, "S1"), Timestamp(1)));
    let known = (machine.uuid, machine.serial.clone());
    assert_eq!(
        (known.clone(), machine.contradiction.as_str()),
        ((Some(board), "S1".to_owned()), "")
    );

    let other = Uuid::from_u128(77);
    assert!(machine.take_report(&report(other, "S2"), Timestamp(2)));
    assert_eq!((machine.uuid, machine.serial.clone()), known);
    assert_eq!(
        machine.contradiction,
        format!("its loader reports the UUID {other} instead of {board}, the serial number 'S2' instead of 'S1'")
    );
    assert!(
        !machine.take_report(&report(other, "S2"), Timestamp(3)),
        "the same again is no news"
    );
    assert!(machine.take_report(&report(board, "S1"), Timestamp(4)));
    assert_eq!(machine.contradiction, "");

    // Its packets have another UUID: another mainboard with the same card. It reports anew.
    machine.observe(&packet(Some(other), 5));
    assert_eq!((machine.uuid, machine.serial.as_str()), (Some(other), ""));
    machine.take_report(&report(other, "S2"), Timestamp(6));
    assert_eq!((machine.serial.as_str(), machine.contradiction.as_str()), ("S2", ""));

    // Without a UUID in its packets, the report has the first word.
    let mut machine = Machine::new(0, &packet(None, 0));
    machine.take_report(&report(board, ""), Timestamp(1));
    machine.take_report(&report(other, ""), Timestamp(2));
    assert_eq!(machine.uuid, Some(board));
}
