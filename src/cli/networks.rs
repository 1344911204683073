//! The networks of the site file in `rackstrap check`.

use rackstrap_model::decide::describe_network;
use rackstrap_site::{Network, Site};
use serde_json::{Value, json};

/// One line for each, with the first node's address.
pub fn summary(site: &Site) -> String {
    let naming = &site.cluster.naming;
    let first = naming.first_address(Default::default(), &site.cluster.reserved);
    let first = first
        .and_then(|address| naming.address_to_name(address))
        .unwrap_or_default();
    let line = |network: &Network| {
        let plan = network.plan(&first, network.kind.clone());
        let host = plan.address.map(|_| format!("{} has ", network.host_name(&first)));
        let whose = network.profiles.as_ref();
        let whose = whose.map_or_else(String::new, |names| format!(", profiles {}", names.join(", ")));
        format!(
            "  network   {}: {}{}{whose}\n",
            network.name,
            host.unwrap_or_default(),
            describe_network(&plan)
        )
    };
    site.networks.iter().map(line).collect()
}

/// The same as JSON.
pub fn json(site: &Site) -> Value {
    let one = |network: &Network| {
        let hosts = network.hosts.as_ref().map(|hosts| {
            let patterns = hosts.patterns().iter();
            patterns.map(|pattern| json!({ "name": pattern.name_pattern(), "address": pattern.address_pattern() }))
        });
        json!({
            "name": network.name,
            "made-of": network.kind,
            "node-address": hosts.map(|hosts| hosts.collect::<Vec<_>>()).unwrap_or_default(),
            "prefix": network.hosts.as_ref().map(|_| network.prefix),
            "mtu": network.mtu,
            "router": network.router,
            "speed": network.speed,
            "profiles": network.profiles,
        })
    };
    site.networks.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_line() {
        let site = rackstrap_model::testing::cluster(
            "[profile.gpu]\n[[network]]\nname = \"ib\"\ntype = \"infiniband\"\nmatch = { driver = \"mlx5_core\", port = 1 }\n\
             node-address = \"10.6.{rack}.{slot}\"\nprefix = 16\nmtu = 2044\nprofiles = [\"gpu\"]\n",
        );
        assert_eq!(
            summary(&site),
            "  network   ib: r01n01-ib has 10.6.1.1/16, infiniband, driver mlx5_core, port 1, MTU 2044, profiles gpu\n"
        );
        let json = json(&site);
        assert_eq!(json[0]["node-address"][0]["name"], "r{rack:02}n{slot:02}-ib");
        assert_eq!(json[0]["made-of"]["type"], "infiniband");
    }
}
