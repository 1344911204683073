//! Kernel command lines that are too long for what loads the nodes' kernels.

use super::{Finding, finding};
use crate::http::{base_url, script::line};
use rackstrap_catalog::{Catalog, ImageVersion};
use rackstrap_hostlist::NodeSet;
use rackstrap_model::inventory::{Node, Settings};
use rackstrap_site::Site;
use rackstrap_wire::NetPlan;
use std::collections::BTreeMap;

/// One finding for each problem, with its nodes. U-Boot and a Raspberry Pi's firmware may load images for other processors than a PC's.
pub fn of_nodes<'a>(site: &Site, images: &Catalog, nodes: impl Iterator<Item = &'a Node>) -> Vec<Finding> {
    let mut found: BTreeMap<(bool, String), NodeSet> = BTreeMap::new();
    for node in nodes {
        let settings = Settings::of_node(site, node, |_| ());
        let (Ok(args), Some(subnet)) = (settings.kernel_args(), site.subnet_of(node.ipaddr)) else {
            continue;
        };
        let Some(&hwaddr) = node.hwaddrs.first() else { continue };
        let net = NetPlan {
            hwaddr,
            ipaddr: node.ipaddr,
            prefix: subnet.network.prefix_len(),
            router: subnet.router,
            dns: Vec::new(),
            domain: String::new(),
            mtu: settings.get(|p| p.mtu.as_ref()).copied().or(subnet.mtu),
            vlan: subnet.vlan,
        };
        let (base, console) = (
            base_url(site, subnet.server),
            settings.text(|p| &p.console).unwrap_or_default(),
        );
        let problem = |board| line::problem(&base, &net, console, &args, board);
        let any = problem(false);
        let fatal = any.is_some();
        let of_boards = || {
            problem(
                settings
                    .text(|p| &p.image)
                    .is_some_and(|image| has_board(image, images)),
            )
        };
        if let Some(problem) = any.or_else(of_boards) {
            found.entry((fatal, problem)).or_default().insert(node.name.as_str());
        }
    }
    let all = found.into_iter().map(|((fatal, problem), nodes)| {
        let message = format!("{nodes}: {problem}");
        let help = format!(
            "rackstrap node show '{}' shows where the arguments are from",
            nodes.iter().next().unwrap_or_default()
        );
        finding(fatal, &format!("command line of {nodes}"), message, help)
    });
    all.collect()
}

/// Whether a board may boot the image: one of its variants is for another processor than a PC's.
fn has_board(image: &str, images: &Catalog) -> bool {
    let version = match image.parse() {
        Ok(pinned) => images.get(&pinned),
        Err(_) => images.newest(image),
    };
    version.is_some_and(|version| version.variants().any(ImageVersion::is_for_boards))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_catalog::Manifest;
    use rackstrap_model::testing;
    use std::path::PathBuf;

    #[test]
    fn a_line_that_a_loader_of_the_image_refuses_is_named_with_its_nodes() {
        let long = "x".repeat(900);
        let site = testing::cluster(&format!(
            "[profile.board]\nimage = \"arm\"\nkernel-args = \"{long}\"\n[profile.pc]\nimage = \"pc\"\n"
        ));
        let image = |name: &str, arch: &str| {
            let manifest = Manifest {
                arch: arch.to_owned(),
                ..Manifest::bare(name.parse().unwrap())
            };
            ImageVersion::new(manifest, PathBuf::from("/images"))
        };
        let images = Catalog::new([image("arm@1", "aarch64"), image("pc@1", "x86_64")]);
        let node = |name: &str, profile: &str, args: &str| Node {
            profiles: vec![profile.to_owned()],
            settings: serde_json::from_value(serde_json::json!({ "kernel-args": args })).unwrap(),
            ..testing::node(name)
        };
        let short = Node {
            settings: Default::default(),
            ..node("r01n03", "board", "")
        };
        let nodes = [
            node("r01n01", "board", &long),
            node("r01n02", "pc", &long),
            short,
            node("r01n04", "board", "quiet"),
        ];
        let found = of_nodes(&site, &images, nodes.iter());
        let said: Vec<&str> = found.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("r01n[01,03]: the kernel command line has ")
                && said[0].ends_with("U-Boot takes at most 1023; shorten kernel-args"),
            "{said:?}"
        );
        assert!(!found[0].fatal, "with UEFI it boots");
        // Images that do not exist yet are for PCs as far as anything says.
        assert_eq!(of_nodes(&site, &Catalog::default(), nodes.iter()), []);
    }
}
