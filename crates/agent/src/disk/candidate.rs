//! The block devices of the machine, as the kernel describes them in sysfs.

use rackstrap_wire::{DiskRule, Transport, disk_rule};
use std::{
    fs,
    path::{Component, Path},
};

/// A block device, as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Kernel name, `nvme0n1`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Removable medium (CD drives, many USB sticks).
    pub removable: bool,
    /// Whether the device is write-protected.
    pub read_only: bool,
    /// Whether it is one path of a multipath NVMe device.
    pub hidden: bool,
    /// Connected by USB.
    pub usb: bool,
    /// World-wide name or serial number; empty if the device has none.
    pub serial: String,
    /// The properties that rules name.
    pub properties: Properties,
}

/// The properties of a disk that rules name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Serial number of the device; empty if it has none.
    pub serial: String,
    /// Model; empty if unknown. A SCSI disk shows 16 characters of it, and an ATA disk all of it where the kernel reads page 0x89.
    pub model: String,
    /// World-wide name without a prefix; empty if it has none.
    pub wwn: String,
    /// Names of its link in `/dev/disk/by-path`, of which udev versions make different ones; empty if none of the known forms fits.
    pub by_path: Vec<String>,
    /// How it is connected; none for others, such as RAID controllers.
    pub transport: Option<Transport>,
    /// Whether it has rotating platters.
    pub rotational: bool,
}

/// Files in sysfs that identify a device: NVMe and SCSI have a world-wide name, virtio a serial number, eMMC and SD a card
/// identification. The serial number of an NVMe controller comes last, because its namespaces share it.
const SERIALS: &[&str] = &["wwid", "device/wwid", "serial", "device/cid", "device/serial"];

/// Reads `/sys/block`.
pub fn candidates(sys_block: &Path) -> Vec<Candidate> {
    let names = fs::read_dir(sys_block).into_iter().flatten().flatten();
    names
        .filter_map(|e| e.file_name().into_string().ok())
        .map(|name| {
            let dir = sys_block.join(&name);
            let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
            let read = |file: &str| text(file).trim().parse::<u64>().unwrap_or(0);
            let serials = SERIALS.iter().map(|file| plain(&text(file)));
            Candidate {
                // sysfs counts in units of 512 bytes, whatever the disk's own blocks are.
                size: read("size").saturating_mul(512),
                removable: read("removable") != 0,
                read_only: read("ro") != 0,
                hidden: read("hidden") != 0,
                usb: fs::read_link(&dir).is_ok_and(|path| path.to_string_lossy().contains("/usb")),
                serial: serials.into_iter().find(|text| !text.is_empty()).unwrap_or_default(),
                properties: properties(&dir, &name),
                name,
            }
        })
        .collect()
}

fn properties(dir: &Path, name: &str) -> Properties {
    let text = |file: &str| plain(&fs::read_to_string(dir.join(file)).unwrap_or_default());
    let bytes = |file: &str| fs::read(dir.join(file)).unwrap_or_default();
    let first = |found: [String; 3]| found.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    let place = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let identify = bytes("device/vpd_pg89");
    let transport = transport(&place, name, &text("device/vendor"));
    // A USB disk's own serial number is that of the USB device. Bridges invent those of the disk behind them.
    let usb = match transport {
        Some(Transport::Usb) => place
            .ancestors()
            .find_map(|above| fs::read_to_string(above.join("serial")).ok())
            .map(|serial| plain(&serial))
            .unwrap_or_default(),
        _ => String::new(),
    };
    // wwid of virtio and of old NVMe devices is made of other properties, and is not a world-wide name.
    let wwid = first([text("wwid"), text("device/wwid"), String::new()]);
    let is_name = ["naa.", "eui.", "uuid."].iter().any(|kind| wwid.starts_with(kind));
    Properties {
        serial: first([
            usb,
            vpd_serial(&bytes("device/vpd_pg80")),
            first([text("serial"), text("device/serial"), ata_text(&identify, 10, 10)]),
        ]),
        model: first([ata_text(&identify, 27, 20), text("device/model"), text("device/name")]),
        wwn: if is_name {
            disk_rule::plain_wwn(&wwid)
        } else {
            String::new()
        },
        by_path: by_path(&place, name, &|path| fs::read_to_string(path).ok()),
        rotational: text("queue/rotational") == "1",
        transport,
    }
}

/// The serial number in SCSI's page 0x80 (SPC-5, 7.7.20): four bytes of header, of which two are the length.
fn vpd_serial(page: &[u8]) -> String {
    let Some((header, rest)) = page.split_first_chunk::<4>() else {
        return String::new();
    };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]])).min(rest.len());
    plain(&String::from_utf8_lossy(&rest[..length]))
}

/// A text of ATA's IDENTIFY DEVICE (ACS-4, 7.13.6) in SCSI's page 0x89 (SAT-4, 12.4.2), where that data begins at byte 60. The bytes of
/// each word are swapped.
fn ata_text(page: &[u8], word: usize, words: usize) -> String {
    let at = 60 + 2 * word;
    let Some(text) = page.get(at..at + 2 * words) else {
        return String::new();
    };
    let swapped: Vec<u8> = text.chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]).collect();
    plain(&String::from_utf8_lossy(&swapped))
}

/// How a disk is connected, by its place in sysfs, `/sys/devices/…/block/sda`.
fn transport(place: &Path, name: &str, vendor: &str) -> Option<Transport> {
    let has = |start: &str| {
        place
            .components()
            .any(|part| part.as_os_str().to_string_lossy().starts_with(start))
    };
    let is_ata = place
        .components()
        .any(|part| number_after(&part.as_os_str().to_string_lossy(), "ata").is_some());
    if has("usb") {
        return Some(Transport::Usb);
    }
    match name {
        name if name.starts_with("nvme") => Some(Transport::Nvme),
        name if name.starts_with("mmcblk") => Some(Transport::Mmc),
        name if name.starts_with("vd") => Some(Transport::Virtio),
        name if !name.starts_with("sd") => None,
        _ if has("virtio") => Some(Transport::Virtio),
        // The kernel gives ATA disks this vendor, also behind a SAS controller (SAT-4, 8.1.1).
        _ if is_ata || vendor == "ATA" => Some(Transport::Sata),
        _ if has("end_device-") => Some(Transport::Sas),
        _ => None,
    }
}

/// The names of a disk's link in `/dev/disk/by-path`, as udev's path_id builtin makes them (src/udev/udev-builtin-path_id.c), for disks of PCI
/// controllers: NVMe, SATA, virtio, and SCSI hosts of one channel. `read` reads a file of sysfs.
fn by_path(place: &Path, name: &str, read: &dyn Fn(&Path) -> Option<String>) -> Vec<String> {
    let parts: Vec<String> = place
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect();
    let Some(pci) = parts.iter().rposition(|part| is_pci_address(part)) else {
        return Vec::new();
    };
    let controller = format!("pci-{}", parts[pci]);
    let below = &parts[pci + 1..];
    if below
        .iter()
        .any(|part| part.starts_with("usb") || part.starts_with("end_device-"))
    {
        return Vec::new();
    }
    if name.starts_with("vd") {
        return vec![controller.clone(), format!("virtio-{controller}")];
    }
    if name.starts_with("nvme") {
        let namespace = read(&place.join("nsid")).map(|text| plain(&text));
        let namespace = namespace.or_else(|| name.rsplit_once('n').map(|(_, number)| number.to_owned()));
        return namespace
            .map(|nsid| format!("{controller}-nvme-{nsid}"))
            .into_iter()
            .collect();
    }
    if let Some(port) = below.iter().find(|part| number_after(part, "ata").is_some()) {
        let to: std::path::PathBuf = place
            .ancestors()
            .find(|above| above.file_name().is_some_and(|part| part == port.as_str()))
            .unwrap_or(place)
            .join("ata_port")
            .join(port)
            .join("port_no");
        let number = read(&to).map(|text| plain(&text)).filter(|text| !text.is_empty());
        let names = number.map(|number| {
            [
                format!("{controller}-ata-{number}"),
                format!("{controller}-ata-{number}.0"),
            ]
        });
        return names.into_iter().flatten().collect();
    }
    // udev counts hosts from the first one of the controller. With one host, that is 0.
    let address = below.iter().rev().find(|part| part.split(':').count() == 4);
    let address = address.and_then(|address| address.split_once(':'));
    let hosts = below.iter().filter(|part| number_after(part, "host").is_some()).count();
    match address.filter(|_| hosts == 1 && name.starts_with("sd")) {
        Some((_, rest)) => vec![format!("{controller}-scsi-0:{rest}")],
        None => Vec::new(),
    }
}

/// `0000:3b:00.0`
fn is_pci_address(part: &str) -> bool {
    let hex = |text: &str, digits: usize| text.len() >= digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let fields: Vec<&str> = part.split([':', '.']).collect();
    matches!(fields.as_slice(), [domain, bus, device, function]
        if part.contains('.') && hex(domain, 4) && hex(bus, 2) && hex(device, 2) && hex(function, 1))
}

fn number_after<'a>(part: &'a str, kind: &str) -> Option<&'a str> {
    let number = part.strip_prefix(kind)?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(number)
}

/// Cuts a text to 128 characters with single blanks.
fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let text = words.join(" ");
    text.chars()
        .filter(|c| *c == ' ' || c.is_ascii_graphic())
        .take(128)
        .collect()
}

impl Candidate {
    /// Whether it fits `rule`. A disk on USB fits only a rule that says so: it may be unplugged, or be an administrator's stick.
    pub fn fits(&self, rule: &DiskRule) -> bool {
        let Properties {
            serial,
            model,
            wwn,
            by_path,
            transport,
            rotational,
        } = &self.properties;
        let of =
            |pattern: &str, text: &str| pattern.is_empty() || !text.is_empty() && disk_rule::matches(pattern, text);
        let place = rule.by_path.is_empty() || by_path.iter().any(|name| disk_rule::matches(&rule.by_path, name));
        let sized = rule
            .size
            .is_none_or(|(least, most)| (least..=most).contains(&self.size));
        let usb = !self.usb || rule.transport == Some(Transport::Usb) || rule.names_disks();
        of(&rule.serial, serial)
            && of(&rule.model, model)
            && of(&rule.wwn, wwn)
            && place
            && sized
            && usb
            && rule.transport.is_none_or(|one| *transport == Some(one))
            && rule.rotational.is_none_or(|one| *rotational == one)
    }

    /// Its properties as the text of a rule: `serial=S4EMNX0R, model=Samsung SSD 980, transport=nvme, rotational=no`.
    pub fn about(&self) -> String {
        let p = &self.properties;
        // Characters that a rule cannot contain stand as the pattern that fits them.
        let safe = |text: &str| text.replace([',', '"', '='], "?");
        let rule = DiskRule {
            serial: safe(&p.serial),
            model: safe(&p.model),
            wwn: safe(&p.wwn),
            by_path: p.by_path.first().map(|name| safe(name)).unwrap_or_default(),
            transport: p.transport,
            rotational: Some(p.rotational),
            ..DiskRule::default()
        };
        rule.to_string()
    }

    /// Whether two disks are certainly one, reached over two paths: a world-wide name is given to one disk only, serial numbers are not.
    pub fn is_same_device(&self, other: &Candidate) -> bool {
        let (a, b) = (&self.properties, &other.properties);
        self.serial == other.serial
            && !a.wwn.is_empty()
            && a.wwn == b.wwn
            && a.serial == b.serial
            && self.size == other.size
    }
}

#[cfg(test)]
#[path = "candidate_tests.rs"]
mod tests;
