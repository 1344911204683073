//! The BMC of a node: its address, and who logs in there (pure).

use crate::inventory::{Node, Settings};
use rackstrap_site::{BMC_SUFFIX, BmcDriver, Site};
use std::{collections::HashMap, fmt, net::Ipv4Addr, path::PathBuf};

/// The BMC of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BmcOf {
    /// Its address.
    pub address: Ipv4Addr,
    /// How it is reached.
    pub driver: BmcDriver,
    /// The user; empty = the site file and the node name none.
    pub user: String,
    /// The file with the user's password; none = the site file and the node name none.
    pub password_file: Option<PathBuf>,
}

impl fmt::Display for BmcOf {
    /// `10.6.1.3 (ipmi, user admin)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.address, self.driver)?;
        match self.user.as_str() {
            "" => f.write_str(")"),
            user => write!(f, ", user {user})"),
        }
    }
}

/// The BMC of `node`: by its own settings, those of its profiles, and `[bmc]`. None for a node without a BMC.
pub fn bmc_of(site: &Site, node: &Node) -> Option<BmcOf> {
    let settings = Settings::of_node(site, node, |_| ());
    let of_site = site.bmc.as_ref();
    let address = match settings.text(|profile| &profile.bmc_address) {
        // Empty for a node without a BMC.
        Some(own) => own.parse().ok()?,
        None => {
            let hosts = of_site?.hosts.as_ref()?;
            hosts.name_to_address(&bmc_name(&node.name)).ok()?
        }
    };
    let user = settings.text(|profile| &profile.bmc_user);
    let file = settings.text(|profile| &profile.bmc_password_file);
    Some(BmcOf {
        address,
        driver: of_site.map(|bmc| bmc.driver).unwrap_or_default(),
        user: match (user, of_site) {
            (Some(user), _) => user.to_owned(),
            (None, of_site) => of_site.map(|bmc| bmc.user.clone()).unwrap_or_default(),
        },
        password_file: match (file, of_site) {
            (Some(file), _) => Some(PathBuf::from(file)),
            (None, of_site) => of_site.and_then(|bmc| bmc.password_file.clone()),
        },
    })
}

/// The name of a node's BMC: `r01n03-bmc`.
pub fn bmc_name(node: &str) -> String {
    format!("{node}-{BMC_SUFFIX}")
}

/// Why a BMC's address cannot be that of this node's BMC alone, by node. A power command for such a node is refused: it would switch
/// another machine.
pub fn bmc_collisions<'a>(site: &Site, nodes: impl Iterator<Item = &'a Node> + Clone) -> HashMap<String, String> {
    let hosts: HashMap<Ipv4Addr, &str> = nodes.clone().map(|node| (node.ipaddr, node.name.as_str())).collect();
    let mut first: HashMap<Ipv4Addr, &str> = HashMap::new();
    let mut found = HashMap::new();
    for node in nodes {
        let Some(BmcOf { address, .. }) = bmc_of(site, node) else {
            continue;
        };
        let mut report = |node: &str, what: String| {
            found.insert(node.to_owned(), format!("its BMC has the address {address}, {what}"));
        };
        let node = node.name.as_str();
        if let Some(host) = hosts.get(&address) {
            report(node, format!("which is that of the node {host}"));
        } else if site.subnets.iter().any(|subnet| subnet.server == address) {
            report(node, "which is the daemon's own".to_owned());
        } else if let Some(other) = first.insert(address, node) {
            report(node, format!("and so has the BMC of {other}"));
            report(other, format!("and so has the BMC of {node}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, node};

    const BMC: &str = "[bmc]\naddress = \"10.6.{rack}.{slot}\"\nuser = \"admin\"\npassword-file = \"/etc/bmc\"\n\
                       [profile.old]\nbmc-user = \"ADMIN\"\n";

    fn with(name: &str, settings: serde_json::Value) -> Node {
        Node {
            settings: serde_json::from_value(settings).unwrap(),
            ..node(name)
        }
    }

    #[test]
    fn a_bmc_follows_from_the_site_its_profiles_and_the_node() {
        let site = cluster(BMC);
        let of = |node: &Node| {
            let bmc = bmc_of(&site, node)?;
            let file = bmc.password_file?.display().to_string();
            Some(format!("{} {} {file}", bmc.address, bmc.user))
        };
        assert_eq!(of(&node("r01n03")).as_deref(), Some("10.6.1.3 admin /etc/bmc"));
        let old = Node {
            profiles: vec!["old".to_owned()],
            ..with(
                "r01n03",
                serde_json::json!({"bmc-address": "10.9.0.1", "bmc-password-file": "/etc/old"}),
            )
        };
        assert_eq!(of(&old).as_deref(), Some("10.9.0.1 ADMIN /etc/old"));
        assert_eq!(of(&with("r01n03", serde_json::json!({"bmc-address": ""}))), None);
        // Without [bmc], a node may have one of its own.
        let own = with("r01n03", serde_json::json!({"bmc-address": "10.9.0.1"}));
        let bmc = bmc_of(&cluster(""), &own).unwrap();
        assert_eq!((bmc.user.as_str(), bmc.password_file), ("", None));
        assert_eq!(bmc_of(&cluster(""), &node("r01n03")), None);
    }

    #[test]
    fn a_bmc_with_the_address_of_another_host_is_named() {
        let site = cluster(BMC);
        let own = |name: &str, address: &str| with(name, serde_json::json!({"bmc-address": address}));
        let nodes = [
            node("r01n01"),
            own("r01n02", "10.6.1.1"),
            own("r01n03", "10.5.1.4"),
            node("r01n04"),
            own("r01n05", "10.5.0.1"),
            node("r01n06"),
        ];
        let found = bmc_collisions(&site, nodes.iter());
        let mut lines: Vec<String> = found.iter().map(|(node, why)| format!("{node}: {why}")).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "r01n01: its BMC has the address 10.6.1.1, and so has the BMC of r01n02",
                "r01n02: its BMC has the address 10.6.1.1, and so has the BMC of r01n01",
                "r01n03: its BMC has the address 10.5.1.4, which is that of the node r01n04",
                "r01n05: its BMC has the address 10.5.0.1, which is the daemon's own",
            ]
        );
    }
}
