//! How long the stages of a boot take at this site, and so when the next step of a node is overdue.

use super::{Event, EventKind, Level, Sender};
use rackstrap_wire::Phase;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How far a boot has come, in order. Each stage lasts until the next one is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootStage {
    /// Firmware has asked for an address.
    Firmware,
    /// Firmware has fetched a loader.
    Loader,
    /// The loader runs: iPXE has asked for an address itself.
    LoaderRuns,
    /// The loader has its script.
    Script,
    /// The loader has fetched the kernel or the initramfs.
    Kernel,
    /// The agent has reached its phase of that index.
    Agent(u8),
    /// The agent has handed over to the operating system.
    HandedOver,
    /// The system is up.
    Up,
}

/// Stages that are timed together.
const SLOTS: usize = 8;

/// The least number of seconds that a stage may last, and the number that holds until enough boots were seen. Preparing or
/// checking a large disk takes an hour without a report.
const LIMITS: [(u64, u64); SLOTS] = [
    (180, 300),
    (180, 300),
    (180, 300),
    (180, 300),
    (300, 600),
    (300, 600),
    (600, 3600),
    (300, 900),
];

/// At most this many times of each stage are remembered.
const REMEMBERED: usize = 64;

/// This many times of a stage must be known before they count.
const ENOUGH: usize = 8;

/// A stage is overdue after this many times the duration that nine of ten boots need.
const FACTOR: u64 = 4;

/// The times that the last boots of all nodes took for each stage, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPace {
    slots: [VecDeque<u64>; SLOTS],
}

impl BootStage {
    /// The stage that this event proves; none if it is a failure or says nothing about a boot.
    pub fn of(event: &Event) -> Option<BootStage> {
        if event.level > Level::Degraded {
            return None;
        }
        let stage = event.step.row().stage?;
        Some(match &event.step {
            EventKind::Dhcp(_) if event.sender == Some(Sender::Ipxe) => BootStage::LoaderRuns,
            // The phase begins with `started`; only its end, which has a duration, hands over.
            EventKind::Agent(Phase::SwitchRoot) if event.took_ms.is_some() => BootStage::HandedOver,
            _ => stage,
        })
    }

    fn slot(self) -> Option<usize> {
        Some(match self {
            BootStage::Firmware => 0,
            BootStage::Loader => 1,
            BootStage::LoaderRuns => 2,
            BootStage::Script => 3,
            BootStage::Kernel => 4,
            BootStage::Agent(phase) if phase == Phase::Disk as u8 => 6,
            BootStage::Agent(_) => 5,
            BootStage::HandedOver => 7,
            BootStage::Up => return None,
        })
    }

    /// What is likely to be wrong with a machine that did not progress. `detail` is the detail of its last step.
    pub fn likely_causes(self, detail: &str) -> String {
        match self {
            BootStage::Firmware => {
                "has an address but fetched no loader; is TFTP blocked, or was it switched off?".into()
            }
            BootStage::Loader => {
                let loader = detail.split(':').next().unwrap_or_default();
                let cause = match loader.ends_with(".efi") {
                    true => "does its firmware enforce Secure Boot?",
                    false => "does this loader know its network card?",
                };
                format!("fetched {loader}, then nothing more; {cause}")
            }
            BootStage::LoaderRuns => {
                "its loader has an address but fetched no script; is HTTP blocked?".into()
            }
            BootStage::Script => {
                "has its script but fetched no kernel; is its memory too small, or HTTP blocked?".into()
            }
            BootStage::Kernel => {
                "has its kernel but its agent has not reported; check its console: a panic, or a network card without a driver?"
                    .into()
            }
            BootStage::Agent(phase) if phase == Phase::Disk as u8 => {
                "is working on its disk; check its console: a failing disk, or a long file system check?".into()
            }
            BootStage::Agent(_) => {
                "its agent stopped reporting; check its console, or was it switched off?".into()
            }
            BootStage::HandedOver => {
                "its system is starting but not ready; check its console: which unit is waiting?".into()
            }
            BootStage::Up => String::new(),
        }
    }
}

impl BootPace {
    /// Records that a boot left `stage` after so many milliseconds.
    pub fn record(&mut self, stage: BootStage, millis: u64) {
        let Some(slot) = stage.slot() else { return };
        let slot = &mut self.slots[slot];
        if slot.len() >= REMEMBERED {
            slot.pop_front();
        }
        slot.push_back(millis);
    }

    /// Milliseconds after which the step that follows `stage` is overdue; none if no step follows.
    pub fn due(&self, stage: BootStage) -> Option<u64> {
        let slot = stage.slot()?;
        let (least, unknown) = LIMITS[slot];
        let mut known: Vec<u64> = self.slots[slot].iter().copied().collect();
        if known.len() < ENOUGH {
            return Some(unknown * 1000);
        }
        known.sort_unstable();
        let most = known[known.len() * 9 / 10];
        Some(most.saturating_mul(FACTOR).clamp(least * 1000, 86_400_000))
    }
}
