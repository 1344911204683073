//! A bond that the boot card is a member of: the agent makes it before it mounts the root, so that the root survives the loss of a link.
//!
//! The card gets the plan first, by itself. If the bond cannot be made, or the server does not answer through it, the node boots with the card
//! alone and is degraded.

use crate::{
    cmdline::CommandLine,
    fail::{Doing, Failure, Res},
    modules::Loader,
    network::{self, Netlink},
    networks, rtnl,
};
use rackstrap_wire::{BOND_MODES, BOOT_NETWORK, NetworkKind, NetworkPlan, Plan};
use std::path::Path;

/// Milliseconds between two looks at the links of the members; the kernel's default is not to look at all.
const MIIMON: u32 = 100;

/// What became of the bond.
#[derive(Debug, Default)]
pub struct BootBond {
    /// The bond's name, which is that of its interface; none if the node has no such bond, or could not make it.
    pub name: Option<String>,
    /// Why the node boots with the card alone; none if it has the bond, or needs none.
    pub problem: Option<String>,
}

/// The bond of a plan that the boot card is a member of (pure).
pub fn of(plans: &[NetworkPlan]) -> Option<&NetworkPlan> {
    plans.iter().find(|plan| plan.kind.is_boot_bond())
}

/// The number of a mode (linux/if_bonding.h); none if this agent does not know it (pure).
fn number_of(mode: &str) -> Option<u8> {
    BOND_MODES.iter().position(|known| *known == mode).map(|at| at as u8)
}

/// Makes the bond of the plan, if it has one. `reached` asks the server something, to find out whether the bond carries packets.
///
/// # Errors
/// The card alone, to which the node returns if the bond fails, does not work any more.
pub fn set_up(plan: &Plan, cmdline: &CommandLine, reached: &mut dyn FnMut() -> Res<()>) -> Res<(BootBond, String)> {
    let Some(bond) = of(&plan.networks) else {
        return Ok((BootBond::default(), String::new()));
    };
    let made = make(plan, bond, cmdline).and_then(|text| {
        reached()?;
        Ok(text)
    });
    match made {
        Ok(text) => {
            let bond = BootBond {
                name: Some(bond.name.clone()),
                problem: None,
            };
            Ok((bond, text))
        }
        Err(failure) => {
            let problem = format!("the node uses its boot card alone: {failure}");
            undo(&bond.name);
            let (text, _) = network::up(cmdline)?;
            let bond = BootBond {
                name: None,
                problem: Some(problem),
            };
            Ok((bond, text))
        }
    }
}

/// Makes the bond. Its members are those that the node has, and at least the boot card.
fn make(plan: &Plan, bond: &NetworkPlan, cmdline: &CommandLine) -> Res<String> {
    let (name, mode) = match &bond.kind {
        NetworkKind::Bond { mode, .. } => (bond.name.as_str(), mode.as_str()),
        _ => return Err(Failure::new(format!("{} is not a bond", bond.name))),
    };
    let number =
        number_of(mode).ok_or_else(|| Failure::new(format!("this agent does not know the mode {mode} of bonds")))?;
    let all = networks::wait_for_cards(plan);
    let resolved = networks::resolve(&plan.networks, &all, plan.net.hwaddr);
    let boot = all.iter().find(|card| card.mac == Some(plan.net.hwaddr));
    let boot = boot.and_then(|card| card.interface.clone());
    let boot = boot.ok_or_else(|| Failure::new(format!("card {} is gone", plan.net.hwaddr)))?;

    // Without this parameter the module makes a bond by itself.
    let mut words = cmdline.all.clone();
    words.push("bonding.max_bonds=0".to_owned());
    Loader::open(&words).want("bonding");
    let netlink = Netlink::open()?;
    netlink
        .request(|s| rtnl::add_bond(s, name, number, MIIMON, plan.net.hwaddr.0))
        .map_err(|error| match error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) {
            true => Failure::new(
                "the kernel of this image cannot make bonds: its initramfs has no module bonding; install the kernel's module in the image and \
                 seal it again",
            ),
            false => Failure::new(format!("making the bond {name}: {error}")),
        })?;
    let index = network::index_of(name)?;

    let vlan = network::index_of(BOOT_NETWORK).ok().filter(|_| cmdline.vlan.is_some());
    if let Some(vlan) = vlan {
        let removed = netlink.request(|s| rtnl::remove_link(s, vlan));
        removed.doing(|| format!("taking the VLAN from {boot}"))?;
    } else {
        let card = network::index_of(&boot)?;
        let removed = netlink.request(|s| rtnl::remove_address(s, card, cmdline.ipaddr, cmdline.prefix));
        removed.doing(|| format!("taking the address from {boot}"))?;
    }
    join(&netlink, &boot, index, cmdline)?;
    let mut members = vec![boot.clone()];
    let mut problem = None;
    for network in resolved.members_of(name) {
        let card = network.card.and_then(|card| card.interface.as_deref());
        let Some(interface) = card else {
            continue;
        };
        let own = &network.plan.name;
        // One card that cannot join does not keep the root from the other ones.
        let joined = prepare(&netlink, interface, own).and_then(|()| join(&netlink, own, index, cmdline));
        match joined {
            Ok(()) => members.push(own.clone()),
            Err(failure) => problem = Some(failure.to_string()),
        }
    }
    netlink
        .request(|s| rtnl::link_up(s, index))
        .doing(|| format!("setting {name} up"))?;
    if !network::wait_for_link(name) {
        return Err(Failure::new(format!(
            "the bond {name} of {} has no link{}",
            members.join(" and "),
            advice(mode)
        )));
    }
    let text = network::configure(&netlink, name, index, cmdline)?;
    let problem = problem.map(|problem| format!("; {problem}")).unwrap_or_default();
    Ok(format!(
        "{text}; {name} is {mode} of {}{problem}",
        members.join(" and ")
    ))
}

/// What an administrator looks at if a bond of that mode has no link (pure).
fn advice(mode: &str) -> &'static str {
    match mode {
        "active-backup" | "balance-tlb" | "balance-alb" => ": check the cables",
        "802.3ad" => ": check the cables, and that the switch speaks LACP on their ports",
        _ => ": check the cables, and that the switch has a group of their ports",
    }
}

/// Names a card that is not the boot card.
fn prepare(netlink: &Netlink, interface: &str, name: &str) -> Res<()> {
    let index = network::index_of(interface)?;
    netlink
        .request(|s| rtnl::link_down(s, index))
        .doing(|| format!("setting {interface} down"))?;
    match interface == name {
        true => Ok(()),
        false => network::rename(interface, name),
    }
}

/// Makes a card a member of the bond.
fn join(netlink: &Netlink, interface: &str, bond: u32, cmdline: &CommandLine) -> Res<()> {
    let index = network::index_of(interface)?;
    netlink
        .request(|s| rtnl::link_down(s, index))
        .doing(|| format!("setting {interface} down"))?;
    if let Some(mtu) = cmdline.mtu {
        network::set_mtu(netlink, interface, index, mtu);
    }
    netlink
        .request(|s| rtnl::join(s, index, bond))
        .doing(|| format!("making {interface} a member of the bond"))
}

/// Takes the bond apart, as far as it exists. Its members are down then.
fn undo(name: &str) {
    let is_bond = Path::new("/sys/class/net").join(name).join("bonding").exists();
    let remove = |interface: &str| -> Res<()> {
        let index = network::index_of(interface)?;
        Netlink::open()?
            .request(|s| rtnl::remove_link(s, index))
            .doing(|| format!("removing {interface}"))
    };
    let _ = remove(BOOT_NETWORK);
    if is_bond {
        let _ = remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bond(members: &[&str], mode: &str) -> NetworkPlan {
        let kind = NetworkKind::Bond {
            members: members.iter().map(|member| (*member).to_owned()).collect(),
            mode: mode.to_owned(),
        };
        NetworkPlan::new("bond0", kind)
    }

    #[test]
    fn the_bond_of_the_boot_card_is_found() {
        let other = NetworkPlan {
            name: "fast".to_owned(),
            ..bond(&["left", "right"], "802.3ad")
        };
        assert_eq!(of(std::slice::from_ref(&other)), None);
        let plans = [other, bond(&["left", BOOT_NETWORK], "active-backup")];
        assert_eq!(of(&plans).unwrap().name, "bond0");
    }

    #[test]
    fn modes_have_the_kernels_numbers() {
        let numbers = ["balance-rr", "active-backup", "802.3ad", "balance-alb", "round"].map(number_of);
        assert_eq!(numbers, [Some(0), Some(1), Some(4), Some(6), None]);
        assert!(advice("802.3ad").contains("LACP") && !advice("active-backup").contains("switch"));
    }
}
