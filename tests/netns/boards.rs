//! PXELINUX, U-Boot and Raspberry Pi, played packet by packet: names of their own by TFTP, with the decisions that iPXE gets.
//!
//! No board was at hand. The packets of a Raspberry Pi are those of its documentation and of published captures; the order of its files is
//! that of a tftpd's log (github.com/PLexMor/raspi-netboot).

use anyhow::{Context, bail};
use rackstrap_tftp::{
    Mode,
    packet::{ack, read_request},
};
use serde_json::Value;
use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};
use testbed::{
    Binaries, Cluster, Namespace, Result, Site,
    image::fake,
    played::{Message, TO_ALL, client_socket},
    timeline::poll,
};

const PATIENCE: Duration = Duration::from_secs(60);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 1);
const PI: [u8; 6] = [0xdc, 0xa6, 0x32, 0x01, 0x36, 0xc2];
const PI_TEXT: &str = "dc:a6:32:01:36:c2";
const SERIAL: &str = "9ffedb0d";
const PC: [u8; 6] = [0x52, 0x54, 0, 0, 1, 1];
const PC_TEXT: &str = "52:54:00:00:01:01";

/// A daemon with an image for `arch` that boots nothing, and with these files in its tree.
fn start(arch: &str, files: &[&str]) -> Result<Cluster> {
    let binaries = Binaries::without_agent(env!("CARGO_BIN_EXE_rackstrap"));
    let mut site = Site::demo();
    site.default_profile().templates = None;
    let cluster = Cluster::with_images(&binaries, &site, Vec::new())?;
    let images = cluster.daemon.state_dir().join("images");
    fake(&images, "debian@1", 0)?;
    let version = images.join("debian/1");
    let manifest = fs::read_to_string(version.join("manifest.toml"))?;
    fs::write(version.join("manifest.toml"), manifest.replace("x86_64", arch))?;
    for file in files {
        let path = version.join("root").join(file);
        fs::create_dir_all(path.parent().context("a file in a directory")?)?;
        fs::write(path, file)?;
    }
    cluster.start_daemon()?;
    Ok(cluster)
}

/// What the firmware on the card of `host` is offered: the address, and option 43.
fn offered(host: &Namespace, discover: &Message) -> Result<(Ipv4Addr, Vec<u8>)> {
    let message = discover.clone().broadcast().build();
    host.inside(|| {
        let socket = client_socket("eth0")?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut buffer = [0; 1500];
        for _ in 0..30 {
            socket.send_to(&message, TO_ALL)?;
            let Ok((len, _)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let reply = &buffer[..len];
            let mut rest = &reply[240..];
            let mut option_43 = Vec::new();
            while let [code, length, tail @ ..] = rest {
                if *code == 255 {
                    break;
                }
                let (value, after) = tail.split_at(usize::from(*length));
                if *code == 43 {
                    option_43 = value.to_vec();
                }
                rest = after;
            }
            return Ok((Ipv4Addr::new(reply[16], reply[17], reply[18], reply[19]), option_43));
        }
        bail!("no offer")
    })?
}

/// The file by TFTP, or the text of the refusal.
fn get(host: &Namespace, name: &str) -> Result<std::result::Result<String, String>> {
    host.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(&read_request(name.as_bytes(), Mode::Octet, &[]), (SERVER, 69))?;
        let (mut content, mut buffer, mut next) = (Vec::new(), [0; 1500], 1u16);
        loop {
            let (len, from) = socket.recv_from(&mut buffer).with_context(|| name.to_owned())?;
            match buffer[..len] {
                [0, 3, a, b, ref data @ ..] => {
                    let block = u16::from_be_bytes([a, b]);
                    if block == next {
                        content.extend_from_slice(data);
                        next += 1;
                    }
                    socket.send_to(&ack(block), from)?;
                    if data.len() < 512 {
                        return Ok(Ok(String::from_utf8_lossy(&content).into_owned()));
                    }
                }
                [0, 5, _, _, ref text @ ..] => {
                    return Ok(Err(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned()));
                }
                _ => bail!("{name}: {:?}", &buffer[..len]),
            }
        }
    })?
}

fn has_address(host: &Namespace, address: Ipv4Addr) -> Result {
    host.ip(&["address", "flush", "dev", "eth0"])?;
    host.ip(&["address", "add", &format!("{address}/16"), "dev", "eth0"])?;
    Ok(())
}

/// The lines of a timeline, `step: detail`.
fn timeline(cluster: &Cluster, of: &str) -> Result<Vec<String>> {
    let all = cluster.daemon.json(&["timeline", of])?;
    let events = all["events"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(events
        .iter()
        .map(|e| format!("{}: {}", text(&e["step"]), text(&e["detail"])))
        .collect())
}

fn raspberry_pi() -> Message {
    let guid = [&b"\0RPi4\x11\x31\xc0\x00"[..], &PI[2..], &[0x0d, 0xdb, 0xfe, 0x9f]].concat();
    Message::new(1, PI)
        .xid(0x26f3_0339)
        .option(55, &[43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66, 1, 3])
        .option(93, &[0, 0])
        .option(94, &[1, 2, 1])
        .option(97, &guid)
        .option(60, b"PXEClient:Arch:00000:UNDI:002001")
}

#[test]
fn a_raspberry_pi_boots_from_the_files_of_its_image() -> Result {
    let cluster = start(
        "aarch64",
        &[
            "boot/firmware/start4.elf",
            "boot/firmware/overlays/vc4-kms-v3d.dtbo",
            "usr/lib/raspi-firmware/fixup4.dat",
            "usr/lib/linux-image-6.1.0/broadcom/bcm2711-rpi-4-b.dtb",
            "etc/shadow",
        ],
    )?;
    let host = cluster.namespace.client(PI_TEXT)?;
    let name = |file: &str| format!("{SERIAL}/{file}");

    // A stranger: it has an address, and no files.
    let (address, option_43) = offered(&host, &raspberry_pi())?;
    assert!(
        option_43.windows(17).any(|part| part == b"Raspberry Pi Boot"),
        "{option_43:?}"
    );
    let request = [&[54, 4][..], &SERVER.octets(), &[50, 4], &address.octets()].concat();
    // Without a class, as a Raspberry Pi 4 sends it.
    offered(&host, &Message::new(3, PI).xid(0x26f3_0339).options(&request))?;
    has_address(&host, address)?;
    let refused = get(&host, &name("start4.elf"))?.unwrap_err();
    assert!(refused.contains("waiting to be racked"), "{refused}");
    let waiting = poll(PATIENCE, || {
        let machines = cluster.daemon.json(&["discover", "list"])?["machines"].clone();
        let serial = machines[0]["machine"]["serial"] == SERIAL;
        let asked = get(&host, &name("start4.elf"))?;
        assert!(asked.is_err());
        Ok(serial.then_some(machines))
    })?;
    assert!(waiting.is_some(), "its serial number is not listed");

    // A node: without a DHCP exchange nothing secret is sent.
    cluster.daemon.cli(&["node", "add", "r01n01", "--hwaddr", PI_TEXT])?;
    has_address(&host, Ipv4Addr::new(10, 5, 1, 1))?;
    let refused = get(&host, &name("cmdline.txt"))?.unwrap_err();
    assert!(refused.contains("has to ask DHCP before it boots"), "{refused}");
    host.ip(&["address", "flush", "dev", "eth0"])?;
    let (address, _) = offered(&host, &raspberry_pi())?;
    assert_eq!(address, Ipv4Addr::new(10, 5, 1, 1));
    has_address(&host, address)?;

    // The OFFER alone is enough.
    let cmdline = poll(PATIENCE, || Ok(get(&host, &name("cmdline.txt"))?.ok()))?.context("no cmdline.txt")?;
    assert!(
        cmdline.starts_with("panic=10 ") && cmdline.lines().count() == 1,
        "{cmdline}"
    );
    for (file, content) in [
        ("start4.elf", "boot/firmware/start4.elf"),
        ("fixup4.dat", "usr/lib/raspi-firmware/fixup4.dat"),
        (
            "bcm2711-rpi-4-b.dtb",
            "usr/lib/linux-image-6.1.0/broadcom/bcm2711-rpi-4-b.dtb",
        ),
        ("overlays/vc4-kms-v3d.dtbo", "boot/firmware/overlays/vc4-kms-v3d.dtbo"),
        ("kernel8.img", "debian@1"),
        ("initramfs", "none"),
    ] {
        assert_eq!(get(&host, &name(file))?.as_deref(), Ok(content), "{file}");
        // By its address instead of its number, and without either.
        assert_eq!(
            get(&host, &format!("dc-a6-32-01-36-c2/{file}"))?.as_deref(),
            Ok(content)
        );
    }
    let config = get(&host, &name("config.txt"))?.unwrap_or_else(|refused| panic!("{refused}"));
    assert!(
        config.contains("kernel=kernel8.img") && config.contains("initramfs initramfs followkernel"),
        "{config}"
    );
    // It asks twice, and for files that it does without.
    assert_eq!(get(&host, &name("cmdline.txt"))?, Ok(cmdline));
    for file in ["recovery.elf", "autoboot.txt", "dt-blob.bin", "../etc/shadow", "shadow"] {
        assert!(get(&host, &name(file))?.is_err(), "{file}");
    }
    let told = poll(PATIENCE, || {
        let lines = timeline(&cluster, "r01n01")?;
        Ok(lines
            .iter()
            .any(|line| line.starts_with("initramfs: sent"))
            .then_some(lines))
    })?;
    let told = told.context("no initramfs on the timeline")?;
    let has = |line: &str| told.iter().any(|own| own == line);
    assert!(has("script: boots debian@1") && has("kernel: sent"), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("recovery.elf")), "{told:?}");
    let explained = cluster.daemon.cli(&["explain", "r01n01"])?;
    assert!(explained.contains("Raspberry Pi"), "{explained}");

    // Another machine cannot have them by the number in the name.
    let other = cluster.namespace.client(PC_TEXT)?;
    has_address(&other, Ipv4Addr::new(10, 5, 255, 200))?;
    for file in ["cmdline.txt", "kernel8.img", "start4.elf"] {
        assert!(get(&other, &name(file))?.is_err(), "{file}");
    }
    cluster.daemon.stop()
}

/// A BIOS, which loads PXELINUX.
fn pxe(kind: u8) -> Message {
    Message::new(kind, PC).xid(0x0101_0101).firmware(0)
}

#[test]
fn pxelinux_and_u_boot_get_their_script_by_the_card() -> Result {
    let cluster = start("x86_64", &["usr/lib/linux-image-6.1.0/rockchip/rk3399-rockpro64.dtb"])?;
    let host = cluster.namespace.client(PC_TEXT)?;
    let own = "pxelinux.cfg/01-52-54-00-00-01-01";
    let script = |host: &Namespace| get(host, own)?.map_err(anyhow::Error::msg);

    // A stranger waits.
    let (address, _) = offered(&host, &pxe(1))?;
    has_address(&host, address)?;
    let waits = script(&host)?;
    assert!(
        waits.contains(&format!("SAY unknown machine {PC_TEXT} - waiting to be racked")),
        "{waits}"
    );
    assert!(waits.contains("ONTIMEOUT again"), "{waits}");
    for name in ["pxelinux.cfg/44454c4c-4c00-1032-8051-b4c04f4b4631", "pxelinux.cfg/0A05"] {
        assert!(get(&host, name)?.is_err(), "{name}");
    }

    cluster.daemon.cli(&["node", "add", "r01n01", "--hwaddr", PC_TEXT])?;
    // Firmware has no address while it asks.
    host.ip(&["address", "flush", "dev", "eth0"])?;
    let (address, _) = offered(&host, &pxe(1))?;
    let request = [&[54, 4][..], &SERVER.octets(), &[50, 4], &address.octets()].concat();
    offered(&host, &pxe(3).options(&request))?;
    has_address(&host, address)?;
    let mut last = String::new();
    let text = poll(PATIENCE, || {
        last = script(&host)?;
        Ok(last.contains("LINUX boot/").then(|| last.clone()))
    })?;
    let text = text.with_context(|| format!("no script that boots: {last}"))?;
    assert!(
        text.contains("CONFIG pxelinux.cfg/failed-boot/01-52-54-00-00-01-01"),
        "{text}"
    );
    let line = |word: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(word));
        found
            .map(|rest| rest.trim().to_owned())
            .with_context(|| format!("no {word}: {text}"))
    };
    assert_eq!(get(&host, &line("LINUX")?)?.as_deref(), Ok("debian@1"));
    assert_eq!(get(&host, &line("INITRD")?)?.as_deref(), Ok("none"));
    let tree = format!("{}/rockchip/rk3399-rockpro64.dtb", line("FDTDIR")?);
    assert!(get(&host, &tree)?.is_ok_and(|content| content.ends_with("rk3399-rockpro64.dtb")));
    assert!(line("APPEND")?.starts_with("panic=10 "));
    // A loader that does not know its card is the machine at its address.
    for name in [
        // 10.5.1.1, as both write it.
        "pxelinux.cfg/0A050101",
        "pxelinux.cfg/default",
        "pxelinux.cfg/default-arm-rk3399-rockpro64",
        "extlinux/extlinux.conf",
    ] {
        let by_address = get(&host, name)?.map_err(anyhow::Error::msg)?;
        assert!(by_address.contains("LINUX boot/"), "{name}: {by_address}");
    }
    // Without its last digit the address is that of several machines.
    assert!(get(&host, "pxelinux.cfg/0A05010")?.is_err());
    // It may not speak for another card.
    let other = get(&host, "pxelinux.cfg/01-52-54-00-00-01-02")?.map_err(anyhow::Error::msg)?;
    assert!(
        other.contains("is not the address of 52:54:00:00:01:02") && !other.contains("LINUX"),
        "{other}"
    );
    // PXELINUX asks again after a failure.
    get(&host, "pxelinux.cfg/failed-boot/01-52-54-00-00-01-01")?.map_err(anyhow::Error::msg)?;
    let told = poll(PATIENCE, || {
        let lines = timeline(&cluster, "r01n01")?;
        Ok(lines
            .iter()
            .any(|line| line.contains("its kernel did not start"))
            .then_some(lines))
    })?;
    assert!(told.is_some(), "the failure is not on the timeline");
    cluster.daemon.stop()
}
