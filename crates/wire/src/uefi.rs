//! What UEFI firmware says of a machine, as its agent reports it.

use serde::{Deserialize, Serialize};

/// The state of a machine's UEFI firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uefi {
    /// Whether it starts only programs that are signed.
    #[serde(default)]
    pub secure_boot: bool,
    /// Whether it has a boot entry for a network card.
    #[serde(default)]
    pub network: bool,
    /// Names of the boot entries that it tries before the network, at most [`MOST_BOOT_ENTRIES`]; empty if the network is first.
    #[serde(default)]
    pub before_network: Vec<String>,
    /// Rounds in which the disk asked the network in vain before its last reset: those since then are in the request for the script. From
    /// programs of earlier releases all rounds.
    #[serde(default)]
    pub rounds: u32,
    /// The boot entry by which the machine started (`BootCurrent`); none if the firmware does not say, and from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<StartedBy>,
    /// EFI system partitions on any disk that rackstrap did not write, `sda1`; at most [`MOST_FOREIGN_ESPS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_esps: Vec<String>,
}

/// A boot entry of UEFI firmware by which a machine started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedBy {
    /// Its name in the firmware's setup, `debian`.
    pub name: String,
    /// Whether it is one of a network card.
    pub network: bool,
}

/// Most names of [`Uefi::before_network`].
pub const MOST_BOOT_ENTRIES: usize = 8;

/// Most names of [`Uefi::foreign_esps`].
pub const MOST_FOREIGN_ESPS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_that_an_older_agent_reported_is_read() {
        let old = r#"{"secure_boot":true,"network":true,"before_network":["debian"],"rounds":3}"#;
        let uefi: Uefi = serde_json::from_str(old).unwrap();
        assert_eq!((uefi.rounds, uefi.started_by.clone()), (3, None));
        assert!(uefi.foreign_esps.is_empty());
        assert_eq!(
            serde_json::to_string(&uefi).unwrap(),
            old,
            "an older daemon reads it, too"
        );
    }
}
