//! Filling racks, with a whole daemon and simulated machines: many at once, through relays, across restarts, in a flood, and
//! with faults.

#[path = "racking/flood.rs"]
mod flood;
#[path = "racking/full.rs"]
mod full;
#[path = "racking/infiniband.rs"]
mod infiniband;
#[path = "racking/lab.rs"]
mod lab;
#[path = "racking/twins.rs"]
mod twins;

use lab::Lab;
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    thread,
};
use testbed::{
    Result,
    played::{Booted, Machine, Stage, Wire},
};

/// A rack that is filled, and its criterion for machines.
struct Rack {
    number: u8,
    machines: Vec<Machine>,
    /// Arguments of `discover start` after its name.
    told_by: Vec<&'static str>,
    /// The first position.
    first: u8,
}

impl Rack {
    fn new(
        number: u8,
        count: u8,
        wire: &Arc<Wire>,
        told_by: &[&'static str],
        place: impl Fn(u8) -> (String, String),
    ) -> Rack {
        let machine = |n| {
            let (switch, port) = place(n);
            Machine::new(number, n, wire, &switch, &port)
        };
        Rack {
            number,
            machines: (0..count).map(machine).collect(),
            told_by: told_by.to_vec(),
            first: 1,
        }
    }

    fn start(&self, lab: &Lab, more: &[&str]) -> Result<String> {
        let name = format!("r{:02}", self.number);
        let begin = ["discover", "start", &name, "--detach"];
        lab.daemon.cli(&[&begin, &self.told_by[..], more].concat())
    }

    /// The node that machine `n`, from 0, must become.
    fn expected(&self, n: usize) -> Booted {
        let slot = self.first + n as u8;
        Booted {
            name: format!("r{:02}n{slot:02}", self.number),
            address: Ipv4Addr::new(10, 5, self.number, slot),
        }
    }
}

/// The addresses that each machine got, temporary ones and nodes'.
type Given = Mutex<BTreeMap<String, Vec<Ipv4Addr>>>;

fn note(given: &Given, machine: &Machine, address: Ipv4Addr) {
    let mut given = given.lock().unwrap();
    let addresses = given.entry(machine.mac()).or_default();
    if !addresses.contains(&address) {
        addresses.push(address);
    }
}

/// Runs `f` for all racks at once; returns the first failure.
fn side_by_side(racks: &[Rack], f: impl Fn(&Rack) -> Result + Sync) -> Result {
    thread::scope(|scope| {
        let threads: Vec<_> = racks.iter().map(|rack| scope.spawn(|| f(rack))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Firmware sends DHCP, then iPXE, then iPXE's first script is fetched: the machine waits now.
fn comes_to_wait(machine: &Machine, given: &Given) -> Result {
    for stage in [Stage::Firmware, Stage::Ipxe] {
        note(given, machine, machine.dhcp(stage)?.address);
    }
    let address = given.lock().unwrap()[&machine.mac()][0];
    let script = machine.script(address, false)?;
    let said = format!("unknown machine {} - waiting to be racked", machine.mac());
    anyhow::ensure!(script.contains(&said), "{script}");
    Ok(())
}

#[test]
fn five_hundred_machines_rack_themselves_into_five_racks_at_once() -> Result {
    const EACH: u8 = 100;
    const HALF: usize = EACH as usize / 2;
    let lab = Lab::start(1024)?;
    let nobody = String::new;
    let (alone, shared, ports) = (lab.relay(20, 254)?, lab.relay(24, 254)?, lab.relay(28, 254)?);
    // The racks differ by subnet, by switch, and by the ports of one switch.
    let racks = [
        Rack::new(20, EACH, &alone, &[], |n| (nobody(), format!("swp{n}"))),
        Rack::new(24, EACH, &shared, &["--switch", "sw24"], |n| {
            ("sw24".into(), format!("Gi1/0/{n}"))
        }),
        Rack::new(25, EACH, &shared, &["--switch", "sw25"], |n| {
            ("sw25".into(), format!("Gi1/0/{n}"))
        }),
        Rack::new(28, EACH, &ports, &["--port", "1/"], |n| {
            ("sw28".into(), format!("1/{n}"))
        }),
        Rack::new(29, EACH, &ports, &["--port", "2/"], |n| {
            ("sw28".into(), format!("2/{n}"))
        }),
    ];
    // By the relay; the rack has three positions for five machines. The last machine is behind another relay.
    let mut small = Rack::new(
        32,
        5,
        &lab.relay(32, 253)?,
        &["--relay", "10.5.35.253", "--from", "n252"],
        |n| (nobody(), format!("swp{n}")),
    );
    small.first = 252;
    let elsewhere = Machine::new(32, 99, &lab.relay(32, 254)?, "", "swp1");

    // The first half arrives before the racks are started.
    let given = Given::default();
    lab.among_racks(|| {
        side_by_side(&racks, |rack| {
            rack.machines[..HALF]
                .iter()
                .try_for_each(|machine| comes_to_wait(machine, &given))
        })
    })?;
    for (machine, addresses) in &*given.lock().unwrap() {
        assert_eq!(
            addresses.len(),
            1,
            "{machine} has several temporary addresses: {addresses:?}"
        );
    }
    let leases = lab.daemon.json(&["lease", "list"])?;
    assert_eq!(leases.as_array().map(Vec::len), Some(racks.len() * HALF), "{leases}");
    for rack in &racks {
        rack.start(&lab, &["--waiting-too"])?;
    }
    small.start(&lab, &[])?;

    // The second half arrives while the racks fill, and all boot.
    lab.among_racks(|| {
        side_by_side(&racks, |rack| {
            let (waits, boots_on) = std::sync::mpsc::channel();
            thread::scope(|scope| {
                let walker = scope.spawn(|| {
                    for (n, machine) in boots_on {
                        let machine: &Machine = machine;
                        let booted = machine.walk(|reply| note(&given, machine, reply.address))?;
                        anyhow::ensure!(
                            booted == rack.expected(n),
                            "machine {n} of rack {}: {booted:?}",
                            rack.number
                        );
                    }
                    Ok(())
                });
                for (n, machine) in rack.machines.iter().enumerate() {
                    if n >= HALF {
                        note(&given, machine, machine.dhcp(Stage::Firmware)?.address);
                    }
                    // After a failure no machine goes on; the end of the test reports it.
                    if waits.send((n, machine)).is_err() {
                        break;
                    }
                }
                drop(waits);
                walker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
        for machine in small.machines.iter().chain([&elsewhere]) {
            machine.dhcp(Stage::Firmware)?;
        }
        for (n, machine) in small.machines.iter().enumerate().take(3) {
            assert_eq!(machine.walk(|_| ())?, small.expected(n));
        }
        Ok(())
    })?;

    let nodes = lab.nodes()?;
    for rack in &racks {
        for (n, machine) in rack.machines.iter().enumerate() {
            let (mac, expected) = (machine.mac(), rack.expected(n));
            assert_eq!(nodes.get(&mac), Some(&expected.name), "{mac}");
            let mut temporary = given.lock().unwrap()[&mac].clone();
            temporary.retain(|address| *address != expected.address);
            assert!(temporary.len() <= 1, "{mac} had {temporary:?}");
            assert!(temporary.iter().all(|a| a.octets()[2] == rack.number / 4 * 4 + 2));
        }
    }
    assert_eq!(nodes.len(), 5 * usize::from(EACH) + 3);

    // Three have a position. The others wait with the reason, and the one behind another relay does not belong to this rack.
    let waiting = lab.waiting()?;
    let rows: BTreeMap<&str, &serde_json::Value> = waiting
        .iter()
        .map(|row| (row["machine"]["hwaddr"].as_str().unwrap_or_default(), row))
        .collect();
    assert_eq!(rows.len(), 3, "{waiting:?}");
    for machine in &small.machines[3..] {
        let row = rows[machine.mac().as_str()];
        assert_eq!(
            (row["rack"].as_str(), row["trouble"].as_str()),
            (Some("r32"), Some("rack r32 is full"))
        );
    }
    let row = rows[elsewhere.mac().as_str()];
    assert_eq!((row["rack"].as_str(), row["trouble"].as_str()), (Some(""), Some("")));
    let text = lab.daemon.cli(&["discover", "list"])?;
    assert!(
        text.contains("rack r32 is being filled; next: none, it is full"),
        "{text}"
    );
    lab.daemon.stop()
}

/// After a restart no position is lost, and the racks go on filling.
#[test]
fn racks_continue_to_fill_after_kill_9() -> Result {
    let lab = Lab::start(1024)?;
    let wire = lab.relay(24, 254)?;
    let place = |switch: &'static str| move |n| (switch.to_owned(), format!("Gi1/0/{n}"));
    let filled = Rack::new(24, 10, &wire, &["--switch", "sw24"], place("sw24"));
    let asked = Rack::new(25, 10, &wire, &["--switch", "sw25"], place("sw25"));
    filled.start(&lab, &["--profile", "default", "--group", "new"])?;
    asked.start(&lab, &["--confirm"])?;
    let accept = |machine: &Machine| lab.daemon.cli(&["discover", "accept", &machine.mac()]);
    let order = || -> Result<Vec<String>> {
        let waiting = lab.waiting()?;
        let rows = waiting.iter().filter(|row| row["rack"] == "r25");
        Ok(rows
            .filter_map(|row| Some(row["machine"]["hwaddr"].as_str()?.to_owned()))
            .collect())
    };
    let macs = |range: std::ops::Range<usize>| asked.machines[range].iter().map(Machine::mac).collect::<Vec<_>>();

    lab.among_racks(|| {
        asked.machines[..5]
            .iter()
            .try_for_each(|m| m.dhcp(Stage::Firmware).map(drop))
    })?;
    lab.until("five that wait", || Ok((order()?.len() == 5).then_some(())))?;
    for machine in &asked.machines[..2] {
        accept(machine)?;
    }
    // They wait without the daemon being asked: unrequested changes are stored within a fraction of a second.
    thread::sleep(std::time::Duration::from_secs(1));
    lab.among_racks(|| {
        filled.machines[..5]
            .iter()
            .try_for_each(|m| m.dhcp(Stage::Firmware).map(drop))
    })?;
    let before = lab.until("three nodes", || {
        let mut nodes = lab.nodes()?;
        nodes.retain(|_, name| name.starts_with("r24"));
        Ok((nodes.len() >= 3).then_some(nodes))
    })?;
    lab.daemon.kill();
    lab.start_daemon()?;

    let after = lab.nodes()?;
    for (mac, name) in &before {
        assert_eq!(after.get(mac), Some(name), "{mac} was a node");
    }
    for (n, machine) in asked.machines[..2].iter().enumerate() {
        assert_eq!(after.get(&machine.mac()), Some(&asked.expected(n).name));
    }
    assert_eq!(order()?, macs(2..5), "who waits for your confirmation, in their order");
    lab.among_racks(|| {
        // All machines ask again, and new ones arrive.
        for (n, machine) in filled.machines.iter().enumerate() {
            machine.dhcp(Stage::Firmware)?;
            assert_eq!(machine.walk(|_| ())?, filled.expected(n));
        }
        asked.machines[2..]
            .iter()
            .try_for_each(|m| m.dhcp(Stage::Firmware).map(drop))
    })?;
    lab.until("eight that wait", || Ok((order()? == macs(2..10)).then_some(())))?;
    for (n, machine) in asked.machines.iter().enumerate().skip(2) {
        assert!(accept(machine)?.contains(&format!("is {} now", asked.expected(n).name)));
    }
    assert_eq!(lab.nodes()?.len(), 20);
    let undone = lab.daemon.cli(&["discover", "undo", "r25"])?;
    assert!(undone.contains("is no longer r25n10 and waits"), "{undone}");
    lab.daemon.stop()
}
