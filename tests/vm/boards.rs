//! U-Boot and PXELINUX: each fetches its script and the files of its boot by TFTP.

use crate::netns::dnsmasq;
use serde_json::Value;
use testbed::{Cluster, Event, Firmware, Nic, Result, Site};

/// Debian's U-Boot for x86, which starts the kernel without the initramfs that it has loaded ("size 0 bytes"), so that the boot is followed to the
/// kernel's first line.
#[test]
fn u_boot_gets_its_script_and_starts_the_kernel() -> Result {
    let cluster = Cluster::start_small(Site::small())?;
    let node = cluster.node("r01n01").firmware(Firmware::UBoot).nic(Nic::E1000);
    node.power_on()?;
    // Debian's environment for this machine boots EFI programs only, and lacks two addresses of the `pxe` command.
    node.wait_console("Hit any key to stop autoboot")?;
    node.console().send("\n")?;
    node.wait_console("=> ")?;
    node.console().send(
        "setenv pxefile_addr_r 0x2000000; setenv ramdisk_addr_r 0x4000000; \
         setenv bootcmd 'while true; do dhcp; pxe get; pxe boot; sleep 2; done'; boot\n",
    )?;
    let script = node.wait_event("its script", |event| event.step == "script")?;
    assert!(script.detail.starts_with("boots small@1"), "{script}");
    for file in ["kernel", "initramfs"] {
        node.wait_event(file, |event| event.step == file && event.detail == "sent")?;
    }
    node.wait_console("Linux version")?;
    Ok(())
}

/// iPXE's ROM is given `pxelinux.0` by the site's own DHCP server, as from its own it would get its script. The machine waits as a
/// stranger, until it is a node, and boots without another power cycle.
#[test]
fn pxelinux_waits_asks_again_and_boots() -> Result {
    let mut site = Site::small();
    site.subnets[0].pool = None;
    site.subnets[0].dhcp = Some("off".to_owned());
    site.more += "[loader.pxelinux]\nfile = \"pxelinux.0\"\narch = [\"bios\"]\n";
    let cluster = Cluster::start_small(site)?;
    let node = cluster.node("r01n01");
    let other = cluster.namespace.client("52:54:00:00:09:09")?;
    other.ip(&["address", "add", "10.5.0.9/16", "dev", "eth0"])?;
    let host = format!("--dhcp-host={},10.5.1.1", node.hwaddr());
    let server = dnsmasq(
        &other,
        &[
            "--port=0",
            "--leasefile-ro",
            "--no-ping",
            "--interface=eth0",
            "--dhcp-range=10.5.0.0,static,255.255.0.0",
            "--dhcp-boot=pxelinux.0,,10.5.0.1",
            &host,
        ],
    )?;
    node.plug_in()?;
    let waits = |count: u64| {
        node.wait_until("a stranger's requests for its script", || {
            let all = cluster.daemon.json(&["timeline", node.hwaddr()])?;
            let events = all["events"].as_array().cloned().unwrap_or_default();
            let of_script = events.iter().filter(|event| event["step"] == "script");
            let requests: u64 = of_script.map(|event| event["count"].as_u64().unwrap_or(1)).sum();
            Ok((requests >= count).then_some(()))
        })
    };
    // The second request is PXELINUX's own, after a pause.
    waits(2)?;
    node.add()?;
    node.wait_ready()?;
    let events = node.events()?;
    let boots = |event: &&Event| event.step == "script" && event.detail.starts_with("boots small@1");
    assert!(events.iter().any(|event| boots(&event)), "{events:?}");
    assert_eq!(
        cluster.daemon.json(&["loaders"])?["loaders"][0]["ready"],
        Value::Bool(true)
    );
    drop(server);
    Ok(())
}
