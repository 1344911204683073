//! Host declarations of dhcpd.conf(5), in a group for each network that has the boot options.

use super::{
    ExportNode, Format,
    boot::{BIOS, BootSubnet, DISCOVERY_CONTROL, FILE_FIELD, HTTP, PXE, by_subnet, card_name, hex},
    header,
};
use std::fmt::Write as _;

/// Option 93 under a name of our own: older releases have none for it.
const ARCH: &str = "rackstrap-arch";

pub(super) fn write(nodes: &[&ExportNode], subnets: &[BootSubnet]) -> String {
    let mut text = header(Format::Dhcpd, nodes);
    if subnets.iter().any(|subnet| !subnet.is_proxy) {
        let _ = writeln!(text, "option {ARCH} code 93 = unsigned integer 16;");
    }
    for (subnet, nodes) in by_subnet(nodes, subnets) {
        match subnet {
            None => nodes.iter().for_each(|node| hosts(&mut text, "", node)),
            Some((_, subnet)) => {
                let _ = writeln!(text, "\n# {}\ngroup {{", subnet.network);
                match subnet.is_proxy {
                    true => {
                        text.push_str("  # rackstrap itself answers with the boot files (dhcp = \"proxy\"). GRUB and U-Boot read next-server.\n");
                        let _ = writeln!(text, "  next-server {};", subnet.server);
                    }
                    false => boot(&mut text, subnet),
                }
                nodes.iter().for_each(|node| hosts(&mut text, "  ", node));
                text.push_str("}\n");
            }
        }
    }
    text
}

fn hosts(text: &mut String, indent: &str, node: &ExportNode) {
    let ExportNode { name, ipaddr, .. } = node;
    if node.hwaddrs.is_empty() {
        let _ = writeln!(text, "{indent}# {name}: no hardware address yet");
    }
    // The cards of a node share its address; one of them has it at a time.
    for (card, hwaddr) in node.hwaddrs.iter().enumerate() {
        let host = card_name(node, card);
        let _ = writeln!(
            text,
            "{indent}host {host} {{ hardware ethernet {hwaddr}; fixed-address {ipaddr}; option host-name \"{name}\"; }}"
        );
    }
}

fn boot(text: &mut String, subnet: &BootSubnet) {
    let control = DISCOVERY_CONTROL.map(|byte| format!("{byte:02x}")).join(":");
    let _ = writeln!(text, "  next-server {};", subnet.server);
    text.push_str("  if exists user-class and suffix(option user-class, 4) = \"iPXE\" {\n");
    let _ = writeln!(text, "    filename \"{}\";", subnet.script);
    text.push_str("  } elsif substring(option vendor-class-identifier, 0, 10) = \"HTTPClient\" {\n");
    text.push_str("    option vendor-class-identifier \"HTTPClient\";\n");
    files(text, subnet, HTTP);
    text.push_str("  } elsif substring(option vendor-class-identifier, 0, 9) = \"PXEClient\" {\n");
    text.push_str("    option vendor-class-identifier \"PXEClient\";\n");
    let _ = writeln!(text, "    option vendor-encapsulated-options {control};");
    files(text, subnet, PXE);
    text.push_str("  }\n");
}

/// The file of each architecture; the first one that matches counts.
fn files(text: &mut String, subnet: &BootSubnet, kind: &str) {
    let mut word = "    if";
    for file in subnet.files_of(kind) {
        let is = file.archs.iter().map(|arch| {
            let [high, low] = arch.to_be_bytes();
            let none = if *arch == BIOS {
                format!("not exists {ARCH} or ")
            } else {
                String::new()
            };
            format!("{none}option {ARCH} = {high:02x}:{low:02x}")
        });
        let mut test = is.collect::<Vec<_>>().join(" or ");
        if file.class != kind {
            let (length, bytes) = (file.class.len(), hex(&file.class, ":"));
            test = format!("substring(option vendor-class-identifier, 0, {length}) = {bytes} and ({test})");
        }
        let location = subnet.location(kind, file);
        // dhcpd would cut a longer one off.
        let what = match location.len() <= FILE_FIELD {
            true => "filename",
            false => "option bootfile-name",
        };
        let _ = writeln!(text, "{word} {test} {{ {what} \"{location}\"; }}");
        word = "    elsif";
    }
}
