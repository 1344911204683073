//! Beside another DHCP server: dnsmasq, Kea and dhcpd give the addresses, the daemon the boot part, or the exported options.

#[path = "proxy/lab.rs"]
mod lab;
#[path = "proxy/ports.rs"]
mod ports;

use lab::{Lab, NODE, NODE_MAC, OTHER, Offer, SERVER, uefi};
use serde_json::Value;
use std::{net::Ipv4Addr, process::Command, time::Duration};
use testbed::{Result, played::option, process, timeline::poll};

const PATIENCE: Duration = Duration::from_secs(60);

/// Firmware's exchange: the other server's lease is taken, and the boot part is complete.
#[test]
fn dnsmasq_gives_addresses_and_rackstrap_the_boot_part() -> Result {
    let lab = Lab::start("proxy")?;
    // A dynamic address first: the node's reservation was forgotten.
    let other = lab.dnsmasq("10.5.254.1,10.5.254.99,255.255.0.0,1h", None)?;
    let (address, boot) = lab.discover(&uefi(1))?;
    assert_eq!(address.server, OTHER);
    assert!(address.yiaddr.octets()[2] == 254, "{address:?}");
    assert_eq!(
        (boot.server, boot.siaddr, boot.yiaddr),
        (SERVER, SERVER, Ipv4Addr::UNSPECIFIED)
    );
    assert_eq!(boot.file, "snponly.efi");
    assert_eq!(boot.class, "PXEClient");
    for code in [1, 3, 6, 43, 51] {
        assert_eq!(option(&boot.bytes, code), None, "option {code}");
    }
    let wrong = lab.request(&address)?;
    let refused = format!(
        "r01n01 has {wrong}, its name says {NODE}: add a host reservation to your DHCP server (`rackstrap export kea`"
    );
    lab.wait_status(&refused)?;
    assert!(lab.daemon.cli(&["explain", "r01n01"])?.contains(&refused));
    // iPXE says the same on the machine's screen, and gets no boot.
    let (_, boot) = lab.discover(&uefi(1).ipxe())?;
    assert!(
        boot.file.starts_with("http://10.5.0.1:80/ipxe?mac=52-54-00-00-01-01"),
        "{boot:?}"
    );
    let script = lab.script_from(wrong)?;
    assert!(
        script.contains("add a host reservation") && !script.contains("initramfs"),
        "{script}"
    );
    assert!(lab.timeline("r01n01")?.contains("dhcp-first"));

    // With the exported reservation it boots.
    other.terminate(PATIENCE)?;
    let export = lab.export("dnsmasq")?;
    let exported = std::fs::read_to_string(&export)?;
    let boots: Vec<&str> = exported.lines().filter(|line| line.starts_with("dhcp-boot=")).collect();
    assert_eq!(
        boots,
        ["dhcp-boot=tag:rackstrap0,,,10.5.0.1"],
        "rackstrap itself answers with files"
    );
    let _other = lab.dnsmasq("10.5.0.0,static,255.255.0.0,1h", Some(&export))?;
    let (address, _) = lab.discover(&uefi(1))?;
    // GRUB and U-Boot take their server from this answer.
    assert_eq!(
        (address.yiaddr, address.siaddr, address.file.as_str()),
        (NODE, SERVER, "")
    );
    assert_eq!(lab.request(&address)?, NODE);
    // UEFI asks at port 4011 for its file, from there.
    let ack = lab.boot_server(&uefi(3).ciaddr(NODE), 4011)?;
    assert_eq!(
        (ack.file.as_str(), ack.siaddr, ack.class.as_str()),
        ("snponly.efi", SERVER, "PXEClient")
    );
    let (address, boot) = lab.discover(&uefi(1).ipxe())?;
    assert_eq!((address.yiaddr, lab.request(&address)?), (NODE, NODE));
    assert!(boot.file.contains("/ipxe?mac="));
    let script = lab.script_from(NODE)?;
    assert!(script.contains("echo rackstrap: r01n01 boots debian@1"), "{script}");
    assert!(!lab.daemon.cli(&["explain", "r01n01"])?.contains("host reservation"));
    assert!(
        lab.daemon
            .cli(&["explain", "r01n01"])?
            .contains("dhcp = \"proxy\" in 10.5.0.0/16")
    );
    let unknown = lab.daemon.cli(&["explain", "52:54:00:00:07:07"])?;
    assert!(
        unknown.contains("in 10.5.0.0/16 (dhcp = \"proxy\") it gets an address from another DHCP server"),
        "{unknown}"
    );
    // The other server is the intended one.
    let status = lab.daemon.json(&["status"])?;
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    let rivals: Vec<&Value> = warnings
        .iter()
        .filter(|w| w["topic"].to_string().contains("dhcp-server"))
        .collect();
    assert_eq!(rivals, Vec::<&Value>::new());
    lab.daemon.stop()
}

/// A system asks for an address like any other DHCP client: the daemon stays out of it.
#[test]
fn udhcpc_gets_its_address_from_the_other_server_alone() -> Result {
    let lab = Lab::start("proxy")?;
    let _other = lab.dnsmasq("10.5.254.1,10.5.254.99,255.255.0.0,1h", None)?;
    let before = lab.counter("dhcp proxy-not-a-network-boot")?;
    let host = lab.namespace.client("52:54:00:00:08:08")?;
    let told = process::output(host.command("udhcpc").args([
        "-i",
        "eth0",
        "-f",
        "-q",
        "-n",
        "-t",
        "20",
        "-T",
        "1",
        "-s",
        "/bin/true",
    ]))?;
    drop(told);
    assert!(lab.counter("dhcp proxy-not-a-network-boot")? > before);
    assert!(lab.counter("dhcp proxy-left-to-other-server")? > 0);
    assert_eq!(
        (
            lab.counter("dhcp offer")?,
            lab.counter("dhcp ack")?,
            lab.counter("dhcp nak")?
        ),
        (0, 0, 0)
    );
    lab.daemon.stop()
}

#[test]
fn strangers_at_port_4011_get_nothing_and_change_nothing() -> Result {
    let lab = Lab::start("proxy")?;
    let other = lab.namespace.client("52:54:00:00:07:07")?;
    other.ip(&["address", "add", "10.5.7.7/16", "dev", "eth0"])?;
    let from_it = |packet: Vec<u8>, port| lab.send_to_boot_server(&other, "10.5.7.7:0".parse()?, port, &packet);
    // In the name of the node, from a program's port, too short, without its class, and a request about an address.
    from_it(uefi(3).ciaddr(NODE).build(), 4011)?;
    from_it(uefi(3).ciaddr("10.5.7.7".parse()?).build(), 40_000)?;
    from_it(vec![1; 100], 4011)?;
    from_it(
        testbed::played::Message::new(3, [0x52, 0x54, 0, 0, 7, 7])
            .ciaddr("10.5.7.7".parse()?)
            .build(),
        4011,
    )?;
    from_it(uefi(1).build(), 4011)?;
    let counted = poll(PATIENCE, || {
        let refused = lab.counter("dhcp port-4011-refused")?;
        let ports = lab.counter("dhcp ignored-source-port")?;
        let short = lab.counter("dhcp too-short")?;
        Ok(((refused, ports, short) == (3, 1, 1)).then_some(()))
    })?;
    assert!(counted.is_some(), "{}", lab.daemon.cli(&["counters", "dhcp"])?);
    assert_eq!(lab.counter("dhcp proxy-ack")?, 0);
    assert_eq!(lab.daemon.json(&["status"])?["nodes"][0]["state"], "absent");
    lab.daemon.stop()
}

#[test]
fn with_off_the_ports_are_closed_and_a_request_for_the_script_begins_a_boot() -> Result {
    let lab = Lab::start("proxy")?;
    let open = |port: u16| -> Result<bool> {
        let told = process::output(lab.namespace.command("ss").args(["-Huln", &format!("sport = :{port}")]))?;
        Ok(!told.trim().is_empty())
    };
    assert!(open(67)? && open(4011)?);
    lab.reload("off")?;
    let closed = poll(PATIENCE, || Ok((!open(67)? && !open(4011)?).then_some(())))?;
    assert!(closed.is_some(), "the ports stay open");
    let script = lab.script_from(NODE)?;
    assert!(script.contains("r01n01 boots debian@1"), "{script}");
    let wrong = "10.5.254.9".parse()?;
    let script = lab.script_from(wrong)?;
    assert!(
        script.contains("r01n01 has 10.5.254.9, its name says 10.5.1.1: add a host reservation"),
        "{script}"
    );
    let told = lab.daemon.cli(&["explain", "r01n01"])?;
    assert!(
        told.contains("dhcp = \"off\" in 10.5.0.0/16") && told.contains("has 10.5.254.9"),
        "{told}"
    );
    // And back without a restart.
    lab.reload("proxy")?;
    let again = poll(PATIENCE, || Ok((open(67)? && open(4011)?).then_some(())))?;
    assert!(again.is_some(), "the ports stay closed");
    lab.daemon.stop()
}

/// With "off" the exported options are all that machines get; the three programs give them what rackstrap would.
fn boots_by_export(lab: &Lab) -> Result {
    let expect = |offer: &Offer, file: &str, class: &str| {
        assert_eq!((offer.yiaddr, offer.siaddr), (NODE, SERVER), "{offer:?}");
        assert_eq!((offer.file.as_str(), offer.class.as_str()), (file, class), "{offer:?}");
    };
    let node = |arch| {
        testbed::played::Message::new(1, NODE_MAC)
            .broadcast()
            .option(55, &[1, 3, 43, 60, 66, 67])
            .firmware(arch)
    };
    for (arch, file) in [
        (0, "undionly.kpxe"),
        (7, "snponly.efi"),
        (9, "snponly.efi"),
        (11, "snponly-arm64.efi"),
    ] {
        expect(&lab.offer(&node(arch))?, file, "PXEClient");
    }
    let http = testbed::played::Message::new(1, NODE_MAC)
        .broadcast()
        .option(55, &[1, 3, 43, 60, 66, 67])
        .option(60, b"HTTPClient:Arch:00016:UNDI:003001")
        .option(93, &[0, 16]);
    expect(
        &lab.offer(&http)?,
        "http://10.5.0.1:80/loader/snponly.efi",
        "HTTPClient",
    );
    let ipxe = lab.offer(&node(7).ipxe())?;
    assert_eq!(
        ipxe.file,
        "http://10.5.0.1:80/ipxe?mac=${netX/mac:hexhyp}&arch=${buildarch}&tried=${tried}"
    );
    assert_eq!(ipxe.yiaddr, NODE);
    // A machine that is not a node gets an address and no file of ours.
    let stranger = testbed::played::Message::new(1, [0x52, 0x54, 0, 0, 7, 7])
        .broadcast()
        .firmware(7);
    let offer = lab.offer(&stranger)?;
    assert!(offer.yiaddr.octets()[2] == 254 && offer.file.is_empty(), "{offer:?}");
    Ok(())
}

#[test]
fn dnsmasq_boots_nodes_by_the_export() -> Result {
    let lab = Lab::start("off")?;
    let export = lab.export("dnsmasq")?;
    process::output(
        Command::new("dnsmasq")
            .arg("--test")
            .arg(format!("--conf-file={}", export.display())),
    )?;
    let _dnsmasq = lab.dnsmasq("10.5.254.1,10.5.254.99,255.255.0.0,1h", Some(&export))?;
    boots_by_export(&lab)?;
    lab.daemon.stop()
}

#[test]
fn dhcpd_boots_nodes_by_the_export() -> Result {
    let lab = Lab::start("off")?;
    let _dhcpd = lab.dhcpd(&lab.export("dhcpd")?)?;
    boots_by_export(&lab)?;
    lab.daemon.stop()
}

#[test]
fn kea_boots_nodes_by_the_export() -> Result {
    let lab = Lab::start("off")?;
    let _kea = lab.kea(&lab.export("kea")?)?;
    boots_by_export(&lab)?;
    lab.daemon.stop()
}

/// With "proxy" the export has reservations and `next-server`, and the boot part comes from the daemon.
#[test]
fn kea_dhcpd_and_dnsmasq_give_addresses_and_next_server_by_the_export_of_a_proxy_subnet() -> Result {
    let lab = Lab::start("proxy")?;
    for format in ["kea", "dhcpd", "dnsmasq"] {
        let export = lab.export(format)?;
        let _other = match format {
            "kea" => lab.kea(&export)?,
            "dhcpd" => lab.dhcpd(&export)?,
            _ => lab.dnsmasq("10.5.254.1,10.5.254.99,255.255.0.0,1h", Some(&export))?,
        };
        let (address, boot) = lab.discover(&uefi(1))?;
        assert_eq!(
            (address.server, address.yiaddr, address.siaddr),
            (OTHER, NODE, SERVER),
            "{format}: {address:?}"
        );
        assert!(address.file.is_empty(), "{format}: {address:?}");
        assert_eq!(
            (boot.server, boot.class.as_str()),
            (SERVER, "PXEClient"),
            "{format}: {boot:?}"
        );
    }
    lab.daemon.stop()
}
