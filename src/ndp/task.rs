//! Sockets: one an interface, for packets that the kernel has filtered.

use super::{Bucket, Counters, Ignored, answer, own_address};
use crate::{
    link::{IPV6, LinkSocket},
    rare::Rare,
};
use rackstrap_wire::HwAddr;
use rustix::net::netdevice::name_to_index;
use socket2::{Domain, SockFilter, Socket, Type};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv6Addr,
    sync::Arc,
    time::Duration,
};
use tokio::{io::unix::AsyncFd, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// How often the site is looked at for interfaces that came or went.
const WATCH: Duration = Duration::from_secs(2);
/// Longest packet that is looked at, bytes: a solicitation has 48 to 64.
const LONGEST: usize = 1500;
/// Packets taken from a socket before other tasks get a turn.
const BATCH: usize = 64;
/// All routers of a link, ff02::2, and its hardware address (RFC 2464 section 7).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_ROUTERS_FRAME: HwAddr = HwAddr([0x33, 0x33, 0, 0, 0, 2]);

/// Says on which interfaces solicitations are answered now; none if the site does not want it.
pub type Interfaces = Box<dyn Fn() -> BTreeSet<String> + Send + Sync>;

/// Next header 58 (ICMPv6) and type 133; nothing else is copied to us.
fn filter() -> [SockFilter; 6] {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 6),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, 40),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 133),
        SockFilter::new(RETURN, 0, 0, LONGEST as u32),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Answers on the interfaces that `wanted` names, until `cancel`. What cannot be opened is told once, and tried again.
///
/// # Errors
/// None: boots are slower without this, and nothing else.
pub async fn serve(wanted: Interfaces, counters: Arc<Counters>, cancel: CancellationToken) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    let mut open: BTreeMap<String, (u32, CancellationToken)> = BTreeMap::new();
    let mut complained = BTreeSet::new();
    let mut watch = tokio::time::interval(WATCH);
    watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            _ = watch.tick() => {}
            Some(_) = tasks.join_next() => continue,
        }
        let wanted = wanted();
        open.retain(|name, (index, stop)| {
            // An interface that was made again under its old name has another index, and the old socket is deaf.
            let keep = wanted.contains(name) && interface_index(name).is_ok_and(|now| now == *index);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for name in wanted {
            if open.contains_key(&name) {
                continue;
            }
            match Interface::open(&name) {
                Ok(interface) => {
                    complained.remove(&name);
                    let stop = cancel.child_token();
                    open.insert(name, (interface.index, stop.clone()));
                    let counters = counters.clone();
                    tasks.spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = interface.answer(&counters) => {}
                        }
                    });
                }
                Err(error) if complained.insert(name.clone()) => tracing::warn!(
                    "IPv6 router solicitations on {name} are not answered: {error}; boot loaders wait 15 s for a router there"
                ),
                Err(_) => {}
            }
        }
    }
    tasks.shutdown().await;
    Ok(())
}

fn interface_index(name: &str) -> io::Result<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    Ok(name_to_index(&socket, name)?)
}

struct Interface {
    name: String,
    index: u32,
    link: AsyncFd<LinkSocket>,
    own: Ipv6Addr,
    /// Keeps this machine in the group, for switches that pass frames of groups on to members only.
    _member: Option<Socket>,
}

impl Interface {
    fn open(name: &str) -> io::Result<Self> {
        let index = interface_index(name)?;
        let link = LinkSocket::receiver(index, IPV6, &filter())?;
        link.join(ALL_ROUTERS_FRAME)?;
        let own = own_address(link.own_hwaddr()?);
        Ok(Interface {
            name: name.to_owned(),
            index,
            link: link.into_async()?,
            own,
            // Fails where IPv6 is switched off, and is not needed where switches do not look.
            _member: member(index).ok(),
        })
    }

    /// Answers, for ever.
    async fn answer(&self, counters: &Counters) {
        let started = Instant::now();
        let mut bucket = Bucket::new(0);
        let mut buffer = [0; LONGEST];
        let troubles = Rare::default();
        loop {
            let mut result = Ok(());
            match self.link.readable().await {
                Ok(mut ready) => {
                    for _ in 0..BATCH {
                        match ready.try_io(|link| link.get_ref().receive(&mut buffer)) {
                            Ok(Ok((length, from))) => {
                                let now = started.elapsed().as_millis() as u64;
                                self.packet(&buffer[..length], from, &mut bucket, now, counters);
                            }
                            Ok(Err(error)) => {
                                result = Err(error);
                                break;
                            }
                            Err(_would_block) => break,
                        }
                    }
                }
                Err(error) => result = Err(error),
            }
            if let Err(error) = result {
                // The link went down, for example; it may come back.
                if let Some(times) = troubles.tell() {
                    tracing::warn!(interface = %self.name, times, "receiving IPv6 router solicitations: {error}");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            tokio::task::yield_now().await;
        }
    }

    fn packet(&self, packet: &[u8], from: HwAddr, bucket: &mut Bucket, now_ms: u64, counters: &Counters) {
        let reply = match answer(packet, self.own) {
            Ok(_) if !bucket.take(now_ms) => return counters.ignored(Ignored::TooMany),
            Ok(reply) => reply,
            Err(why) => return counters.ignored(why),
        };
        match self.link.get_ref().send(from, IPV6, &reply) {
            Ok(()) => counters.answered(),
            Err(error) => {
                tracing::debug!(interface = %self.name, %from, "answering a router solicitation: {error}");
                counters.ignored(Ignored::SendFailed);
            }
        }
    }
}

fn member(index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    socket.join_multicast_v6(&ALL_ROUTERS, index)?;
    Ok(socket)
}
