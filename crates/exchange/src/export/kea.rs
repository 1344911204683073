//! Global reservations and classes of Kea: members of the map `Dhcp4`, which `<?include?>` inserts there.
//!
//! A node's reservation puts it into the class of its network. Classes that name KNOWN are evaluated after that, so that those
//! of the boot files apply to nodes only, and to no other reservation of the site.

use super::{
    ExportNode, Format,
    boot::{BIOS, BootFile, BootSubnet, DISCOVERY_CONTROL, FILE_FIELD, HTTP, PXE, by_subnet, hex},
    header,
};
use serde_json::{Value, json};

pub(super) fn write(nodes: &[&ExportNode], subnets: &[BootSubnet]) -> String {
    let mut text = header(Format::Kea, nodes);
    let (mut classes, mut reservations) = (Vec::new(), Vec::new());
    for (subnet, nodes) in by_subnet(nodes, subnets) {
        let boots = subnet.filter(|(_, subnet)| !subnet.is_proxy);
        if let Some((number, subnet)) = boots {
            classes.extend(boot(number, subnet));
        }
        for node in nodes {
            if node.hwaddrs.is_empty() {
                text.push_str(&format!("# {}: no hardware address yet\n", node.name));
            }
            // The cards of a node share its address; one of them has it at a time.
            for hwaddr in &node.hwaddrs {
                let mut reservation = json!({
                    "hw-address": hwaddr.to_string(), "ip-address": node.ipaddr, "hostname": node.name,
                });
                match subnet {
                    Some((_, subnet)) if subnet.is_proxy => reservation["next-server"] = json!(subnet.server),
                    Some((number, _)) => reservation["client-classes"] = json!([class(number)]),
                    None => {}
                }
                reservations.push(reservation);
            }
        }
    }
    // Kea refuses two reservations of an address unless this is false (its manual, "Multiple Reservations for the Same IP").
    let twice = nodes.iter().any(|node| node.hwaddrs.len() > 1);
    if twice {
        text.push_str("\"ip-reservations-unique\": false,\n");
    }
    text.push_str("\"reservations-global\": true,\n");
    // Kea takes no empty list of classes, and an empty list of reservations (`src/bin/dhcp4/dhcp4_parser.yy` of Kea 2.2).
    if !classes.is_empty() {
        list(&mut text, "client-classes", &classes);
        text.push_str(",\n");
    }
    list(&mut text, "reservations", &reservations);
    text.push('\n');
    text
}

/// One value on each line, so that files can be compared.
fn list(text: &mut String, key: &str, values: &[Value]) {
    let lines: Vec<String> = values.iter().map(|value| format!("\n  {value}")).collect();
    let end = if lines.is_empty() { "" } else { "\n" };
    text.push_str(&format!("\"{key}\": [{}{end}]", lines.join(",")));
}

/// The class of all nodes of a network.
fn class(number: usize) -> String {
    format!("rackstrap-{number}")
}

fn boot(number: usize, subnet: &BootSubnet) -> Vec<Value> {
    let class = class(number);
    let server = subnet.server;
    let node = format!("member('KNOWN') and member('{class}')");
    let ipxe = "(option[77].hex == 'iPXE' or option[77].hex == 0x0469505845)";
    let is = |archs: &[u16]| {
        let any = archs.iter().map(|arch| match *arch {
            BIOS => format!("option[93].hex == 0x{arch:04x} or not option[93].exists"),
            _ => format!("option[93].hex == 0x{arch:04x}"),
        });
        any.collect::<Vec<_>>().join(" or ")
    };
    let mut classes = vec![
        json!({ "name": class }),
        json!({
            "name": format!("{class}-ipxe"), "test": format!("{node} and {ipxe}"), "next-server": server,
            "boot-file-name": subnet.script,
        }),
    ];
    let begins = |class: &str| {
        let (length, bytes) = (class.len(), hex(class, ""));
        match [HTTP, PXE].contains(&class) {
            true => format!("substring(option[60].hex,0,{length}) == '{class}'"),
            false => format!("substring(option[60].hex,0,{length}) == 0x{bytes}"),
        }
    };
    // Kea does not stop at the first class that matches, so that each excludes those of longer vendor classes.
    let test = |file: &BootFile| {
        let mut test = format!(
            "{node} and not {ipxe} and {} and ({})",
            begins(&file.class),
            is(&file.archs)
        );
        for other in subnet.before(file) {
            test += &format!(" and not ({} and ({}))", begins(&other.class), is(&other.archs));
        }
        test
    };
    // What comes before the file tells all classes of one file apart, and them from that of iPXE, whatever the file's name is.
    let name = |kind: &str, file: &BootFile| {
        let word = if kind == HTTP { "http" } else { "pxe" };
        let of_class = match file.class == kind {
            true => String::new(),
            false => format!(".{}", hex(&file.class[kind.len()..], "")),
        };
        format!("{class}-{word}{of_class}-{}", file.file)
    };
    let vendor = |name: &str| json!({ "name": "vendor-class-identifier", "data": name, "always-send": true });
    for file in subnet.files_of(HTTP) {
        let url = subnet.location(HTTP, file);
        let mut class = json!({
            "name": name(HTTP, file), "test": test(file), "next-server": server,
            "option-data": [
                vendor(HTTP),
                { "name": "boot-file-name", "data": url, "always-send": true },
            ],
        });
        // Kea refuses a longer one; firmware reads option 67.
        if url.len() <= FILE_FIELD {
            class["boot-file-name"] = json!(url);
        }
        classes.push(class);
    }
    // Option 43 in the form of bytes: Kea's own definition of it would be a list of sub-options.
    let control = DISCOVERY_CONTROL.map(|byte| format!("{byte:02X}")).concat();
    for file in subnet.files_of(PXE) {
        classes.push(json!({
            "name": name(PXE, file), "test": test(file), "next-server": server, "boot-file-name": file.file,
            "option-def": [{ "name": "vendor-encapsulated-options", "code": 43, "type": "binary" }],
            "option-data": [
                vendor(PXE),
                { "name": "vendor-encapsulated-options", "data": control, "csv-format": false, "always-send": true },
            ],
        }));
    }
    classes
}
