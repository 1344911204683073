//! Machines with the same identity, and cards at two ports.

use super::lab::Lab;
use std::sync::Arc;
use testbed::{
    Result,
    played::{Machine, Stage, Wire},
};

/// The obstacle that `discover list` shows for the machine.
fn trouble(lab: &Lab, machine: &Machine) -> Result<String> {
    let row = lab.until("it waiting", || lab.waits(&machine.mac()))?;
    Ok(row["trouble"].as_str().unwrap_or_default().to_owned())
}

/// Checks that a regular machine gets the position `name`, so that all that were due before it have been handled.
fn expect_next(lab: &Lab, wire: &Arc<Wire>, number: u8, name: &str) -> Result {
    let honest = Machine::new(20, number, wire, "", &format!("swp{number}"));
    lab.among_racks(|| {
        honest.dhcp(Stage::Firmware)?;
        assert_eq!(honest.walk(|_| ())?.name, name);
        Ok(())
    })
}

#[test]
fn a_card_at_two_ports_is_not_racked() -> Result {
    let lab = Lab::start(1024)?;
    let (here, there) = (lab.relay(20, 254)?, lab.relay(24, 254)?);
    let one = Machine::new(20, 1, &here, "", "swp1");
    let other = Machine {
        wire: there.clone(),
        switch: "sw24".to_owned(),
        port: "Gi1/0/7".to_owned(),
        uuid: uuid::Uuid::from_u128(0x77),
        ..one.clone()
    };
    // The same on one switch.
    let flips = Machine::new(20, 2, &here, "", "swp2");
    let flipped = Machine {
        port: "swp3".to_owned(),
        ..flips.clone()
    };
    for session in [&["r20"][..], &["r24", "--switch", "sw24"]] {
        lab.daemon
            .cli(&[&["discover", "start"], session, &["--detach"]].concat())?;
    }
    lab.among_racks(|| {
        for (one, other) in [(&one, &other), (&flips, &flipped)] {
            let first = one.discover(Stage::Firmware)?;
            let second = other.discover(Stage::Firmware)?;
            one.request(Stage::Firmware, &first)?;
            // It has another address by now, or still one of the same subnet.
            other.request(Stage::Firmware, &second)?;
        }
        Ok(())
    })?;
    expect_next(&lab, &here, 9, "r20n01")?;
    let text = trouble(&lab, &one)?;
    assert!(
        text.contains("switch sw24 port Gi1/0/7") && text.contains("port swp1"),
        "{text}"
    );
    let text = trouble(&lab, &flips)?;
    assert!(
        text.contains("seen at port swp") && text.contains("two machines with this address"),
        "{text}"
    );
    assert_eq!(lab.nodes()?.len(), 1);
    let status = lab.daemon.cli(&["status"])?;
    assert!(status.contains("two machines with this"), "{status}");

    // The administrator places one of them; the other one cannot be that node too.
    lab.daemon.cli(&["discover", "accept", &one.mac(), "r20n07"])?;
    let script = lab.among_racks(|| {
        let has = one.dhcp(Stage::Ipxe)?;
        assert_eq!(has.host_name, "r20n07");
        assert!(
            other
                .try_discover(Stage::Ipxe, std::time::Duration::from_secs(2))
                .is_none()
        );
        one.script(has.address, false)
    })?;
    assert!(script.contains("echo rackstrap: r20n07 boots"), "{script}");
    let timeline = lab.daemon.cli(&["timeline", "r20n07"])?;
    assert!(timeline.contains("cabled to the wrong network"), "{timeline}");
    assert_eq!(lab.nodes()?.len(), 2);
    lab.daemon.stop()
}

#[test]
fn a_node_at_another_port_is_reported() -> Result {
    let lab = Lab::start(1024)?;
    let wire = lab.relay(20, 254)?;
    let node = Machine::new(20, 1, &wire, "sw20", "Gi1/0/1");
    let moved = Machine {
        port: "Gi1/0/9".to_owned(),
        ..node.clone()
    };
    lab.daemon.cli(&["node", "add", "r20n01", "--hwaddr", &node.mac()])?;
    lab.among_racks(|| {
        assert_eq!(node.walk(|_| ())?.name, "r20n01");
        assert_eq!(moved.dhcp(Stage::Firmware)?.address.octets(), [10, 5, 20, 1]);
        Ok(())
    })?;
    let row = lab.until("remark in status", || {
        let status = lab.daemon.json(&["status"])?;
        let row = status["nodes"][0].clone();
        Ok(row["last_error"]
            .as_str()
            .is_some_and(|text| text.contains("Gi1/0/9"))
            .then_some(row))
    })?;
    let text = row["last_error"].as_str().unwrap_or_default();
    let expected = "was seen at switch sw20 port Gi1/0/1 and then at switch sw20 port Gi1/0/9";
    assert!(text.contains(expected), "{text}");
    assert!(lab.daemon.cli(&["timeline", "r20n01"])?.contains(expected));
    assert!(lab.waiting()?.is_empty(), "it is a node, wherever it is");
    assert_eq!(lab.nodes()?.len(), 1);
    lab.daemon.stop()
}

#[test]
fn machines_with_one_uuid_are_not_racked_twice() -> Result {
    let lab = Lab::start(1024)?;
    let wire = lab.relay(20, 254)?;
    let machine = |n, uuid: u128| Machine {
        uuid: uuid::Uuid::from_u128(uuid),
        ..Machine::new(20, n, &wire, "", &format!("swp{n}"))
    };
    // Two machines at once; then one whose second card appears when the machine has its place.
    let (one, other) = (machine(1, 0x4711), machine(2, 0x4711));
    let (card, second) = (machine(3, 0x4712), machine(4, 0x4712));
    lab.daemon.cli(&["discover", "start", "r20", "--detach"])?;
    let address = lab.among_racks(|| {
        let first = one.discover(Stage::Firmware)?;
        other.discover(Stage::Firmware)?;
        let first = one.request(Stage::Firmware, &first)?.address;
        // It may be the other card of the first, and gets an address. When the daemon learns of that address, it may not.
        let second = other.dhcp(Stage::Firmware)?.address;
        assert_eq!(first, second);
        let script = one.script(first, true)?;
        assert!(script.contains("ifclose\n"), "{script}");
        assert_ne!(one.dhcp(Stage::Ipxe)?.address, second);
        assert_eq!(other.dhcp(Stage::Ipxe)?.address, second);
        Ok(second)
    })?;
    lab.until("it waiting", || lab.waits(&other.mac()))?;
    lab.among_racks(|| {
        let script = other.script(address, true)?;
        assert!(!script.contains("ifclose\n"), "{script}");
        Ok(())
    })?;
    expect_next(&lab, &wire, 9, "r20n01")?;
    for (one, other) in [(&one, &other), (&other, &one)] {
        let text = trouble(&lab, one)?;
        assert!(text.contains(&format!("has the UUID of {}", other.mac())), "{text}");
    }
    lab.among_racks(|| {
        card.dhcp(Stage::Firmware)?;
        assert_eq!(card.walk(|_| ())?.name, "r20n02");
        second.dhcp(Stage::Firmware).map(drop)
    })?;
    expect_next(&lab, &wire, 10, "r20n03")?;
    expect_a_card_of(&lab, &card, &second, "r20n02")?;
    assert_eq!(lab.nodes()?.len(), 3);
    lab.daemon.stop()
}

/// Checks that `second` is shown as a card of the node `name`, with the command that adds it, and that its script ends.
fn expect_a_card_of(lab: &Lab, card: &Machine, second: &Machine, name: &str) -> Result {
    let remedy = format!(
        "rackstrap node set {name} --hwaddr {} --hwaddr {}",
        card.mac(),
        second.mac()
    );
    let text = trouble(lab, second)?;
    assert!(
        text.contains(&format!("a further card of {name} (same UUID)")) && text.contains(&remedy),
        "{text}"
    );
    for (about, said) in [
        (second.mac(), "it is a further card of"),
        (name.to_owned(), "was seen, and is"),
    ] {
        let explained = lab.daemon.cli(&["explain", &about])?;
        assert!(explained.contains(said) && explained.contains(&remedy), "{explained}");
    }
    let script = lab.among_racks(|| {
        let address = second.dhcp(Stage::Ipxe)?.address;
        second.script(address, false)
    })?;
    assert!(
        script.contains(&remedy) && script.trim_end().ends_with("\nexit 1"),
        "{script}"
    );
    assert!(
        !script.contains("chain"),
        "it would ask again, and the next card never boots: {script}"
    );
    Ok(())
}

/// A machine whose two cards boot in turn: while a rack is filled, when it is full, and after a restart.
#[test]
fn a_second_card_belongs_to_its_node() -> Result {
    let lab = Lab::start(1024)?;
    let wire = lab.relay(20, 254)?;
    let card = Machine::new(20, 1, &wire, "", "swp1");
    let second = Machine {
        hwaddr: Machine::new(20, 2, &wire, "", "").hwaddr,
        port: "swp2".to_owned(),
        ..card.clone()
    };
    lab.daemon.cli(&["discover", "start", "r20", "--detach"])?;
    lab.among_racks(|| {
        assert_eq!(card.walk(|_| ())?.name, "r20n01");
        second.dhcp(Stage::Firmware).map(drop)
    })?;
    expect_next(&lab, &wire, 9, "r20n02")?;
    expect_a_card_of(&lab, &card, &second, "r20n01")?;
    let refused = lab.daemon.cli(&["discover", "accept", &second.mac()]);
    let refused = format!("{:#}", refused.expect_err("it was accepted as a machine of its own"));
    assert!(refused.contains("rackstrap node set r20n01 --hwaddr"), "{refused}");

    // The node's report is stored: it is known without a rack that is being filled, and to a restarted daemon.
    lab.daemon.cli(&["discover", "stop", "r20"])?;
    lab.daemon.stop()?;
    lab.start_daemon()?;
    lab.among_racks(|| second.dhcp(Stage::Firmware).map(drop))?;
    expect_a_card_of(&lab, &card, &second, "r20n01")?;
    lab.daemon
        .cli(&["discover", "start", "r20", "--from", "n03", "--waiting-too", "--detach"])?;
    expect_next(&lab, &wire, 10, "r20n03")?;
    assert_eq!(lab.nodes()?.len(), 3);

    // After the command both cards belong to the node, and each boots it.
    let cards = [card.mac(), second.mac()];
    lab.daemon
        .cli(&["node", "set", "r20n01", "--hwaddr", &cards[0], "--hwaddr", &cards[1]])?;
    lab.among_racks(|| {
        assert_eq!(second.walk(|_| ())?.name, "r20n01");
        assert_eq!(card.walk(|_| ())?.name, "r20n01");
        Ok(())
    })?;
    lab.daemon.stop()
}
