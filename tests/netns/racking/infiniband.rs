//! An InfiniBand card asks for an address: it gets none, and `status` says which card it is, and whose.

use super::lab::Lab;
use testbed::{
    Result,
    played::{Machine, Stage, next_xid},
};

/// FlexBoot's client identifier, with the GUID of the port.
const CLIENT_ID: [u8; 22] = [
    61, 20, 255, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0xc9, 0, 0, 2, 0xc9, 3, 0, 0x0a, 0x0b, 0x0c,
];

/// The packet of a card of that machine, as RFC 4390 has it: `htype` 32, `hlen` 0, no `chaddr`.
fn of_infiniband(machine: &Machine, kind: u8) -> Vec<u8> {
    let mut packet = machine.packet(next_xid(), Stage::Firmware, kind, &CLIENT_ID);
    packet[1..3].copy_from_slice(&[32, 0]);
    packet[28..44].fill(0);
    packet
}

#[test]
fn an_infiniband_card_is_refused_by_name() -> Result {
    let lab = Lab::start(1024)?;
    let wire = lab.relay(20, 254)?;
    let card = Machine::new(20, 1, &wire, "", "swp1");
    let warnings = || -> Result<String> { Ok(lab.daemon.json(&["status"])?["warnings"].to_string()) };
    // What a system sends is counted only. With DISCOVER, firmware looks for a server.
    wire.send(&of_infiniband(&card, 3))?;
    lab.until("it counted", || {
        let counters = lab.daemon.json(&["counters"])?;
        Ok((counters["dhcp infiniband"] == 1).then_some(()))
    })?;
    assert!(!warnings()?.contains("InfiniBand"), "{}", warnings()?);
    let named = |whose: &str| {
        lab.until("the warning", || {
            wire.send(&of_infiniband(&card, 1))?;
            let said = format!("{whose}) asks for an address and gets none");
            let told = warnings()?;
            Ok(
                (told.contains("an InfiniBand card (GUID 00:02:c9:03:00:0a:0b:0c on ") && told.contains(&said))
                    .then_some(()),
            )
        })
    };
    named("")?;
    assert!(warnings()?.contains("rackstrap does not boot machines by InfiniBand"));
    assert!(lab.waiting()?.is_empty(), "it does not wait: {:?}", lab.waiting()?);
    // The machine becomes a node by its Ethernet card: the UUID tells that the card is its.
    lab.daemon.cli(&["node", "add", "r20n01", "--hwaddr", &card.mac()])?;
    lab.among_racks(|| card.dhcp(Stage::Firmware).map(drop))?;
    named(", a card of r20n01")?;
    let told = lab.daemon.cli(&["status"])?;
    assert!(told.contains("GUID 00:02:c9:03:00:0a:0b:0c"), "{told}");
    // Its node's timeline has one event for all packets of the attempt, which is no failure of the node.
    lab.until("the event", || {
        let timeline = lab.daemon.json(&["timeline", "r20n01"])?;
        let events = timeline["events"].as_array().cloned().unwrap_or_default();
        let told: Vec<_> = events.iter().filter(|event| event["step"] == "infiniband").collect();
        Ok((told.len() == 1 && told[0].to_string().contains("GUID 00:02:c9:03:00:0a:0b:0c")).then_some(()))
    })?;
    let rows = lab.daemon.json(&["status", "r20n01"])?;
    assert!(!rows["nodes"].to_string().contains("InfiniBand"), "{rows}");
    // Its address is refused with the reason.
    let refused = lab
        .daemon
        .cli(&["node", "add", "r20n02", "--hwaddr", "00:02:c9:03:00:0a:0b:0c"]);
    let refused = format!("{:#}", refused.err().unwrap_or_else(|| anyhow::anyhow!("it was added")));
    assert!(refused.contains("is the address of an InfiniBand port"), "{refused}");
    lab.daemon.stop()
}
