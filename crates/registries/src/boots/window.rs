//! When a node may be given a boot script with a fresh token in it.
//!
//! Firmware and loaders ask DHCP before they ask for a script. A user on the running node cannot, because that takes root's
//! rights there. So a PXE exchange opens a window, and sending the boot's secrets closes it. A request outside of a window is
//! sent to ask DHCP first.

use rackstrap_base::{clock::Timestamp, sync::lock};
use std::{collections::HashMap, sync::Mutex};

/// How long a window stays open, in seconds: the longest pauses of a loader, a kernel and an initramfs over a busy network,
/// and the ten minutes for which the agent retries.
const OPEN_SECS: u64 = 1800;

/// The open boot windows by node; at most one for each node of the inventory.
#[derive(Debug, Default)]
pub struct BootWindows(Mutex<HashMap<String, Window>>);

#[derive(Clone, Copy, Debug)]
struct Window {
    opened: Timestamp,
    doubted: bool,
}

impl BootWindows {
    /// Opens the window of `node`: its firmware or a loader got its address from this server. With `doubted`, the request may
    /// come from a user, because only a relay reports it while the node's system runs. The last exchange counts: a machine
    /// that keeps failing to boot is soon silent for long enough to be believed.
    pub fn open(&self, node: &str, now: Timestamp, doubted: bool) {
        let mut windows = lock(&self.0);
        windows.retain(|_, window| now.is_within(OPEN_SECS * 1000, window.opened));
        let window = Window { opened: now, doubted };
        windows.insert(node.to_owned(), window);
    }

    /// Whether it is in doubt that firmware opened the window of `node`.
    pub fn is_doubted(&self, node: &str) -> bool {
        let windows = lock(&self.0);
        windows.get(node).is_some_and(|window| window.doubted)
    }

    /// Closes the window of `node`: the secrets of its boot were sent.
    pub fn close(&self, node: &str) {
        lock(&self.0).remove(node);
    }

    /// Whether `node` may have a script now.
    pub fn is_open(&self, node: &str, now: Timestamp) -> bool {
        let windows = lock(&self.0);
        windows
            .get(node)
            .is_some_and(|window| now.is_within(OPEN_SECS * 1000, window.opened))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_by_dhcp_and_closes_by_secrets_or_time() {
        let windows = BootWindows::default();
        let start = Timestamp(1_000_000);
        assert!(!windows.is_open("r01n01", start));
        windows.open("r01n01", start, false);
        assert!(windows.is_open("r01n01", start.plus_secs(1799)));
        assert!(!windows.is_open("r01n02", start));
        assert!(!windows.is_open("r01n01", start.plus_secs(1800)));
        // A clock that is set back does not keep a window open until the old time returns.
        windows.open("r01n02", start, false);
        assert!(!windows.is_open("r01n02", Timestamp(0)));
        windows.open("r01n01", start.plus_secs(2000), false);
        assert!(!windows.is_doubted("r01n01"));
        windows.open("r01n01", start.plus_secs(2000), true);
        windows.open("r01n01", start.plus_secs(2000), false);
        assert!(!windows.is_doubted("r01n01"), "the last exchange counts");
        windows.open("r01n01", start.plus_secs(2000), true);
        assert!(windows.is_doubted("r01n01") && windows.is_open("r01n01", start.plus_secs(2001)));
        windows.close("r01n01");
        assert!(!windows.is_open("r01n01", start.plus_secs(2001)));
    }
}
