//! The scripts that boot nothing, of machines that wait, have another address than their own, or belong to a node's other card.

use super::{
    answer::Problem,
    ask::ScriptAsk,
    script::WaitScript,
    service::{Service, base_url},
};
use rackstrap_base::{
    bootname::ScriptLanguage,
    clock::Timestamp,
    holding::Holding,
    pauses::Pauses,
    subnet::{DhcpPart, wrong_address},
};
use rackstrap_model::{
    decide::{NodeDecision, World},
    inventory::Settings,
};
use rackstrap_registries::{
    discovery::{Observation, Owner},
    timeline::{Event, EventKind, Level, Subject},
};

impl Service {
    /// For a request from the address of another node.
    pub(super) fn another_nodes_address(&self, world: &World, asks: &ScriptAsk) -> Result<String, Problem> {
        let (hwaddr, address) = (asks.hwaddr, asks.peer.ipv4());
        let subnet = world.site.subnet_of(address);
        let base = base_url(&world.site, subnet.map_or(address, |subnet| subnet.server));
        let message = format!("{address} is not the address of {hwaddr}");
        self.wait(asks, &base, &[message], true)
    }

    /// For a node to which the site's own DHCP server gave another address than the name says.
    pub(super) fn unreserved(
        &self,
        world: &World,
        decision: &NodeDecision,
        asks: &ScriptAsk,
    ) -> Result<String, Problem> {
        let (hwaddr, address) = (asks.hwaddr, asks.peer.ipv4());
        let detail = wrong_address(&decision.node.name, address, decision.node.ipaddr);
        // With "proxy" the machine's DHCP was heard, and with "off" the kernel knows its card, so that a request from elsewhere is not its own.
        let own = match decision.subnet.dhcp {
            DhcpPart::Proxy => self.firmware.address_of(hwaddr) == Some(address),
            DhcpPart::Off => self.neighbour_at(asks.peer) == Some(hwaddr),
            DhcpPart::Full => decision.subnet.network.contains(&address),
        };
        // Heartbeats come from the node's own address: while it sends them, somebody else asks in its name.
        let own = own
            && !self
                .pinning
                .boots
                .is_alive(&decision.node.name, world.site.limits.heartbeat_secs);
        if own {
            self.firmware.note_address(hwaddr, address);
        }
        self.send_to_dhcp(world, decision, asks, detail, own.then_some(Level::Error))
    }

    /// For a machine that waited at its present address until it became a node, which is normal, or that took that address from another DHCP
    /// server.
    pub(super) fn moved(&self, world: &World, decision: &NodeDecision, asks: &ScriptAsk) -> Result<String, Problem> {
        let (hwaddr, peer) = (asks.hwaddr, asks.peer);
        let (node, address) = (&decision.node.name, decision.node.ipaddr);
        let elsewhere = self.firmware.server_of(hwaddr);
        let detail = match &elsewhere {
            None => format!("this machine is {node} now, its address {address}"),
            Some((server, _)) => format!(
                "{node} took the address {} from another DHCP server, {server}; its own is {address}",
                peer.ipv4()
            ),
        };
        // Only the machine's own requests are put on the timeline: from an address that it has a lease of, or took from the other server.
        let own =
            self.holding(hwaddr, peer) == Holding::Own || elsewhere.is_some_and(|(_, address)| address == peer.ipv4());
        let level = own.then_some(Level::Ok);
        self.send_to_dhcp(world, decision, asks, detail, level)
    }

    /// For a machine with an address that is not its own (it got the address as an unknown machine), or a request outside of
    /// a PXE exchange: a user on the running node, or a loader that survived a restart of the daemon. It gets no token. A
    /// DHCP exchange corrects both, and takes more rights than a user has.
    pub(super) fn send_to_dhcp(
        &self,
        world: &World,
        decision: &NodeDecision,
        asks: &ScriptAsk,
        detail: String,
        level: Option<Level>,
    ) -> Result<String, Problem> {
        let base = self.base_of(world, decision, asks.peer);
        if let Some(level) = level {
            let event = Event::new(Timestamp::now(), EventKind::DhcpFirst, level, detail.clone());
            self.pinning
                .recorder
                .record(Subject::Node(decision.node.name.clone()), event);
        }
        self.wait(asks, &base, &[detail], true)
    }

    pub(super) fn stranger_script(&self, world: &World, asks: &ScriptAsk) -> Result<String, Problem> {
        let (hwaddr, peer) = (asks.hwaddr, asks.peer);
        let subnet = world.site.subnet_of(peer.ipv4()).ok_or_else(|| self.stranger(peer))?;
        let screen = self
            .pinning
            .discovery
            .screen(hwaddr, subnet.network, &asks.told, Timestamp::now());
        // It needs its address no longer, so that its lease is not extended.
        if let Some(owner) = &screen.owner {
            let own = self.is_own_address(hwaddr, peer) && !screen.forgotten;
            return self.leave(asks, owner, own);
        }
        let holding = self.holding(hwaddr, peer);
        let without_dhcp = subnet.dhcp == DhcpPart::Off;
        let mut forgotten = screen.forgotten;
        if without_dhcp && holding == Holding::Own {
            let interface = subnet.interface.as_deref().unwrap_or_default();
            let seen = Observation::of_script(Timestamp::now(), hwaddr, asks.arch, interface);
            self.pinning.discovery.observe(seen);
            forgotten = false;
        }
        let (name, hint) = match screen.suggestion {
            Some(next) => (next, "it boots without a further command".to_owned()),
            None => {
                let example = world.site.cluster.naming.example();
                let hint = format!("with its position instead of {example}; it boots without a further command");
                (example, hint)
            }
        };
        // Behind a router no DHCP exchange and no ARP tells discovery of a machine in such a subnet, so that it cannot be accepted.
        let command = match without_dhcp && forgotten {
            true => format!("add it with: rackstrap node add {name} --hwaddr {hwaddr}"),
            false => format!("rack it with: rackstrap discover accept {hwaddr} {name}"),
        };
        let mut message = vec![
            format!("unknown machine {hwaddr} - waiting to be racked"),
            command,
            hint,
        ];
        message.extend(screen.remarks);
        // Any program can name any card: only a machine that is known to discovery has a timeline, and only its own requests are on it.
        if holding == Holding::Own && !forgotten {
            let event = Event::new(Timestamp::now(), EventKind::Script, Level::Ok, "waits to be racked");
            self.pinning.recorder.record(Subject::Machine(hwaddr), event);
        }
        // A machine that discovery does not know cannot be racked, and a report from an address without a lease does not count. A DHCP
        // exchange changes both.
        let can_prove = subnet.dhcp == DhcpPart::Proxy || subnet.pool.is_some();
        let unproven = forgotten || (holding == Holding::Free && can_prove);
        let ask_dhcp = !without_dhcp && (holding == Holding::Taken || (asks.again && unproven));
        self.wait(asks, &base_url(&world.site, subnet.server), &message, ask_dhcp)
    }

    /// For a card of a node that the inventory does not name: the machine boots from another card, so nothing is waited for. `own` is
    /// whether that machine itself asks.
    fn leave(&self, asks: &ScriptAsk, owner: &Owner, own: bool) -> Result<String, Problem> {
        let hwaddr = asks.hwaddr;
        if own {
            let event = Event::new(
                Timestamp::now(),
                EventKind::Script,
                Level::Ok,
                format!("{owner}: leaves the machine to the next card"),
            );
            self.pinning.recorder.record(Subject::Machine(hwaddr), event);
        }
        let message = [
            format!("{hwaddr} is {owner}"),
            format!("to boot from it: {}", owner.remedy()),
        ];
        if asks.language == ScriptLanguage::RaspberryPi {
            return Err(Problem::unavailable(message.join("; ")));
        }
        self.scripts
            .load()
            .leave(asks.language, hwaddr, &message, &self.console())
            .map_err(Problem::unavailable)
    }

    /// The serial consoles of the profile `default`, for machines that boot nothing.
    fn console(&self) -> String {
        let world = self.snapshot();
        let settings = Settings::of(&world.site, &[], |_| ());
        settings.text(|p| &p.console).unwrap_or_default().to_owned()
    }

    pub(super) fn wait(
        &self,
        asks: &ScriptAsk,
        base: &str,
        message: &[String],
        new_address: bool,
    ) -> Result<String, Problem> {
        if asks.language == ScriptLanguage::RaspberryPi {
            return Err(Problem::unavailable(message.join("; ")));
        }
        let pauses = match new_address {
            // An administrator has just typed the machine's name and is watching.
            true => Pauses::eager(rand::random()),
            false => Pauses::spread(rand::random()),
        };
        let script = WaitScript {
            base,
            hwaddr: asks.hwaddr,
            console: &self.console(),
            message,
            new_address,
            pauses,
        };
        let text = self.scripts.load().wait(asks.language, &script);
        text.map_err(Problem::unavailable)
    }
}
