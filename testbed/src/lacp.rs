//! A switch that speaks LACP (IEEE 802.1AX-2020, 6.4) on some ports of the bridge, which itself passes no such frames on.

use crate::{Namespace, Result, sys::packet_socket};
use anyhow::Context;
use std::{fs::File, io::Read, io::Write, thread};

/// Ethernet type of slow protocols.
const SLOW_PROTOCOLS: u16 = 0x8809;
/// Subtype LACP and version 1; then the actor's TLV with its length.
const HEADER: [u8; 4] = [1, 1, 1, 20];
const HEADER_AT: usize = 14;
/// Priority and address of the system, key, priority and number of the port, state.
const INFORMATION: usize = 15;
const ACTOR_AT: usize = 18;
const PARTNER_AT: usize = 38;
const LENGTH: usize = 124;
/// The switch's address.
const SYSTEM: [u8; 6] = [0x52, 0x54, 0, 5, 0, 2];
/// LACP_Activity, Aggregation, Synchronization, Collecting and Distributing.
const STATE: u8 = 0b0011_1101;

impl Namespace {
    /// Answers LACP on these ports of the bridge from now on, as one group.
    pub fn lacp(&self, ports: &[String]) -> Result {
        for (number, port) in (1..).zip(ports) {
            let index = self.ip(&["-o", "link", "show", port])?;
            let index = index.split(':').next().and_then(|index| index.trim().parse().ok());
            let index = index.with_context(|| format!("no index of {port}"))?;
            let socket = self.inside(|| packet_socket(index, SLOW_PROTOCOLS))??;
            thread::spawn(move || speak(socket, number));
        }
        Ok(())
    }
}

/// Answers until the port is removed, which the end of its namespace does.
fn speak(mut socket: File, number: u16) {
    let mut frame = [0; 1514];
    while let Ok(length) = socket.read(&mut frame) {
        if let Some(answer) = answer(&frame[..length], number) {
            let _ = socket.write_all(&answer);
        }
    }
}

/// What the port with that number answers; none to the switch's own frames, and to frames that are not LACP (pure).
fn answer(frame: &[u8], number: u16) -> Option<Vec<u8>> {
    let mut answer = frame.get(..LENGTH)?.to_vec();
    if answer[6..12] == SYSTEM || answer[HEADER_AT..ACTOR_AT] != HEADER {
        return None;
    }
    answer[6..12].copy_from_slice(&SYSTEM);
    answer.copy_within(ACTOR_AT..ACTOR_AT + INFORMATION, PARTNER_AT);
    let [high, low] = number.to_be_bytes();
    let actor = [&[0x80, 0][..], &SYSTEM, &[0, 1], &[0x80, 0], &[high, low], &[STATE]].concat();
    answer[ACTOR_AT..ACTOR_AT + INFORMATION].copy_from_slice(&actor);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_answers_with_what_it_heard_as_its_partner() {
        let mut frame = vec![0; LENGTH];
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[HEADER_AT..ACTOR_AT].copy_from_slice(&HEADER);
        let actor: Vec<u8> = (1..=15).collect();
        frame[ACTOR_AT..ACTOR_AT + INFORMATION].copy_from_slice(&actor);
        let said = answer(&frame, 2).unwrap();
        assert_eq!(said[PARTNER_AT..PARTNER_AT + INFORMATION], actor);
        assert_eq!(said[ACTOR_AT + 2..ACTOR_AT + 8], SYSTEM);
        assert_eq!(said[ACTOR_AT + 12..ACTOR_AT + 15], [0, 2, STATE]);
        assert_eq!(answer(&said, 2), None, "its own frame");
        assert_eq!(answer(&frame[..100], 2), None);
        frame[14] = 3;
        assert_eq!(answer(&frame, 2), None, "OAM");
    }
}
