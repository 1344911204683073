use super::*;

#[test]
fn serial_numbers_are_read_where_each_kind_of_device_has_them() {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("nvme0n1/wwid", "eui.0025385b11b2a4c1\n"),
        ("nvme0n1/device/serial", "S4EMNX0R   \n"),
        ("sda/device/wwid", "t10.ATA     QEMU HARDDISK    QM00001 \n"),
        ("vda/serial", "disk-1"),
        ("mmcblk0/device/cid", "aa5859514d552100\n"),
        ("vdb/size", "8\n"),
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let found = |name: &str| {
        let all = candidates(dir.path());
        all.into_iter().find(|disk| disk.name == name).unwrap()
    };
    assert_eq!(found("nvme0n1").serial, "eui.0025385b11b2a4c1");
    assert_eq!(found("sda").serial, "t10.ATA QEMU HARDDISK QM00001");
    assert_eq!(found("vda").serial, "disk-1");
    assert_eq!(found("mmcblk0").serial, "aa5859514d552100");
    assert_eq!((found("vdb").serial.as_str(), found("vdb").size), ("", 4096));
}

/// A disk: its kernel name, the directory of its device, and files with their content.
type Device<'a> = (&'a str, &'a str, &'a [(&'a str, &'a [u8])]);

/// Disks as sysfs shows them.
fn devices(all: &[Device<'_>]) -> Vec<Candidate> {
    let root = tempfile::tempdir().unwrap();
    let block = root.path().join("sys/block");
    fs::create_dir_all(&block).unwrap();
    for (name, place, files) in all {
        let place = root.path().join("sys/devices").join(place);
        fs::create_dir_all(place.join("block").join(name)).unwrap();
        std::os::unix::fs::symlink(place.join("block").join(name), block.join(name)).unwrap();
        std::os::unix::fs::symlink(&place, place.join("block").join(name).join("device")).unwrap();
        for (file, bytes) in *files {
            let file = place.join("block").join(name).join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
    }
    let mut found = candidates(&block);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

#[test]
fn properties_are_read_where_each_kind_of_device_has_them() {
    let found = devices(&[
        (
            "nvme0n1",
            "pci0000:3a/0000:3a:00.0/0000:3b:00.0/nvme/nvme0",
            &[
                ("wwid", b"eui.0025385b11b2a4c1\n"),
                ("nsid", b"1\n"),
                ("device/serial", b"S4EMNX0R   \n"),
                ("device/model", b"Samsung SSD 980 PRO 1TB   \n"),
                ("size", b"1953525168\n"),
            ],
        ),
        (
            "sda",
            "pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0",
            &[
                ("device/wwid", b"naa.5000c500a1b2c3d4\n"),
                ("device/vendor", b"ATA     \n"),
                ("device/model", b"ST1000NM0008-2F2\n"),
                ("device/vpd_pg80", b"\0\x80\0\x08Z1W0ABCD"),
                ("queue/rotational", b"1\n"),
            ],
        ),
        (
            "sdb",
            "pci0000:00/0000:00:05.0/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0",
            &[("device/vendor", b"SEAGATE \n")],
        ),
        (
            "sdc",
            "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host4/target4:0:0/4:0:0:0",
            &[("device/vendor", b"SanDisk \n")],
        ),
        ("sdd", "pci0000:00/0000:00:06.0/virtio3/host1/target1:0:0/1:0:0:0", &[]),
        ("vda", "pci0000:00/0000:00:05.0/virtio2", &[("serial", b"disk-1")]),
        (
            "mmcblk0",
            "platform/soc/mmc_host/mmc0/mmc0:0001",
            &[("device/name", b"SD32G\n")],
        ),
    ]);
    let of = |name: &str| found.iter().find(|disk| disk.name == name).unwrap();
    assert_eq!(
        of("nvme0n1").about(),
        "serial=S4EMNX0R, model=Samsung SSD 980 PRO 1TB, wwn=0025385b11b2a4c1, by-path=pci-0000:3b:00.0-nvme-1, transport=nvme, \
         rotational=no"
    );
    assert_eq!(
        of("sda").about(),
        "serial=Z1W0ABCD, model=ST1000NM0008-2F2, wwn=5000c500a1b2c3d4, transport=sata, rotational=yes"
    );
    assert_eq!(of("sdb").about(), "transport=sas, rotational=no");
    assert_eq!(
        (of("sdc").about().as_str(), of("sdc").usb),
        ("transport=usb, rotational=no", true)
    );
    assert_eq!(
        of("sdd").about(),
        "by-path=pci-0000:00:06.0-scsi-0:0:0:0, transport=virtio, rotational=no"
    );
    assert_eq!(
        of("vda").properties.by_path,
        ["pci-0000:00:05.0", "virtio-pci-0000:00:05.0"]
    );
    assert_eq!(of("mmcblk0").about(), "model=SD32G, transport=mmc, rotational=no");
    for (name, rule, fits) in [
        ("nvme0n1", "wwn=eui.0025385B11B2A4C1", true),
        ("nvme0n1", "model=Samsung SSD 980*, size=900GB..1100GB", true),
        ("nvme0n1", "size=..900GB", false),
        ("vda", "by-path=virtio-pci-0000:00:05.0", true),
        ("vda", "wwn=*", false),
        ("sda", "rotational=yes", true),
        // A stick is not taken by a rule that it fits by chance.
        ("sdc", "pick=largest", false),
        ("sdc", "transport=usb", true),
    ] {
        assert_eq!(of(name).fits(&rule.parse().unwrap()), fits, "{name} {rule}");
    }
}

#[test]
fn the_pages_of_devices_are_read_within_their_bounds() {
    assert_eq!(vpd_serial(b"\0\x80\xff\xffABC"), "ABC");
    for page in [&b""[..], b"\0", b"\0\x80\0", b"\0\x80\0\0ABC"] {
        assert_eq!(vpd_serial(page), "");
    }
    let mut page = vec![b' '; 572];
    page[60 + 54..60 + 54 + 6].copy_from_slice(b"TS0100");
    assert_eq!(ata_text(&page, 27, 20), "ST1000");
    assert_eq!(ata_text(&page[..100], 27, 20), "");
    assert!(is_pci_address("0000:3b:00.0"));
    for text in ["", "0:0:0:0", "2:0:0:0", "pci0000:00", "0000:3b:00", "zzzz:3b:00.0"] {
        assert!(!is_pci_address(text), "{text}");
    }
}
