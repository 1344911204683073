//! `kill -9` at any moment loses nothing that the daemon has confirmed.

use super::dhcp::lab::message;
use crate::backup::{Lab, add, name};
use rackstrap::parts::control::{Client, api};
use rackstrap_model::inventory::{Entry, Node};
use rackstrap_store::{Table, backup::Reader};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::BufReader,
    net::UdpSocket,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use testbed::{
    Namespace, Result,
    played::{TO_ALL, client_socket, option},
};

const ROUNDS: u32 = 20;
/// The number of nodes in one change.
const TOGETHER: u32 = 3;
/// The first number of each administrator's nodes.
const ADMINISTRATORS: [u32; 2] = [0, 5_000];
/// The largest number of leases of a round: the pool has 254 addresses.
const LEASES: u8 = 12;
/// The limit of every wait. It is long as the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that was confirmed so far.
#[derive(Default)]
struct Confirmed {
    nodes: BTreeSet<u32>,
    /// The last byte of the address, which is also the last of the machine's hardware address.
    leases: BTreeSet<u8>,
}

impl Confirmed {
    fn counts(&self) -> (usize, usize) {
        (self.nodes.len(), self.leases.len())
    }
}

/// The content of the daemon's store.
struct Found {
    nodes: BTreeSet<String>,
    history: Vec<String>,
    /// Machines by address.
    leases: BTreeMap<Vec<u8>, String>,
}

fn found(client: &Client) -> Result<Found> {
    let mut reader = Reader::new(BufReader::new(client.stream(api::paths::BACKUP)?))?;
    let mut found = Found {
        nodes: BTreeSet::new(),
        history: Vec::new(),
        leases: BTreeMap::new(),
    };
    let mut last = None;
    while let Some(row) = reader.next_row()? {
        match row.table {
            Table::Nodes => {
                let node: Node = serde_json::from_slice(row.value)?;
                found.nodes.insert(node.name);
            }
            Table::History => {
                let entry: Entry = serde_json::from_slice(row.value)?;
                assert_eq!((entry.by.as_str(), entry.changed.before.is_none()), ("root", true));
                found.history.push(entry.changed.after.unwrap().name);
            }
            Table::Leases => {
                let lease: serde_json::Value = serde_json::from_slice(row.value)?;
                let hwaddr = lease["hwaddr"].as_str().unwrap_or_default().to_owned();
                found.leases.insert(row.key.to_vec(), hwaddr);
            }
            Table::Meta if row.key == b"history" => last = Some(serde_json::from_slice::<usize>(row.value)?),
            _ => {}
        }
    }
    assert_eq!(
        last.unwrap_or_default(),
        found.history.len(),
        "entries of the history have no gaps"
    );
    Ok(found)
}

/// Adds nodes from number `first` until the daemon is gone.
fn administer(client: &Client, first: u32, confirmed: &Mutex<Confirmed>) {
    for first in (first..).step_by(TOGETHER as usize) {
        if add(client, first, TOGETHER).is_err() {
            return;
        }
        confirmed.lock().unwrap().nodes.extend(first..first + TOGETHER);
    }
}

/// Requests leases from number `first`, with repetition, until the daemon is gone.
fn boot(socket: &UdpSocket, first: u8, confirmed: &Mutex<Confirmed>, over: &AtomicBool) {
    for number in first..first + LEASES {
        let request = message(3, number.into(), &[54, 4, 10, 5, 0, 1, 50, 4, 10, 5, 255, number]);
        let mut answer = [0; 2000];
        loop {
            if over.load(Ordering::SeqCst) {
                return;
            }
            socket.send_to(&request, TO_ALL).unwrap();
            let Ok(length) = socket.recv(&mut answer) else { continue };
            // An ACK (RFC 2132 section 9.6).
            if option(&answer[..length], 53) == Some(vec![5]) && answer[6..8] == [0, number] {
                assert_eq!(answer[16..20], [10, 5, 255, number]);
                confirmed.lock().unwrap().leases.insert(number);
                break;
            }
        }
    }
}

fn socket(client: &Namespace) -> Result<UdpSocket> {
    client.inside(|| {
        let socket = client_socket("eth0")?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(socket)
    })?
}

fn check(client: &Client, confirmed: &Confirmed) -> Result {
    let found = found(client)?;
    for n in &confirmed.nodes {
        assert!(
            found.nodes.contains(&name(*n)),
            "{} was confirmed and is gone",
            name(*n)
        );
    }
    for number in &confirmed.leases {
        let holder = found.leases.get(&[10, 5, 255, *number][..]);
        let machine = format!("52:54:00:09:00:{number:02x}");
        assert_eq!(holder, Some(&machine), "the lease of 10.5.255.{number}");
    }
    let history: BTreeSet<String> = found.history.iter().cloned().collect();
    assert_eq!(history.len(), found.history.len(), "something happened twice");
    assert!(history == found.nodes, "nodes and history differ");
    for first in ADMINISTRATORS {
        let present = |n: &u32| found.nodes.contains(&name(*n));
        let count = (first..first + 5_000).take_while(present).count() as u32;
        assert_eq!(count % TOGETHER, 0, "half a change: {}", name(first + count));
    }
    // The daemon's answers match the store.
    let nodes: Vec<Node> = client.get(api::paths::NODES)?;
    let nodes: BTreeSet<String> = nodes.into_iter().map(|node| node.name).collect();
    assert!(nodes == found.nodes, "the daemon's memory and its store differ");
    Ok(())
}

#[test]
fn kill_9_loses_no_confirmed_change() -> Result {
    let lab = Lab::new()?;
    let machine = lab.namespace.client("52:54:00:09:00:00")?;
    let socket = socket(&machine)?;
    let confirmed = Mutex::new(Confirmed::default());
    lab.daemon.start(&lab.namespace)?;
    for round in 0..ROUNDS {
        let clients = [lab.client()?, lab.client()?];
        let nodes: Vec<Node> = clients[0].get(api::paths::NODES)?;
        let names: BTreeSet<String> = nodes.into_iter().map(|node| node.name).collect();
        let over = AtomicBool::new(false);
        let before = confirmed.lock().unwrap().counts();
        thread::scope(|scope| {
            for (client, first) in clients.into_iter().zip(ADMINISTRATORS) {
                // A change that was not confirmed may have been stored nevertheless.
                let next = (first..).find(|n| !names.contains(&name(*n))).unwrap();
                let confirmed = &confirmed;
                scope.spawn(move || administer(&client, next, confirmed));
            }
            let first = 1 + round as u8 * LEASES;
            let (socket, confirmed, over) = (&socket, &confirmed, &over);
            scope.spawn(move || boot(socket, first, confirmed, over));
            // Once one of each kind was confirmed, the daemon is killed at any moment up to 131 ms later.
            let end = Instant::now() + PATIENCE;
            let more = || {
                let now = confirmed.lock().unwrap().counts();
                now.0 > before.0 && now.1 > before.1
            };
            while !more() && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_micros(u64::from(rand::random::<u16>()) * 2));
            lab.daemon.kill();
            over.store(true, Ordering::SeqCst);
            assert!(more(), "nothing is confirmed any more:\n{}", lab.daemon.log_tail(10));
        });
        lab.daemon.start(&lab.namespace)?;
        check(&lab.client()?, &confirmed.lock().unwrap())?;
    }
    let (nodes, leases) = confirmed.into_inner().unwrap().counts();
    eprintln!("{nodes} nodes and {leases} leases were confirmed");
    lab.daemon.stop()
}
