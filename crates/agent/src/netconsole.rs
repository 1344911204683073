//! The kernel's own messages by UDP (netconsole): the only ones that leave the machine when the kernel panics.

use crate::{cmdline::CommandLine, fail::Failure, modules::Loader};
use rackstrap_wire::{NETCONSOLE_PORT, neighbour};
use std::{
    fs,
    net::{Ipv4Addr, ToSocketAddrs},
};

/// Sends the kernel's messages through `interface` to `port` of the server from now on, also those of the running system. Returns the description for
/// people.
///
/// # Errors
/// What is missing. The node boots without.
pub fn start(cmdline: &CommandLine, port: u16, interface: Option<&str>) -> Result<String, Failure> {
    let server = server_address(&cmdline.server)?;
    let card = interface.ok_or_else(|| Failure::new(format!("card {} is gone", cmdline.hwaddr)))?;
    let table = fs::read_to_string(neighbour::TABLE).unwrap_or_default();
    let neighbour = [Some(server), cmdline.router]
        .into_iter()
        .flatten()
        .find_map(|address| neighbour::card_at(&table, address));
    let neighbour =
        neighbour.ok_or_else(|| Failure::new(format!("the hardware address towards {server} is unknown")))?;
    // The parameter of the module as Documentation/networking/netconsole.rst describes it.
    let parameter = format!(
        "netconsole.netconsole={NETCONSOLE_PORT}@{}/{card},{port}@{server}/{neighbour}",
        cmdline.ipaddr
    );
    let mut words = cmdline.all.clone();
    words.push(parameter);
    let mut loader = Loader::open(&words);
    loader.want("netconsole");
    match fs::exists("/sys/module/netconsole") {
        Ok(true) => Ok(format!("kernel messages go to {server} port {port}")),
        _ => Err(Failure::new(format!(
            "the module netconsole is missing in the initramfs (then import the image again), or it does not work with {card}"
        ))),
    }
}

/// The address in `http://10.5.0.1:80`.
fn server_address(base: &str) -> Result<Ipv4Addr, Failure> {
    let authority = base.strip_prefix("http://").unwrap_or(base).trim_end_matches('/');
    let found = authority.to_socket_addrs().ok().and_then(|mut all| {
        all.find_map(|address| match address.ip() {
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        })
    });
    found.ok_or_else(|| Failure::new(format!("{base} has no IPv4 address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_address_is_that_of_its_url() {
        assert_eq!(
            server_address("http://10.5.0.1:80").unwrap(),
            Ipv4Addr::new(10, 5, 0, 1)
        );
        assert!(server_address("http://[::1]:80").is_err());
        assert!(server_address("nothing").is_err());
    }
}
