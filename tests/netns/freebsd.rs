//! FreeBSD nodes without FreeBSD: packets as its loader and its kernel send them, against the whole daemon with an imported tree. The
//! reporter of the tree runs as it is, with Debian's nc.

use serde_json::Value;
use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use testbed::{
    Binaries, Cluster, Result, Site,
    played::{self, freebsd as bsd},
    process::{Running, output},
    timeline::poll,
};

/// The limit of every wait, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// `e_machine` of x86-64 and of arm64 (sys/sys/elf_common.h).
const X86_64: u8 = 62;
const AARCH64: u8 = 183;

/// A kernel as the import recognises it: an ELF file for that machine with FreeBSD's OSABI and the release in its text.
fn kernel(machine: u8) -> Vec<u8> {
    let mut kernel = b"\x7fELF\x02\x01\x01\x09".to_vec();
    kernel.resize(64, 0);
    kernel[18] = machine;
    kernel.extend((0..100_000_u32).flat_map(u32::to_be_bytes));
    kernel.extend(b"@(#)FreeBSD 14.1-RELEASE-p5 releng/14.1-n267718 GENERIC\0");
    kernel
}

/// What base.txz and kernel.txz unpack to, as far as a boot needs it.
fn tree(dir: &Path) -> Result {
    for sub in [
        "boot/kernel",
        "boot/defaults",
        "bin",
        "sbin",
        "rescue",
        "etc",
        "conf/base/etc",
        "usr/bin",
    ] {
        fs::create_dir_all(dir.join(sub))?;
    }
    fs::write(dir.join("boot/kernel/kernel"), kernel(X86_64))?;
    fs::write(dir.join("boot/pxeboot"), [0x5a; 3000])?;
    fs::write(dir.join("boot/loader.efi"), [b"MZ".to_vec(), vec![7; 5000]].concat())?;
    fs::write(dir.join("boot/loader.conf"), "beastie_disable=\"YES\"\n")?;
    fs::write(
        dir.join("bin/freebsd-version"),
        "USERLAND_VERSION=\"14.1-RELEASE-p6\"\n",
    )?;
    fs::write(dir.join("sbin/init"), "init")?;
    fs::set_permissions(dir.join("sbin/init"), fs::Permissions::from_mode(0o500))?;
    // /rescue is one program with many names.
    fs::hard_link(dir.join("sbin/init"), dir.join("rescue/init"))?;
    symlink("kernel/kernel", dir.join("boot/kernel.link"))?;
    Ok(())
}

/// Imports what is at `from` as the next version.
fn import(cluster: &Cluster, from: &Path) -> Result<String> {
    import_as(cluster, "freebsd", from)
}

/// Imports what is at `from` as the next version of `name`, or as a variant of it.
fn import_as(cluster: &Cluster, name: &str, from: &Path) -> Result<String> {
    let agent = Binaries::get()?.agent.display().to_string();
    let from = from.display().to_string();
    (cluster.daemon).cli(&["image", "import", name, "--from", &from, "--agent", &agent])
}

/// A cluster whose nodes boot FreeBSD, imported from a tar archive as administrators get it.
fn cluster() -> Result<Cluster> {
    let mut site = Site::demo();
    let profile = site.default_profile();
    profile.image = Some("freebsd".to_owned());
    profile.layout = None;
    profile.templates = None;
    profile.console = None;
    let binaries = Binaries::get()?;
    let cluster = Cluster::with_images(&binaries, &site, vec![])?;
    let unpacked = cluster.dir().join("tree");
    tree(&unpacked)?;
    let archive = cluster.dir().join("base.tar");
    output(
        Command::new("tar")
            .arg("-C")
            .arg(&unpacked)
            .arg("-cf")
            .arg(&archive)
            .arg("."),
    )?;
    let said = import(&cluster, &archive)?;
    assert!(
        said.contains("kernel 14.1-RELEASE-p5, FreeBSD with loader.efi ("),
        "{said}"
    );
    cluster.start_daemon()?;
    Ok(cluster)
}

fn events(cluster: &Cluster, node: &str) -> Result<Vec<(String, String)>> {
    let timeline = cluster.daemon.json(&["timeline", node])?;
    let events = timeline["events"].as_array().cloned().unwrap_or_default();
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    Ok(events
        .iter()
        .map(|event| (text(event, "step"), text(event, "detail")))
        .collect())
}

/// The port mapper is opened within seconds after the daemon has the image.
fn wait_for_portmapper(node: &played::Node) -> Result {
    let socket = node.namespace.inside(|| UdpSocket::bind(("0.0.0.0", 0)))??;
    let asked = || bsd::call(&socket, 111, (bsd::PORTMAP, 2, 0), &[], Duration::from_millis(500));
    poll(PATIENCE, asked)?.expect("the port mapper never answers");
    Ok(())
}

#[test]
fn a_node_boots_freebsd_by_its_own_loader_and_reports_that_it_is_ready() -> Result {
    let cluster = cluster()?;
    let node = cluster.played("r01n01")?;
    // Each firmware gets the loader of the image, which pins the boot.
    for (arch, name, size) in [(0, "freebsd/pxeboot", 3000), (7, "freebsd/loader.efi", 5002)] {
        let lease = bsd::firmware(&node, arch)?;
        assert_eq!(
            (lease.boot_file.as_str(), lease.root_path.as_str()),
            (name, "10.5.0.1:/freebsd@1")
        );
        assert!(lease.variables.is_empty(), "{lease:?}");
        assert_eq!(bsd::tftp(&node, name)?.len(), size);
    }
    let explained = cluster.daemon.cli(&["explain", "r01n01"])?;
    assert!(
        explained.contains("which loads freebsd/loader.efi first: the loader of image freebsd@1"),
        "{explained}"
    );
    assert!(
        explained.contains("gets the root path 10.5.0.1:/freebsd@1"),
        "{explained}"
    );
    wait_for_portmapper(&node)?;

    // A version that becomes current now is not this boot's.
    let newer = cluster.dir().join("newer");
    tree(&newer)?;
    fs::write(newer.join("boot/loader.conf"), "newer")?;
    import(&cluster, &newer)?;
    cluster.daemon.cli(&["reload"])?;

    let mut loader = bsd::Loader::start(&node)?;
    assert_eq!(loader.root, "/freebsd@1");
    assert_eq!(loader.lease.next_server.to_string(), testbed::netns::SERVER);
    assert_eq!(loader.lease.variables["boot.nfsroot.options"], "nolockd");
    assert_eq!(loader.lease.variables["rackstrap.url"], "http://10.5.0.1:80");
    let conf = loader.open("/boot/loader.conf")?;
    assert_eq!(conf.content(1024)?, b"beastie_disable=\"YES\"\n");
    let file = loader.open("/boot/kernel/kernel")?;
    assert_eq!(file.size, kernel(X86_64).len() as u64);
    assert!(file.content(1024)? == kernel(X86_64), "by the loader's default reads");
    assert!(
        file.content(16_384)? == kernel(X86_64),
        "by the largest reads of the loader"
    );
    assert_eq!(file.read(0, 1 << 20)?.len(), 16_384, "a reply fits into a datagram");

    let (status, root) = loader.mount()?;
    assert_eq!(status, 0);
    assert_eq!(bsd::kernel_mounts(&node, &root, false)?, (0o755, 1 << 20));
    assert_eq!(bsd::kernel_mounts(&node, &root, true)?, (0o755, 16_384));

    // Users are on the node from now on: none of them gets a new boot, from any port.
    let pinned = || -> Result<usize> {
        let all = events(&cluster, "r01n01")?;
        Ok(all
            .iter()
            .filter(|(_, detail)| detail.starts_with("boots freebsd@"))
            .count())
    };
    let before = pinned()?;
    let hwaddr = node.machine.hwaddr.map(|byte| format!("{byte:02x}")).join(":");
    let url = format!("http://10.5.0.1/ipxe?mac={hwaddr}");
    let script = node.namespace.command("curl").args(["-s", &url]).output()?;
    let script = String::from_utf8_lossy(&script.stdout).into_owned();
    assert!(
        script.contains("has to ask DHCP before it boots") && !script.contains("/boot/"),
        "{script}"
    );
    assert_eq!(pinned()?, before);

    let of_boot = events(&cluster, "r01n01")?;
    let details = |step: &str| -> Vec<&str> {
        let of_step = of_boot.iter().filter(|(kind, _)| kind == step);
        of_step.map(|(_, detail)| detail.as_str()).collect()
    };
    assert!(
        details("script").contains(&"boots freebsd@1 by its pxeboot"),
        "{of_boot:?}"
    );
    assert_eq!(
        details("kernel"),
        ["FreeBSD's loader reads the kernel of freebsd@1 by NFS"]
    );

    // The reporter, as the import has added it to the tree, on a machine without kenv(1), jot(1) and FreeBSD's sysctl(8).
    let installed = cluster.daemon.state_dir().join("images/freebsd/1/root/usr/local");
    let rc = fs::read_to_string(installed.join("etc/rc.d/rackstrap"))?;
    assert!(rc.contains("/usr/local/libexec/rackstrap-report"), "{rc}");
    let stubs = cluster.dir().join("stubs");
    fs::create_dir_all(&stubs)?;
    let ordered = cluster.dir().join("shutdown");
    for (name, text) in [
        ("kenv", "echo http://10.5.0.1:80".to_owned()),
        ("jot", "echo $((600 + $$ % 400))".to_owned()),
        (
            "sysctl",
            "echo \"{ sec = $(($(date +%s) - 42)), usec = 5 } Sat Nov 28 20:00:00 2026\"".to_owned(),
        ),
        ("shutdown", format!("echo \"$@\" > {}", ordered.display())),
    ] {
        let path = stubs.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let mut command = node.namespace.command("env");
    command.arg(format!("PATH={}:{}", stubs.display(), std::env::var("PATH")?));
    let run = cluster.dir().join("run");
    fs::create_dir_all(&run)?;
    command
        .arg("sh")
        .arg(installed.join("libexec/rackstrap-report"))
        .arg(&run);
    let _reporter = Running::start("the reporter", command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    // The server knows the boot before users can log in, and hears that it is ready after that.
    let claimed = || Ok(run.join("rackstrap.claimed").exists().then_some(()));
    poll(PATIENCE, claimed)?.unwrap_or_else(|| panic!("never claimed: {:?}", events(&cluster, "r01n01")));
    assert_ne!(cluster.status("r01n01")?["state"], "ready");
    fs::write(run.join("rackstrap.login"), "")?;
    let is_ready = || Ok((cluster.status("r01n01")?["state"] == "ready").then_some(()));
    poll(PATIENCE, is_ready)?.unwrap_or_else(|| panic!("never ready: {:?}", events(&cluster, "r01n01")));
    let ready = events(&cluster, "r01n01")?;
    assert!(
        ready.iter().any(|(step, detail)| step == "ready"
            && detail.starts_with("FreeBSD ")
            && detail.ends_with(" reached LOGIN")),
        "{ready:?}"
    );
    // The secret is not handed out again, and not to a user of the node at all.
    assert_eq!(node.ask("GET", "/v1/freebsd", "", None)?.0, 409);
    let user = node
        .namespace
        .command("curl")
        .args(["-s", "http://10.5.0.1/v1/freebsd"])
        .output()?;
    let user = String::from_utf8_lossy(&user.stdout).into_owned();
    assert!(user.contains("below 1024") && !user.contains("secret="), "{user}");

    cluster.daemon.cli(&["node", "restart", "r01n01", "--yes"])?;
    let restarts = || Ok(fs::read_to_string(&ordered).ok().filter(|text| !text.is_empty()));
    let arguments = poll(PATIENCE, restarts)?.expect("the order to restart never arrives");
    assert!(arguments.starts_with("-r now"), "{arguments}");
    Ok(())
}

#[test]
fn only_the_node_of_a_boot_gets_its_root_by_udp() -> Result {
    let cluster = cluster()?;
    let node = cluster.played("r01n01")?;
    let lease = bsd::firmware(&node, 0)?;
    wait_for_portmapper(&node)?;
    // The loader was not fetched, so no boot is pinned, and the root is refused.
    let mut loader = bsd::Loader::start(&node)?;
    assert_eq!(loader.mount()?.0, 13, "MNT3ERR_ACCES");
    bsd::tftp(&node, &lease.boot_file)?;
    let (status, root) = loader.mount()?;
    assert_eq!(status, 0);

    // A stranger with the same packets: it gets the ports, and nothing else.
    let stranger = cluster.namespace.client("52:54:00:00:09:09")?;
    stranger.ip(&["address", "add", "10.5.0.99/16", "dev", "eth0"])?;
    let socket = stranger.inside(|| UdpSocket::bind(("0.0.0.0", 900)))??;
    let short = Duration::from_secs(1);
    let ask = |port, call, args: &[u8]| bsd::call(&socket, port, call, args, short);
    let nfs = played::rpc::NFS;
    let reply = ask(111, (bsd::PORTMAP, 2, 3), &bsd::getport_args(nfs, 3))?.expect("GETPORT");
    assert_eq!(reply[6], 2049);
    assert_eq!(ask(111, (bsd::PORTMAP, 2, 4), &[])?, None, "a list would amplify");
    assert!(ask(2049, (nfs, 3, 0), &[])?.is_some(), "a ping");
    let handle = played::rpc::opaque(&root);
    assert_eq!(ask(2049, (nfs, 3, 1), &handle)?, None, "GETATTR of another node's root");
    let path = played::rpc::opaque(b"/freebsd@1");
    assert_eq!(ask(2049, (played::rpc::MOUNT, 3, 1), &path)?, None);
    // Another node may not use the handle either: it was not told to boot that image.
    let other = cluster.played("r01n02")?;
    bsd::firmware(&other, 0)?;
    let refused = bsd::kernel_mounts(&other, &root, true).unwrap_err().to_string();
    assert!(refused.contains("GETATTR 13"), "{refused}");

    // The real client of Debian's libnfs asks the port mapper by TCP.
    let listed = output(
        node.namespace
            .command("nfs-ls")
            .arg("nfs://10.5.0.1/freebsd@1?version=3"),
    )?;
    assert!(listed.contains("conf") && listed.contains("boot"), "{listed}");

    // Without FreeBSD, the ports are closed.
    let mut linux = Site::demo();
    linux.default_profile().image = Some("debian".to_owned());
    cluster.daemon.write_site(&linux)?;
    cluster.daemon.hang_up()?;
    Ok(())
}

#[test]
fn what_freebsd_cannot_have_is_said_by_check() -> Result {
    let cluster = cluster()?;
    let mut site = Site::demo();
    site.default_profile().image = Some("freebsd".to_owned());
    cluster.daemon.write_site(&site)?;
    let said = cluster.daemon.cli(&["check"]).unwrap_err().to_string();
    assert!(
        said.contains("profile default has the disk layout scratch; FreeBSD images take none"),
        "{said}"
    );
    let work = cluster.daemon.cli(&["image", "clone", "freebsd@1"])?;
    assert!(work.contains("freebsd-work"), "{work}");
    let refused = cluster
        .daemon
        .cli(&["image", "exec", "freebsd-work", "--", "true"])
        .unwrap_err()
        .to_string();
    assert!(refused.contains("whose programs do not run on Linux"), "{refused}");
    // A changed copy is sealed like any other.
    let root = cluster.daemon.state_dir().join("images/.work/freebsd-work/root");
    fs::write(root.join("boot/loader.conf"), "boot.nfsroot.options=\"nolockd,udp\"\n")?;
    let agent = Binaries::get()?.agent.display().to_string();
    let sealed = cluster
        .daemon
        .cli(&["image", "seal", "freebsd-work", "--agent", &agent])?;
    assert!(
        sealed.contains("freebsd@2") && sealed.contains("FreeBSD with"),
        "{sealed}"
    );
    let verified = cluster.daemon.cli(&["image", "verify", "freebsd@2"])?;
    assert!(verified.contains("freebsd@2"), "{verified}");
    Ok(())
}

#[test]
fn each_machine_boots_the_variant_of_its_architecture_or_is_told_that_there_is_none() -> Result {
    let cluster = cluster()?;
    let arm = cluster.dir().join("arm");
    tree(&arm)?;
    fs::remove_file(arm.join("boot/pxeboot"))?;
    fs::write(arm.join("boot/loader.efi"), [b"MZ".to_vec(), vec![8; 6000]].concat())?;
    fs::write(arm.join("boot/kernel/kernel"), kernel(AARCH64))?;
    let said = import_as(&cluster, "freebsd@1", &arm)?;
    assert!(!said.contains("BIOS"), "a machine with arm64 has none: {said}");
    cluster.daemon.cli(&["reload"])?;

    for (name, arch, size, export, machine) in [
        ("r01n01", 7, 5002, "freebsd@1", X86_64),
        ("r01n02", 11, 6002, "freebsd@1/arm64", AARCH64),
    ] {
        let node = cluster.played(name)?;
        let lease = bsd::firmware(&node, arch)?;
        assert_eq!(
            (lease.boot_file.as_str(), lease.root_path),
            ("freebsd/loader.efi", format!("10.5.0.1:/{export}"))
        );
        assert_eq!(bsd::tftp(&node, &lease.boot_file)?.len(), size, "{name}");
        let pinned = format!("boots {export} by its loader.efi");
        let of_boot = events(&cluster, name)?;
        assert!(of_boot.iter().any(|(_, detail)| *detail == pinned), "{of_boot:?}");
        wait_for_portmapper(&node)?;
        let mut loader = bsd::Loader::start(&node)?;
        assert_eq!(loader.root, format!("/{export}"));
        let file = loader.open("/boot/kernel/kernel")?;
        assert!(file.content(16_384)? == kernel(machine), "{name}");
        let explained = cluster.daemon.cli(&["explain", name])?;
        assert!(
            explained.contains(&format!("gets the root path 10.5.0.1:/{export},")),
            "{explained}"
        );
    }

    // riscv64 has no variant: no loader, and the reason with the command that adds one.
    let node = cluster.played("r01n03")?;
    let lease = bsd::firmware(&node, 27)?;
    assert_eq!((lease.boot_file.as_str(), lease.root_path.as_str()), ("", ""));
    let explained = cluster.daemon.cli(&["explain", "r01n03"])?;
    for says in [
        "image freebsd@1 has no variant for riscv64, and node r01n03 is an riscv64 machine; it has amd64, arm64",
        "rackstrap image import freebsd@1 --arch riscv64 --from TREE",
    ] {
        assert!(explained.replace('\n', " ").contains(says), "{explained}");
    }
    Ok(())
}
