//! Finds the network card that booted, sets it up, and gives it its address.

use crate::{
    cmdline::CommandLine,
    fail::{Doing, Failure, Res},
    modules::Loader,
    rtnl,
};
use rackstrap_wire::{BOOT_NETWORK, HwAddr, NetworkPlan, NetworkRoute};
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink},
};
use std::{
    fs,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

const NET: &str = "/sys/class/net";
/// The address of a bond's member before it joined (drivers/net/bonding/bond_sysfs_slave.c of the kernel).
pub const OWN_ADDRESS: &str = "bonding_slave/perm_hwaddr";
/// PCI devices.
const PCI: &str = "/sys/bus/pci/devices";
/// Longest wait for the card: drivers may load firmware, and some buses are slow.
const CARD_WAIT: Duration = Duration::from_secs(30);
/// Longest wait for the link: auto-negotiation of 10GBASE-T takes up to some ten seconds.
const CARRIER_WAIT: Duration = Duration::from_secs(30);

/// Metric of default routes of further networks: that of the boot network, which has 0, wins.
pub const METRIC: u32 = 1024;
/// The network of a default route.
const DEFAULT: (Ipv4Addr, u8) = (Ipv4Addr::UNSPECIFIED, 0);

/// All Ethernet cards with their addresses, by name.
pub fn cards() -> Vec<(String, HwAddr)> {
    let read = |name: &str, file: &str| fs::read_to_string(Path::new(NET).join(name).join(file)).unwrap_or_default();
    let mut cards: Vec<_> = fs::read_dir(NET)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        // The type is ARPHRD_ETHER, and a device stands behind it.
        .filter(|name| read(name, "type").trim() == "1" && Path::new(NET).join(name).join("device").exists())
        // The members of a bond have its address; their own is one of the bond's records.
        .filter_map(|name| {
            let own = read(&name, OWN_ADDRESS).trim().parse().ok();
            let address = own.or_else(|| read(&name, "address").trim().parse().ok())?;
            Some((name, address))
        })
        .collect();
    cards.sort();
    cards
}

/// Sets up the card and the loopback interface. Returns the card's name and address, for people, and what is not as the site has it.
pub fn up(cmdline: &CommandLine) -> Res<(String, Option<String>)> {
    let netlink = Netlink::open()?;
    netlink
        .request(|s| rtnl::link_up(s, 1))
        .doing(|| "setting lo up".into())?;

    let name = wait_for(CARD_WAIT, || {
        cards()
            .into_iter()
            .find(|(_, a)| *a == cmdline.hwaddr)
            .map(|(name, _)| name)
    })
    .ok_or_else(|| no_card(cmdline.hwaddr))?;
    let index = index_of(&name)?;
    // Before the card is up: some drivers reset a card whose MTU changes, and its link goes down for seconds.
    let problem = cmdline.mtu.and_then(|mtu| set_mtu(&netlink, &name, index, mtu));
    netlink
        .request(|s| rtnl::link_up(s, index))
        .doing(|| format!("setting {name} up"))?;
    if !wait_for_link(&name) {
        return Err(Failure::new(format!(
            "{name} {} has no link: check its cable and switch port",
            cmdline.hwaddr
        )));
    }
    let mut text = configure(&netlink, &name, index, cmdline)?;
    if let (Some(mtu), None) = (cmdline.mtu, &problem) {
        text += &format!(", MTU {mtu}");
    }
    Ok((text, problem))
}

/// Gives the node's address to a card or bond that is up, or to the VLAN on it. Returns what it did, for people.
pub(crate) fn configure(netlink: &Netlink, name: &str, index: u32, cmdline: &CommandLine) -> Res<String> {
    let address = format!("{}/{}", cmdline.ipaddr, cmdline.prefix);
    let (interface, index) = match cmdline.vlan {
        None => (name, index),
        Some(id) => (BOOT_NETWORK, add_vlan(netlink, name, BOOT_NETWORK, id, &cmdline.all)?),
    };
    netlink
        .request(|s| rtnl::add_address(s, index, cmdline.ipaddr, cmdline.prefix))
        .doing(|| format!("giving {interface} the address {address}"))?;
    let mut text = format!("{name} {} is {address}", cmdline.hwaddr);
    if let Some(id) = cmdline.vlan {
        text += &format!(" in VLAN {id}");
    }
    if let Some(router) = cmdline.router {
        netlink
            .request(|s| rtnl::route(s, index, DEFAULT, router, 0))
            .doing(|| format!("setting the default route to {router}"))?;
        text += &format!(", router {router}");
    }
    Ok(text)
}

/// The index of an interface.
pub(crate) fn index_of(interface: &str) -> Res<u32> {
    let doing = || format!("reading the index of {interface}");
    let text = fs::read_to_string(Path::new(NET).join(interface).join("ifindex")).doing(doing)?;
    text.trim().parse().doing(doing)
}

/// Whether the interface has a link, after a wait.
pub(crate) fn wait_for_link(interface: &str) -> bool {
    let carrier = || fs::read_to_string(Path::new(NET).join(interface).join("carrier")).unwrap_or_default();
    wait_for(CARRIER_WAIT, || (carrier().trim() == "1").then_some(())).is_some()
}

/// The interface that has the node's address, while it is not on a bond.
pub fn interface(cmdline: &CommandLine) -> Option<String> {
    match cmdline.vlan {
        Some(_) => Some(BOOT_NETWORK.to_owned()),
        None => card_of(cmdline.hwaddr),
    }
}

/// The name of the card with that address.
pub fn card_of(hwaddr: HwAddr) -> Option<String> {
    let mut cards = cards().into_iter();
    cards.find(|(_, address)| *address == hwaddr).map(|(name, _)| name)
}

/// Makes the interface `name` of VLAN `id` on a card or bond, unless an earlier attempt made it, and sets it up. Returns its index. It takes the MTU
/// of what it is on.
fn add_vlan(netlink: &Netlink, on: &str, name: &str, id: u16, words: &[String]) -> Res<u32> {
    Loader::open(words).want("8021q");
    let below = index_of(on)?;
    match netlink.request(|s| rtnl::add_vlan(s, below, name, id)) {
        Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
            return Err(Failure::permanent(format!(
                "the kernel of this image cannot set the tag of VLAN {id}: its initramfs has no module 8021q; install the kernel's module in the \
                 image and seal it again"
            )));
        }
        made => made.doing(|| format!("making VLAN {id} on {on}"))?,
    }
    let index = index_of(name)?;
    netlink
        .request(|s| rtnl::link_up(s, index))
        .doing(|| format!("setting VLAN {id} on {on} up"))?;
    Ok(index)
}

/// Makes a further VLAN on the boot card or its bond, with its address and routes.
pub fn add_further_vlan(on: &str, id: u16, plan: &NetworkPlan) -> Res<()> {
    let netlink = Netlink::open()?;
    let name = &plan.name;
    let index = add_vlan(&netlink, on, name, id, &[])?;
    if let Some(problem) = plan.mtu.and_then(|mtu| set_mtu(&netlink, name, index, mtu.into())) {
        return Err(Failure::new(problem));
    }
    if let Some((address, prefix)) = plan.address {
        netlink
            .request(|s| rtnl::add_address(s, index, address, prefix))
            .doing(|| format!("giving {name} the address {address}/{prefix}"))?;
    }
    for NetworkRoute { to, via } in &plan.routes {
        netlink
            .request(|s| rtnl::route(s, index, *to, *via, 0))
            .doing(|| format!("setting the route to {}/{} by {via}", to.0, to.1))?;
    }
    if let Some(router) = plan.router {
        netlink
            .request(|s| rtnl::route(s, index, DEFAULT, router, METRIC))
            .doing(|| format!("setting the default route to {router}"))?;
    }
    Ok(())
}

/// Sets the MTU of the card. Returns why it stays as it is: the node boots with it, too, unless its switch drops the server's large packets.
pub(crate) fn set_mtu(netlink: &Netlink, name: &str, index: u32, mtu: u32) -> Option<String> {
    let error = netlink.request(|s| rtnl::mtu(s, index, mtu)).err()?;
    let now = fs::read_to_string(Path::new(NET).join(name).join("mtu")).unwrap_or_default();
    Some(format!(
        "{name} does not take the MTU {mtu} of the site file and keeps {}: {error}; its driver or card may have a smaller limit",
        now.trim()
    ))
}

/// Gives an interface that is down another name.
pub fn rename(interface: &str, name: &str) -> Res<()> {
    let doing = || format!("naming {interface} {name}");
    let index = index_of(interface)?;
    Netlink::open()?.request(|s| rtnl::rename(s, index, name)).doing(doing)
}

fn no_card(wanted: HwAddr) -> Failure {
    let there: Vec<String> = cards().iter().map(|(name, a)| format!("{name} {a}")).collect();
    let there = match there.is_empty() {
        true => "none (is the card's module in the image's kernel?)".to_owned(),
        false => there.join(", "),
    };
    let infiniband = match has_infiniband(Path::new(PCI)) {
        true => "; this machine has an InfiniBand card, and rackstrap boots machines by Ethernet",
        false => "",
    };
    Failure::new(format!(
        "boot interface {wanted} not found; available: {there}{infiniband}"
    ))
}

/// True if a PCI device of the machine is an InfiniBand controller. The initramfs has no driver for it, so that it has no interface.
fn has_infiniband(devices: &Path) -> bool {
    let devices = fs::read_dir(devices).into_iter().flatten().flatten();
    let mut classes = devices.map(|device| fs::read_to_string(device.path().join("class")).unwrap_or_default());
    // PCI_CLASS_NETWORK 02, subclass 07 (PCI Code and ID Assignment Specification, section 1.3).
    classes.any(|class| class.starts_with("0x0207"))
}

/// Calls `ask` every 50 ms until it returns something or the time is over.
pub fn wait_for<T>(longest: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        match ask() {
            None if began.elapsed() < longest => std::thread::sleep(Duration::from_millis(50)),
            answer => return answer,
        }
    }
}

/// A socket for requests to the kernel about interfaces.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: std::cell::Cell<u32>,
}

impl Netlink {
    pub(crate) fn open() -> Res<Self> {
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        let socket = socket.doing(|| "opening a netlink socket".into())?;
        Ok(Netlink {
            socket,
            sequence: 1.into(),
        })
    }

    /// Sends a request and reads its acknowledgement, which the kernel queues before `send` returns.
    pub(crate) fn request(&self, message: impl FnOnce(u32) -> Vec<u8>) -> Result<(), std::io::Error> {
        let sequence = self.sequence.get();
        self.sequence.set(sequence + 1);
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.socket, &message(sequence), SendFlags::empty(), &kernel)?;
        for _ in 0..16 {
            let mut answer = [0; 4096];
            let (len, _) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::DONTWAIT)?;
            match rtnl::acknowledgement(&answer[..len], sequence) {
                Some(0) => return Ok(()),
                Some(errno) => return Err(std::io::Error::from_raw_os_error(errno)),
                None => {}
            }
        }
        Err(std::io::Error::other("no acknowledgement from the kernel"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_infiniband_card_is_told_by_its_class() {
        let dir = tempfile::tempdir().unwrap();
        let device = |name: &str, class: &str| {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("class"), class).unwrap();
        };
        device("0000:00:03.0", "0x020000\n");
        fs::create_dir(dir.path().join("0000:00:04.0")).unwrap();
        assert!(!has_infiniband(dir.path()) && !has_infiniband(Path::new("/nonexistent")));
        device("0000:81:00.0", "0x020700\n");
        assert!(has_infiniband(dir.path()));
    }
}
