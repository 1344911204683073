//! A view of a rack that is being filled, with the lowest position at the bottom.

use super::{say_yes, take_back, took_back};
use crate::{
    output::{self, Format},
    screen::{self, View},
};
use anyhow::Result;
use rackstrap_control::{
    Client,
    api::{self, FillingRow, NodeState, Slot, SlotState, WaitingRow},
};

/// Lines in addition to the rack: title, remark, a blank line, waiting machines, keys.
const AROUND: usize = 6;

/// Shows the rack until `q`, a signal, or its end.
pub fn watch(client: &Client, rack: &str, format: Format) -> Result<()> {
    let watched = WatchedRack {
        client,
        rack,
        format,
        said: String::new(),
        found: false,
    };
    screen::watch(client.watch(api::paths::DISCOVERY)?, format, watched)
}

struct WatchedRack<'a> {
    client: &'a Client,
    rack: &'a str,
    format: Format,
    /// The result of the last key; empty if no key was pressed.
    said: String,
    /// Whether the rack was found once: from then on its end is not an error.
    found: bool,
}

impl screen::Watched<api::DiscoveryAnswer> for WatchedRack<'_> {
    const KEYS: bool = true;

    fn press(&mut self, key: u8) -> bool {
        self.said = match press(self.client, self.rack, key) {
            Ok(Some(text)) => text,
            Ok(None) => return false,
            Err(error) => format!("{error:#}"),
        };
        true
    }

    fn draw(&mut self, answer: &api::DiscoveryAnswer, rows: Option<usize>) -> Result<Option<View>> {
        let rack = self.rack;
        let Some(filling) = answer.sessions.iter().find(|f| f.session.rack == rack) else {
            if !self.found {
                anyhow::bail!(
                    "rack '{rack}' is not being filled\nhelp: `rackstrap discover start {rack}` starts filling it"
                );
            }
            return Ok(None);
        };
        self.found = true;
        if self.format.json {
            return Ok(Some(View::Text(serde_json::to_string(answer)?)));
        }
        let slots = answer
            .racks
            .iter()
            .find(|r| r.rack == rack)
            .map_or(&[][..], |r| &r.slots[..]);
        let waiting: Vec<&WaitingRow> = answer.machines.iter().filter(|w| w.rack == rack).collect();
        let mut text = draw(filling, slots, &waiting, rows);
        if !self.said.is_empty() {
            text += &format!("\n{}", self.said);
        }
        Ok(Some(View::Table(text)))
    }
}

/// Carries out a key; none for the key that leaves.
fn press(client: &Client, rack: &str, key: u8) -> Result<Option<String>> {
    match key {
        b'q' | b'Q' | 0x1b => Ok(None),
        b'u' => take_back(client, rack.to_owned(), false).map(|placed| Some(took_back(&placed))),
        b'y' => {
            let answer: api::DiscoveryAnswer = client.get(api::paths::DISCOVERY)?;
            let next = answer.machines.iter().find(|waiting| may_be_placed(waiting, rack));
            match next {
                Some(waiting) => {
                    let accepted = say_yes(client, waiting.machine.hwaddr, None, false)?;
                    Ok(Some(format!("{} is {}", waiting.machine.hwaddr, accepted.node)))
                }
                None => Ok(Some("no machine is waiting for this rack".to_owned())),
            }
        }
        _ => Ok(Some("keys: y confirm, u undo the last placement, q leave".to_owned())),
    }
}

fn may_be_placed(waiting: &WaitingRow, rack: &str) -> bool {
    let machine = &waiting.machine;
    waiting.rack == rack
        && machine.booting
        && machine.confirmed
        && !machine.held
        && !machine.ignored
        && waiting.trouble.is_empty()
}

/// The whole view, in at most `rows` lines.
fn draw(filling: &FillingRow, slots: &[Slot], waiting: &[&WaitingRow], rows: Option<usize>) -> String {
    let session = &filling.session;
    let mut lines = vec![format!(
        "rack {} · {} placed · until {}",
        session.rack,
        output::count(session.placed.len(), "machine"),
        output::local_time(session.until)
    )];
    // If the rack is higher than the terminal, the part around the next position is shown.
    let room = rows.map_or(slots.len(), |rows| rows.saturating_sub(AROUND + waiting.len().min(3)));
    let skipped = slots.len().saturating_sub(room.max(3));
    lines.extend(slots[skipped..].iter().rev().map(slot_line));
    if skipped > 0 {
        lines.push(format!("  … {} below", output::count(skipped, "position")));
    }
    lines.push(String::new());
    for waiting in waiting.iter().take(3) {
        let why = match () {
            () if !waiting.trouble.is_empty() => waiting.trouble.clone(),
            () if !waiting.contradiction.is_empty() => waiting.contradiction.clone(),
            () if waiting.machine.held => "undone; place it: rackstrap discover accept".to_owned(),
            () if !waiting.machine.confirmed => "asks for an address".to_owned(),
            () if session.confirm => "waits for your confirmation".to_owned(),
            () => "waits".to_owned(),
        };
        lines.push(format!("{}  {why}", waiting.machine.hwaddr));
    }
    lines.push(match &filling.next {
        Some(next) if session.confirm => format!("next: {next} · y confirm, u undo the last placement, q leave"),
        Some(next) => format!("next: {next} · switch on the machine there · u undo the last placement, q leave"),
        None => format!("rack {} is full · u undo the last placement, q leave", session.rack),
    });
    lines.join("\n")
}

fn slot_line(slot: &Slot) -> String {
    let what = match slot.what {
        SlotState::Node => {
            let hwaddr = slot.hwaddr.map(|hwaddr| hwaddr.to_string()).unwrap_or_default();
            let state = slot.state.unwrap_or(NodeState::Absent);
            format!("{hwaddr}  {state}{}", if slot.new { "  new" } else { "" })
        }
        SlotState::Next => "<- next".to_owned(),
        SlotState::Free => String::new(),
        SlotState::Skipped => "skipped".to_owned(),
        SlotState::Reserved => "reserved".to_owned(),
    };
    format!("│ {:<10} │ {what}", slot.name).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_base::clock::Timestamp;
    use rackstrap_control::api::{MachineRow, SessionRow};
    use rackstrap_registries::discovery::{Machine, Observation, Place, Session, Sessions, Wanted};
    use std::path::Path;

    fn filling(confirm: bool) -> FillingRow {
        let site = "[cluster]\nnode-name = \"r{rack:02}n{slot:02}\"\nnode-address = \"10.5.{rack}.{slot}\"\n\
                    reserved = [\"10.5.0.0/24\"]\n[[subnet]]\nnetwork = \"10.5.0.0/16\"\ninterface = \"e\"\n\
                    server = \"10.5.0.1\"\n";
        let site = rackstrap_site::parse(site, Path::new("/s.toml"))
            .unwrap_or_else(|e| panic!("{e}"))
            .0;
        let wanted = Wanted {
            rack: "r03".into(),
            secs: 60,
            confirm,
            ..Wanted::default()
        };
        let session = Session::begin(&wanted, &site, &Sessions::new(), "alice", Timestamp(0)).unwrap();
        FillingRow {
            session: SessionRow::from(&session),
            next: Some("r03n02".into()),
        }
    }

    fn slots(count: usize) -> Vec<Slot> {
        let slot = |i: usize| Slot {
            name: format!("r03n{:02}", i + 1),
            what: match i {
                0 => SlotState::Node,
                1 => SlotState::Next,
                2 => SlotState::Skipped,
                _ => SlotState::Free,
            },
            hwaddr: (i == 0).then_some(rackstrap_wire::HwAddr([0x52, 0x54, 0, 0, 0, 1])),
            state: (i == 0).then_some(NodeState::Ready),
            new: i == 0,
        };
        (0..count).map(slot).collect()
    }

    #[test]
    fn the_lowest_position_is_at_the_bottom() {
        let text = draw(&filling(false), &slots(4), &[], None);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "│ r03n04     │",
                "│ r03n03     │ skipped",
                "│ r03n02     │ <- next",
                "│ r03n01     │ 52:54:00:00:00:01  ready  new",
                "",
                "next: r03n02 · switch on the machine there · u undo the last placement, q leave",
            ]
        );
    }

    #[test]
    fn a_rack_that_is_higher_than_the_terminal_is_cut_at_its_bottom() {
        let machine = Machine::new(
            0,
            &Observation {
                at: Timestamp(5),
                hwaddr: rackstrap_wire::HwAddr([0x52, 0x54, 0, 0, 0, 9]),
                uuid: None,
                arch: None,
                class: String::new(),
                booting: true,
                confirmed: true,
                offered: true,
                no_room: None,
                place: Place {
                    interface: "e".into(),
                    relay: None,
                    network: None,
                    switch: String::new(),
                    port: String::new(),
                },
            },
        );
        let waiting = WaitingRow {
            machine: MachineRow::from(&machine),
            trouble: String::new(),
            rack: "r03".into(),
            no_loader: String::new(),
            contradiction: String::new(),
        };
        let text = draw(&filling(true), &slots(60), &[&waiting], Some(24));
        assert!(text.lines().count() <= 23, "{text}");
        assert!(
            text.contains("positions below")
                && text.contains("waits for your confirmation")
                && text.contains("y confirm"),
            "{text}"
        );
        assert!(may_be_placed(&waiting, "r03") && !may_be_placed(&waiting, "r04"));
    }
}
