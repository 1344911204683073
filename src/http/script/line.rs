//! The kernel command line, and how long it would be (pure).

use super::limits::{Limit, fits};
use rackstrap_wire::{NetPlan, cmdline};
use std::fmt::{Display, Write as _};

/// What the command line is made of.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// `http://10.5.0.1:80`
    pub base: &'a str,
    /// The boot's id.
    pub id: &'a str,
    /// The boot's token.
    pub token: &'a str,
    /// The node's card and address.
    pub net: &'a NetPlan,
    /// The serial consoles, with spaces between them; empty if there is none.
    pub console: &'a str,
    /// The site's kernel arguments.
    pub kernel_args: &'a str,
}

/// A boot's id has twelve letters, and its token 32 hex digits.
const ID: &str = "000000000000";
const TOKEN: &str = "00000000000000000000000000000000";

impl Line<'_> {
    /// The kernel's arguments. With `panic=10`, a kernel that panics restarts the machine instead of stopping.
    pub(super) fn text(self) -> String {
        let net = self.net;
        let mut line = String::from("panic=10");
        let mut add = |key: &str, value: &dyn Display| {
            let _ = write!(line, " {key}={value}");
        };
        add(cmdline::SERVER, &self.base);
        add(cmdline::PLAN, &self.id);
        add(cmdline::TOKEN, &self.token);
        add(cmdline::HWADDR, &net.hwaddr);
        add(cmdline::IPADDR, &format_args!("{}/{}", net.ipaddr, net.prefix));
        if let Some(router) = net.router {
            add(cmdline::ROUTER, &router);
        }
        if let Some(mtu) = net.mtu {
            add(cmdline::MTU, &mtu);
        }
        if let Some(vlan) = net.vlan {
            add(cmdline::VLAN, &vlan);
        }
        if !self.console.is_empty() {
            // The last `console=` becomes /dev/console: the serial line, or the last one, if the site configures any.
            for console in ["tty0"].into_iter().chain(self.console.split_whitespace()) {
                add("console", &console);
            }
        }
        if !self.kernel_args.is_empty() {
            line.push(' ');
            line.push_str(self.kernel_args);
        }
        line
    }
}

/// Why the command line of a node cannot be passed on as it is; none if it can. Of all loaders those are meant that load images like the
/// node's: with `board`, also U-Boot and the firmware of a Raspberry Pi.
pub fn problem(base: &str, net: &NetPlan, console: &str, kernel_args: &str, board: bool) -> Option<String> {
    let line = Line {
        base,
        id: ID,
        token: TOKEN,
        net,
        console,
        kernel_args,
    };
    let len = line.text().len();
    let limits = [Limit::Kernel, Limit::UBoot, Limit::RaspberryPi];
    let used = limits.into_iter().filter(|limit| board || *limit == Limit::Kernel);
    used.filter_map(|limit| fits(len, limit).err()).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_wire::Plan;

    #[test]
    fn each_loader_has_its_limit() {
        let net = Plan::example("r01n01").net;
        let of = |len: usize, board| problem("http://10.5.0.1:80", &net, "", &"x".repeat(len), board);
        let bare = Line {
            base: "http://10.5.0.1:80",
            id: ID,
            token: TOKEN,
            net: &net,
            console: "",
            kernel_args: "",
        };
        // With the blank before the arguments.
        let own = bare.text().len() + 1;
        assert_eq!((of(1023 - own, true), of(2047 - own, false)), (None, None));
        assert_eq!(
            of(1024 - own, true).unwrap(),
            "the kernel command line has 1024 bytes, and U-Boot takes at most 1023; shorten kernel-args"
        );
        assert!(of(2048 - own, false).unwrap().contains("kernels cut it at 2047"));
        assert!(of(2048 - own, true).unwrap().contains("kernels cut it at 2047"));
    }
}
