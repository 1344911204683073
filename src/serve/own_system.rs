//! Nodes that run a system of their own disk: their system asks for an address, and this daemon sent it no kernel.

use super::Shared;
use rackstrap_base::firmware::{HTTP_CLIENT, PXE_CLIENT, U_BOOT};
use rackstrap_dhcp::{AnswerKind, DhcpEvent, Kind};
use rackstrap_model::{
    decide::World,
    inventory::{Node, Settings},
    orders::OnceBoot,
};
use rackstrap_registries::{
    boots::Boot,
    timeline::{Event, EventKind, Level, NodeStatus, Subject},
};
use rackstrap_site::BOOT_LOCAL;
use rackstrap_wire::{Uefi, text::one_line};

/// Longest host name in an event, in characters: one label of a domain name (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 63;

/// Records that `node`, which sent this packet, runs a system that this daemon did not boot; does nothing if it may run one that it did.
pub fn tell(shared: &Shared, world: &World, node: &str, event: &DhcpEvent) {
    let got_no_system = || {
        let standing = shared.recorder.standing(&Subject::Node(node.to_owned()));
        standing.is_none_or(|standing| standing.got_no_system())
    };
    let alive = || shared.boots.is_alive(node, world.site.limits.heartbeat_secs);
    if !is_started_system(event) || alive() || !got_no_system() {
        return;
    }
    let status = NodeStatus::recorded(world, &shared.recorder, &shared.boots, node);
    if status.last_boot().is_some_and(|boot| is_silent(world, boot)) {
        return;
    }
    let Some(known) = world.inventory.get(node) else {
        return;
    };
    let name = event.host_name.as_deref();
    if boots_locally(shared, world, known) {
        let detail = format!("its own system is starting{}", with_name(known, name));
        let told = Event::new(event.at, EventKind::Unmanaged, Level::Ok, detail);
        shared.recorder.record(Subject::Node(node.to_owned()), told);
        return;
    }
    let uefi = status.hardware().and_then(|hardware| hardware.uefi.as_ref());
    let network_first = Settings::of_node(&world.site, known, |_| ()).network_first();
    let detail = describe(known, name, uefi, network_first);
    let told = Event::new(event.at, EventKind::OwnSystem, Level::Error, detail);
    shared.recorder.record(Subject::Node(node.to_owned()), told);
}

/// Whether the system of that boot may run without heartbeats, so that its silence proves nothing: an image of FreeBSD need not have the script that
/// reports and sends them. One that has reported has it.
fn is_silent(world: &World, boot: &Boot) -> bool {
    let version = world.images.of_plan(&boot.plan);
    boot.ready.is_none() && version.is_some_and(|version| version.is_freebsd())
}

/// Whether the packet is that of a system which has just started: the last one before it uses its address. Firmware and loaders say what
/// they are.
fn is_started_system(event: &DhcpEvent) -> bool {
    let is_loader = event.booting || event.ipxe || event.http_client || event.freebsd_loader || event.grub;
    let firmware = [PXE_CLIENT, HTTP_CLIENT, U_BOOT];
    let takes_address = matches!(event.message, Kind::Selecting { .. } | Kind::InitReboot { .. });
    let is_firmware = firmware.iter().any(|class| event.vendor_class.starts_with(class));
    takes_address && event.answer == AnswerKind::Ack && !is_loader && !is_firmware && !event.boot_server
}

/// Whether the node was told to start the system on its own disk: by its settings, or by the order that its last boot used.
fn boots_locally(shared: &Shared, world: &World, node: &Node) -> bool {
    let settings = Settings::of_node(&world.site, node, |_| ());
    let ordered = shared.boots.orders().get(&node.name);
    settings.text(|profile| &profile.boot) == Some(BOOT_LOCAL)
        || ordered.is_some_and(|order| order.what == OnceBoot::Local && order.used.is_some())
}

/// `, with the host name "debian"`; empty if it is the node's own name, or unknown.
fn with_name(node: &Node, host_name: Option<&str>) -> String {
    let name = host_name.map(|name| one_line(name, LONGEST_NAME));
    let name = name.filter(|name| !name.is_empty() && *name != node.name);
    name.map(|name| format!(", with the host name \"{name}\""))
        .unwrap_or_default()
}

/// `runs a system that this server did not boot, with the host name "debian": probably from its own disk; ...`
fn describe(node: &Node, host_name: Option<&str>, uefi: Option<&Uefi>, network_first: bool) -> String {
    let name = with_name(node, host_name);
    let why = match uefi {
        Some(uefi) if !uefi.before_network.is_empty() => {
            let system = match uefi.foreign_esps.as_slice() {
                [] => String::new(),
                names => format!(
                    ", and another system has its EFI system partition on {}",
                    names.join(", ")
                ),
            };
            format!(
                "its firmware tries {} before the network{system}",
                uefi.before_network.join(", ")
            )
        }
        Some(uefi) if !uefi.network => "its firmware has no boot entry for the network".to_owned(),
        _ => "its firmware tries a disk before the network, or its network boot failed".to_owned(),
    };
    let remedy = match (uefi, network_first) {
        (Some(uefi), true) if uefi.network => {
            "start it once from the network (ipmitool chassis bootdev pxe), and firmware = \"network-first\" puts the network first"
        }
        (Some(uefi), false) if uefi.network => {
            "write firmware = \"network-first\" into its profile, and start it once from the network (ipmitool chassis bootdev pxe)"
        }
        _ => "put the network first in its firmware's setup",
    };
    format!("runs a system that this server did not boot{name}, probably from its own disk: {why}; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{serve::dhcp::DhcpAuthority, testkit};
    use rackstrap_base::clock::Timestamp;
    use rackstrap_catalog::{Catalog, ImageVersion, Manifest, System};
    use rackstrap_dhcp::Authority;
    use rackstrap_model::{
        inventory::Change,
        testing::{card, cluster, node},
    };
    use rackstrap_registries::{
        Registries,
        testing::{add, world},
        timeline::{DhcpMessage, NodeState},
    };
    use rackstrap_wire::testing::plan;
    use std::net::Ipv4Addr;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 5, 1, 1);

    /// A system with that host name takes its address.
    fn system(name: &str) -> DhcpEvent {
        DhcpEvent {
            host_name: Some(name.to_owned()),
            message: Kind::Selecting {
                server: Ipv4Addr::new(10, 5, 0, 1),
                address: ADDRESS,
            },
            ..testkit::dhcp_ack(card("r01n01"), ADDRESS)
        }
    }

    #[tokio::test]
    async fn a_node_that_got_no_kernel_and_asks_as_a_system_does_is_named_in_status() {
        let dir = tempfile::tempdir().unwrap();
        let shared = testkit::daemon(dir.path(), "");
        shared.nodes.change(&[add("r01n01")], "test", Timestamp::now()).unwrap();
        let authority = DhcpAuthority::new(shared.clone());
        let node = Subject::Node("r01n01".to_owned());
        let told = || {
            let events = shared.recorder.of(&node).into_iter();
            let told = events.filter(|event| event.step == EventKind::OwnSystem);
            told.map(|event| event.count).sum::<u64>()
        };
        // Packets of firmware and loaders, a lease that is extended, and what is not answered.
        let none = [
            DhcpEvent {
                booting: true,
                ..system("x")
            },
            DhcpEvent {
                ipxe: true,
                ..system("x")
            },
            DhcpEvent {
                freebsd_loader: true,
                ..system("x")
            },
            DhcpEvent {
                grub: true,
                ..system("x")
            },
            DhcpEvent {
                vendor_class: "U-Boot.armv8".to_owned(),
                ..system("x")
            },
            DhcpEvent {
                message: Kind::Extend { address: ADDRESS },
                ..system("x")
            },
            DhcpEvent {
                message: Kind::Discover,
                answer: AnswerKind::Offer,
                ..system("x")
            },
            DhcpEvent {
                answer: AnswerKind::Silent,
                ..system("x")
            },
        ];
        for event in &none {
            authority.observe(event);
        }
        assert_eq!(told(), 0);

        authority.observe(&system("debian"));
        assert_eq!(told(), 1);
        let status = NodeStatus::recorded(&shared.world.load(), &shared.recorder, &shared.boots, "r01n01");
        let expected = "own-system: runs a system that this server did not boot, with the host name \"debian\", probably from its own disk: \
                        its firmware tries a disk before the network, or its network boot failed; put the network first in its firmware's setup";
        assert_eq!(status.reason, expected);

        // The firmware asked the network first, got no kernel, and went on to the disk.
        let firmware = DhcpEvent {
            booting: true,
            vendor_class: "PXEClient:Arch:00007:UNDI:003016".to_owned(),
            arch: Some(7),
            message: Kind::Discover,
            answer: AnswerKind::Offer,
            ..system("")
        };
        authority.observe(&firmware);
        authority.observe(&system("debian"));
        assert_eq!(told(), 2);
        // With a kernel of this server its system is this server's.
        for (step, detail) in [(EventKind::Kernel, "sent"), (EventKind::Initramfs, "sent")] {
            let event = Event::new(Timestamp::now(), step, Level::Ok, detail).of_boot("b1");
            shared.recorder.record(node.clone(), event);
        }
        authority.observe(&system("debian"));
        assert_eq!(told(), 2);
        // So it is while its system runs.
        let ready = Event::new(Timestamp::now(), EventKind::Ready, Level::Ok, "").of_boot("b1");
        shared.recorder.record(node.clone(), ready);
        authority.observe(&system("debian"));
        assert_eq!(told(), 2);
        let steps: Vec<EventKind> = shared.recorder.of(&node).into_iter().map(|event| event.step).collect();
        assert_eq!(steps.last(), Some(&EventKind::DhcpClient(DhcpMessage::Request)));
        let standing = shared.recorder.standing(&node).unwrap();
        assert_eq!(standing.state, NodeState::Ready);
    }

    #[tokio::test]
    async fn a_node_that_was_told_to_boot_from_its_own_disk_is_unmanaged_and_has_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let shared = testkit::daemon(dir.path(), "[profile.old]\nboot = \"local\"\n");
        let mut change = add("r01n01");
        if let Change::Add(node) = &mut change {
            node.profiles = vec!["old".to_owned()];
        }
        let changes = [change];
        shared.nodes.change(&changes, "test", Timestamp::now()).unwrap();
        let authority = DhcpAuthority::new(shared.clone());
        let node = Subject::Node("r01n01".to_owned());
        // Its system asks from the beginning, as firmware does.
        let discover = DhcpEvent {
            message: Kind::Discover,
            answer: AnswerKind::Offer,
            ..system("debian")
        };
        authority.observe(&discover);
        authority.observe(&system("debian"));
        let standing = shared.recorder.standing(&node).unwrap();
        assert_eq!(
            (standing.state, standing.last_error.as_str()),
            (NodeState::Unmanaged, "")
        );
        let last = shared.recorder.of(&node).pop().unwrap();
        assert_eq!(
            (last.step, last.detail.as_str()),
            (
                EventKind::Unmanaged,
                "its own system is starting, with the host name \"debian\""
            )
        );
        // It stays so when a lease is extended, however long ago it started.
        authority.observe(&DhcpEvent {
            message: Kind::Extend { address: ADDRESS },
            ..system("debian")
        });
        shared
            .recorder
            .record_overdue(Timestamp::now().plus_secs(86_400), |_| 30);
        assert_eq!(shared.recorder.standing(&node).unwrap().state, NodeState::Unmanaged);
    }

    #[tokio::test]
    async fn freebsd_sends_heartbeats_once_its_boot_has_reported() {
        let dir = tempfile::tempdir().unwrap();
        let of = |system| {
            let manifest = Manifest {
                system,
                ..Manifest::bare("debian@1".parse().unwrap())
            };
            world(cluster("")).images(Catalog::new([ImageVersion::new(manifest, dir.path().to_owned())]))
        };
        let (freebsd, linux) = (of(System::FreeBsd).build(), of(System::Linux).build());
        let registries = Registries::open(dir.path(), of(System::FreeBsd));
        let begun = registries
            .boots
            .open(Timestamp(1), plan("r01n01").pinned())
            .await
            .unwrap();
        assert!(is_silent(&freebsd, &begun));
        assert!(!is_silent(&linux, &begun), "the agent sends them");
        let ready = registries.ready("r01n02", Timestamp(2)).await;
        assert!(!is_silent(&freebsd, &ready));
    }

    #[test]
    fn the_boot_entry_and_the_remedy_are_named() {
        let node = node("r01n03");
        let uefi = Uefi {
            network: true,
            before_network: vec!["debian".to_owned()],
            ..Uefi::default()
        };
        let text = describe(&node, Some("r01n03"), Some(&uefi), false);
        assert_eq!(
            text,
            "runs a system that this server did not boot, probably from its own disk: its firmware tries debian before the network; write \
             firmware = \"network-first\" into its profile, and start it once from the network (ipmitool chassis bootdev pxe)"
        );
        let uefi = Uefi {
            foreign_esps: vec!["sda1".to_owned()],
            ..uefi
        };
        let text = describe(&node, None, Some(&uefi), false);
        assert!(
            text.contains(
                "tries debian before the network, and another system has its EFI system partition on sda1; write"
            ),
            "{text}"
        );
        let text = describe(&node, Some("\u{1b}[2J"), Some(&uefi), true);
        assert!(
            !text.contains('\u{1b}') && text.contains("and firmware = \"network-first\" puts"),
            "{text}"
        );
        let text = describe(&node, None, Some(&Uefi::default()), true);
        assert!(
            text.contains("no boot entry for the network") && text.contains("firmware's setup"),
            "{text}"
        );
    }
}
