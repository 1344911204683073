//! Sockets that hear other DHCP servers, and ask for them once in a while.

use super::{nobody, question, server_of};
use crate::{
    datagram::datagram,
    reply::{CLIENT_PORT, SERVER_PORT},
};
use rackstrap_base::{
    link::{
        IPV4, LinkSocket,
        each::{on_each_interface, receive_some},
    },
    rare::Rare,
};
use rackstrap_wire::HwAddr;
use socket2::SockFilter;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

/// How often others are asked for. A server that is asked keeps an address for some seconds each time.
pub const ASK_EVERY: Duration = Duration::from_secs(3600);
/// A server is reported again after this time: it answers a whole cluster.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Servers of one interface that are told of within that time. More are forged: somebody hides a real one among them, or wants to
/// fill what hears of them.
const MOST: usize = 256;
/// Longest packet that is looked at, bytes.
const LONGEST: usize = 1500;

/// A DHCP server that is not this one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rival {
    /// The interface that its reply came in by.
    pub interface: String,
    /// Its address, as it says.
    pub server: Ipv4Addr,
    /// Where the frame came from: the server, or the last router or relay before it.
    pub hwaddr: HwAddr,
}

/// What this looks at and whom it tells.
pub struct Watch {
    /// Interfaces on which others are looked for now, and the server addresses that are ours.
    pub network: Box<dyn Fn() -> (BTreeSet<String>, BTreeSet<Ipv4Addr>) + Send + Sync>,
    /// Told of each other server that is heard, every half minute at most.
    pub tell: Box<dyn Fn(&Rival) + Send + Sync>,
}

/// IPv4 without options, UDP, not a later fragment, from port 67 to port 68; nothing else is copied to us.
fn filter() -> [SockFilter; 10] {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let byte = LOAD | libc::BPF_B as u16;
    let half = LOAD | libc::BPF_H as u16;
    let word = LOAD | libc::BPF_W as u16;
    let ports = u32::from(SERVER_PORT) << 16 | u32::from(CLIENT_PORT);
    [
        SockFilter::new(byte, 0, 0, 0),
        SockFilter::new(EQUAL, 0, 7, 0x45),
        SockFilter::new(byte, 0, 0, 9),
        SockFilter::new(EQUAL, 0, 5, libc::IPPROTO_UDP as u32),
        SockFilter::new(half, 0, 0, 6),
        SockFilter::new(ANY_BIT, 3, 0, 0x1fff),
        SockFilter::new(word, 0, 0, 20),
        SockFilter::new(EQUAL, 0, 1, ports),
        SockFilter::new(RETURN, 0, 0, LONGEST as u32),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Listens until `cancel`. The questions come from the machine `asker`, which the daemon itself must not answer.
///
/// # Errors
/// None: nothing else depends on it.
pub async fn watch(watch: Watch, asker: HwAddr, cancel: CancellationToken) -> io::Result<()> {
    let watch = Arc::new(watch);
    let wanted = || (watch.network)().0;
    let open = |name: &str, index| {
        let (listener, watch) = (Listener::open(name, index, asker)?, watch.clone());
        Ok(async move { listener.run(&watch).await })
    };
    let complain = |name: &str, error: &io::Error| {
        tracing::warn!("other DHCP servers on {name} are not looked for: {error}");
    };
    on_each_interface(wanted, open, complain, cancel).await;
    Ok(())
}

/// What hearing a server means.
#[derive(Debug, PartialEq, Eq)]
enum Note {
    /// It was not reported yet, or long ago: report it.
    New,
    /// It was reported less than [`TELL_EVERY`] ago.
    Known,
    /// Too many servers were reported already.
    TooMany,
}

fn take_note(told: &mut BTreeMap<Rival, Instant>, rival: &Rival, now: Instant) -> Note {
    told.retain(|_, at| now.duration_since(*at) < TELL_EVERY);
    if told.contains_key(rival) {
        return Note::Known;
    }
    if told.len() >= MOST {
        return Note::TooMany;
    }
    told.insert(rival.clone(), now);
    Note::New
}

struct Listener {
    name: String,
    link: AsyncFd<LinkSocket>,
    asker: HwAddr,
    /// Replies of servers that were not reported, as there were too many.
    untold: Rare,
}

impl Listener {
    fn open(name: &str, index: u32, asker: HwAddr) -> io::Result<Self> {
        let link = LinkSocket::receiver(index, IPV4, &filter())?.into_async()?;
        Ok(Listener {
            name: name.to_owned(),
            link,
            asker,
            untold: Rare::default(),
        })
    }

    async fn run(&self, watch: &Watch) {
        let mut told: BTreeMap<Rival, Instant> = BTreeMap::new();
        let mut buffer = [0; LONGEST];
        let mut ask = tokio::time::interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let received = tokio::select! {
                _ = ask.tick() => {
                    self.ask();
                    continue;
                }
                received = receive_some(&self.link, &mut buffer, |packet, from| self.hear(packet, from, watch, &mut told)) => received,
            };
            if received.is_err() {
                // The link went down, for example; DHCP itself says so.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            tokio::task::yield_now().await;
        }
    }

    fn hear(&self, packet: &[u8], hwaddr: HwAddr, watch: &Watch, told: &mut BTreeMap<Rival, Instant>) {
        let Some(server) = server_of(packet) else { return };
        if (watch.network)().1.contains(&server) {
            return;
        }
        let rival = Rival {
            interface: self.name.clone(),
            server,
            hwaddr,
        };
        match take_note(told, &rival, Instant::now()) {
            Note::Known => {}
            Note::New => (watch.tell)(&rival),
            Note::TooMany => {
                let Some(times) = self.untold.tell() else { return };
                let (secs, interface) = (TELL_EVERY.as_secs(), &self.name);
                tracing::warn!(
                    times,
                    "more than {MOST} DHCP servers within {secs} s on {interface}, the last one {server} at {hwaddr}; somebody forges \
                     them: look for the sender in the switch's MAC table"
                );
            }
        }
    }

    fn ask(&self) {
        let any = |address, port| SocketAddrV4::new(address, port);
        let packet = datagram(
            any(Ipv4Addr::UNSPECIFIED, CLIENT_PORT),
            any(Ipv4Addr::BROADCAST, SERVER_PORT),
            &question(self.asker, rand::random()),
        );
        if let Err(error) = self.link.get_ref().send(HwAddr([0xff; 6]), IPV4, &packet) {
            tracing::debug!(interface = %self.name, "asking for other DHCP servers: {error}");
        }
    }
}

/// A machine that does not exist, another one at each start.
pub fn asker() -> HwAddr {
    nobody(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_servers_do_not_hide_a_real_one_and_their_number_is_bounded() {
        let (mut told, now) = (BTreeMap::new(), Instant::now());
        let mut hear = |server: u32, now| {
            let rival = Rival {
                interface: "eth1".into(),
                server: Ipv4Addr::from(server),
                hwaddr: nobody([0; 4]),
            };
            take_note(&mut told, &rival, now)
        };
        for server in 1..=100 {
            assert_eq!(hear(server, now), Note::New);
        }
        assert_eq!(hear(0x0a05_0009, now), Note::New, "the real one");
        assert_eq!(hear(0x0a05_0009, now), Note::Known);
        let untold = (1000..2000)
            .filter(|server| hear(*server, now) == Note::TooMany)
            .count();
        assert_eq!(untold, 1000 - (MOST - 101));
        assert_eq!(hear(0x0a05_0009, now + TELL_EVERY), Note::New);
    }
}
