//! What machines say of themselves: twins, and texts that are too long or harmful.

use super::*;

#[test]
fn two_machines_with_one_uuid_are_looked_at_first() {
    let mut floor = Floor::new(Vec::new(), Sessions::new(), 16);
    let session = begin("r03", &floor.sessions).unwrap();
    floor.sessions.insert("r03".into(), session);
    let with = |n, uuid| Seen {
        uuid: Some(uuid),
        ..seen(n, 2000 + u64::from(n))
    };
    let uuid = Uuid::from_u128(77);
    floor.see(&with(1, uuid));
    floor.see(&with(2, uuid));
    assert_eq!(floor.due(&Inventory::default(), Timestamp(3000)), []);
    let trouble = floor
        .trouble(floor.machine(mac(2)).unwrap(), &Inventory::default(), Timestamp(3000))
        .unwrap();
    assert!(trouble.starts_with("has the UUID of 52:54:00:00:00:01"), "{trouble}");
    // Mainboards without a UUID of their own are not taken for each other.
    let mut floor = Floor::new(Vec::new(), Sessions::new(), 16);
    for (n, uuid) in [(1, Uuid::nil()), (2, Uuid::nil()), (3, Uuid::max()), (4, Uuid::max())] {
        floor.see(&with(n, uuid));
    }
    let machines = floor.machines();
    assert!(
        machines
            .iter()
            .all(|m| m.uuid.is_none() && floor.trouble(m, &Inventory::default(), Timestamp(3000)).is_none())
    );
}

#[test]
fn what_loaders_tell_is_kept_bounded_and_harmless() {
    let mut machine = Machine::new(0, &seen(1, 0));
    let told = Told {
        uuid: None,
        serial: " S\u{1b}[31m1 ".into(),
        vendor: "x".repeat(500),
        product: "Ünïcode".repeat(20),
    };
    assert!(machine.hear(&told, Timestamp(3)));
    assert_eq!(machine.last_seen, Timestamp(3));
    assert_eq!((machine.serial.as_str(), machine.vendor.len()), ("S [31m1", 64));
    assert!(machine.product.len() <= 64);
    assert!(!machine.hear(&told, Timestamp(4)), "the same again is no news");
    assert_eq!(machine.last_seen, Timestamp(4), "but it was seen");
    assert_eq!(Place::text(b"Gi1/0/7"), "Gi1/0/7");
    assert_eq!(Place::text(&[0, 4, 0, 10]), "0x0004000a");
    assert_eq!(Place::text(&[]), "");
    assert_eq!(Place::text(&[0xff; 255]).len(), 66);
}
