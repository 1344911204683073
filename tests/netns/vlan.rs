//! A node whose boot network is a VLAN: its loader loads without the tag, from a pool address, and nobody else does in its name.

use super::serve::{curl, udhcpc, variable};
use std::fs;
use testbed::{Binaries, Cluster, Result, Site, Subnet, image::fake, netns::BRIDGE, played::argument};

const MAC: &str = "52:54:00:00:01:01";
const OTHER: &str = "52:54:00:00:09:09";
/// iPXE on a BIOS, by its options 77 and 93.
const IPXE: [&str; 4] = ["-x", "77:69505845", "-x", "93:0000"];

#[test]
fn a_node_of_a_vlan_loads_from_a_pool_address_and_no_other_machine_does_in_its_name() -> Result {
    let binaries = Binaries::without_agent(env!("CARGO_BIN_EXE_rackstrap"));
    let mut site = Site::demo();
    site.default_profile().templates = None;
    site.default_profile().image = Some("debian@1".to_owned());
    site.subnets = vec![
        Subnet {
            interface: Some("vlan5".to_owned()),
            vlan: Some(5),
            pool: None,
            ..Subnet::of_the_bridge()
        },
        Subnet {
            network: "10.4.0.0/24".to_owned(),
            server: "10.4.0.1".to_owned(),
            pool: Some("10.4.0.100-10.4.0.200".to_owned()),
            ..Subnet::of_the_bridge()
        },
    ];
    let cluster = Cluster::with_images(&binaries, &site, Vec::new())?;
    let images = cluster.daemon.state_dir().join("images");
    for image in ["debian@1", "debian@2"] {
        fake(&images, image, 0)?;
    }
    let manifest = images.join("debian/2/manifest.toml");
    fs::write(
        &manifest,
        fs::read_to_string(&manifest)?.replace("wire = 4", "wire = 5"),
    )?;
    let ip = |arguments: &str| cluster.namespace.ip(&arguments.split(' ').collect::<Vec<_>>());
    ip(&format!("address flush dev {BRIDGE}"))?;
    ip(&format!("address add 10.4.0.1/24 dev {BRIDGE}"))?;
    cluster.namespace.vlan("vlan5", 5, "10.5.0.1/16")?;
    cluster.start_daemon()?;
    let cli = |arguments: &[&str]| cluster.daemon.cli(arguments);
    cli(&["node", "add", "r01n01", "--hwaddr", MAC])?;
    let node = cluster.namespace.client(MAC)?;

    // An agent that cannot set the tag is not started.
    let got = udhcpc(&node, &cluster, &IPXE)?;
    assert!(variable(&got, "ip").starts_with("10.4.0."), "{got}");
    let url = variable(&got, "boot_file");
    assert!(url.starts_with("http://10.4.0.1:80/"), "{got}");
    let (_, script) = curl(&node, url, "", None)?;
    assert!(
        script.contains("cannot set the tag of VLAN 5") && !script.contains("rackstrap.token"),
        "{script}"
    );

    cli(&["node", "set", "r01n01", "image=debian@2"])?;
    let got = udhcpc(&node, &cluster, &IPXE)?;
    let url = variable(&got, "boot_file").to_owned();
    let (_, script) = curl(&node, &url, "", None)?;
    // The loader's URLs are of the network that it is in, and the agent's of the VLAN.
    assert!(script.contains("set base http://10.4.0.1:80\n"), "{script}");
    let said = ["server", "ipaddr", "vlan"].map(|name| argument(&script, name));
    assert_eq!(said, ["http://10.5.0.1:80", "10.5.1.1/16", "5"], "{script}");
    let [id, token] = ["plan", "token"].map(|name| argument(&script, name));
    let kernel = format!("http://10.4.0.1:80/boot/{id}/kernel");
    assert_eq!(curl(&node, &kernel, "", None)?, (200, "debian@2".to_owned()));
    // The agent asks in the VLAN only.
    let (status, _) = curl(&node, &format!("http://10.4.0.1:80/v1/plan/{id}"), token, None)?;
    assert_eq!(status, 403);

    let other = cluster.namespace.client(OTHER)?;
    udhcpc(&other, &cluster, &IPXE)?;
    let (_, script) = curl(&other, &url, "", None)?;
    assert!(!script.contains("rackstrap.token"), "{script}");
    assert_eq!(curl(&other, &kernel, "", None)?.0, 403);

    let explained = cluster.daemon.json(&["explain", "r01n01"])?;
    assert_eq!(explained["decision"]["vlan"], 5, "{explained}");
    let leases = cli(&["lease", "list"])?;
    assert!(leases.contains(MAC) && leases.contains("10.4.0."), "{leases}");
    cluster.daemon.stop()
}
