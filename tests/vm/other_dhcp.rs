//! Real firmware beside dnsmasq: it gives the addresses, and rackstrap or dnsmasq itself the boot files, also those of `[loader.NAME]`.

use super::{matrix::swap_only, secure_boot};
use crate::netns::dnsmasq;
use anyhow::Context;
use testbed::{
    Cluster,
    Firmware::{Bios, BiosPlainRom, SecureBoot, Uefi, UefiHttp},
    Namespace, Node, Result,
    process::Running,
};

/// A loader of the site, with drivers of its own.
const LOADER: &str = "[loader.own-drivers]\nfile = \"ipxe.efi\"\narch = [\"x86_64-efi\", \"x86_64-efi-http\"]\n";

/// A daemon that leaves addresses to another server, and that server's machine.
fn start(dhcp: &str, loader: &str) -> Result<(Cluster, Namespace)> {
    let mut site = swap_only();
    site.subnets[0].pool = None;
    site.subnets[0].dhcp = Some(dhcp.to_owned());
    site.more = loader.to_owned();
    let cluster = Cluster::start_small(site)?;
    let server = cluster.namespace.client("52:54:00:00:09:09")?;
    server.ip(&["address", "add", "10.5.0.9/16", "dev", "eth0"])?;
    Ok((cluster, server))
}

/// dnsmasq with what `rackstrap export dnsmasq` prints for the inventory.
fn with_export(cluster: &Cluster, server: &Namespace) -> Result<Running> {
    let path = cluster.dir().join("rackstrap.conf");
    let name = path.to_str().context("a path that is not UTF-8")?;
    cluster.daemon.cli(&["export", "dnsmasq", "--output", name])?;
    let options = ["--port=0", "--leasefile-ro", "--no-ping", "--interface=eth0"];
    let range = "--dhcp-range=10.5.0.0,static,255.255.0.0,1h";
    dnsmasq(
        server,
        &[&options[..], &[range, &format!("--conf-file={name}")]].concat(),
    )
}

/// Waits until the node's disk is prepared, and returns the file that its firmware fetched by TFTP; empty: none.
fn loader_of(node: &Node<'_>) -> Result<String> {
    node.wait_disk()?;
    let events = node.events()?;
    node.pull_plug();
    let mut files = events.into_iter().filter(|event| event.step == "tftp");
    Ok(files.next().map(|event| event.detail).unwrap_or_default())
}

#[test]
fn firmware_takes_the_boot_file_from_rackstrap_and_the_address_from_dnsmasq() -> Result {
    let (cluster, server) = start("proxy", LOADER)?;
    let uefi = cluster.node("r01n01").firmware(Uefi).blank_disk(64 << 20)?;
    let bios = cluster.node("r01n02").firmware(BiosPlainRom).blank_disk(64 << 20)?;
    uefi.add()?;
    bios.add()?;
    let _dnsmasq = with_export(&cluster, &server)?;
    uefi.power_on()?;
    bios.power_on()?;
    let file = loader_of(&bios)?;
    assert!(file.contains("undionly.kpxe"), "{file}");
    let file = loader_of(&uefi)?;
    assert!(file.contains("ipxe.efi"), "{file}");
    cluster.daemon.stop()
}

/// GRUB takes its server from dnsmasq's answer, which has it by the export.
#[test]
fn with_secure_boot_grub_finds_its_server_by_the_export() -> Result {
    let (cluster, server) = start("proxy", secure_boot::LOADER)?;
    let node = cluster.node("r01n01").firmware(SecureBoot).blank_disk(64 << 20)?;
    node.add()?;
    let _dnsmasq = with_export(&cluster, &server)?;
    node.power_on()?;
    let file = loader_of(&node)?;
    assert!(file.contains("shimx64.efi.signed"), "{file}");
    cluster.daemon.stop()
}

#[test]
fn firmware_boots_by_the_options_that_the_export_gives_dnsmasq() -> Result {
    let (cluster, server) = start("off", LOADER)?;
    let uefi = cluster.node("r01n01").firmware(UefiHttp).blank_disk(64 << 20)?;
    let bios = cluster.node("r01n02").firmware(Bios).blank_disk(64 << 20)?;
    uefi.add()?;
    bios.add()?;
    let _dnsmasq = with_export(&cluster, &server)?;
    uefi.power_on()?;
    bios.power_on()?;
    assert_eq!(loader_of(&bios)?, "");
    assert_eq!(loader_of(&uefi)?, "");
    uefi.wait_console("HTTP Boot over IPv4")?;
    cluster.daemon.stop()
}
