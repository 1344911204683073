//! Ports 67 and 4011 over reloads, and beside a program that has port 4011.

use super::{
    PATIENCE,
    lab::{Lab, NODE, Offer, SERVER, uefi},
};
use anyhow::Context;
use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};
use testbed::{Result, process, timeline::poll};

/// The messages of the site's warnings.
fn warnings(lab: &Lab) -> Result<Vec<String>> {
    let status = lab.daemon.json(&["status"])?;
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    let text = |warning: &serde_json::Value| warning["message"].as_str().unwrap_or_default().to_owned();
    Ok(warnings.iter().map(text).collect())
}

fn wait_warning(lab: &Lab, there: bool) -> Result {
    let named = |text: &String| text.contains("at port 4011 of 10.5.0.1: another program has this UDP port");
    let seen = poll(PATIENCE, || {
        Ok((warnings(lab)?.iter().any(named) == there).then_some(()))
    })?;
    seen.with_context(|| format!("warnings: {:?}", warnings(lab)))
}

/// What the daemon offers to the node.
fn offered(lab: &Lab, address: std::net::Ipv4Addr) -> Result {
    let seen = poll(PATIENCE, || {
        let offers = lab.exchange(&uefi(1), Duration::from_secs(1), 1)?;
        let fits = |offer: &Offer| (offer.server, offer.yiaddr) == (SERVER, address) && offer.file == "snponly.efi";
        Ok(offers.iter().any(fits).then_some(()))
    })?;
    seen.with_context(|| format!("no offer of {address} with a loader"))
}

#[test]
fn a_busy_port_4011_is_named_and_opened_when_it_is_free() -> Result {
    let lab = Lab::start("off")?;
    let hold = || -> Result<UdpSocket> { Ok(lab.namespace.inside(|| UdpSocket::bind((SERVER, 4011)))??) };
    let held = hold()?;
    lab.reload("proxy")?;
    wait_warning(&lab, true)?;
    // What is answered at port 67 is complete for a BIOS and for iPXE.
    offered(&lab, std::net::Ipv4Addr::UNSPECIFIED)?;
    drop(held);
    wait_warning(&lab, false)?;
    let ack = lab.boot_server(&uefi(3).ciaddr(NODE), 4011)?;
    assert_eq!(ack.file, "snponly.efi");
    // It is no reason not to start.
    lab.daemon.stop()?;
    let held = hold()?;
    lab.daemon.start(&lab.namespace)?;
    wait_warning(&lab, true)?;
    drop(held);
    wait_warning(&lab, false)?;
    lab.daemon.stop()
}

#[test]
fn a_subnet_is_given_to_another_dhcp_server_and_taken_back() -> Result {
    let lab = Lab::start("full")?;
    let is_open = || -> Result<bool> {
        let busy = lab.namespace.inside(|| UdpSocket::bind((SERVER, 4011)))?;
        Ok(busy.is_err())
    };
    offered(&lab, NODE)?;
    assert!(!is_open()?, "port 4011 belongs to a proxy");
    let told = lab.daemon.cli(&["explain", "r01n01"])?;
    assert!(!told.contains("another DHCP server"), "{told}");
    lab.reload("proxy")?;
    offered(&lab, std::net::Ipv4Addr::UNSPECIFIED)?;
    // No address leaves the daemon any more: only the other server may answer a REQUEST.
    let request = uefi(3).server(SERVER).requested(NODE);
    assert!(lab.exchange(&request, Duration::from_millis(1500), 1)?.is_empty());
    // Its sockets are opened after the reload.
    let open = poll(PATIENCE, || Ok(is_open()?.then_some(())))?;
    assert!(open.is_some(), "port 4011 stays closed");
    let ack = lab.boot_server(&uefi(3).ciaddr(NODE), 4011)?;
    assert_eq!(ack.file, "snponly.efi");
    lab.reload("full")?;
    offered(&lab, NODE)?;
    let ack = lab
        .exchange(&request, Duration::from_secs(3), 1)?
        .pop()
        .context("no ACK")?;
    assert_eq!(ack.yiaddr, NODE);
    let closed = poll(PATIENCE, || Ok((!is_open()?).then_some(())))?;
    assert!(closed.is_some(), "port 4011 stays open");
    lab.daemon.stop()
}

/// iPXE on a node's second card, which firmware started from there: without DHCP of our own, only the agent's report, and what iPXE
/// knows of the machine, tell whose it is.
#[test]
fn a_second_card_is_left_to_the_next_one_in_each_kind_of_subnet() -> Result {
    for dhcp in ["proxy", "off"] {
        let lab = Lab::start(dhcp)?;
        // The node's own boot tells which machine it is.
        lab.boots_with("SN-4711", &["52:54:00:00:01:01", "52:54:00:00:01:02"])?;
        for (mac, more, mark) in [
            ("52-54-00-00-01-02", "", "the node reported it"),
            (
                "52-54-00-00-01-03",
                "&serial=SN-4711&product=R740",
                "same serial number",
            ),
        ] {
            let own = mac.replace('-', ":");
            let said = format!("{own} is a further card of r01n01 ({mark})");
            // The agent's report is taken in by a thread of its own.
            let script = poll(PATIENCE, || {
                let script = lab.script_of(mac, more, "10.5.254.9".parse()?)?;
                Ok(Some(script).filter(|script| script.contains(&said)))
            })?;
            let script = script.with_context(|| format!("{dhcp}: never '{said}'"))?;
            let remedy = format!("rackstrap node set r01n01 --hwaddr 52:54:00:00:01:01 --hwaddr {own}");
            assert!(script.contains(&remedy), "{dhcp}: {script}");
            assert!(
                script.trim_end().ends_with("exit 1") && !script.contains("chain"),
                "{dhcp}: {script}"
            );
        }
        // Another machine waits.
        let script = lab.script_of(
            "52-54-00-00-07-07",
            "&serial=SN-4712&product=R740",
            "10.5.254.9".parse()?,
        )?;
        assert!(
            script.contains("unknown machine 52:54:00:00:07:07 - waiting to be racked"),
            "{dhcp}: {script}"
        );
        lab.daemon.stop()?;
    }
    Ok(())
}

/// The kernel knows which card answers at an address, so that a waiting machine is believed there, and nobody who names its card.
#[test]
fn with_off_a_waiting_machine_is_known_by_arp() -> Result {
    let lab = Lab::start("off")?;
    let waits: Ipv4Addr = "10.5.254.9".parse()?;
    let named = "52-54-00-00-07-07";
    let command = |card: &str| format!("rackstrap discover accept {card}");
    // Another machine names the card.
    let script = lab.script_of(named, "&serial=FORGED", waits)?;
    assert!(
        script.contains("unknown machine 52:54:00:00:07:07") && script.contains("rackstrap node add"),
        "{script}"
    );
    let list = lab.daemon.cli(&["discover", "list", "--all"])?;
    assert!(!list.contains("52:54:00:00:07:07"), "{list}");
    // The machine itself.
    let card = "52:54:00:00:08:08";
    let host = lab.namespace.client(card)?;
    host.ip(&["address", "add", "10.5.254.10/16", "dev", "eth0"])?;
    let asks = |more: &str| {
        let url = format!("http://10.5.0.1:80/ipxe?mac=52-54-00-00-08-08&arch=x86_64{more}");
        process::output(host.command("curl").args(["-sS", "--max-time", "60", &url]))
    };
    let script = asks("")?;
    assert!(script.contains(&command(card)), "{script}");
    asks("&failed=wait&serial=REAL-1&product=R740")?;
    let list = poll(PATIENCE, || {
        let list = lab.daemon.cli(&["discover", "list", "--all"])?;
        Ok((list.contains(card) && list.contains("REAL-1")).then_some(list))
    })?;
    assert!(list.is_some(), "{}", lab.daemon.cli(&["discover", "list", "--all"])?);
    assert!(lab.timeline(card)?.contains("waits to be racked"));
    lab.daemon.cli(&["discover", "accept", card, "r01n02"])?;
    // It asks from there on; until its server gives the node's address, both are told of.
    let script = asks("&failed=wait")?;
    assert!(script.contains("r01n02") && script.contains("10.5.1.2"), "{script}");
    lab.daemon.stop()
}
