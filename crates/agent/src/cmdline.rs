//! The kernel command line (pure).

use crate::fail::{Doing, Failure, Res};
use rackstrap_wire::{HwAddr, cmdline as keys};
use std::net::Ipv4Addr;

/// What the boot script told us by the kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Server, `http://10.5.0.1:80`.
    pub server: String,
    /// Id of the boot.
    pub plan: String,
    /// Token of the boot.
    pub token: String,
    /// The card that booted.
    pub hwaddr: HwAddr,
    /// Its address.
    pub ipaddr: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
    /// Default router.
    pub router: Option<Ipv4Addr>,
    /// Step of disk preparation to stop after.
    pub hold: Option<String>,
    /// Everything, for module parameters (`module.parameter=value`).
    pub all: Vec<String>,
    /// What the operating system's init is to be given: words after `--`.
    pub init_args: Vec<String>,
}

/// Splits as the kernel does: at white space, except inside double quotes (lib/cmdline.c, next_arg).
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

/// Reads the `rackstrap.*` parameters; a repeated one counts as its last value, as the kernel's own do.
pub fn parse(line: &str) -> Res<CommandLine> {
    let words = words(line);
    let cut = words.iter().position(|w| w == "--").unwrap_or(words.len());
    let (kernel, init_args) = words.split_at(cut);
    let find = |key: &str| kernel.iter().rev().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
    let need = |key: &str| {
        find(key).filter(|v| !v.is_empty()).ok_or_else(|| {
            Failure::hopeless(format!(
                "{key}= is missing on the kernel command line; this initramfs has to be started by rackstrap's boot script"
            ))
        })
    };
    let hopeless = |f: Failure| Failure::hopeless(f.to_string());
    let plan = need(keys::PLAN)?;
    let token = need(keys::TOKEN)?;
    for (key, value) in [(keys::PLAN, plan), (keys::TOKEN, token)] {
        if value.len() > 128
            || !value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return Err(Failure::hopeless(format!("{key}= has characters that no id has")));
        }
    }
    let address = need(keys::IPADDR)?;
    let bad_address = || Failure::hopeless(format!("{}={address} is not like 10.5.1.1/16", keys::IPADDR));
    let (ip, prefix) = address.split_once('/').ok_or_else(bad_address)?;
    let prefix: u8 = prefix.parse().map_err(|_| bad_address())?;
    if prefix > 32 {
        return Err(bad_address());
    }
    let hwaddr = need(keys::HWADDR)?;
    let router = find(keys::ROUTER).filter(|v| !v.is_empty());
    Ok(CommandLine {
        server: crate::http::server_base(need(keys::SERVER)?)?,
        plan: plan.to_owned(),
        token: token.to_owned(),
        hwaddr: hwaddr.parse().doing(|| keys::HWADDR.into()).map_err(hopeless)?,
        ipaddr: ip.parse().map_err(|_| bad_address())?,
        prefix,
        router: router
            .map(|r| r.parse().doing(|| format!("{}={r}", keys::ROUTER)))
            .transpose()
            .map_err(hopeless)?,
        hold: find(keys::HOLD).filter(|v| !v.is_empty()).map(str::to_owned),
        all: kernel.to_vec(),
        init_args: init_args.iter().skip(1).cloned().collect(),
    })
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
        assert_eq!((c.router, c.hold), (None, None));
        assert!(c.all.contains(&"e1000.debug=a b".to_owned()));
        assert_eq!(c.init_args, ["single"]);
        let more = GOOD.replace(
            " -- single",
            " rackstrap.router=10.5.0.254 rackstrap.hold=table rackstrap.plan=b8",
        );
        let c = parse(&more).unwrap();
        assert_eq!(
            (c.router, c.hold.as_deref(), c.plan.as_str()),
            (Some([10, 5, 0, 254].into()), Some("table"), "b8")
        );
    }

    #[test]
    fn says_what_is_missing_or_wrong() {
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
            ("http://10.5.0.1:80", "ftp://x", "rackstrap.server=ftp://x"),
        ] {
            let failure = parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(failure.hopeless && failure.to_string().contains(want), "{failure}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
