//! The testbed itself, without rackstrap. If this fails, examine the testbed before the daemon.

use std::{fs, process::Stdio};
use testbed::{Cluster, Result, Site, binaries::Binaries, process::Running};

#[test]
fn a_machine_boots_from_dnsmasq_and_leaves_nothing_behind() -> Result {
    let nothing = Binaries {
        daemon: "/bin/false".into(),
        agent: "/bin/false".into(),
    };
    let cluster = Cluster::with_images(&nothing, &Site::demo(), Vec::new())?;
    let dir = cluster.dir().to_owned();
    let script = "#!ipxe\necho the script of ${net0/mac} at ${net0/ip}\nsleep 100\n";
    fs::write(dir.join("script.ipxe"), script)?;
    // iPXE waits for an IPv6 router. In other tests the daemon is the router.
    let prefix = "2001:db8:5::1/64";
    cluster
        .namespace
        .ip(&["address", "add", prefix, "dev", "br0", "nodad"])?;
    let mut dnsmasq = cluster.namespace.command("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--port=0",
        "--conf-file=/dev/null",
        "--interface=br0",
        "--leasefile-ro",
    ]);
    dnsmasq.args([
        "--pid-file=",
        "--user=root",
        "--dhcp-range=10.5.1.0,static,255.255.0.0",
        "--enable-tftp",
    ]);
    dnsmasq.args([
        "--dhcp-host=52:54:00:00:01:01,10.5.1.1",
        "--dhcp-boot=script.ipxe",
        "--dhcp-option=encap:175,176,1b",
    ]);
    dnsmasq.args(["--enable-ra", "--dhcp-range=2001:db8:5::,ra-only", "--ra-param=br0,0,0"]);
    dnsmasq.arg(format!("--tftp-root={}", dir.display()));
    dnsmasq
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("dnsmasq.log"))?);
    let dnsmasq = Running::start("dnsmasq", &mut dnsmasq)?;

    let node = cluster.node("r01n01").blank_disk(64 << 20)?;
    node.plug_in()?;
    node.wait_console("the script of 52:54:00:00:01:01 at 10.5.1.1")?;
    node.pull_plug();
    node.check_alive()?;
    dnsmasq.kill();

    let namespace = format!("/run/netns/{}", cluster.namespace.name());
    assert!(fs::exists(&namespace)?);
    drop(node);
    drop(cluster);
    assert!(!fs::exists(&namespace)?, "the namespace still exists");
    assert!(
        !fs::exists(&dir)? || std::env::var_os(testbed::paths::KEEP).is_some(),
        "{} still exists",
        dir.display()
    );
    Ok(())
}
