//! The store and the inventory alone: what `cargo xtask bench store` measures.
//!
//! `cargo run --release --example store -- make DIR NODES EVENTS` makes a store of a cluster that is in use, beside the same nodes as
//! a JSON file and as dnsmasq's host lines; `… store -- measure DIR` prints figures of one run, `NAME VALUE` a line.

use arc_swap::ArcSwap;
use rackstrap_base::clock::Timestamp;
use rackstrap_catalog::{Catalog, ImageVersion, Manifest};
use rackstrap_dhcp::{Lease, LeaseState};
use rackstrap_model::{
    decide::{Decision, Requester, World, decide},
    inventory::{Change, Inventory, NewNode, Node, Patch},
};
use rackstrap_registries::{
    Registries,
    boots::Boots,
    nodes::{self, Nodes},
    timeline::{DhcpMessage, Event, EventKind, Level, Recorder, Subject},
};
use rackstrap_site::{self, Site};
use rackstrap_store::{Batch, Staged, Store, Table, backup::Reader};
use rackstrap_wire::{HwAddr, Phase};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    hint::black_box,
    io::{BufReader, Write},
    net::Ipv4Addr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Positions of a rack.
const SLOTS: u32 = 100;
/// For how long each kind of write goes on.
const WRITING: Duration = Duration::from_millis(500);

const SITE: &str = r#"
[cluster]
node-name = "r{rack:03}n{slot:03}"
node-address = "10.5.{rack}.{slot}"
reserved = ["10.5.254.0/24"]

[[subnet]]
network = "10.5.0.0/16"
interface = "eth1"
server = "10.5.254.254"

[profile.default]
image = "debian"
layout = "scratch"

[profile.compute]
kernel-args = "quiet"

[layout.scratch]
version = 1
partition = [{ name = "tmp", size = "rest", fs = "ext4", mount = "/tmp" }]
"#;

fn main() -> Result {
    // A problem of the site file above is shown in full.
    run().map_err(|error| error.to_string().into())
}

fn run() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["make", dir, nodes, events] => make(Path::new(dir), nodes.parse()?, events.parse()?),
        ["measure", dir] => measure(Path::new(dir)),
        _ => Err("what shall it do? usage: store make DIR NODES EVENTS, then: store measure DIR".into()),
    }
}

fn say(name: &str, value: f64) {
    println!("{name} {value}");
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn site() -> Result<Site> {
    Ok(rackstrap_site::parse(SITE, Path::new("/site.toml"))?.0)
}

fn images() -> Result<Catalog> {
    let manifest = Manifest::bare("debian@1".parse()?);
    let dir = "/images/debian/1".into();
    Ok(Catalog::new([ImageVersion::new(manifest, dir)]))
}

fn name(n: u32) -> String {
    format!("r{:03}n{:03}", 1 + n / SLOTS, 1 + n % SLOTS)
}

fn hwaddr(n: u32) -> HwAddr {
    let [_, a, b, c] = n.to_be_bytes();
    HwAddr([0x52, 0x54, 0, a, b, c])
}

fn world(inventory: Inventory) -> Result<World> {
    Ok(World {
        site: Arc::new(site()?),
        inventory: Arc::new(inventory),
        images: Arc::new(images()?),
        assignments: Arc::default(),
        confirmed: None,
    })
}

/// What a file of the plain kind says of a node.
#[derive(Serialize, Deserialize)]
struct Host {
    name: String,
    hwaddrs: Vec<HwAddr>,
    ipaddr: Ipv4Addr,
    profiles: Vec<String>,
}

fn make(dir: &Path, nodes: u32, events: u32) -> Result {
    let store = Store::open(&dir.join("made.redb"))?;
    let registries = Registries::load(store.clone(), world(Inventory::default())?, Timestamp::now())?;
    let new = |n| {
        Change::Add(NewNode {
            name: name(n),
            hwaddrs: vec![hwaddr(n)],
            profiles: vec!["compute".into()],
            groups: BTreeSet::from(["new".to_owned()]),
            attributes: Default::default(),
            settings: Default::default(),
        })
    };
    let changes: Vec<Change> = (0..nodes).map(new).collect();
    let begin = Instant::now();
    registries.nodes.change(&changes, "a benchmark", Timestamp::now())?;
    say("add-all-ms", millis(begin));
    let world = registries.world.load();
    let (boots, recorder) = (&registries.boots, &registries.recorder);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut opening = tokio::task::JoinSet::new();
        for n in 0..nodes {
            let Decision::Node(decided) = decide(&world, &by_hwaddr(n)) else {
                continue;
            };
            let (boots, site) = (boots.clone(), world.site.clone());
            opening.spawn(async move {
                let plan = |id: &str| decided.plan(&site, hwaddr(n), id).expect("it can boot");
                boots.open(Timestamp::now(), plan).await.map(drop)
            });
        }
        while let Some(opened) = opening.join_next().await {
            opened??;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    for event in 0..events {
        for n in 0..nodes {
            let kind = match event % 5 {
                0 => EventKind::Dhcp(DhcpMessage::Discover),
                1 => EventKind::Script,
                2 => EventKind::Kernel,
                3 => EventKind::Agent(Phase::Network),
                _ => EventKind::Agent(Phase::Disk),
            };
            let detail = format!("step {event} of the boot of {}, with the words that one has", name(n));
            let event = Event::new(Timestamp::now(), kind, Level::Ok, detail).of_boot("abcdefghijkm");
            recorder.record(Subject::Node(name(n)), event);
            if n % 1_000 == 0 {
                store.flush()?;
            }
        }
    }
    store.flush()?;
    let hosts: Vec<Host> = world.inventory.iter().map(|node| host(node)).collect();
    fs::write(dir.join("nodes.json"), serde_json::to_vec_pretty(&hosts)?)?;
    let lines = hosts
        .iter()
        .map(|h| format!("{},{},{}\n", h.hwaddrs[0], h.ipaddr, h.name));
    fs::write(dir.join("dhcp-hosts"), lines.collect::<String>())?;
    say("dropped", store.dropped() as f64);
    Ok(())
}

fn host(node: &Node) -> Host {
    Host {
        name: node.name.clone(),
        hwaddrs: node.hwaddrs.clone(),
        ipaddr: node.ipaddr,
        profiles: node.profiles.clone(),
    }
}

fn recorder(store: &Store) -> Result<Recorder> {
    Ok(Recorder::load(store.clone(), site()?.limits, Timestamp::now())?)
}

fn by_hwaddr(n: u32) -> Requester {
    Requester {
        hwaddr: Some(hwaddr(n)),
        ..Requester::default()
    }
}

fn measure(dir: &Path) -> Result {
    let path = dir.join("measured.redb");
    fs::copy(dir.join("made.redb"), &path)?;
    let begin = Instant::now();
    let store = Store::open(&path)?;
    say("open-ms", millis(begin));
    let nodes = nodes::load(&store)?;
    let inventory = Inventory::new(nodes);
    say("load-ms", millis(begin));
    let count = u32::try_from(inventory.len())?;
    let boots = Boots::load(store.clone())?;
    let recorder = recorder(&store)?;
    say("load-all-ms", millis(begin));
    black_box((&boots, &recorder));
    let world = world(inventory)?;
    decisions(&world, count);
    writes(&store, world)?;
    disk(dir)?;
    json(dir, count)?;
    backups(&store, dir)?;
    drop((boots, recorder, store));
    fs::remove_file(path)?;
    Ok(())
}

/// Nodes in an order that no cache foresees.
fn shuffled(count: u32) -> impl Iterator<Item = u32> {
    // A full cycle: 7,919 is a prime that does not divide the count.
    (0..u64::from(count)).map(move |i| (i * 7_919 % u64::from(count)) as u32)
}

fn decisions(world: &World, count: u32) {
    let mut times: Vec<f64> = shuffled(count)
        .map(|n| {
            let begin = Instant::now();
            black_box(decide(world, &by_hwaddr(n)));
            begin.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    say("decide-median-us", times[times.len() / 2]);
    say("decide-p99-us", times[times.len() * 99 / 100]);
}

fn writes(store: &Store, world: World) -> Result {
    let count = u32::try_from(world.inventory.len())?;
    let keeper = Nodes::new(store.clone(), Arc::new(ArcSwap::from_pointee(world)));
    let rate = per_second(|n| {
        let patch = Patch {
            join: BTreeSet::from([format!("g{n}")]),
            ..Patch::default()
        };
        let name = name(n * 7_919 % count);
        keeper.change(&[Change::Set { name, patch }], "a benchmark", Timestamp::now())?;
        Ok(())
    })?;
    say("changes-per-s", rate);
    say(
        "lease-alone-per-s",
        per_second(|n| Ok(store.commit_blocking(lease(n))?))?,
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for waiting in [64, 1024] {
        let begin = Instant::now();
        let done: u32 = runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..waiting {
                let store = store.clone();
                tasks.spawn(async move {
                    let mut done = 0;
                    while begin.elapsed() < WRITING {
                        store
                            .commit(lease(task * 1_000 + done))
                            .await
                            .expect("it can be written");
                        done += 1;
                    }
                    done
                });
            }
            tasks.join_all().await.into_iter().sum()
        });
        say(
            &format!("lease-of-{waiting}-per-s"),
            f64::from(done) / begin.elapsed().as_secs_f64(),
        );
    }
    Ok(())
}

fn lease(n: u32) -> Batch {
    let ipaddr = Ipv4Addr::from(0x0a05_ff00 + n % 254);
    let lease = Lease {
        ipaddr,
        hwaddr: hwaddr(n),
        uuid: None,
        state: LeaseState::Bound,
        since: Timestamp::now(),
        expires: Timestamp::now().plus_secs(120),
        granted: Timestamp(0),
    };
    Batch::new().put(Table::Leases, ipaddr.octets(), &lease)
}

fn per_second(mut work: impl FnMut(u32) -> Result) -> Result<f64> {
    let begin = Instant::now();
    let mut done = 0;
    while begin.elapsed() < WRITING {
        work(done)?;
        done += 1;
    }
    Ok(f64::from(done) / begin.elapsed().as_secs_f64())
}

/// What the disk gives: a page written and synced, again and again.
fn disk(dir: &Path) -> Result {
    use std::os::unix::fs::FileExt;
    let path = dir.join("page");
    let file = File::create(&path)?;
    file.write_all_at(&[7; 4096], 0)?;
    let rate = per_second(|n| {
        file.write_all_at(&[n as u8; 4096], 0)?;
        Ok(file.sync_data()?)
    })?;
    say("disk-syncs-per-s", rate);
    Ok(fs::remove_file(path)?)
}

/// The same nodes in a file that is read whole and written whole.
fn json(dir: &Path, count: u32) -> Result {
    let path = dir.join("nodes.json");
    let begin = Instant::now();
    let mut hosts: Vec<Host> = serde_json::from_slice(&fs::read(&path)?)?;
    let by_hwaddr: HashMap<HwAddr, usize> = (0..).zip(&hosts).map(|(at, host)| (host.hwaddrs[0], at)).collect();
    say("json-load-ms", millis(begin));
    assert_eq!(by_hwaddr.len(), count as usize);
    let fresh = dir.join("nodes.json.new");
    let rate = per_second(|n| {
        hosts[(n * 7_919 % count) as usize].profiles = vec![format!("p{n}")];
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(&hosts)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        Ok(File::open(dir)?.sync_all()?)
    })?;
    say("json-changes-per-s", rate);
    Ok(())
}

fn backups(store: &Store, dir: &Path) -> Result {
    let path = dir.join("a.backup");
    let begin = Instant::now();
    let file = File::create(&path)?;
    store.back_up("bench", Timestamp::now(), &file)?;
    file.sync_all()?;
    say("backup-ms", millis(begin));
    say("backup-mb", path.metadata()?.len() as f64 / 1e6);
    let begin = Instant::now();
    let target = dir.join("restored.redb");
    let staged = Staged::write(&mut Reader::new(BufReader::new(File::open(&path)?))?, &target, || {})?;
    staged.put_in_place("now")?;
    say("restore-ms", millis(begin));
    fs::remove_file(target)?;
    Ok(fs::remove_file(path)?)
}
