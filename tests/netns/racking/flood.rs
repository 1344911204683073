//! DHCP requests from tens of thousands of invented hardware addresses.

use super::lab::Lab;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use testbed::{
    Result,
    played::{Machine, Stage, next_xid},
};

/// The number of DISCOVERs, each from another hardware address.
const FLOOD: u32 = 20_000;
/// The largest number of them at once, followed by a pause: some 4,000 a second.
const BURST: u32 = 40;
const PAUSE: Duration = Duration::from_millis(10);
/// `[limits] unknown-machines`
const MOST: u32 = 256;
/// The memory that the flood may cost, in bytes: as many machines and timelines as the limit allows, queues and receive
/// buffers.
const MEMORY: u64 = 96 << 20;

#[test]
fn a_flood_of_hardware_addresses_affects_no_known_machine() -> Result {
    let lab = Lab::start(MOST)?;
    let wires = [lab.relay(20, 254)?, lab.local()?];
    // Nodes on both networks, machines that wait with an address, and one that asked once only.
    let mut nodes = Vec::new();
    for n in 1..=5 {
        for (rack, wire) in [20, 1].into_iter().zip(&wires) {
            let node = Machine::new(rack, n, wire, "", "");
            let name = format!("r{rack:02}n{n:02}");
            lab.daemon.cli(&["node", "add", &name, "--hwaddr", &node.mac()])?;
            nodes.push((name, node));
        }
    }
    let waits = [20, 1].map(|rack| Machine::new(rack, 100, &wires[usize::from(rack == 1)], "", ""));
    let silent = Machine::new(20, 101, &wires[0], "", "");
    let addresses = lab.among_racks(|| {
        silent.discover(Stage::Firmware)?;
        let mut addresses = Vec::new();
        for machine in &waits {
            addresses.push(machine.dhcp(Stage::Firmware)?.address);
        }
        Ok(addresses)
    })?;
    lab.until("three that wait", || Ok((lab.waiting()?.len() == 3).then_some(())))?;
    lab.daemon.cli(&["discover", "start", "r20", "--detach"])?;
    let before = lab.daemon.resident_bytes()?;

    let (over, began) = (AtomicBool::new(false), Instant::now());
    let racked = Machine::new(20, 102, &wires[0], "", "");
    let (asked, slowest, took) = lab.among_racks(|| {
        thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let flooded = (0..FLOOD).try_for_each(|n| {
                    let wire = &wires[(n % 2) as usize];
                    let [a, b, c, d] = n.to_be_bytes();
                    let mut machine = Machine::new(0, 0, wire, "", "");
                    machine.hwaddr = [0x06, 0xf1, a, b, c, d];
                    // At the speed of a network, which is slower than this machine can send.
                    if n % BURST == 0 {
                        thread::sleep(PAUSE);
                    }
                    machine.uuid = uuid::Uuid::from_u128(u128::from(n) << 64 | 0x4000_8000_0000_0000_0001);
                    wire.send(&machine.packet(next_xid(), Stage::Firmware, 1, &[]))
                });
                over.store(true, Ordering::SeqCst);
                flooded.map(|()| began.elapsed())
            });
            // A machine that is racked during the flood. Some of its packets may be dropped.
            let honest = scope.spawn(|| {
                racked.dhcp(Stage::Firmware)?;
                racked.walk(|_| ())
            });
            let (mut asked, mut slowest) = (0, Duration::ZERO);
            while !over.load(Ordering::SeqCst) || asked == 0 {
                for (name, node) in &nodes {
                    let begun = Instant::now();
                    // This fails if no answer arrives in spite of repetition.
                    let ack = node.dhcp(Stage::Firmware)?;
                    assert_eq!(&ack.host_name, name);
                    slowest = slowest.max(begun.elapsed());
                    asked += 1;
                }
            }
            let took = flood.join().expect("the flood")?;
            // r20n01 to r20n05 are the nodes above.
            assert_eq!(honest.join().expect("the machine that is racked")?.name, "r20n06");
            Ok((asked, slowest, took))
        })
    })?;

    let list = lab.daemon.json(&["discover", "list"])?;
    let machines: BTreeSet<String> = list["machines"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| Some(row["machine"]["hwaddr"].as_str()?.to_owned()))
        .collect();
    assert!(machines.len() <= MOST as usize, "{} machines wait", machines.len());
    for machine in &waits {
        assert!(
            machines.contains(&machine.mac()),
            "{} took an address, and is forgotten",
            machine.mac()
        );
    }
    assert!(
        !machines.contains(&silent.mac()),
        "the oldest that took no address is still there"
    );
    lab.among_racks(|| {
        for (machine, address) in waits.iter().zip(&addresses) {
            assert_eq!(machine.dhcp(Stage::Ipxe)?.address, *address);
        }
        Ok(())
    })?;
    assert_eq!(lab.nodes()?.len(), nodes.len() + 1);
    let after = lab.daemon.resident_bytes()?;
    let counters = lab.daemon.json(&["counters"])?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "flood: {FLOOD} DISCOVERs in {took:.1?} ({:.0}/s), {} offers, {} crowded out; {asked} exchanges of known nodes, all \
         answered, the slowest in {slowest:.1?}; not looked at by discovery: {}; writes dropped: {}; VmRSS {:.1} -> {:.1} MiB",
        f64::from(FLOOD) / took.as_secs_f64(),
        counters["dhcp offer"],
        counters["dhcp crowded-out"],
        list["dropped"],
        counters["store writes dropped"],
        mib(before),
        mib(after)
    );
    assert!(after < before + MEMORY, "from {before} to {after} bytes");
    lab.daemon.stop()
}
