//! Binds all ports, with one clear line for a port that cannot be bound.

use super::{InNamedTask, Shared, dhcp, freebsd, nfs, rivals, tftp};
use crate::{control::Counters, http, netconsole};
use anyhow::{Result, anyhow, bail};
use rackstrap_base::{clock::Timestamp, counters::ReadCounts, link::interfaces};
use rackstrap_dhcp::LeaseKeeper;
use rackstrap_site::Site;
use rackstrap_wire::HwAddr;
use socket2::{Domain, Socket, Type};
use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Refuses a site with interfaces that this machine does not have.
pub fn check_interfaces(site: &Site) -> Result<()> {
    let present = interfaces();
    for subnet in &site.subnets {
        let Some(name) = &subnet.interface else { continue };
        if !present.contains(name) {
            bail!(
                "[[subnet]] {}: this machine has no interface '{name}'; it has: {}",
                subnet.network,
                present.join(", ")
            );
        }
    }
    Ok(())
}

/// Binds and starts DHCP on every interface, and TFTP, HTTP and NFS on every server address.
pub fn spawn_all(
    shared: &Shared,
    cancel: &CancellationToken,
    services: &mut JoinSet<Result<()>>,
) -> Result<(Counters, LeaseKeeper, Arc<nfs::ImageExports>)> {
    let site = shared.world.load().site.clone();
    let servers: BTreeSet<Ipv4Addr> = site.subnets.iter().map(|s| s.server).collect();
    let dhcp_counters: Arc<rackstrap_dhcp::Counters> = Arc::default();
    let nfs_config = rackstrap_nfs::Config::new(shared.store.cluster_key("nfs-handle")?);

    let authority = Arc::new(dhcp::DhcpAuthority::new(shared.clone()));
    let asker = authority.asker;
    let leases = Arc::new(dhcp::StoredLeases(shared.store.clone()));
    let dhcp = rackstrap_dhcp::Dhcp::bind(authority, leases, dhcp_counters.clone())?;
    let (keeper, releases) = (dhcp.keeper(), dhcp.keeper());
    let exports = Arc::new(nfs::ImageExports::new(shared.clone()));
    let waits = Box::new(move |hwaddr, address| keeper.heard(hwaddr, address));
    let leases = dhcp.leases();
    let holder = Box::new(move |address| Some(leases.holder(address)?.hwaddr));
    let web = Arc::new(shared.http_service(waits, holder, http::Limits::default()));
    let files = Arc::new(tftp::BootFiles {
        shared: shared.clone(),
        leases: dhcp.leases(),
        web: web.clone(),
    });
    let tftp_counters: Arc<rackstrap_tftp::Counters> = Arc::default();
    for &server in &servers {
        let socket = udp(server, site.server.tftp_port, "TFTP", "tftp-port")?;
        let limits = rackstrap_tftp::Limits::default();
        let task = rackstrap_tftp::serve(socket, files.clone(), limits, tftp_counters.clone(), cancel.clone());
        services.spawn(task.in_named_task(format!("TFTP on {server}")));

        let listener = tokio::net::TcpListener::from_std(tcp(server, site.server.http_port, "HTTP", "http-port")?)?;
        let task = http::task::serve(listener, web.clone(), cancel.clone());
        services.spawn(task.in_named_task(format!("HTTP on {server}")));

        let listener = tcp(server, site.server.nfs_port, "NFS", "nfs-port")?;
        let task = rackstrap_nfs::serve(listener, exports.clone(), nfs_config.clone(), cancel.clone());
        services.spawn(task.in_named_task(format!("NFS on {server}")));
    }
    let kernels: Arc<netconsole::task::Counts> = Arc::default();
    spawn_netconsole(shared, &servers, &kernels, cancel, services);
    let task = freebsd::serve(
        shared.clone(),
        exports.clone(),
        nfs_config.clone(),
        servers.clone(),
        cancel.clone(),
    );
    services.spawn(task.in_named_task("NFS by UDP"));
    let solicitations = spawn_solicitations(shared, cancel, services);
    spawn_watch(shared, asker, cancel, services);
    let dns = spawn_dns(shared, &servers, cancel, services)?;
    services.spawn(dhcp.run(cancel.clone()));
    let mut counted: Vec<(&'static str, Arc<dyn ReadCounts>)> = vec![
        ("dhcp", dhcp_counters),
        ("tftp", tftp_counters),
        ("http", web.counters.clone()),
        ("nfs", nfs_config.counters),
        ("ndp", solicitations),
        ("netconsole", kernels),
    ];
    counted.extend(dns.map(|server| ("dns", server)));
    Ok((read_all(counted), releases, exports))
}

/// All counters, each name after that of its protocol.
fn read_all(counted: Vec<(&'static str, Arc<dyn ReadCounts>)>) -> Counters {
    Arc::new(move || {
        let mut all = Vec::new();
        for (protocol, counters) in &counted {
            let counts = counters.counts().into_iter();
            all.extend(counts.map(|(name, count)| (format!("{protocol} {name}"), count)));
        }
        all
    })
}

/// Answers the router solicitations of iPXE on the interfaces of the subnets, if the site file says so.
fn spawn_solicitations(
    shared: &Shared,
    cancel: &CancellationToken,
    services: &mut JoinSet<Result<()>>,
) -> Arc<rackstrap_ndp::Counters> {
    let solicitations: Arc<rackstrap_ndp::Counters> = Arc::default();
    let asked = shared.world.clone();
    let interfaces = move || {
        let world = asked.load();
        let subnets = world.site.subnets.iter();
        match world.site.server.answer_router_solicitations {
            true => subnets.filter_map(|subnet| subnet.interface.clone()).collect(),
            false => BTreeSet::new(),
        }
    };
    let task = rackstrap_ndp::serve(Box::new(interfaces), solicitations.clone(), cancel.clone());
    services.spawn(task.in_named_task("router solicitations"));
    solicitations
}

/// Looks for other DHCP servers, and asks for them as the machine `asker`, which does not exist.
fn spawn_watch(shared: &Shared, asker: HwAddr, cancel: &CancellationToken, services: &mut JoinSet<Result<()>>) {
    let (looked, world, warnings) = (shared.world.clone(), shared.world.clone(), shared.warnings.clone());
    let heard = shared.rivals.clone();
    let watch = rackstrap_dhcp::Watch {
        network: Box::new(move || {
            let site = looked.load().site.clone();
            let servers = site.subnets.iter().map(|subnet| subnet.server).collect();
            (rivals::searched(&site), servers)
        }),
        tell: Box::new(move |rival| {
            // After a reload the interface is listened on for some seconds more.
            let site = world.load().site.clone();
            if rivals::searched(&site).contains(&rival.interface) {
                heard.hear(&warnings, &site, rival, Timestamp::now());
            }
        }),
    };
    let task = rackstrap_dhcp::watch(watch, asker, cancel.clone());
    services.spawn(task.in_named_task("other DHCP servers"));
}

/// Starts to listen for kernels' messages on every server address. Nodes boot without it, so that a port that another program has is a
/// warning.
fn spawn_netconsole(
    shared: &Shared,
    servers: &BTreeSet<Ipv4Addr>,
    counts: &Arc<netconsole::task::Counts>,
    cancel: &CancellationToken,
    services: &mut JoinSet<Result<()>>,
) {
    let port = shared.world.load().site.server.netconsole_port;
    for &server in servers.iter().filter(|_| port != 0) {
        let socket = udp(server, port, "netconsole", "netconsole-port")
            .and_then(|socket| Ok(tokio::net::UdpSocket::from_std(socket)?));
        match socket {
            Ok(socket) => {
                let listener = netconsole::task::Listener {
                    world: shared.world.clone(),
                    recorder: shared.recorder.clone(),
                    counts: counts.clone(),
                };
                let task = netconsole::task::serve(socket, listener, cancel.clone());
                services.spawn(task.in_named_task(format!("netconsole on {server}")));
            }
            Err(error) => tracing::warn!("{error:#}; panics of nodes' kernels are not on their timelines"),
        }
    }
}

/// Starts DNS on every server address if the site has `[dns]`, and registers its counters.
#[cfg(feature = "dns")]
fn spawn_dns(
    shared: &Shared,
    servers: &BTreeSet<Ipv4Addr>,
    cancel: &CancellationToken,
    services: &mut JoinSet<Result<()>>,
) -> Result<Option<Arc<dyn ReadCounts>>> {
    use super::dns::Views;
    use rackstrap_dns as dns;
    let views = Views::of(shared.world.clone())?;
    let names = views.map(|views| Arc::new(dns::Server::new(Arc::new(views), dns::Limits::default())));
    if let Some(names) = &names {
        for &server in servers {
            let (udp, tcp) = (udp(server, 53, "DNS", DNS_KEY)?, tcp(server, 53, "DNS", DNS_KEY)?);
            let task = dns::serve(udp, tcp, names.clone(), cancel.clone());
            services.spawn(task.in_named_task(format!("DNS on {server}")));
        }
    }
    Ok(names.map(|names| names as Arc<dyn ReadCounts>))
}

/// Starts nothing: the checks of the site file refuse `[dns]`.
#[cfg(not(feature = "dns"))]
fn spawn_dns(
    _: &Shared,
    _: &BTreeSet<Ipv4Addr>,
    _: &CancellationToken,
    _: &mut JoinSet<Result<()>>,
) -> Result<Option<Arc<dyn ReadCounts>>> {
    Ok(None)
}

/// Resolvers ask on port 53 only, so the port cannot be configured.
const DNS_KEY: &str = "";

/// Connections that wait to be accepted: the machines of a rack ask at the same time.
const BACKLOG: i32 = 4096;

fn tcp(server: Ipv4Addr, port: u16, what: &str, key: &str) -> Result<TcpListener> {
    let bind = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // Connections of the daemon before this one may not be closed completely yet.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((server, port)).into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let socket = bind().map_err(|error| unbound(&error, server, port, what, "tcp", key))?;
    Ok(socket.into())
}

fn udp(server: Ipv4Addr, port: u16, what: &str, key: &str) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::from((server, port)))
        .map_err(|error| unbound(&error, server, port, what, "udp", key))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Why a port cannot be bound, and what to do about it.
fn unbound(error: &io::Error, server: Ipv4Addr, port: u16, what: &str, protocol: &str, key: &str) -> anyhow::Error {
    let option = if protocol == "tcp" { "t" } else { "u" };
    let why = match error.kind() {
        // systemd-resolved uses only 127.0.0.53, which does not conflict.
        io::ErrorKind::AddrInUse if key == DNS_KEY => format!(
            "another program uses the port; `ss -{option}lnp sport = :{port}` shows which: stop that program, keep it off this address (dnsmasq by \
             bind-interfaces and listen-address, BIND by listen-on), or remove [dns] from the site file"
        ),
        io::ErrorKind::AddrInUse => format!(
            "another program uses the port; `ss -{option}lnp sport = :{port}` shows which: stop that program, or choose another \
             [server] {key}"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; add it to the interface (`ip address`), or \
                                         correct 'server' in [[subnet]]"
                .into()
        }
        _ => error.to_string(),
    };
    anyhow!("{what} cannot listen on {server} {protocol} port {port}: {why}")
}
