//! JSON that the agent and the server send to each other: the first byte says as what it is read.

use rackstrap_wire::{
    Heartbeat, HeartbeatAnswer, Overlay, OverlayRequest, Plan, Ready, Report, Waiting,
    users::{EtcFiles, NodeUsers, merge, without},
};
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
        b'W' => same_again::<Waiting>(text),
        b'U' => same_again::<NodeUsers>(text) && users(text),
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

/// Users of any kind come behind a node's own, and go again without a trace.
fn users(text: &[u8]) -> bool {
    let (users, groups) = serde_json::from_slice::<NodeUsers>(text).unwrap_or_default().read();
    let own = EtcFiles {
        passwd: "root:x:0:0::/root:/bin/sh\n".to_owned(),
        group: "root:x:0:\nlab:x:1100:root\n".to_owned(),
        shadow: Some("root:*:::::::\n".to_owned()),
    };
    let merged = merge(&own, &users, &groups);
    let roots = merged
        .files
        .passwd
        .lines()
        .filter(|line| line.split(':').nth(2) == Some("0"));
    assert_eq!(roots.count(), 1, "{}", merged.files.passwd);
    assert_eq!(without(&merged.files, &merged.added), own);
    true
}
