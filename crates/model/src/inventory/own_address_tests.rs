//! Tests of `ipaddr`, the address that a node has by its own setting.

use super::tests::{new, site};
use super::*;
use rackstrap_site::value::Value;
use serde_json::json;

fn with_address(name: &str, hwaddr: &str, ipaddr: &str) -> Change {
    Change::Add(NewNode {
        settings: serde_json::from_value(json!({ "ipaddr": ipaddr })).unwrap(),
        ..new(name, &[hwaddr])
    })
}

fn login() -> Inventory {
    let add = [
        with_address("login01", "52:54:00:01:01:01", "10.1.0.100"),
        Change::Add(new("r01n10", &["52:54:00:01:01:02"])),
    ];
    apply(&Inventory::default(), &site(), &add).unwrap().0
}

fn refused(inventory: &Inventory, change: Change) -> String {
    apply(inventory, &site(), &[change]).unwrap_err().to_string()
}

fn set(name: &str, key: &str, value: &str) -> Change {
    Change::Set {
        name: name.to_owned(),
        patch: Patch {
            settings: [(key.to_owned(), Value::from(value))].into(),
            ..Patch::default()
        },
    }
}

fn unset(name: &str) -> Change {
    Change::Set {
        name: name.to_owned(),
        patch: Patch {
            drop_settings: ["ipaddr".to_owned()].into(),
            ..Patch::default()
        },
    }
}

#[test]
fn a_node_has_the_address_that_is_set_on_it_and_is_found_by_it() {
    let inventory = login();
    let node = inventory.by_ipaddr([10, 1, 0, 100].into()).unwrap();
    assert_eq!(node.name, "login01");
    let row = serde_json::to_string(&**node).unwrap();
    assert_eq!(serde_json::from_str::<Node>(&row).unwrap(), **node);
    // A reserved network is free of the addresses of names, and so is a good place for such nodes.
    assert!(site().cluster.reserved[0].contains(&std::net::Ipv4Addr::from([10, 3, 0, 7])));
    let (moved, changed) = apply(&inventory, &site(), &[set("login01", "ipaddr", "10.3.0.7")]).unwrap();
    assert!(moved.by_ipaddr([10, 1, 0, 100].into()).is_none());
    assert_eq!(
        differences(&changed[0]),
        ["address 10.1.0.100 -> 10.3.0.7", "sets ipaddr 10.1.0.100 -> 10.3.0.7"]
    );
    // Another name leaves it where it is.
    let rename = Change::Rename {
        from: "login01".to_owned(),
        to: "head".to_owned(),
    };
    let (renamed, _) = apply(&inventory, &site(), &[rename]).unwrap();
    assert_eq!(renamed.by_ipaddr([10, 1, 0, 100].into()).unwrap().name, "head");
}

#[test]
fn a_name_of_the_pattern_may_have_another_address_and_gets_its_own_back() {
    let (inventory, _) = apply(&login(), &site(), &[set("r01n10", "ipaddr", "10.1.0.110")]).unwrap();
    assert_eq!(inventory.get("r01n10").unwrap().ipaddr.octets(), [10, 1, 0, 110]);
    let site = site();
    let all = Settings::of_node(&site, inventory.get("r01n10").unwrap(), |_| ()).all();
    let row = (&all[0].key, &all[0].value, all[0].from.to_string());
    assert_eq!(row, (&"ipaddr".to_owned(), &"10.1.0.110".to_owned(), "node".to_owned()));
    let hides: Vec<String> = (all[0].hides.iter())
        .map(|hidden| format!("{} ({})", hidden.value, hidden.from))
        .collect();
    assert_eq!(hides, ["10.1.0.10 (its name)"]);
    let before = Settings::of_node(&site, login().get("r01n10").unwrap(), |_| ()).digest();
    assert_ne!(
        before,
        Settings::of_node(&site, inventory.get("r01n10").unwrap(), |_| ()).digest()
    );
    let (back, _) = apply(&inventory, &site, &[unset("r01n10")]).unwrap();
    assert_eq!(back.get("r01n10").unwrap().ipaddr.octets(), [10, 1, 0, 10]);
}

#[test]
fn an_address_that_is_in_use_is_refused_with_the_reason() {
    let inventory = login();
    for (ipaddr, why) in [
        (
            "10.1.0.10",
            "node login01: its address would be 10.1.0.10, which r01n10 already has; choose another",
        ),
        (
            "10.1.0.205",
            "which is in the temporary pool (10.1.0.200 to 10.1.0.220); choose another address",
        ),
        ("10.1.0.1", "which is the daemon's own; choose another address"),
        ("10.1.0.2", "which is the router's; choose another address"),
        (
            "10.1.0.255",
            "which is no host's in 10.1.0.0/24; choose another address",
        ),
        (
            "10.2.0.1",
            "which is in none of the site's networks (10.1.0.0/24, 10.3.0.0/24); add a [[subnet]] to the site file, or choose \
             another address",
        ),
        (
            "10.1.0",
            "ipaddr = \"10.1.0\": '10.1.0' is not an IPv4 address; write an address such as 10.5.200.4",
        ),
        ("10.1.0.0104", "is not an IPv4 address"),
    ] {
        let said = refused(&inventory, set("login01", "ipaddr", ipaddr));
        assert!(said.contains(why), "{ipaddr}: {said}");
    }
    // Both orders: the node of a name, and the node that has the address of that name.
    let said = refused(&inventory, Change::Add(new("r01n100", &["52:54:00:01:01:03"])));
    assert!(said.contains("10.1.0.100, which login01 already has; "), "{said}");
    let (inventory, _) = apply(&inventory, &site(), &[set("r01n10", "ipaddr", "10.1.0.110")]).unwrap();
    let said = refused(&inventory, set("login01", "ipaddr", "10.1.0.10"));
    assert!(
        said.contains("which is the address that the name of r01n10 stands for"),
        "{said}"
    );
    let said = refused(&inventory, with_address("r01n100", "52:54:00:01:01:03", "10.1.0.120"));
    assert!(
        said.contains("and 10.1.0.100, which its name stands for, belongs to login01"),
        "{said}"
    );
    let said = refused(&inventory, unset("login01"));
    assert!(said.contains("needs an address of its own: ipaddr=ADDRESS"), "{said}");
    let said = refused(&inventory, set("login01", "ipaddr+", "10.1.0.101"));
    assert!(
        said.contains("ipaddr has one value, to which nothing can be added"),
        "{said}"
    );
}

#[test]
fn a_free_name_is_one_that_nothing_else_is_mistaken_for() {
    let long = "x".repeat(64);
    for (name, why) in [
        ("Login", "is not a node name; write lower-case letters"),
        ("login.x", "is not a node name"),
        ("1login", "is not a node name"),
        ("login-", "is not a node name"),
        (&long, "is not a node name"),
        ("", "is not a node name"),
        ("ab-cd-ef-01-02-03", "it looks like a hardware address"),
        ("console", "it is the key of a setting"),
        ("ipaddr", "it is the key of a setting"),
        ("localhost", "it is the server's own name"),
        ("r1n10", "did you mean r01n10?"),
    ] {
        let said = refused(
            &Inventory::default(),
            with_address(name, "52:54:00:01:01:03", "10.1.0.100"),
        );
        assert!(said.contains(why), "{name}: {said}");
    }
    let said = refused(
        &Inventory::default(),
        Change::Add(new("login01", &["52:54:00:01:01:03"])),
    );
    assert!(
        said.ends_with("a node that no pattern names needs an address of its own: ipaddr=ADDRESS"),
        "{said}"
    );
}

#[test]
fn two_nodes_may_exchange_their_own_addresses() {
    let add = with_address("login02", "52:54:00:01:01:03", "10.1.0.101");
    let (inventory, _) = apply(&login(), &site(), &[add]).unwrap();
    let swap = [
        set("login01", "ipaddr", "10.1.0.101"),
        set("login02", "ipaddr", "10.1.0.100"),
    ];
    let (inventory, _) = apply(&inventory, &site(), &swap).unwrap();
    assert_eq!(inventory.by_ipaddr([10, 1, 0, 100].into()).unwrap().name, "login02");
    assert_eq!(inventory.by_ipaddr([10, 1, 0, 101].into()).unwrap().name, "login01");
}
