//! Whether a network of the running node is as the site file says.

use crate::checks::System;
use std::net::Ipv4Addr;

/// What a network's check expects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchedNetwork {
    /// Name of the network and of its interface.
    pub name: String,
    /// Its address; none if it has none.
    pub address: Option<Ipv4Addr>,
    /// Its MTU in bytes; none = any.
    pub mtu: Option<u16>,
    /// The least speed in Mb/s; none = any.
    pub speed: Option<u32>,
    /// What went wrong while the node booted; none = nothing.
    pub problem: Option<String>,
}

impl WatchedNetwork {
    /// The line for `boot.json`: name, address, MTU, speed, and the problem. An unknown text is `-`, an unknown number 0.
    pub fn to_line(&self) -> String {
        let address = self
            .address
            .map_or_else(|| "-".to_owned(), |address| address.to_string());
        let (mtu, speed) = (self.mtu.unwrap_or(0), self.speed.unwrap_or(0));
        let problem = self.problem.as_deref().unwrap_or("-");
        format!("{} {address} {mtu} {speed} {problem}", self.name)
    }

    /// Reads such a line. A value that cannot be read is not expected.
    pub fn of_line(line: &str) -> Self {
        let mut words = line.splitn(5, ' ');
        let mut next = || words.next().unwrap_or_default();
        WatchedNetwork {
            name: next().to_owned(),
            address: next().parse().ok(),
            mtu: next().parse().ok().filter(|mtu| *mtu > 0),
            speed: next().parse().ok().filter(|speed| *speed > 0),
            problem: Some(next())
                .filter(|text| !matches!(*text, "-" | ""))
                .map(str::to_owned),
        }
    }
}

/// Why the network is not as it should be, with its name; none if it is.
pub fn problem(network: &WatchedNetwork, system: &impl System) -> Option<String> {
    if !network.problem.as_ref().is_none_or(String::is_empty) {
        return network.problem.clone();
    }
    let why = problem_now(network, system)?;
    Some(format!("network {}: {why}", network.name))
}

fn problem_now(network: &WatchedNetwork, system: &impl System) -> Option<String> {
    let name = &network.name;
    let read = |interface: &str, file: &str| {
        let text = system.read(&format!("/sys/class/net/{interface}/{file}"));
        text.trim().to_owned()
    };
    if read(name, "ifindex").is_empty() {
        return Some(format!("the interface {name} does not exist"));
    }
    // The carrier of an interface that is set down cannot be read.
    if read(name, "carrier") != "1" {
        return Some(match read(name, "operstate").as_str() {
            "lowerlayerdown" => format!("{name} is down, because the interface below it is"),
            _ => format!("{name} is down: it has no link"),
        });
    }
    if let Some(problem) = problem_of_bond(name, &read) {
        return Some(problem);
    }
    let mtu = read(name, "mtu");
    if let Some(wanted) = network.mtu.filter(|wanted| mtu != wanted.to_string()) {
        return Some(format!("{name} has the MTU {mtu}, not {wanted}"));
    }
    // Cards without a speed, such as those of virtual machines, have -1, or an error.
    let speed = read(name, "speed").parse::<i64>().ok().filter(|speed| *speed > 0);
    if let (Some(wanted), Some(speed)) = (network.speed, speed)
        && speed < i64::from(wanted)
    {
        return Some(format!("{name} came up at {speed} Mb/s, not at {wanted} Mb/s"));
    }
    let address = network.address?;
    if !has_address(&system.read("/proc/net/fib_trie"), address) {
        return Some(format!("{name} does not have the address {address}"));
    }
    None
}

/// Why a bond is not complete; none if it is, and for other interfaces (drivers/net/bonding/bond_sysfs.c of the kernel).
fn problem_of_bond(name: &str, read: &impl Fn(&str, &str) -> String) -> Option<String> {
    let members = read(name, "bonding/slaves");
    if let Some(down) = members.split_whitespace().find(|member| read(member, "carrier") != "1") {
        return Some(format!("its member {down} has no link"));
    }
    // The address of the switch, which is all zeros if it sends no LACP.
    let alone = read(name, "bonding/ad_partner_mac") == "00:00:00:00:00:00";
    let mode = read(name, "bonding/mode");
    (alone && mode.starts_with("802.3ad")).then(|| {
        "the switch does not speak LACP, so that only one member is used; make a group of its ports on the switch"
            .to_owned()
    })
}

/// Whether the table of routes has the address as a local one: `|-- 10.6.1.3` and below it `/32 host LOCAL` (net/ipv4/fib_trie.c).
fn has_address(trie: &str, address: Ipv4Addr) -> bool {
    let leaf = format!("|-- {address}");
    let mut inside = false;
    trie.lines().any(|line| {
        let line = line.trim();
        if line.starts_with("|-- ") || line.starts_with("+-- ") {
            inside = line == leaf;
        }
        inside && line == "/32 host LOCAL"
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Execution;
    use std::{collections::BTreeMap, time::Duration};

    #[derive(Default)]
    struct Files(BTreeMap<String, String>);

    impl System for Files {
        fn has_systemd(&self) -> bool {
            true
        }
        fn is_active(&self, _: &str) -> Execution {
            unreachable!()
        }
        fn mounts(&self) -> String {
            String::new()
        }
        fn run(&self, _: &[&str], _: Duration) -> Execution {
            unreachable!()
        }
        fn read(&self, path: &str) -> String {
            self.0.get(path).cloned().unwrap_or_default()
        }
    }

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.7.0.0\n        /16 link UNICAST\n     |-- 10.7.1.1\n        /32 host LOCAL\n     \
                        |-- 10.7.1.2\n        /32 link BROADCAST\n";

    #[test]
    fn each_way_to_be_wrong_is_named() {
        let network = WatchedNetwork {
            name: "fast".into(),
            address: Some([10, 7, 1, 1].into()),
            mtu: Some(9000),
            speed: Some(10_000),
            problem: None,
        };
        let mut files = Files::default();
        let set = |files: &mut Files, interface: &str, file: &str, text: &str| {
            files
                .0
                .insert(format!("/sys/class/net/{interface}/{file}"), format!("{text}\n"));
        };
        let said = |files: &Files| {
            let said = problem(&network, files).unwrap_or_default();
            said.strip_prefix("network fast: ").unwrap_or(&said).to_owned()
        };
        assert_eq!(said(&files), "the interface fast does not exist");
        set(&mut files, "fast", "ifindex", "5");
        assert_eq!(said(&files), "fast is down: it has no link");
        set(&mut files, "fast", "operstate", "lowerlayerdown");
        assert_eq!(said(&files), "fast is down, because the interface below it is");
        set(&mut files, "fast", "carrier", "1");
        set(&mut files, "fast", "mtu", "1500");
        assert_eq!(said(&files), "fast has the MTU 1500, not 9000");
        set(&mut files, "fast", "mtu", "9000");
        set(&mut files, "fast", "speed", "2500");
        assert_eq!(said(&files), "fast came up at 2500 Mb/s, not at 10000 Mb/s");
        set(&mut files, "fast", "speed", "100");
        assert_eq!(said(&files), "fast came up at 100 Mb/s, not at 10000 Mb/s");
        set(&mut files, "fast", "speed", "-1");
        assert_eq!(said(&files), "fast does not have the address 10.7.1.1");
        files
            .0
            .insert("/proc/net/fib_trie".into(), TRIE.replace("10.7.1.1", "10.7.1.11"));
        assert_eq!(said(&files), "fast does not have the address 10.7.1.1");
        files.0.insert("/proc/net/fib_trie".into(), TRIE.into());
        assert_eq!(said(&files), "");
        files.0.clear();
        let missing = problem(&network, &files);
        assert_eq!(
            missing.as_deref(),
            Some("network fast: the interface fast does not exist")
        );
        let failed = WatchedNetwork {
            problem: Some("no card".into()),
            ..network
        };
        assert_eq!(problem(&failed, &files).as_deref(), Some("no card"));
    }

    #[test]
    fn a_bond_without_a_member_or_without_lacp_is_named() {
        let network = WatchedNetwork {
            name: "bond0".into(),
            ..WatchedNetwork::default()
        };
        let mut files = Files::default();
        for (file, text) in [
            ("bond0/ifindex", "5"),
            ("bond0/carrier", "1"),
            ("bond0/bonding/slaves", "eth0 second"),
            ("bond0/bonding/mode", "active-backup 1"),
            ("bond0/bonding/ad_partner_mac", ""),
            ("eth0/carrier", "1"),
            ("second/carrier", "1"),
        ] {
            files.0.insert(format!("/sys/class/net/{file}"), format!("{text}\n"));
        }
        assert_eq!(problem(&network, &files), None);
        let set = |files: &mut Files, file: &str, text: &str| {
            files.0.insert(format!("/sys/class/net/{file}"), format!("{text}\n"));
        };
        set(&mut files, "eth0/carrier", "0");
        assert_eq!(
            problem(&network, &files).unwrap(),
            "network bond0: its member eth0 has no link"
        );
        set(&mut files, "eth0/carrier", "1");
        set(&mut files, "bond0/bonding/mode", "802.3ad 4");
        set(&mut files, "bond0/bonding/ad_partner_mac", "52:54:00:05:00:01");
        assert_eq!(problem(&network, &files), None);
        set(&mut files, "bond0/bonding/ad_partner_mac", "00:00:00:00:00:00");
        let said = problem(&network, &files).unwrap();
        assert!(
            said.starts_with("network bond0: the switch does not speak LACP"),
            "{said}"
        );
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let all = WatchedNetwork {
            name: "fast".into(),
            address: Some([10, 7, 1, 1].into()),
            mtu: Some(9000),
            speed: Some(10_000),
            problem: Some("network fast: it lacks its member right".into()),
        };
        let none = WatchedNetwork {
            name: "left".into(),
            ..WatchedNetwork::default()
        };
        assert_eq!(none.to_line(), "left - 0 0 -");
        for network in [all, none] {
            assert_eq!(WatchedNetwork::of_line(&network.to_line()), network);
        }
        assert_eq!(WatchedNetwork::of_line(""), WatchedNetwork::default());
    }

    #[test]
    fn only_local_addresses_count() {
        assert!(has_address(TRIE, [10, 7, 1, 1].into()));
        assert!(!has_address(TRIE, [10, 7, 1, 2].into()) && !has_address(TRIE, [10, 7, 0, 0].into()));
        assert!(!has_address("", [10, 7, 1, 1].into()));
    }
}
