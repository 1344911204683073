//! Options that a site adds to DHCP answers (pure).
//!
//! One line of the site file is one option: a name and its values, or a number, a type and values.

use std::{fmt, net::Ipv4Addr};

/// Longest value of one option in bytes: its length is one byte (RFC 2132 section 2).
const MOST_BYTES: usize = 255;
/// The default route in [`ROUTES`] in bytes: a prefix of 0, no octets of a network, and the router.
const DEFAULT_ROUTE: usize = 5;
/// Longest host name in bytes, and longest label (RFC 1035 section 2.3.4).
const MOST_NAME: usize = 253;
const MOST_LABEL: usize = 63;

/// Classless static routes (RFC 3442).
pub const ROUTES: u8 = 121;
/// Domain search list (RFC 3397).
pub const SEARCH: u8 = 119;
/// Log servers (RFC 2132 section 3.9).
pub const LOG_SERVERS: u8 = 7;
/// Interface MTU (RFC 2132 section 5.1).
pub const MTU: u8 = 26;

/// The options that have a name here, with an example.
const NAMED: [(&str, u8, &str); 3] = [
    ("routes", ROUTES, "routes 10.6.0.0/16 via 10.5.0.2"),
    ("search", SEARCH, "search cluster.example example"),
    ("log-servers", LOG_SERVERS, "log-servers 10.5.0.1"),
];

/// The types of options by number.
const TYPES: [&str; 7] = ["address", "text", "u8", "u16", "u32", "bool", "hex"];

/// Options that answers carry anyway, and what an administrator does instead.
const TAKEN: [(&[u8], &str); 9] = [
    (
        &[0, 255],
        "these codes are padding and the end of all options, and have no value",
    ),
    (&[1, 28], "these follow from 'network' of [[subnet]]"),
    (&[3], "write router = \"…\" in [[subnet]]"),
    (&[6], "write dns = [\"…\"] in [[subnet]]"),
    (&[42], "write ntp = [\"…\"] in [[subnet]]"),
    (&[MTU], "write mtu = … in [[subnet]] or in a profile"),
    (
        &[12, 15],
        "the name is the node's own, and the domain is 'domain' of [cluster]",
    ),
    (&[51, 58, 59], "write lease-time = \"…\" in [[subnet]]"),
    (
        // RFC 2132, 3046, 4578, and iPXE's own.
        &[17, 43, 50, 52, 53, 54, 55, 56, 57, 60, 61, 66, 67, 82, 93, 94, 97, 175],
        "rackstrap sets it itself, or the protocol reserves it",
    ),
];

/// An option with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpOption {
    /// Its code.
    pub code: u8,
    /// Its value, as it is sent.
    pub value: Vec<u8>,
    /// Whether clients get it that do not ask for it.
    pub always: bool,
    /// The routers of [`ROUTES`].
    pub routers: Vec<Ipv4Addr>,
    text: String,
}

impl DhcpOption {
    /// Reads a line: `routes 10.6.0.0/16 via 10.5.0.2`, `150 address 10.5.0.1`, `always 224 text hello`.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn parse(line: &str) -> Result<Self, (String, String)> {
        let line = line.trim();
        if line.chars().any(char::is_control) {
            return Err((
                "an option is one line of text".to_owned(),
                "write binary values by the type hex".to_owned(),
            ));
        }
        let (always, rest) = match split(line) {
            ("always", rest) => (true, rest),
            _ => (false, line),
        };
        let (word, rest) = split(rest);
        let (code, value, routers) = match NAMED.iter().find(|(name, ..)| *name == word) {
            Some((_, ROUTES, example)) => {
                let (value, routers) = routes(rest, example)?;
                (ROUTES, value, routers)
            }
            Some((_, SEARCH, example)) => (SEARCH, search(rest, example)?, Vec::new()),
            Some((_, code, example)) => (*code, addresses(rest, example)?, Vec::new()),
            None => {
                let (code, value) = numbered(word, rest)?;
                (code, value, Vec::new())
            }
        };
        if value.len() > MOST_BYTES {
            let message = format!("option {code} has {} bytes, at most {MOST_BYTES}", value.len());
            return Err((message, "leave some of its values out".to_owned()));
        }
        if code == ROUTES && !has_default(&value) && value.len() + DEFAULT_ROUTE > MOST_BYTES {
            let most = MOST_BYTES - DEFAULT_ROUTE;
            let message = format!(
                "routes have {} bytes, at most {most}: {DEFAULT_ROUTE} more are for the default route by 'router' of [[subnet]], which \
                 clients take from this option only",
                value.len()
            );
            let help = "leave some routes out, join neighbouring networks, or write the default route here: 0.0.0.0/0 via ROUTER";
            return Err((message, help.to_owned()));
        }
        Ok(DhcpOption {
            code,
            value,
            always,
            routers,
            text: line.split_whitespace().collect::<Vec<_>>().join(" "),
        })
    }

    /// The value for a subnet with this default router. A client that takes the routes ignores the router option (RFC 3442), so
    /// the routes must contain the default route. [`DhcpOption::parse`] leaves room for it.
    pub fn value_with_router(&self, router: Option<Ipv4Addr>) -> Vec<u8> {
        let mut value = self.value.clone();
        if let Some(router) = router
            && self.code == ROUTES
            && !has_default(&value)
        {
            value.push(0);
            value.extend(router.octets());
        }
        value
    }
}

impl fmt::Display for DhcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The options of one client: those of the subnet, and those of the node, which replace options with the same code.
pub fn merged<'a>(subnet: &'a [DhcpOption], node: &'a [DhcpOption]) -> Vec<&'a DhcpOption> {
    let replaced = |one: &&DhcpOption| !node.iter().any(|other| other.code == one.code);
    subnet.iter().filter(replaced).chain(node).collect()
}

/// The first word, and the rest without the blanks between them.
fn split(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn such_as(example: &str) -> String {
    format!("write it as in \"{example}\"")
}

fn address(word: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = word.parse().ok()?;
    (!address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()).then_some(address)
}

fn addresses(text: &str, example: &str) -> Result<Vec<u8>, (String, String)> {
    let mut value = Vec::new();
    for word in text.split_whitespace() {
        let one = address(word).ok_or_else(|| (format!("'{word}' is not the address of a host"), such_as(example)))?;
        value.extend(one.octets());
    }
    match value.is_empty() {
        true => Err(("an address is missing".to_owned(), such_as(example))),
        false => Ok(value),
    }
}

/// `NETWORK via ROUTER`, several times.
fn routes(text: &str, example: &str) -> Result<(Vec<u8>, Vec<Ipv4Addr>), (String, String)> {
    let wrong = |message: String| Err((message, such_as(example)));
    let words: Vec<&str> = text.split_whitespace().collect();
    let (mut value, mut routers) = (Vec::new(), Vec::new());
    for route in words.chunks(3) {
        let [network, "via", router] = route else {
            return wrong(format!("'{}' is not a route", route.join(" ")));
        };
        let Ok(network) = network.parse::<ipnet::Ipv4Net>() else {
            return wrong(format!("'{network}' is not a network with its prefix"));
        };
        if network.trunc() != network {
            let help = format!("write {} via {router}", network.trunc());
            return Err((format!("{network} is an address in a network"), help));
        }
        let Some(router) = address(router) else {
            return wrong(format!("'{router}' is not the address of a router"));
        };
        // RFC 3442: the prefix, then only the octets that it covers.
        value.push(network.prefix_len());
        value.extend(&network.addr().octets()[..usize::from(network.prefix_len().div_ceil(8))]);
        value.extend(router.octets());
        routers.push(router);
    }
    match value.is_empty() {
        true => wrong("a route is missing".to_owned()),
        false => Ok((value, routers)),
    }
}

/// True if one of the routes is the default route.
fn has_default(mut value: &[u8]) -> bool {
    while let [prefix, rest @ ..] = value {
        if *prefix == 0 {
            return true;
        }
        value = rest.get(usize::from(prefix.div_ceil(8)) + 4..).unwrap_or_default();
    }
    false
}

/// Names as DNS has them (RFC 1035 section 3.1), without compression, which RFC 3397 leaves to the server.
fn search(text: &str, example: &str) -> Result<Vec<u8>, (String, String)> {
    let mut value = Vec::new();
    for name in text.split_whitespace() {
        let plain = |label: &str| {
            (1..=MOST_LABEL).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let bare = name.strip_suffix('.').unwrap_or(name);
        if bare.len() > MOST_NAME || !bare.split('.').all(plain) {
            return Err((format!("'{name}' is not a domain"), such_as(example)));
        }
        for label in bare.split('.') {
            value.push(label.len() as u8);
            value.extend(label.as_bytes());
        }
        value.push(0);
    }
    match value.is_empty() {
        true => Err(("a domain is missing".to_owned(), such_as(example))),
        false => Ok(value),
    }
}

/// `NUMBER TYPE VALUE…`.
fn numbered(word: &str, rest: &str) -> Result<(u8, Vec<u8>), (String, String)> {
    let Ok(code) = word.parse::<u8>() else {
        let names: Vec<&str> = NAMED.iter().map(|(name, ..)| *name).collect();
        let message = format!("'{word}' is not an option of DHCP");
        let help = format!(
            "write {}, or a number and a type, such as \"150 address 10.5.0.1\"",
            names.join(", ")
        );
        return Err((message, help));
    };
    if let Some((_, why)) = TAKEN.iter().find(|(codes, _)| codes.contains(&code)) {
        return Err((format!("option {code} cannot be set here"), (*why).to_owned()));
    }
    if let Some((.., example)) = NAMED.iter().find(|(_, named, _)| *named == code) {
        return Err((format!("option {code} has a name here"), such_as(example)));
    }
    let (kind, text) = split(rest);
    if !TYPES.contains(&kind) {
        let message = match kind {
            "" => format!("option {code} has no type and no value"),
            other => format!("'{other}' is not a type of options"),
        };
        let help = format!("write one of {}, such as \"{code} address 10.5.0.1\"", TYPES.join(", "));
        return Err((message, help));
    }
    if text.is_empty() {
        return Err((
            format!("option {code} has no value"),
            "write it behind the type".to_owned(),
        ));
    }
    let example = match kind {
        "u8" | "u16" | "u32" => format!("{code} {kind} 7"),
        "bool" => format!("{code} bool true"),
        "hex" => format!("{code} hex 01:ff"),
        _ => format!("{code} address 10.5.0.1"),
    };
    let wrong = |value: &str| (format!("'{value}' is no value of the type {kind}"), such_as(&example));
    let mut value = Vec::new();
    match kind {
        "address" => value = addresses(text, &example)?,
        "text" => value.extend(text.as_bytes()),
        "hex" => value = bytes(text).ok_or_else(|| wrong(text))?,
        "bool" => match text {
            "true" => value.push(1),
            "false" => value.push(0),
            other => return Err(wrong(other)),
        },
        number => {
            for word in text.split_whitespace() {
                let parsed: u32 = word.parse().map_err(|_| wrong(word))?;
                let width = match number {
                    "u8" => 1,
                    "u16" => 2,
                    _ => 4,
                };
                let octets = parsed.to_be_bytes();
                if octets[..4 - width].iter().any(|octet| *octet != 0) {
                    return Err(wrong(word));
                }
                value.extend(&octets[4 - width..]);
            }
        }
    }
    Ok((code, value))
}

/// `01:ff`, `01 ff` or `01ff`.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    hex::decode(digits).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> (u8, Vec<u8>) {
        let option = DhcpOption::parse(line).unwrap();
        assert_eq!(option.to_string(), line);
        (option.code, option.value)
    }

    #[test]
    fn values_are_sent_as_the_rfcs_have_them() {
        // The examples of RFC 3442.
        let routes = "routes 10.0.0.0/8 via 10.5.0.2 10.17.0.0/16 via 10.5.0.3 10.229.0.128/25 via 10.5.0.4";
        let want = [
            &[8, 10, 10, 5, 0, 2][..],
            &[16, 10, 17, 10, 5, 0, 3],
            &[25, 10, 229, 0, 128, 10, 5, 0, 4],
        ];
        assert_eq!(value(routes), (121, want.concat()));
        assert_eq!(value("search a.bc d").1, b"\x01a\x02bc\0\x01d\0");
        assert_eq!(
            value("log-servers 10.5.0.1 10.5.0.2"),
            (7, vec![10, 5, 0, 1, 10, 5, 0, 2])
        );
        assert_eq!(value("150 address 10.5.0.1"), (150, vec![10, 5, 0, 1]));
        assert_eq!(value("224 text two words").1, b"two words");
        assert_eq!(value("225 u8 1 255").1, [1, 255]);
        assert_eq!(value("25 u16 576 1500").1, [2, 64, 5, 220]);
        assert_eq!(value("2 u32 3600").1, [0, 0, 14, 16]);
        assert_eq!(value("19 bool true").1, [1]);
        for hex in ["226 hex 01:ff", "226 hex 01 ff", "226 hex 01ff"] {
            assert_eq!(value(hex), (226, vec![1, 255]));
        }
        let always = DhcpOption::parse("  always  150 address   10.5.0.1 ").unwrap();
        assert!(always.always);
        assert_eq!(always.to_string(), "always 150 address 10.5.0.1");
    }

    #[test]
    fn a_default_route_is_added_to_routes_that_have_none() {
        let router = Some(Ipv4Addr::new(10, 5, 0, 254));
        let routes = DhcpOption::parse("routes 10.6.0.0/16 via 10.5.0.2").unwrap();
        assert_eq!(
            routes.value_with_router(router),
            [16, 10, 6, 10, 5, 0, 2, 0, 10, 5, 0, 254]
        );
        assert_eq!(routes.value_with_router(None), routes.value);
        let own = DhcpOption::parse("routes 10.6.0.0/16 via 10.5.0.2 0.0.0.0/0 via 10.5.0.3").unwrap();
        assert_eq!(own.value_with_router(router), own.value);
        let other = DhcpOption::parse("150 address 10.5.0.1").unwrap();
        assert_eq!(other.value_with_router(router), other.value);
    }

    #[test]
    fn routes_that_leave_no_room_for_the_default_route_are_refused_with_the_limit() {
        let line = |long: usize, short: usize, more: &str| {
            // 9 and 8 bytes each.
            let long = (0..long).map(|n| format!("10.6.{n}.128/25 via 10.5.0.2"));
            let short = (0..short).map(|n| format!("10.7.{n}.0/24 via 10.5.0.2"));
            let all: Vec<String> = long.chain(short).collect();
            format!("routes {} {more}", all.join(" ")).trim_end().to_owned()
        };
        // 250 bytes, and the default route.
        let most = DhcpOption::parse(&line(26, 2, "")).unwrap();
        assert_eq!(most.value.len(), 250);
        let sent = most.value_with_router(Some(Ipv4Addr::new(10, 5, 0, 1)));
        assert_eq!(sent[250..], [0, 10, 5, 0, 1]);
        // 251.
        let (message, help) = DhcpOption::parse(&line(27, 1, "")).unwrap_err();
        assert!(message.starts_with("routes have 251 bytes, at most 250"), "{message}");
        assert!(help.contains("0.0.0.0/0 via ROUTER"), "{help}");
        // With a default route of its own it may have 255.
        let own = DhcpOption::parse(&line(26, 2, "0.0.0.0/0 via 10.5.0.9")).unwrap();
        assert_eq!(own.value_with_router(Some(Ipv4Addr::new(10, 5, 0, 1))), own.value);
        let (message, _) = DhcpOption::parse(&line(27, 2, "0.0.0.0/0 via 10.5.0.9")).unwrap_err();
        assert_eq!(message, "option 121 has 264 bytes, at most 255");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_write() {
        let long = format!("224 text {}", "x".repeat(256));
        for (line, message) in [
            ("", "'' is not an option of DHCP"),
            ("mtu 9000", "'mtu' is not an option of DHCP"),
            ("256 u8 1", "'256' is not an option of DHCP"),
            ("26 u16 9000", "option 26 cannot be set here"),
            ("53 u8 1", "option 53 cannot be set here"),
            ("121 hex 00", "option 121 has a name here"),
            ("150", "option 150 has no type and no value"),
            ("150 ip 10.5.0.1", "'ip' is not a type of options"),
            ("150 address", "option 150 has no value"),
            ("150 address 10.5.0.256", "'10.5.0.256' is not the address of a host"),
            ("150 address 0.0.0.0", "'0.0.0.0' is not the address of a host"),
            ("225 u8 256", "'256' is no value of the type u8"),
            ("225 u16 65536", "'65536' is no value of the type u16"),
            ("225 u32 -1", "'-1' is no value of the type u32"),
            ("225 bool 1", "'1' is no value of the type bool"),
            ("225 hex 1", "'1' is no value of the type hex"),
            ("routes", "a route is missing"),
            ("routes 10.6.0.0/16 10.5.0.2", "'10.6.0.0/16 10.5.0.2' is not a route"),
            (
                "routes 10.6.0.1/16 via 10.5.0.2",
                "10.6.0.1/16 is an address in a network",
            ),
            (
                "routes 10.6.0.0/33 via 10.5.0.2",
                "'10.6.0.0/33' is not a network with its prefix",
            ),
            ("search a..b", "'a..b' is not a domain"),
            ("search", "a domain is missing"),
            ("224 text a\nb", "an option is one line of text"),
            (&long, "option 224 has 256 bytes, at most 255"),
        ] {
            assert_eq!(DhcpOption::parse(line).unwrap_err().0, message, "{line:?}");
        }
    }

    #[test]
    fn an_option_of_the_node_replaces_that_of_the_subnet() {
        let parse = |line| DhcpOption::parse(line).unwrap();
        let subnet = [parse("150 address 10.5.0.1"), parse("224 text a")];
        let node = [parse("150 address 10.5.0.9")];
        let all: Vec<String> = merged(&subnet, &node).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["224 text a", "150 address 10.5.0.9"]);
    }
}
