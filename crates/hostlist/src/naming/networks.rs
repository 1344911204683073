//! The networks that the addresses of a pattern are in, if all have the same prefix length.

use super::pattern::{Box4, Pattern};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

impl Pattern {
    /// A network of the shorter of the two prefixes in which both patterns have an address; none if their networks are disjoint.
    pub fn common_network(&self, prefix: u8, other: &Pattern, other_prefix: u8) -> Option<Ipv4Net> {
        let shorter = prefix.min(other_prefix);
        let pairs = (self.boxes().iter()).flat_map(|a| other.boxes().iter().map(move |b| (a, b)));
        let common = |(a, b): (&Box4, &Box4)| {
            let (a, b) = (masked(a, shorter), masked(b, shorter));
            let mut lowest = [0; 4];
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                lowest[i] = a.0.max(b.0);
                if lowest[i] > a.1.min(b.1) {
                    return None;
                }
            }
            Some(Ipv4Addr::from(lowest))
        };
        let lowest = pairs.filter_map(common).min()?;
        Ipv4Net::new(lowest, shorter).ok().map(|net| net.trunc())
    }

    /// An address of the pattern in a network that overlaps `network`, if the networks of its addresses have this prefix length.
    pub fn address_near(&self, prefix: u8, network: Ipv4Net) -> Option<Ipv4Addr> {
        let around = Ipv4Net::new(network.network(), network.prefix_len().min(prefix)).ok()?;
        self.first_address(around.trunc(), &[])
    }

    /// An address of the pattern that is its network's own or its broadcast address, which no host can have. None of networks of 24 bits and
    /// fewer: patterns give no address that ends in .0 or .255.
    pub fn edge_address(&self, prefix: u8) -> Option<Ipv4Addr> {
        if !(25..=30).contains(&prefix) {
            return None;
        }
        let step = 1_usize << (32 - prefix);
        let edges = (0..256).step_by(step).flat_map(|first| [first, first + step - 1]);
        edges
            .filter_map(|last| u8::try_from(last).ok())
            .flat_map(|last| self.boxes().iter().map(move |one| (one, last)))
            .filter(|(one, last)| one[3].contains(last))
            .map(|(one, last)| Ipv4Addr::new(*one[0].start(), *one[1].start(), *one[2].start(), last))
            .min()
    }
}

/// The first and last values of each octet of the networks of a box. The octet that the prefix divides is a whole number of blocks.
fn masked(one: &Box4, prefix: u8) -> [(u8, u8); 4] {
    let mut all = [(0, 255); 4];
    for (i, octet) in one.iter().enumerate() {
        let bits = usize::from(prefix).saturating_sub(8 * i).min(8);
        // 8 bits fixed: the mask is 255; none fixed: 0.
        let mask = u8::try_from((0xff00_u32 >> bits) & 0xff).unwrap_or(0);
        all[i] = (octet.start() & mask, octet.end() | !mask);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(address: &str) -> Pattern {
        Pattern::new("r{rack:02}n{slot:02}", address, &[("rack", 1..=9), ("slot", 1..=200)]).unwrap()
    }

    #[test]
    fn networks_that_overlap_are_found() {
        let (boot, ib) = (pattern("10.5.{rack}.{slot}"), pattern("10.6.{rack}.{slot}"));
        assert_eq!(boot.common_network(16, &ib, 16), None);
        assert_eq!(boot.common_network(14, &ib, 16), Some("10.4.0.0/14".parse().unwrap()));
        assert_eq!(boot.common_network(24, &boot, 16), Some("10.5.0.0/16".parse().unwrap()));
        let near = |network: &str| ib.address_near(16, network.parse().unwrap());
        assert_eq!(near("10.6.200.0/24"), Some([10, 6, 1, 1].into()));
        assert_eq!(near("10.0.0.0/8"), Some([10, 6, 1, 1].into()));
        assert_eq!(near("10.7.0.0/16"), None);
    }

    #[test]
    fn addresses_at_the_edges_of_small_networks_are_found() {
        let ib = pattern("10.6.{rack}.{slot}");
        assert_eq!(ib.edge_address(16), None);
        assert_eq!(ib.edge_address(24), None);
        assert_eq!(ib.edge_address(25), Some([10, 6, 1, 127].into()));
        assert_eq!(ib.edge_address(30), Some([10, 6, 1, 3].into()));
    }

    proptest! {
        #[test]
        fn common_networks_are_those_of_two_addresses(
            p in 8_u8..=30, q in 8_u8..=30, octets in any::<[u8; 2]>(), swap in any::<bool>(),
        ) {
            let one = Pattern::new("a{x}b{y}", "10.5.{x}.{y}", &[("x", 3..=9), ("y", 1..=20)]).unwrap();
            let address = match swap {
                true => format!("10.{}.{{y}}.{{x}}", octets[0]),
                false => format!("10.{}.{{x}}.{{y}}", octets[0] % 8),
            };
            let first = u32::from(octets[1] % 100).max(1);
            let other = Pattern::new("a{x}b{y}", &address, &[("x", first..=first + 3), ("y", 1..=4)]).unwrap();
            let all = |pattern: &Pattern| -> Vec<Ipv4Addr> {
                let x = pattern.variables()[0].clone();
                let y = pattern.variables()[1].clone();
                (x.min..=x.max).flat_map(|x| (y.min..=y.max).map(move |y| pattern.address(&[x, y])).collect::<Vec<_>>()).collect()
            };
            let shorter = p.min(q);
            let net = |a: Ipv4Addr| Ipv4Net::new(a, shorter).unwrap().trunc();
            let others: std::collections::BTreeSet<Ipv4Net> = all(&other).into_iter().map(net).collect();
            let expected = all(&one).into_iter().map(net).filter(|n| others.contains(n)).min();
            prop_assert_eq!(one.common_network(p, &other, q), expected);
        }
    }
}
