//! The kernel command line (pure).

use crate::fail::{Doing, Failure, Res};
use rackstrap_wire::{HwAddr, cmdline as keys};
use std::net::Ipv4Addr;

/// The parameters that the boot script put on the kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Base of the server's URLs, `http://10.5.0.1:80`.
    pub server: String,
    /// Id of the boot.
    pub plan: String,
    /// Token of the boot.
    pub token: String,
    /// Hardware address of the network card that booted.
    pub hwaddr: HwAddr,
    /// Address of that card.
    pub ipaddr: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
    /// Default router; none if the subnet has none.
    pub router: Option<Ipv4Addr>,
    /// MTU of the card in bytes; none = as the card has it.
    pub mtu: Option<u32>,
    /// VLAN in which the card has the address, 1 to 4094; none if packets have no tag.
    pub vlan: Option<u16>,
    /// The step of disk preparation after which the agent stops for good; none: after no step.
    pub hold: Option<String>,
    /// Seconds without a step after which the agent counts as hung; none for the usual time.
    pub hung_after: Option<u16>,
    /// All parameters, for those of modules (`module.parameter=value`).
    pub all: Vec<String>,
    /// Arguments for the operating system's init: the words after `--`.
    pub init_args: Vec<String>,
}

/// Splits the line like the kernel: at white space, except inside double quotes (lib/cmdline.c, next_arg).
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    for c in line.trim_end_matches(['\n', '\0']).chars() {
        match c {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            c if c.is_ascii_whitespace() && !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

/// Reads the `rackstrap.*` parameters. The last value of a repeated parameter counts, as in the kernel.
pub fn parse(line: &str) -> Res<CommandLine> {
    let words = words(line);
    let cut = words.iter().position(|w| w == "--").unwrap_or(words.len());
    let (kernel, init_args) = words.split_at(cut);
    let find = |key: &str| kernel.iter().rev().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
    let need = |key: &str| {
        find(key).filter(|v| !v.is_empty()).ok_or_else(|| {
            Failure::permanent(format!(
                "{key}= is missing on the kernel command line; only rackstrap's boot script can start this initramfs"
            ))
        })
    };
    let permanent = |f: Failure| Failure::permanent(f.to_string());
    let plan = need(keys::PLAN)?;
    let token = need(keys::TOKEN)?;
    for (key, value) in [(keys::PLAN, plan), (keys::TOKEN, token)] {
        if value.len() > 128
            || !value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return Err(Failure::permanent(format!(
                "{key}= has characters that are not allowed in an id"
            )));
        }
    }
    let address = need(keys::IPADDR)?;
    let bad_address = || Failure::permanent(format!("{}={address} is not like 10.5.1.1/16", keys::IPADDR));
    let (ip, prefix) = address.split_once('/').ok_or_else(bad_address)?;
    let prefix: u8 = prefix.parse().map_err(|_| bad_address())?;
    if prefix > 32 {
        return Err(bad_address());
    }
    let hwaddr = need(keys::HWADDR)?;
    let router = find(keys::ROUTER).filter(|v| !v.is_empty());
    let mtu = find(keys::MTU).filter(|v| !v.is_empty());
    let vlan = find(keys::VLAN).filter(|v| !v.is_empty());
    Ok(CommandLine {
        server: crate::http::server_base(need(keys::SERVER)?)?,
        plan: plan.to_owned(),
        token: token.to_owned(),
        hwaddr: hwaddr.parse().doing(|| keys::HWADDR.into()).map_err(permanent)?,
        ipaddr: ip.parse().map_err(|_| bad_address())?,
        prefix,
        router: router
            .map(|r| r.parse().doing(|| format!("{}={r}", keys::ROUTER)))
            .transpose()
            .map_err(permanent)?,
        mtu: mtu
            .map(|m| m.parse().doing(|| format!("{}={m}", keys::MTU)))
            .transpose()
            .map_err(permanent)?,
        vlan: vlan.map(read_vlan).transpose()?,
        hold: find(keys::HOLD).filter(|v| !v.is_empty()).map(str::to_owned),
        hung_after: find(keys::HUNG_AFTER).and_then(|value| value.parse().ok()),
        all: kernel.to_vec(),
        init_args: init_args.iter().skip(1).cloned().collect(),
    })
}

fn read_vlan(text: &str) -> Res<u16> {
    let id = text.parse().ok().filter(|id| (1..=4094).contains(id));
    id.ok_or_else(|| Failure::permanent(format!("{}={text} is not a VLAN: 1 to 4094", keys::VLAN)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "quiet panic=10 rackstrap.server=http://10.5.0.1:80 rackstrap.plan=b7 rackstrap.token=c0ffee \
                        rackstrap.hwaddr=52:54:00:01:01:01 rackstrap.ipaddr=10.5.1.1/16 e1000.debug=\"a b\" -- single\n";

    #[test]
    fn reads_what_the_boot_script_writes() {
        let c = parse(GOOD).unwrap();
        assert_eq!(
            (c.server.as_str(), c.plan.as_str(), c.token.as_str()),
            ("http://10.5.0.1:80", "b7", "c0ffee")
        );
        assert_eq!(
            (c.hwaddr.to_string(), c.ipaddr, c.prefix),
            ("52:54:00:01:01:01".into(), [10, 5, 1, 1].into(), 16)
        );
        assert_eq!(
            (c.router, c.mtu, c.vlan, c.hold, c.hung_after),
            (None, None, None, None, None)
        );
        assert!(c.all.contains(&"e1000.debug=a b".to_owned()));
        assert_eq!(c.init_args, ["single"]);
        let more = GOOD.replace(
            " -- single",
            " rackstrap.router=10.5.0.254 rackstrap.mtu=9000 rackstrap.vlan=5 rackstrap.hold=table rackstrap.plan=b8 rackstrap.hung-after=60",
        );
        let c = parse(&more).unwrap();
        assert_eq!(
            (c.router, c.mtu, c.vlan, c.hold.as_deref(), c.plan.as_str()),
            (Some([10, 5, 0, 254].into()), Some(9000), Some(5), Some("table"), "b8")
        );
    }

    #[test]
    fn a_missing_or_wrong_parameter_is_named() {
        for (from, to, want) in [
            ("rackstrap.plan=b7", "", "rackstrap.plan= is missing"),
            (
                "rackstrap.plan=b7",
                "rackstrap.plan=../x",
                "rackstrap.plan= has characters",
            ),
            ("10.5.1.1/16", "10.5.1.1", "not like 10.5.1.1/16"),
            ("10.5.1.1/16", "10.5.1.1/33", "not like 10.5.1.1/16"),
            (
                "52:54:00:01:01:01",
                "52:54",
                "rackstrap.hwaddr: '52:54' is not a hardware address",
            ),
            (
                "rackstrap.plan=b7",
                "rackstrap.plan=b7 rackstrap.vlan=4095",
                "rackstrap.vlan=4095 is not a VLAN: 1 to 4094",
            ),
            (
                "rackstrap.plan=b7",
                "rackstrap.plan=b7 rackstrap.vlan=-5",
                "rackstrap.vlan=-5 is not a VLAN",
            ),
            ("http://10.5.0.1:80", "ftp://x", "rackstrap.server=ftp://x"),
        ] {
            let failure = parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(failure.permanent && failure.to_string().contains(want), "{failure}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
