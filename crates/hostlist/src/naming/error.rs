//! Why a text is not a node name.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// Why a text is not a node name, or why no node may have that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamingError {
    /// It does not follow the pattern.
    #[error("'{name}' is not a node name here: names follow {pattern}, such as {example}")]
    NoMatch {
        /// What was given, shortened and escaped.
        name: String,
        /// The pattern of the site, or its patterns.
        pattern: String,
        /// A name that would do.
        example: String,
    },
    /// It is another spelling of a name: `r1n3`, `R01N03`, `r01n03.cluster.example`.
    #[error("'{name}' is not a node name here: names follow {pattern}; did you mean {canonical}?")]
    Spelling {
        /// What was given, shortened and escaped.
        name: String,
        /// The pattern of the site, or its patterns.
        pattern: String,
        /// The one spelling that is a name.
        canonical: String,
    },
    /// A number is out of its range.
    #[error("'{name}' is not a node name here: {variable} is {value}, and goes from {min} to {max}")]
    Range {
        /// What was given, shortened and escaped.
        name: String,
        /// Name of the variable of the pattern that holds the number.
        variable: String,
        /// The number in the name.
        value: u32,
        /// The smallest number that the pattern allows.
        min: u32,
        /// The largest number that the pattern allows.
        max: u32,
    },
    /// The address that belongs to the name is reserved.
    #[error(
        "no node can be called {name}: its address {address} is in the reserved range {range}; \
         choose another position, or change 'reserved' in [cluster]"
    )]
    Reserved {
        /// The node name, which fits the pattern.
        name: String,
        /// The IP address that the pattern gives this name.
        address: Ipv4Addr,
        /// The range of `reserved` that holds it.
        range: Ipv4Net,
    },
    /// The address that belongs to the name is in none of the site's networks.
    #[error(
        "no node can be called {name}: its address {address} is in no [[subnet]] of the site file; \
         choose another position, or add the subnet"
    )]
    NoSubnet {
        /// The node name, which fits the pattern.
        name: String,
        /// The IP address that the pattern gives this name.
        address: Ipv4Addr,
    },
    /// The address that belongs to the name is not one that a host may have.
    #[error("no node can be called {name}: {address} is the {what} of {network}; choose another position")]
    Taken {
        /// The node name, which fits the pattern.
        name: String,
        /// The IP address that the pattern gives this name.
        address: Ipv4Addr,
        /// `network address` or `broadcast address`.
        what: &'static str,
        /// The subnet of the site file that the address is in.
        network: Ipv4Net,
    },
}
