//! Sockets: one an interface, for packets that the kernel has filtered.

use super::{Bucket, Counters, Ignored, answer, own_address};
use rackstrap_base::{
    link::{
        IPV6, LinkSocket,
        each::{on_each_interface, receive_some},
    },
    rare::Rare,
};
use rackstrap_wire::HwAddr;
use socket2::{Domain, SockFilter, Socket, Type};
use std::{collections::BTreeSet, io, net::Ipv6Addr, sync::Arc, time::Duration};
use tokio::{io::unix::AsyncFd, time::Instant};
use tokio_util::sync::CancellationToken;

/// Longest packet that is looked at, bytes: a solicitation has 48 to 64.
const LONGEST: usize = 1500;
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
    let open = |name: &str, index| {
        let (interface, counters) = (Interface::open(name, index)?, counters.clone());
        Ok(async move { interface.answer(&counters).await })
    };
    let complain = |name: &str, error: &io::Error| {
        tracing::warn!(
            "IPv6 router solicitations on {name} are not answered: {error}; boot loaders wait 15 s for a router there"
        );
    };
    on_each_interface(wanted, open, complain, cancel).await;
    Ok(())
}

struct Interface {
    name: String,
    link: AsyncFd<LinkSocket>,
    own: Ipv6Addr,
    /// Keeps this machine in the group, for switches that pass frames of groups on to members only.
    _member: Option<Socket>,
}

impl Interface {
    fn open(name: &str, index: u32) -> io::Result<Self> {
        let link = LinkSocket::receiver(index, IPV6, &filter())?;
        link.join(ALL_ROUTERS_FRAME)?;
        let own = own_address(link.own_hwaddr()?);
        Ok(Interface {
            name: name.to_owned(),
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
            let take = |packet: &[u8], from| {
                let now = started.elapsed().as_millis() as u64;
                self.packet(packet, from, &mut bucket, now, counters);
            };
            let result = receive_some(&self.link, &mut buffer, take).await;
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
