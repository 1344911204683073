//! Answers about waiting machines, and about racks that are being filled.

use crate::api::{
    FillingRow, MachineRow, NoRoomRow, PlaceFilter, PlaceRow, PlacedRow, SessionRow, SessionWish, WaitingRow,
};
use rackstrap_registries::discovery::{Filling, Machine, NoRoom, Place, Placed, Session, Waiting, Wanted, Where};

impl From<&Machine> for MachineRow {
    fn from(machine: &Machine) -> Self {
        MachineRow {
            hwaddr: machine.hwaddr,
            number: machine.number,
            uuid: machine.uuid,
            arch: machine.arch,
            serial: machine.serial.clone(),
            vendor: machine.vendor.clone(),
            product: machine.product.clone(),
            place: PlaceRow::from(&machine.place),
            before: (machine.before.as_ref()).map(|(place, until)| (PlaceRow::from(place), *until)),
            first_seen: machine.first_seen,
            last_seen: machine.last_seen,
            booting: machine.booting,
            confirmed: machine.confirmed,
            no_room: machine.no_room.as_ref().map(NoRoomRow::from),
            ignored: machine.ignored,
            held: machine.held,
        }
    }
}

impl From<&Place> for PlaceRow {
    fn from(place: &Place) -> Self {
        PlaceRow {
            interface: place.interface.clone(),
            relay: place.relay,
            network: place.network,
            switch: place.switch.clone(),
            port: place.port.clone(),
        }
    }
}

impl From<&NoRoom> for NoRoomRow {
    fn from(no_room: &NoRoom) -> Self {
        NoRoomRow {
            network: no_room.network,
            why: no_room.why.clone(),
            since: no_room.since,
            until: no_room.until,
        }
    }
}

impl From<&Waiting> for WaitingRow {
    fn from(waiting: &Waiting) -> Self {
        WaitingRow {
            machine: MachineRow::from(&waiting.machine),
            trouble: waiting.trouble.clone(),
            rack: waiting.rack.clone(),
            no_loader: String::new(),
            contradiction: waiting.machine.contradiction.clone(),
        }
    }
}

impl From<&Filling> for FillingRow {
    fn from(filling: &Filling) -> Self {
        FillingRow {
            session: SessionRow::from(&filling.session),
            next: filling.next.clone(),
        }
    }
}

impl From<&Session> for SessionRow {
    fn from(session: &Session) -> Self {
        SessionRow {
            rack: session.rack.clone(),
            network: session.network,
            interface: session.interface.clone(),
            next: session.next.clone(),
            skip: session.skip.clone(),
            profiles: session.profiles.clone(),
            groups: session.groups.clone(),
            confirm: session.confirm,
            only: PlaceFilter {
                relay: session.only.relay,
                switch: session.only.switch.clone(),
                port: session.only.port.clone(),
            },
            began: session.began,
            until: session.until,
            by: session.by.clone(),
            placed: session.placed.iter().map(PlacedRow::from).collect(),
        }
    }
}

impl From<&Placed> for PlacedRow {
    fn from(placed: &Placed) -> Self {
        PlacedRow {
            machine: MachineRow::from(&placed.machine),
            node: placed.node.clone(),
            at: placed.at,
        }
    }
}

impl From<SessionWish> for Wanted {
    fn from(wish: SessionWish) -> Self {
        Wanted {
            rack: wish.rack,
            from: wish.from,
            skip: wish.skip,
            profiles: wish.profiles,
            groups: wish.groups,
            confirm: wish.confirm,
            waiting_too: wish.waiting_too,
            secs: wish.secs,
            only: Where {
                relay: wish.only.relay,
                switch: wish.only.switch,
                port: wish.only.port,
            },
        }
    }
}
