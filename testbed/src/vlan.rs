//! The daemon's interface in a VLAN of the bridge. The kernel of the machine that runs the tests may lack 802.1Q, so this program sets and
//! removes the tags.

use crate::{Namespace, Result, sys::open_tap};
use std::{
    fs::File,
    io::{Read, Write},
    thread,
};

/// Tag protocol identifier of IEEE 802.1Q.
const TPID: [u8; 2] = [0x81, 0x00];
/// Both hardware addresses of a frame, before which no tag is.
const ADDRESSES: usize = 12;
const TAG: usize = 4;
/// Frames of the largest MTU of a tap, with a tag.
const LARGEST_FRAME: usize = 65_536 + 18;

impl Namespace {
    /// Makes the interface `name` with that address (`10.5.0.1/16`): its frames have the tag of VLAN `id` on the bridge. Returns the name of
    /// the port of the bridge that carries the VLAN.
    pub fn vlan(&self, name: &str, id: u16, address: &str) -> Result<String> {
        let trunk = self.tap()?;
        self.ip(&["tuntap", "add", name, "mode", "tap"])?;
        let (inner, outer) = self.inside(|| Ok::<_, anyhow::Error>((open_tap(name)?, open_tap(&trunk)?)))??;
        self.ip(&["address", "add", address, "dev", name])?;
        self.ip(&["link", "set", name, "up"])?;
        let (to_inner, to_outer) = (inner.try_clone()?, outer.try_clone()?);
        pass(inner, to_outer, move |frame| Some(tagged(frame, id)));
        pass(outer, to_inner, move |frame| untagged(frame, id));
        Ok(trunk)
    }
}

/// Passes frames on until one of the taps is removed, which the end of its namespace does.
fn pass(mut from: File, mut to: File, change: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) {
    thread::spawn(move || {
        let mut frame = vec![0; LARGEST_FRAME];
        while let Ok(length) = from.read(&mut frame) {
            if let Some(changed) = change(&frame[..length]) {
                // An interface that is down takes none, as a cable that is pulled out.
                let _ = to.write_all(&changed);
            }
        }
    });
}

/// The frame with the tag of VLAN `id` (pure).
fn tagged(frame: &[u8], id: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(ADDRESSES.min(frame.len()));
    [addresses, &TPID, &id.to_be_bytes(), rest].concat()
}

/// The frame without its tag; none if it is not in VLAN `id` (pure).
fn untagged(frame: &[u8], id: u16) -> Option<Vec<u8>> {
    let tag = frame.get(ADDRESSES..ADDRESSES + TAG)?;
    // The upper four bits are the priority and the drop eligible indicator.
    let is = tag[..2] == TPID && u16::from_be_bytes([tag[2], tag[3]]) & 0x0fff == id;
    is.then(|| [&frame[..ADDRESSES], &frame[ADDRESSES + TAG..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frames_of_the_vlan_pass_without_their_tag() {
        let frame = b"to....from..\x08\x00packet";
        let with = tagged(frame, 5);
        assert_eq!(with, b"to....from..\x81\x00\x00\x05\x08\x00packet");
        assert_eq!(untagged(&with, 5).unwrap(), frame);
        assert_eq!(untagged(&with, 6), None);
        assert_eq!(untagged(frame, 5), None);
        assert_eq!(untagged(b"short", 5), None);
        let with_priority = b"to....from..\x81\x00\xe0\x05\x08\x00packet";
        assert_eq!(untagged(with_priority, 5).unwrap(), frame);
    }
}
