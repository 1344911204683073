//! Six machines for a pool of four addresses.

use super::lab::{Lab, NARROW};
use std::time::{Duration, Instant};
use testbed::{
    Result,
    played::{Machine, PATIENCE, Stage},
};

const FULL: &str = "the temporary pool 10.5.42.1-10.5.42.4 is full";

#[test]
fn a_full_pool_is_reported_everywhere() -> Result {
    let lab = Lab::start(1024)?;
    let wire = lab.relay(NARROW, 254)?;
    let machines: Vec<Machine> = (1..=6)
        .map(|n| Machine::new(NARROW, n, &wire, "sw40", &format!("{n}")))
        .collect();
    let elsewhere = Machine::new(20, 1, &lab.relay(20, 254)?, "", "1");
    let refused = |machine: &Machine| machine.try_discover(Stage::Firmware, Duration::from_secs(2)).is_none();
    let (here, there) = lab.among_racks(|| {
        let mut addresses = Vec::new();
        for machine in &machines[..4] {
            addresses.push(machine.dhcp(Stage::Firmware)?.address);
        }
        assert!(machines[4..].iter().all(refused));
        Ok((addresses[0], elsewhere.dhcp(Stage::Firmware)?.address))
    })?;

    lab.until("six that wait", || Ok((lab.waiting()?.len() == 7).then_some(())))?;
    let trouble = |machine: &Machine| -> Result<String> {
        let row = lab.waits(&machine.mac())?.unwrap_or_default();
        Ok(row["trouble"].as_str().unwrap_or_default().to_owned())
    };
    for (n, machine) in machines.iter().enumerate() {
        let text = trouble(machine)?;
        assert_eq!(text.contains(FULL), n >= 4, "machine {n}: {text}");
    }
    let status = lab.daemon.json(&["status"])?;
    assert_eq!(
        (
            status["full"][0]["network"].as_str(),
            status["full"][0]["machines"].as_u64()
        ),
        (Some("10.5.40.0/22"), Some(2)),
        "{status}"
    );
    let rows: Vec<String> = status["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|row| row["last_error"].as_str().is_some_and(|text| text.contains(FULL)))
        .filter_map(|row| Some(row["node"].as_str()?.to_owned()))
        .collect();
    assert_eq!(rows, [machines[4].mac(), machines[5].mac()]);
    let text = lab.daemon.cli(&["status"])?;
    let line = text.lines().find(|line| line.starts_with(FULL)).unwrap_or_default();
    assert!(
        line.contains("2 machines get no address") && line.contains("'pool' of [[subnet]] 10.5.40.0/22"),
        "{text}"
    );
    // On the screens of the machines that are affected.
    let full = format!("echo {FULL}: all 4 addresses are leased or in quarantine; 2 machines get no address");
    let screens = || Ok([machines[0].script(here, false)?, elsewhere.script(there, false)?]);
    let [screen, other] = lab.among_racks(screens)?;
    assert!(screen.contains(&full), "{screen}");
    assert!(!other.contains("is full"), "{other}");

    // Each machine that is racked frees an address.
    for (placed, comes, left) in [(0, 4, 1), (1, 5, 0)] {
        let name = format!("r40n{:02}", placed + 1);
        lab.daemon
            .cli(&["discover", "accept", &machines[placed].mac(), &name])?;
        lab.among_racks(|| {
            assert_eq!(machines[placed].walk(|_| ())?.name, name);
            machines[comes].dhcp(Stage::Firmware)
        })?;
        lab.until("room", || {
            let status = lab.daemon.json(&["status"])?;
            let refused = status["full"][0]["machines"].as_u64().unwrap_or(0);
            Ok((refused == left && trouble(&machines[comes])?.is_empty()).then_some(()))
        })?;
    }
    assert!(!lab.daemon.cli(&["status"])?.contains("is full"));
    lab.daemon.stop()
}

/// A machine that waits in its boot loader only fetches its script, and can be racked nevertheless.
#[test]
fn a_removed_machine_waits_again() -> Result {
    const MOST: u8 = 16;
    let lab = Lab::start(u32::from(MOST))?;
    let wire = lab.relay(20, 254)?;
    let machine = |n| Machine::new(20, n, &wire, "", &format!("swp{n}"));
    let first = machine(0);
    let has = lab.among_racks(|| {
        let has = first.dhcp(Stage::Ipxe)?;
        assert!(first.script(has.address, false)?.contains("waiting to be racked"));
        (1..=MOST).try_for_each(|n| machine(n).dhcp(Stage::Ipxe).map(drop))?;
        Ok(has)
    })?;
    lab.until("it being forgotten", || {
        Ok(lab.waits(&first.mac())?.is_none().then_some(()))
    })?;
    assert_eq!(lab.waiting()?.len(), usize::from(MOST));
    let end = Instant::now() + PATIENCE;
    lab.among_racks(|| {
        // The script does so once the daemon may accept another machine.
        while !first.script(has.address, true)?.contains("ifclose\n") {
            assert!(Instant::now() < end, "no script sends it back to DHCP");
        }
        assert_eq!(first.dhcp(Stage::Ipxe)?.address, has.address);
        Ok(())
    })?;
    lab.until("it waiting", || lab.waits(&first.mac()))?;
    lab.daemon.cli(&["discover", "accept", &first.mac(), "r20n09"])?;
    assert_eq!(lab.among_racks(|| first.walk(|_| ()))?.name, "r20n09");
    lab.daemon.stop()
}
