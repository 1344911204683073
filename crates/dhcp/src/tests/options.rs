//! Options that the site file adds to answers.

use crate::{NodeTerms, testing::*};
use rackstrap_base::dhcp_option::DhcpOption;
use std::sync::Arc;

const NODE: &str = "52:54:00:01:01:01";

fn parsed(lines: &[&str]) -> Vec<DhcpOption> {
    lines.iter().map(|line| DhcpOption::parse(line).unwrap()).collect()
}

/// The subnet has an MTU, routes, a search list and option 150; the node another option 150, and one that is always sent.
fn world() -> World {
    let mut world = World::with(&[(NODE, "r01n01", "10.5.1.1")]);
    let subnet = &mut Arc::make_mut(&mut world.network).subnets[0];
    subnet.mtu = Some(9000);
    subnet.options = parsed(&[
        "routes 10.6.0.0/16 via 10.5.0.2",
        "search cluster.example",
        "150 address 10.5.0.1",
    ]);
    world.settings = NodeTerms {
        mtu: None,
        options: parsed(&["150 address 10.5.0.9", "always 224 text hello"]),
    };
    world
}

#[test]
fn a_client_gets_the_options_that_it_asks_for_and_those_that_are_always_sent() {
    let world = world();
    let ask = |parameters: &[u8]| {
        let discover = Packet::new(1, NODE).option(55, parameters);
        discover.to(&mut world.engine(), &world)
    };
    let all = ask(&[26, 121, 119, 150]);
    assert_eq!(option(&all, 26), Some(vec![0x23, 0x28]));
    // The default route, which a client that takes the routes does not take from option 3 (RFC 3442).
    let routes = vec![16, 10, 6, 10, 5, 0, 2, 0, 10, 5, 0, 1];
    assert_eq!(option(&all, 121), Some(routes));
    assert_eq!(option(&all, 119), Some(b"\x07cluster\x07example\0".to_vec()));
    assert_eq!(option(&all, 150), Some(vec![10, 5, 0, 9]), "the node's own value");
    assert_eq!(option(&all, 224), Some(b"hello".to_vec()));
    let none = ask(&[1, 3]);
    let sent = [26, 121, 119, 150, 224].map(|code| option(&none, code).is_some());
    assert_eq!(sent, [false, false, false, false, true]);
}

#[test]
fn an_unknown_machine_gets_those_of_the_subnet() {
    let world = world();
    let discover = Packet::new(1, "52:54:00:09:09:09").option(55, &[150, 224]);
    let offer = discover.to(&mut world.engine(), &world);
    assert_eq!(option(&offer, 150), Some(vec![10, 5, 0, 1]));
    assert_eq!(option(&offer, 224), None);
}

#[test]
fn a_nodes_own_mtu_replaces_that_of_the_subnet() {
    let mut world = world();
    world.settings.mtu = Some(1400);
    let offer = Packet::new(1, NODE).option(55, &[26]).to(&mut world.engine(), &world);
    assert_eq!(option(&offer, 26), Some(1400u16.to_be_bytes().to_vec()));
}

#[test]
fn what_firmware_asked_for_first_stays_if_not_all_fits() {
    let mut world = world();
    let long = |code: u8| DhcpOption::parse(&format!("{code} text {}", "x".repeat(100))).unwrap();
    world.settings.options = [224, 225, 226, 227].map(long).to_vec();
    // 576 bytes, without option 57: two of the four fit.
    for parameters in [[224, 225, 226, 227], [227, 226, 225, 224]] {
        let offer = Packet::new(1, NODE)
            .option(55, &parameters)
            .to(&mut world.engine(), &world);
        assert!(offer.reply.as_ref().unwrap().bytes.len() <= 576 - 28);
        let sent = parameters.map(|code| option(&offer, code).is_some());
        assert_eq!(sent, [true, true, false, false], "asked in the order {parameters:?}");
        // The address is worth more than any of them.
        assert!(option(&offer, 51).is_some() && option(&offer, 1).is_some());
    }
    let large = Packet::new(1, NODE).option(57, &1500u16.to_be_bytes());
    let offer = large.option(55, &[224, 225, 226, 227]).to(&mut world.engine(), &world);
    assert!([224, 225, 226, 227].iter().all(|code| option(&offer, *code).is_some()));
}
