//! JSON that the agent and the server send to each other: the first byte says as what it is read.

use rackstrap_wire::{Heartbeat, HeartbeatAnswer, Overlay, OverlayRequest, Plan, Ready, Report};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// One run; true if the text was of its kind.
pub fn run(input: &[u8]) -> bool {
    let Some((kind, text)) = input.split_first() else {
        return false;
    };
    match kind {
        b'P' => same_again::<Plan>(text),
        b'O' => same_again::<Overlay>(text),
        b'Q' => same_again::<OverlayRequest>(text),
        b'R' => same_again::<Report>(text),
        b'Y' => same_again::<Ready>(text),
        b'H' => same_again::<Heartbeat>(text),
        b'A' => same_again::<HeartbeatAnswer>(text),
        _ => false,
    }
}

/// What was understood is written such that it is understood as the same.
fn same_again<T: DeserializeOwned + Serialize + PartialEq + Debug>(text: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(text) else {
        return false;
    };
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(value, again);
    true
}
