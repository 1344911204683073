//! Nodes whose boot network is a VLAN: loaders load without its tag, and the agent sets it.

use rackstrap_base::subnet::Subnet;
use rackstrap_catalog::{ImageVersion, seal_commands};
use rackstrap_site::Site;

/// Why the image cannot boot in its node's VLAN; none if it can.
pub(super) fn problem(subnet: &Subnet, version: &ImageVersion) -> Option<String> {
    let (id, image) = (subnet.vlan?, &version.manifest.image);
    if version.is_freebsd() {
        return Some(format!(
            "image {image} is FreeBSD, whose loader cannot set the tag of VLAN {id}, which is the boot network {}; give the node an image \
             of Linux, or remove 'vlan' from that [[subnet]]",
            subnet.network
        ));
    }
    (!version.tags_boot_network()).then(|| {
        format!(
            "image {image} has the agent of an older release, which cannot set the tag of VLAN {id}, the boot network {}; seal it again: {}",
            subnet.network,
            seal_commands(image)
        )
    })
}

/// How nodes of the subnet start, if it is a VLAN, for `rackstrap explain`.
pub(super) fn explain(site: &Site, subnet: &Subnet) -> Option<String> {
    let id = subnet.vlan?;
    let untagged: Vec<String> = site
        .subnets
        .iter()
        .filter(|other| other.starts_untagged())
        .map(|other| other.network.to_string())
        .collect();
    Some(match untagged.is_empty() {
        true => format!(
            "its boot network is VLAN {id}: its firmware itself has to set the tag, because no subnet starts it without it"
        ),
        false => format!(
            "its boot network is VLAN {id}: its firmware and loader load without the tag, with a pool address of {}; from the agent on it is \
             in the VLAN",
            untagged.join(" or ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use rackstrap_catalog::{Manifest, System};
    use rackstrap_wire::BOOT_VLAN;
    use std::path::PathBuf;

    const UNTAGGED: &str = "\n[[subnet]]\nnetwork = \"10.4.0.0/16\"\ninterface = \"eth1\"\nserver = \"10.4.0.1\"\n\
        pool = \"10.4.255.1-10.4.255.254\"\n";

    fn vlan() -> Site {
        let mut site = testing::cluster(UNTAGGED);
        site.subnets[0].vlan = Some(5);
        site
    }

    fn version(change: impl Fn(&mut Manifest)) -> ImageVersion {
        let mut manifest = Manifest::bare("debian@1".parse().unwrap());
        manifest.wire = Some(BOOT_VLAN);
        change(&mut manifest);
        ImageVersion::new(manifest, PathBuf::new())
    }

    #[test]
    fn images_whose_agent_cannot_set_the_tag_are_refused_with_the_remedy() {
        let site = vlan();
        let of = |version: &ImageVersion| problem(&site.subnets[0], version);
        assert_eq!(of(&version(|_| ())), None);
        for wire in [None, Some(BOOT_VLAN - 1)] {
            let old = version(|manifest| manifest.wire = wire);
            let why = of(&old).unwrap();
            assert!(
                why.contains("cannot set the tag of VLAN 5, the boot network 10.5.0.0/16")
                    && why.ends_with("image seal debian-work"),
                "{why}"
            );
            assert_eq!(problem(&site.subnets[1], &old), None, "without a VLAN it boots");
        }
        let why = of(&version(|manifest| manifest.system = System::FreeBsd)).unwrap();
        assert!(
            why.starts_with("image debian@1 is FreeBSD, whose loader cannot set the tag of VLAN 5"),
            "{why}"
        );
    }

    #[test]
    fn it_is_explained_where_the_firmware_starts() {
        let mut site = vlan();
        assert_eq!(explain(&site, &site.subnets[1]), None);
        let text = explain(&site, &site.subnets[0]).unwrap();
        assert!(
            text.contains("VLAN 5: its firmware and loader load without the tag, with a pool address of 10.4.0.0/16"),
            "{text}"
        );
        site.subnets[1].pool = None;
        let text = explain(&site, &site.subnets[0]).unwrap();
        assert!(text.contains("its firmware itself has to set the tag"), "{text}");
    }
}
