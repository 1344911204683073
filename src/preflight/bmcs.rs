//! BMCs: files with passwords that cannot be used, and addresses that another host has.

use super::{Finding, Reach, finding};
use crate::power::password_fault;
use rackstrap_model::{bmc::bmc_collisions, inventory::Node};
use rackstrap_site::Site;
use std::path::Path;

/// The files of `[bmc]` and of profiles.
pub(super) fn of(site: &Site) -> Vec<Finding> {
    let of_site = site.bmc.as_ref().and_then(|bmc| bmc.password_file.clone());
    let of_site = of_site.map(|file| (file, "[bmc]".to_owned(), Reach::All));
    let of_profiles = site.profiles.iter().filter_map(|(name, profile)| {
        let file = profile.bmc_password_file.as_deref().filter(|file| !file.is_empty())?;
        let reach = Reach::Profiles(vec![name.clone()]);
        Some((Path::new(file).to_owned(), format!("[profile.{name}]"), reach))
    });
    let all = of_site.into_iter().chain(of_profiles);
    all.filter_map(|(file, section, reach)| {
        let (what, mend) = password_fault(&file)?;
        let message = format!("{section}: {what}; `rackstrap power` cannot log in to BMCs");
        Some(finding(false, &format!("password of {section}"), message, mend).about(reach))
    })
    .collect()
}

/// BMCs of nodes that have another host's address.
pub(super) fn of_nodes<'a>(site: &Site, nodes: impl Iterator<Item = &'a Node> + Clone) -> Vec<Finding> {
    let mut found: Vec<(String, String)> = bmc_collisions(site, nodes).into_iter().collect();
    found.sort();
    let all = found.into_iter().map(|(node, why)| {
        let message = format!("{node}: {why}; power commands for it are refused");
        let help = format!("give it another one: rackstrap node set {node} bmc-address=ADDRESS");
        finding(false, &format!("bmc of {node}"), message, help)
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_model::testing::{cluster, node};

    #[test]
    fn a_password_file_that_cannot_be_used_is_named_with_its_section() {
        let site = cluster(
            "[bmc]\naddress = \"10.6.{rack}.{slot}\"\nuser = \"admin\"\npassword-file = \"/no/such\"\n\
             [profile.old]\nbmc-password-file = \"/no/other\"\n",
        );
        let lines: Vec<String> = of(&site).into_iter().map(|finding| finding.message).collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with("[bmc]: password file /no/such: No such file"),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("[profile.old]: password file /no/other: "),
            "{lines:?}"
        );
        assert!(of(&cluster("")).is_empty());
    }

    #[test]
    fn bmcs_with_one_address_are_named() {
        let site = cluster("[bmc]\naddress = \"10.6.{rack}.{slot}\"\n");
        let other = Node {
            settings: serde_json::from_value(serde_json::json!({"bmc-address": "10.6.1.1"})).unwrap(),
            ..node("r01n02")
        };
        let nodes = [node("r01n01"), other, node("r01n03")];
        let found = of_nodes(&site, nodes.iter());
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[1].help,
            "give it another one: rackstrap node set r01n02 bmc-address=ADDRESS"
        );
    }
}
